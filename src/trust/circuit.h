// SPDX-License-Identifier: Apache-2.0
// What devices and routers sign to open a circuit: dial proofs, routes, answers, bind proofs. Order
// of the verifiers on the way: ingress verify_dial (and the lane's identity), egress verify_route
// then verify_dial, host the same two, ingress and dialer verify_answer.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "trust/records.h"

namespace sally::trust {

/// Signature of the dialing device over the fields of `setup` (which needs all but `proof`) for the
/// lane into `ingress`.
Result<Bytes> make_dial_proof(const wire::Setup& setup, std::string_view ingress,
                              std::int64_t time_ms, const crypto::Signer& device);

struct VerifiedDial {
  crypto::VerifiedPath caller;
  VerifiedCard card;
};
/// Network; leaf's path, role device, serial; card, and its id = leaf's id; proof by the leaf's key
/// with every field equal to the set-up's, ingress = `ingress`, time within +-60 s of now. Policy
/// is the caller's next step.
Result<VerifiedDial> verify_dial(const wire::Setup& setup, std::string_view ingress,
                                 const Context& ctx);
/// At the ingress router: also requires that the lane proved to be `lane_device`.
Result<VerifiedDial> verify_dial_from_lane(const wire::Setup& setup, std::string_view ingress,
                                           std::string_view lane_device, const Context& ctx);

/// `route` complete, setup_hash included (see hash_of); hops[0] is the signer's id and ingress_leaf
/// its certificate.
Result<Bytes> make_route(const wire::Route& route, const crypto::Signer& router);
struct VerifiedRoute {
  wire::Route route;
  crypto::VerifiedPath ingress;
};
/// Ingress leaf's path, role router, id = hops[0], in the directory; signature; network, circuit,
/// epoch, service, setup hash equal to the set-up it came with; attempt = the frame's; expiry not
/// past (60 s skew) nor more than kMaxRouteLifeMs + skew ahead. `setup_bytes` are the bytes that
/// `setup` was decoded from.
Result<VerifiedRoute> verify_route(ByteView envelope, ByteView setup_bytes,
                                   const wire::Setup& setup, std::uint32_t attempt,
                                   const Context& ctx);
/// kNotOnPath unless `self` is the last hop (egress).
Status check_egress(const wire::Route& route, std::string_view self);
/// The hop after `self`; kNotOnPath where `self` is no hop or the last one.
Result<std::string> next_hop(const wire::Route& route, std::string_view self);

/// `answer` complete; egress is the signer's id and egress_leaf its certificate.
Result<Bytes> make_answer(const wire::Answer& answer, const crypto::Signer& router);
/// What whoever waits for an answer knows. A dialing device does not know the optional ones.
struct AnswerExpected {
  CircuitId circuit;
  std::uint32_t epoch = 0;
  std::optional<std::uint32_t> attempt;
  std::optional<std::string> terminator;
  std::optional<std::string> egress;
  std::optional<wire::InstanceId> instance;
};
struct VerifiedAnswer {
  wire::Answer answer;
  crypto::VerifiedPath egress;
};
Result<VerifiedAnswer> verify_answer(ByteView envelope, const AnswerExpected& expected,
                                     const Context& ctx);

Result<Bytes> make_bind_proof(const wire::BindProof& proof, const crypto::Signer& device);
/// At the router the host binds at: by the key of the lane's leaf; every field equal to `expected`
/// but the time, which is within +-60 s of now.
Status verify_bind_proof(ByteView envelope, const wire::BindProof& expected,
                         const crypto::PublicKey& lane_key, const Context& ctx);
/// At any other router: path of the host's leaf, its id = device, not revoked, proof over service,
/// instance and router.
Result<crypto::VerifiedPath> verify_terminator(const wire::Terminator& terminator,
                                               const Context& ctx);

wire::Hash hash_of(ByteView bytes);

/// Set-ups an egress router has seen, until they cannot be valid any more.
/// Owned by one router; one thread at a time (its workers share it under a lock).
/// Bounded: kReplay for a set-up seen before, kFull when `max` are remembered.
class SeenCircuits {
 public:
  explicit SeenCircuits(std::size_t max = 262'144) : max_(max) {}
  /// Remembers until expiry_ms + 60 s.
  Status remember(const CircuitId& circuit, std::uint32_t epoch, std::uint32_t attempt,
                  std::int64_t expiry_ms, std::int64_t now_ms);
  [[nodiscard]] std::size_t size() const { return seen_.size(); }

 private:
  struct Key {
    CircuitId circuit;
    std::uint32_t epoch;
    std::uint32_t attempt;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& k) const noexcept {
      return std::hash<CircuitId>{}(k.circuit) ^ (std::size_t{k.epoch} << 20U) ^ k.attempt;
    }
  };
  std::size_t max_;
  std::unordered_set<Key, KeyHash> seen_;
  /// In order of arrival; one that could go earlier waits for those before it.
  std::deque<std::pair<std::int64_t, Key>> until_;
};

}  // namespace sally::trust
