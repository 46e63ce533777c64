// SPDX-License-Identifier: Apache-2.0
#include "trust/circuit.h"

#include <algorithm>

#include "crypto/hash.h"

namespace sally::trust {

using wire::EnvelopeType;

wire::Hash hash_of(ByteView bytes) {
  return crypto::sha256(bytes);
}

namespace {

/// Refuses with the name of the field.
template <typename T>
Status same(const T& a, const T& b, const char* field) {
  if (a == b) return {};
  return fail(Errc::kMismatch, field);
}

Status near_now(std::int64_t time_ms, std::int64_t now_ms) {
  if (time_ms < now_ms - kMaxSkewMs || time_ms > now_ms + kMaxSkewMs)
    return fail(Errc::kTime, std::to_string(time_ms));
  return {};
}

/// Opens an envelope whose payload brings the signer's certificate. `read` decodes; the payload is
/// believed only when all is checked.
template <typename M>
struct SelfSigned {
  M message;
  crypto::VerifiedPath path;
};

template <typename M>
Result<SelfSigned<M>> open_by_router(ByteView envelope, EnvelopeType type,
                                     Result<M> (*decode)(ByteView), Bytes M::* leaf,
                                     Bytes M::* issuing, const Context& ctx) {
  TRY_ASSIGN(const auto outer, wire::decode_envelope(envelope));
  TRY_ASSIGN(auto message, decode(outer.payload));
  TRY_ASSIGN(auto path, verify_leaf(message.*leaf, message.*issuing, crypto::Role::kRouter, ctx));
  TRY(open(envelope, type, ctx.network(), path.leaf.public_key()));
  if (message.network != ctx.network()) return fail(Errc::kWrongNetwork, message.network);
  if (ctx.revocation != nullptr && !ctx.revocation->router_known(path.id))
    return fail(Errc::kUnknownRouter, path.id);
  return SelfSigned<M>{std::move(message), std::move(path)};
}

}  // namespace

// ---- dial proofs
// ---------------------------------------------------------------------------------------
namespace {

/// Nothing has no hash: a proof of a device that knows no app_data says the same.
wire::Hash app_data_hash(const wire::Setup& setup) {
  return setup.app_data.empty() ? wire::Hash{} : hash_of(setup.app_data);
}

}  // namespace

Result<Bytes> make_dial_proof(const wire::Setup& setup, std::string_view ingress,
                              std::int64_t time_ms, const crypto::Signer& device) {
  if (setup.kind == wire::SetupKind::kNone || setup.service.empty() || ingress.empty()) {
    return fail(Errc::kInvalid, "set-up is not complete", Source::kInternal);
  }
  wire::DialProof p;
  p.kind = setup.kind;
  p.network = setup.network;
  p.circuit = setup.circuit;
  p.epoch = setup.epoch;
  p.service = setup.service;
  p.ingress = ingress;
  p.time_ms = time_ms;
  p.client_hello_hash = hash_of(setup.client_hello);
  p.next_expected = setup.next_expected;
  p.app_data_hash = app_data_hash(setup);
  return seal(EnvelopeType::kDialProof, setup.network, wire::encode(p), device);
}

Result<VerifiedDial> verify_dial(const wire::Setup& setup, std::string_view ingress,
                                 const Context& ctx) {
  if (setup.network != ctx.network()) return fail(Errc::kWrongNetwork, setup.network);
  TRY_ASSIGN(auto caller, verify_leaf(setup.leaf, setup.issuing, crypto::Role::kDevice, ctx));
  TRY_ASSIGN(auto card, verify_card(setup.card, ctx));
  if (card->id != caller.id)
    return fail(Errc::kWrongIdentity, "card of " + card->id + ", certificate of " + caller.id);
  TRY(check_key(card, caller.leaf));
  TRY_ASSIGN(const auto payload,
             open(setup.proof, EnvelopeType::kDialProof, ctx.network(), caller.leaf.public_key()));
  TRY_ASSIGN(const auto proof, wire::decode_dial_proof(payload));
  if (proof.network != setup.network) return fail(Errc::kWrongNetwork, proof.network);
  TRY(same(proof.kind, setup.kind, "kind"));
  TRY(same(proof.circuit, setup.circuit, "circuit"));
  TRY(same(proof.epoch, setup.epoch, "epoch"));
  TRY(same(proof.service, setup.service, "service"));
  TRY(same(proof.next_expected, setup.next_expected, "next_expected"));
  TRY(same(proof.client_hello_hash, hash_of(setup.client_hello), "client_hello"));
  TRY(same(proof.app_data_hash, app_data_hash(setup), "app_data"));
  if (ingress.empty() || proof.ingress != ingress) return fail(Errc::kMismatch, "ingress");
  TRY(near_now(proof.time_ms, ctx.now_ms));
  return VerifiedDial{std::move(caller), std::move(card)};
}

Result<VerifiedDial> verify_dial_from_lane(const wire::Setup& setup, std::string_view ingress,
                                           std::string_view lane_device, const Context& ctx) {
  TRY_ASSIGN(auto dial, verify_dial(setup, ingress, ctx));
  if (dial.caller.id != lane_device)
    return fail(Errc::kWrongIdentity, "set-up of " + dial.caller.id + " on another's lane");
  return dial;
}

// ---- routes
// --------------------------------------------------------------------------------------------
Result<Bytes> make_route(const wire::Route& route, const crypto::Signer& router) {
  if (route.hops.empty() || route.hops.size() > wire::kMaxHops || route.ingress_leaf.empty()) {
    return fail(Errc::kInvalid, "route is not complete", Source::kInternal);
  }
  return seal(EnvelopeType::kRoute, route.network, wire::encode(route), router);
}

Result<VerifiedRoute> verify_route(ByteView envelope, ByteView setup_bytes,
                                   const wire::Setup& setup, std::uint32_t attempt,
                                   const Context& ctx) {
  TRY_ASSIGN(auto opened,
             open_by_router(envelope, EnvelopeType::kRoute, wire::decode_route,
                            &wire::Route::ingress_leaf, &wire::Route::ingress_issuing, ctx));
  auto& route = opened.message;
  if (route.hops.front() != opened.path.id)
    return fail(Errc::kWrongIdentity, "signed by " + opened.path.id);
  if (setup.network != route.network) return fail(Errc::kWrongNetwork, setup.network);
  TRY(same(route.circuit, setup.circuit, "circuit"));
  TRY(same(route.epoch, setup.epoch, "epoch"));
  TRY(same(route.service, setup.service, "service"));
  TRY(same(route.attempt, attempt, "attempt"));
  TRY(same(route.setup_hash, hash_of(setup_bytes), "setup"));
  if (route.expiry_ms < ctx.now_ms - kMaxSkewMs)
    return fail(Errc::kExpired, std::to_string(route.expiry_ms));
  if (route.expiry_ms > ctx.now_ms + kMaxRouteLifeMs + kMaxSkewMs) {
    return fail(Errc::kTime, std::to_string(route.expiry_ms));
  }
  return VerifiedRoute{std::move(route), std::move(opened.path)};
}

Status check_egress(const wire::Route& route, std::string_view self) {
  if (self.empty() || route.hops.empty() || route.hops.back() != self)
    return fail(Errc::kNotOnPath, std::string(self));
  return {};
}

Result<std::string> next_hop(const wire::Route& route, std::string_view self) {
  const auto it = std::ranges::find(route.hops, self);
  if (it == route.hops.end() || it + 1 == route.hops.end())
    return fail(Errc::kNotOnPath, std::string(self));
  return *(it + 1);
}

// ---- answers
// -------------------------------------------------------------------------------------------
Result<Bytes> make_answer(const wire::Answer& answer, const crypto::Signer& router) {
  if (answer.egress.empty() || answer.egress_leaf.empty() || answer.terminator.empty()) {
    return fail(Errc::kInvalid, "answer is not complete", Source::kInternal);
  }
  return seal(EnvelopeType::kAnswer, answer.network, wire::encode(answer), router);
}

Result<VerifiedAnswer> verify_answer(ByteView envelope, const AnswerExpected& expected,
                                     const Context& ctx) {
  TRY_ASSIGN(auto opened,
             open_by_router(envelope, EnvelopeType::kAnswer, wire::decode_answer,
                            &wire::Answer::egress_leaf, &wire::Answer::egress_issuing, ctx));
  auto& answer = opened.message;
  if (answer.egress != opened.path.id)
    return fail(Errc::kWrongIdentity, "signed by " + opened.path.id);
  TRY(same(answer.host.circuit, expected.circuit, "circuit"));
  TRY(same(answer.host.epoch, expected.epoch, "epoch"));
  if (expected.attempt) TRY(same(answer.host.attempt, *expected.attempt, "attempt"));
  if (expected.terminator) TRY(same(answer.terminator, *expected.terminator, "terminator"));
  if (expected.egress) TRY(same(answer.egress, *expected.egress, "egress"));
  if (expected.instance) TRY(same(answer.instance, *expected.instance, "instance"));
  return VerifiedAnswer{std::move(answer), std::move(opened.path)};
}

// ---- binds
// ---------------------------------------------------------------------------------------------
Result<Bytes> make_bind_proof(const wire::BindProof& proof, const crypto::Signer& device) {
  if (proof.service.empty() || proof.router.empty()) {
    return fail(Errc::kInvalid, "bind proof is not complete", Source::kInternal);
  }
  return seal(EnvelopeType::kBindProof, proof.network, wire::encode(proof), device);
}

namespace {

Result<wire::BindProof> open_bind(ByteView envelope, const wire::BindProof& expected,
                                  const crypto::PublicKey& key, const Context& ctx) {
  TRY_ASSIGN(const auto payload, open(envelope, EnvelopeType::kBindProof, ctx.network(), key));
  TRY_ASSIGN(auto proof, wire::decode_bind_proof(payload));
  if (proof.network != ctx.network()) return fail(Errc::kWrongNetwork, proof.network);
  TRY(same(proof.service, expected.service, "service"));
  TRY(same(proof.instance, expected.instance, "instance"));
  TRY(same(proof.router, expected.router, "router"));
  return proof;
}

}  // namespace

Status verify_bind_proof(ByteView envelope, const wire::BindProof& expected,
                         const crypto::PublicKey& lane_key, const Context& ctx) {
  if (expected.network != ctx.network()) return fail(Errc::kWrongNetwork, expected.network);
  TRY_ASSIGN(const auto proof, open_bind(envelope, expected, lane_key, ctx));
  return near_now(proof.time_ms, ctx.now_ms);
}

Result<crypto::VerifiedPath> verify_terminator(const wire::Terminator& terminator,
                                               const Context& ctx) {
  TRY_ASSIGN(auto host,
             verify_leaf(terminator.leaf, terminator.issuing, crypto::Role::kDevice, ctx));
  if (host.id != terminator.device) return fail(Errc::kWrongIdentity, "certificate of " + host.id);
  wire::BindProof expected;
  expected.service = terminator.service;
  expected.instance = terminator.instance;
  expected.router = terminator.router;
  TRY_ASSIGN(const auto proof, open_bind(terminator.proof, expected, host.leaf.public_key(), ctx));
  if (proof.time_ms > ctx.now_ms + kMaxSkewMs)
    return fail(Errc::kTime, std::to_string(proof.time_ms));
  if (ctx.revocation != nullptr && !ctx.revocation->router_known(terminator.router)) {
    return fail(Errc::kUnknownRouter, terminator.router);
  }
  return host;
}

// ---- replay
// --------------------------------------------------------------------------------------------
Status SeenCircuits::remember(const CircuitId& circuit, std::uint32_t epoch, std::uint32_t attempt,
                              std::int64_t expiry_ms, std::int64_t now_ms) {
  while (!until_.empty() && until_.front().first < now_ms) {
    seen_.erase(until_.front().second);
    until_.pop_front();
  }
  const Key key{circuit, epoch, attempt};
  if (seen_.contains(key)) return fail(Errc::kReplay, circuit.hex());
  if (seen_.size() >= max_) return fail(Errc::kFull, std::to_string(max_), Source::kLocal, true);
  seen_.insert(key);
  until_.emplace_back(expiry_ms + kMaxSkewMs, key);
  return {};
}

}  // namespace sally::trust
