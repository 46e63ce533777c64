// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/certificate.h"

namespace sally::crypto {

/// What an identity is inside its network; the first path element of its URI.
enum class Role : std::uint8_t { kDevice, kRouter, kController, kAdmin, kSigner };
std::string_view role_name(Role role);

/// `spiffe://<network>/<role>/<id>`.
struct IdentityName {
  std::string network;
  Role role = Role::kDevice;
  std::string id;
  [[nodiscard]] std::string uri() const;
  friend bool operator==(const IdentityName&, const IdentityName&) = default;
};
/// Exactly that form: network of [a-z0-9.-] up to 255, id of [A-Za-z0-9._-] up to 64, no dot names.
/// kMalformedUri.
Result<IdentityName> parse_identity_uri(std::string_view uri);

enum class Purpose : std::uint8_t {
  kTlsClient,  ///< the leaf proved itself as a TLS client
  kTlsServer,  ///< the leaf proved itself as a TLS server; the host name is the caller's check
  kSigner,     ///< the network's signer; never TLS
};

/// What a path must satisfy. Everything is needed: an empty network or no anchors refuse.
struct PathPolicy {
  std::vector<Certificate> anchors;        ///< self-signed roots
  std::vector<Certificate> known_issuing;  ///< issuing certificates the verifier holds, so that
                                           ///< peers may send the leaf only
  Purpose purpose = Purpose::kTlsClient;
  std::int64_t now_s = 0;
  std::string network;      ///< expected trust domain
  std::vector<Role> roles;  ///< allowed roles; empty = any that fits the purpose
  /// For who may not know how late it is: judged at the beginning of the path's youngest
  /// certificate where that is later than now_s. Its issuer was there by then.
  bool clock_may_lag = false;
};

struct VerifiedPath {
  Certificate leaf;
  Certificate issuing;
  Certificate root;
  std::string network;
  Role role = Role::kDevice;
  std::string id;
};

/// RFC 5280 path validation at `now_s`, then our profile (docs/pki.md): leaf is no CA,
/// digitalSignature, EKU for the purpose, exactly one identity URI of the expected network, role
/// allowed here and by its issuing CA (only a CA with the signer EKU issues anything but devices).
/// `presented` are the certificates a peer sent after its leaf: candidates, nothing more. An own
/// Errc for every failure; the peer must not learn which one.
Result<VerifiedPath> validate_path(const Certificate& leaf,
                                   const std::vector<Certificate>& presented,
                                   const PathPolicy& policy);

}  // namespace sally::crypto
