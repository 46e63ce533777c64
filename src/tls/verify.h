// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to tls/: the one place where a PeerIdentity is made.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tls/context.h"
#include "tls/peer_identity.h"

namespace sally::tls {

/// What one connection expects of its peer beyond the context's rules.
struct Expectation {
  std::string host;  ///< empty = not checked
  std::optional<std::pair<Role, std::string>> peer;
  std::vector<Role> roles;  ///< instead of the context's, where not empty
};

/// Judges what a peer presented. Stateless; any thread.
/// `leaf` is the certificate whose key the handshake is about to prove, `presented` what came after
/// it. Every failure is our own reason for our log; the caller shows the peer one alert for all of
/// them.
class Verifier {
 public:
  static Result<PeerIdentity> verify(const ContextOptions& options, const Expectation& expected,
                                     const crypto::Certificate& leaf,
                                     const std::vector<crypto::Certificate>& presented);
};

}  // namespace sally::tls
