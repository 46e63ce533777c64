// SPDX-License-Identifier: Apache-2.0
#include "tls/verify.h"

namespace sally::tls {

PeerIdentity::PeerIdentity(crypto::VerifiedPath path)
    : network_(std::move(path.network)),
      role_(path.role),
      id_(std::move(path.id)),
      uri_(crypto::IdentityName{network_.str(), role_, id_}.uri()),
      leaf_(std::move(path.leaf)),
      issuer_(std::move(path.issuing)) {}

Result<PeerIdentity> Verifier::verify(const ContextOptions& options, const Expectation& expected,
                                      const crypto::Certificate& leaf,
                                      const std::vector<crypto::Certificate>& presented) {
  crypto::PathPolicy policy;
  policy.anchors = options.anchors;
  policy.known_issuing = options.issuing;
  policy.purpose =
      options.side == Side::kClient ? crypto::Purpose::kTlsServer : crypto::Purpose::kTlsClient;
  policy.now_s = (options.clock != nullptr ? *options.clock : system_clock()).unix_s();
  policy.clock_may_lag = options.clock_may_lag;
  policy.network = options.network.str();
  policy.roles = expected.roles.empty() ? options.roles : expected.roles;
  TRY_ASSIGN(auto path, crypto::validate_path(leaf, presented, policy));
  PeerIdentity peer(std::move(path));
  if (!expected.host.empty() && !peer.leaf().matches_host(expected.host))
    return fail(Errc::kWrongPeer, "certificate of " + peer.uri() + " is not for " + expected.host);
  if (expected.peer && (expected.peer->first != peer.role() || expected.peer->second != peer.id()))
    return fail(Errc::kWrongPeer, peer.uri() + " is not " +
                                      std::string(role_name(expected.peer->first)) + " " +
                                      expected.peer->second);
  if (options.admit) TRY(options.admit(peer));
  return peer;
}

}  // namespace sally::tls
