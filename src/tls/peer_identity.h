// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"

namespace sally::crypto {
class Certificate;
}

namespace sally::tls {

enum class Role : std::uint8_t { kDevice, kRouter, kController, kAdmin, kSigner };
std::string_view role_name(Role role);

/// Who is at the other end of a TLS connection: the verified leaf whose key the handshake proved,
/// nothing else. Made only by the verify step of tls::Session; copied freely; immutable; any
/// thread. There is no other way to make one, and no field of it comes from a header or another
/// certificate of the chain.
class PeerIdentity {
 public:
  [[nodiscard]] const NetworkId& network() const { return network_; }
  [[nodiscard]] Role role() const { return role_; }
  /// The last part of the URI: device, router or controller id, admin or signer name.
  [[nodiscard]] const std::string& id() const { return id_; }
  /// "spiffe://<network>/<role>/<id>".
  [[nodiscard]] const std::string& uri() const { return uri_; }
  [[nodiscard]] const crypto::Certificate& leaf() const { return *leaf_; }
  [[nodiscard]] const crypto::Certificate& issuer() const { return *issuer_; }
  /// Lower-case hex.
  [[nodiscard]] const std::string& serial() const { return serial_; }
  [[nodiscard]] std::int64_t not_after_s() const { return not_after_s_; }

 private:
  friend class Verifier;
  PeerIdentity() = default;
  NetworkId network_;
  Role role_ = Role::kDevice;
  std::string id_;
  std::string uri_;
  std::shared_ptr<const crypto::Certificate> leaf_;
  std::shared_ptr<const crypto::Certificate> issuer_;
  std::string serial_;
  std::int64_t not_after_s_ = 0;
};

}  // namespace sally::tls
