// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "crypto/certificate.h"
#include "crypto/path.h"

namespace sally::tls {

/// Device, router, controller, admin or signer (a signer never gets through TLS).
using crypto::Role;
using crypto::role_name;

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
  [[nodiscard]] const crypto::Certificate& leaf() const { return leaf_; }
  [[nodiscard]] const crypto::Certificate& issuer() const { return issuer_; }
  /// Lower-case hex.
  [[nodiscard]] const std::string& serial() const { return leaf_.serial_hex(); }
  [[nodiscard]] std::int64_t not_after_s() const { return leaf_.not_after(); }

 private:
  friend class Verifier;
  explicit PeerIdentity(crypto::VerifiedPath path);
  NetworkId network_;
  Role role_;
  std::string id_;
  std::string uri_;
  crypto::Certificate leaf_;
  crypto::Certificate issuer_;
};

}  // namespace sally::tls
