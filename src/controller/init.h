// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "crypto/key.h"

namespace sally::controller {

/// Folder of a controller, mode 0700:
///   controller.db        the store
///   controller.pem       REST certificate, leaf and issuing; its key is keys/rest.key
///   signer.pem           the network's signer; its key is keys/signer.key
///   keys/*.key           0600: root, devices-1, infrastructure-1, rest, signer, tokens
inline constexpr char kDatabaseFile[] = "controller.db";
inline constexpr char kRestFile[] = "controller.pem";
inline constexpr char kSignerFile[] = "signer.pem";

struct InitOptions {
  std::string dir;   ///< must not exist
  std::string name;  ///< of the network, for people
  std::vector<std::string>
      hosts;  ///< DNS names or IP addresses of the controller; the first goes into its URL
  std::uint16_t port = 1280;
  std::string router_name = "router-1";
  std::vector<std::string>
      router_addresses;         ///< host:port as devices dial them; empty = no first router
  std::string router_identity;  ///< file to write
  std::string router_key;       ///< in hardware: tpm, tpm:... or pkcs11:...; empty: in that file
  std::string ca_key;  ///< pkcs11:token=...: root and issuing keys are made there; or empty
  std::string admin_name = "root";
  std::string admin_identity;  ///< file to write
  /// kRsa where C SDKs on mbedTLS must enrol (docs/compatible-enrolment.md H6).
  crypto::KeyType rest_key = crypto::KeyType::kP256;
};

struct InitResult {
  std::string network;
  std::string url;
  std::string root_sha256;
  std::string admin_id;
  std::string router_id;
};

/// Makes a network: root, issuing CAs, signer, REST certificate, first router, first admin. Built
/// beside and renamed, so that a half-made folder is never taken for a network. Identity files have
/// the compatible form (docs/compatible-enrolment.md) and one more member: "sally": {network, id,
/// name, kind, controller, routers}.
Result<InitResult> init_network(const InitOptions& options, const Clock& clock, Random& random);

/// The identity file of an admin who is taken for 30 days more, by the right of who can read the
/// folder: made again where the file is lost, its certificate ends or is revoked, or the admin was
/// removed; one that is good is left alone (false). Also beside a running controller.
Result<bool> ensure_admin(const std::string& dir, const std::string& admin_name,
                          const std::string& identity_path, const Clock& clock, Random& random);

}  // namespace sally::controller
