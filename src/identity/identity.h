// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "crypto/certificate.h"
#include "crypto/key.h"
#include "crypto/path.h"
#include "identity/errc.h"
#include "tls/context.h"

namespace sally::identity {

inline constexpr std::size_t kMaxFile = 256 * 1024;

/// Who we are: key, certificates, whom we believe, where to go. Value type; immutable once made;
/// any thread. network, role and id always come from the leaf; the file may only repeat them.
struct Identity {
  std::string controller;  ///< URL, without a trailing slash
  crypto::SignerPtr key;
  std::vector<crypto::Certificate> chain;    ///< leaf first, then issuing certificates
  std::vector<crypto::Certificate> anchors;  ///< roots believed
  std::vector<crypto::Certificate> issuing;  ///< known issuing certificates
  NetworkId network;
  crypto::Role role = crypto::Role::kDevice;
  std::string id;
  std::string name;                  ///< for people
  std::vector<std::string> routers;  ///< host:port, as last told by the controller
  Bytes card;                        ///< signed identity card (an envelope), may be empty
  std::int64_t time_ms = 0;          ///< the network has signed that it is at least so late; 0 = no

  [[nodiscard]] const crypto::Certificate& leaf() const { return chain.front(); }
  /// Unix seconds.
  [[nodiscard]] std::int64_t expires_s() const { return leaf().not_after(); }
  /// It is at least so late, Unix ms: the beginnings of our own certificates, and `time_ms`.
  [[nodiscard]] std::int64_t time_floor_ms() const;
  /// Client options for a lane or for REST: our leaf (with `whole_chain` also the issuing
  /// certificate), roots, network.
  [[nodiscard]] tls::ContextOptions client_options(std::vector<std::string> alpn, bool whole_chain,
                                                   const Clock* clock = nullptr) const;
};

/// docs/compatible-enrolment.md, plus "sally": {network, id, name, kind, controller,
/// routers, card}. Holds the private key: wipe it.
Result<std::string> to_json(const Identity& identity);
/// Total. Accepts the forms of other clients too ("pem:", "file:///path", ztAPI with a path). A key
/// in hardware (key_name.h) is opened. kBadFile, kMismatch, kKeyUnavailable, for hardware the codes
/// of open_key.h; not whether it is expired. kLeaveHardware: for who wants to know whose file it
/// is; `key` is null where it is in hardware. kRefuse: neither files nor hardware are touched.
enum class Files : std::uint8_t { kFollow, kLeaveHardware, kRefuse };
Result<Identity> from_json(std::string_view text, Files files = Files::kFollow);

Result<Identity> load(const std::string& path, Files files = Files::kFollow);
/// Mode 0600, atomic.
Status save(const Identity& identity, const std::string& path);
/// What is there is read, changed by `f` and, where that says so, written back; no other process
/// changes it meanwhile.
Status change(const std::string& path, const std::function<Result<bool>(Identity&)>& f);

}  // namespace sally::identity
