// SPDX-License-Identifier: Apache-2.0
// Signed things and the set-up of circuits.
#include <algorithm>

#include "wire/coding.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace sally::wire {

std::string_view setup_code_name(SetupCode c) {
  switch (c) {
    case SetupCode::kNone:
      return "none";
    case SetupCode::kNoService:
      return "no_service";
    case SetupCode::kNoTerminator:
      return "no_terminator";
    case SetupCode::kBusy:
      return "busy";
    case SetupCode::kNoPath:
      return "no_path";
    case SetupCode::kTimeout:
      return "timeout";
    case SetupCode::kRefused:
      return "refused";
    case SetupCode::kInvalid:
      return "invalid";
    case SetupCode::kE2eParameters:
      return "e2e_parameters";
    case SetupCode::kNotKnown:
      return "not_known";
    case SetupCode::kShuttingDown:
      return "shutting_down";
  }
  return "unknown";
}

std::string_view reset_code_name(ResetCode c) {
  switch (c) {
    case ResetCode::kNone:
      return "none";
    case ResetCode::kClosed:
      return "closed";
    case ResetCode::kLaneLost:
      return "lane_lost";
    case ResetCode::kPolicy:
      return "policy";
    case ResetCode::kProtocol:
      return "protocol";
    case ResetCode::kTimeout:
      return "timeout";
    case ResetCode::kShutdown:
      return "shutdown";
    case ResetCode::kBudget:
      return "budget";
  }
  return "unknown";
}

Bytes signed_bytes(std::string_view network, EnvelopeType type, const KeyId& key_id,
                   ByteView payload) {
  Bytes out;
  out.reserve(10 + network.size() + key_id.size() + payload.size());
  append(out, as_bytes("sally1"));
  out.push_back(0);
  put_big(out, static_cast<std::uint64_t>(type), 2);
  put_big(out, network.size(), 1);
  append(out, as_bytes(network));
  append(out, key_id);
  append(out, payload);
  return out;
}

// Found by argument-dependent lookup on the archive.
namespace coding {

template <typename A, Is<Envelope> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.choice(2, m.type, EnvelopeType::kSession, Need::kYes);
  a.blob(3, m.payload, kMaxEnvelope);
  a.fixed(4, m.key_id);
  a.blob(5, m.signature, 1'024, Need::kYes);
}
template <typename A, Is<Card> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.text(2, m.id, kMaxId, Need::kYes);
  a.text(3, m.name, kMaxName);
  a.texts(4, m.attributes, kMaxAttributes, kMaxName);
  a.number(5, m.attr_epoch);
  a.number(6, m.credential_epoch);
  a.time(7, m.not_after_ms);
  a.time(8, m.issued_ms);
}
template <typename A, Is<ServiceRecord> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.text(2, m.id, kMaxId, Need::kYes);
  a.text(3, m.name, kMaxName);
  a.choice(4, m.e2e, E2e::kNone, Need::kYes);
  a.texts(5, m.dial, kMaxExpressions, kMaxName);
  a.texts(6, m.bind, kMaxExpressions, kMaxName);
  a.number(7, m.version);
  a.time(8, m.not_after_ms);
  a.document(9, m.host_config, kMaxConfig);
  a.document(10, m.intercept_config, kMaxConfig);
}
template <typename A, Is<Setup> M>
void fields(A& a, M& m) {
  a.choice(1, m.kind, SetupKind::kMove, Need::kYes);
  a.text(2, m.network, kMaxNetwork, Need::kYes);
  a.fixed(3, m.circuit.raw);
  a.number(4, m.epoch);
  a.number(5, m.attempt);
  a.text(6, m.service, kMaxId, Need::kYes);
  a.blob(7, m.client_hello, kMaxClientHello);
  a.blob(8, m.app_data, kMaxAppData);
  a.number(9, m.next_expected);
  a.blob(10, m.leaf, kMaxCertificate);
  a.blob(11, m.issuing, kMaxCertificate);
  a.blob(12, m.card, kMaxPayload);
  a.blob(13, m.proof, kMaxPayload);
}
template <typename A, Is<DialProof> M>
void fields(A& a, M& m) {
  a.choice(1, m.kind, SetupKind::kMove, Need::kYes);
  a.text(2, m.network, kMaxNetwork, Need::kYes);
  a.fixed(3, m.circuit.raw);
  a.number(4, m.epoch);
  a.text(5, m.service, kMaxId, Need::kYes);
  a.text(6, m.ingress, kMaxId, Need::kYes);
  a.time(7, m.time_ms);
  a.fixed(8, m.client_hello_hash);
  a.number(9, m.next_expected);
  a.fixed(10, m.app_data_hash);
}
template <typename A, Is<SetupFrame> M>
void fields(A& a, M& m) {
  a.blob(1, m.setup, kMaxPayload, Need::kYes);
  a.blob(2, m.route, kMaxPayload);
  a.number(3, m.attempt);
}
template <typename A, Is<Route> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.fixed(2, m.circuit.raw);
  a.number(3, m.epoch);
  a.number(4, m.attempt);
  a.text(5, m.service, kMaxId, Need::kYes);
  a.text(6, m.terminator, kMaxId, Need::kYes);
  a.texts(7, m.hops, kMaxHops, kMaxId);
  a.time(8, m.expiry_ms);
  a.fixed(9, m.setup_hash);
  a.fixed(10, m.instance);
  a.blob(11, m.ingress_leaf, kMaxCertificate);
  a.blob(12, m.ingress_issuing, kMaxCertificate);
}
template <typename A, Is<SetupOkFrame> M>
void fields(A& a, M& m) {
  a.blob(1, m.answer, kMaxPayload, Need::kYes);
}
template <typename A, Is<HostAnswer> M>
void fields(A& a, M& m) {
  a.fixed(1, m.circuit.raw);
  a.number(2, m.epoch);
  a.number(3, m.attempt);
  a.blob(4, m.flight, kMaxFlight);
  a.blob(5, m.card, kMaxPayload);
  a.number(6, m.next_expected);
  a.blob(7, m.app_data, kMaxAppData);
}
template <typename A, Is<Answer> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.text(2, m.terminator, kMaxId, Need::kYes);
  a.fixed(3, m.instance);
  a.message(4, m.host);
  a.text(5, m.egress, kMaxId, Need::kYes);
  a.blob(6, m.egress_leaf, kMaxCertificate);
  a.blob(7, m.egress_issuing, kMaxCertificate);
}
template <typename A, Is<SetupErr> M>
void fields(A& a, M& m) {
  a.fixed(1, m.circuit.raw, Need::kNo);
  a.number(2, m.attempt);
  a.text(3, m.hop, kMaxId);
  a.choice(4, m.code, SetupCode::kShuttingDown, Need::kYes);
  a.note(5, m.text);
}
template <typename A, Is<Reset> M>
void fields(A& a, M& m) {
  a.choice(1, m.code, ResetCode::kBudget);
  a.note(2, m.text);
}
template <typename A, Is<PathDown> M>
void fields(A& a, M& m) {
  a.labels(1, m.labels, kMaxPathDownLabels);
  a.choice(2, m.code, ResetCode::kBudget);
}
template <typename A, Is<BindProof> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.text(2, m.service, kMaxId, Need::kYes);
  a.fixed(3, m.instance);
  a.text(4, m.router, kMaxId, Need::kYes);
  a.time(5, m.time_ms);
}

}  // namespace coding

Bytes encode(const Envelope& m) {
  return coding::encode_message(m);
}
Bytes encode(const Card& m) {
  return coding::encode_message(m);
}
Bytes encode(const ServiceRecord& m) {
  return coding::encode_message(m);
}
Bytes encode(const Setup& m) {
  return coding::encode_message(m);
}
Bytes encode(const DialProof& m) {
  return coding::encode_message(m);
}
Bytes encode(const SetupFrame& m) {
  return coding::encode_message(m);
}
Bytes encode(const Route& m) {
  return coding::encode_message(m);
}
Bytes encode(const SetupOkFrame& m) {
  return coding::encode_message(m);
}
Bytes encode(const HostAnswer& m) {
  return coding::encode_message(m);
}
Bytes encode(const Answer& m) {
  return coding::encode_message(m);
}
Bytes encode(const SetupErr& m) {
  return coding::encode_message(m);
}
Bytes encode(const Reset& m) {
  return coding::encode_message(m);
}
Bytes encode(const PathDown& m) {
  return coding::encode_message(m);
}
Bytes encode(const BindProof& m) {
  return coding::encode_message(m);
}

Result<Envelope> decode_envelope(ByteView in) {
  return coding::decode_message<Envelope>(in, kMaxEnvelope, "envelope");
}
Result<Card> decode_card(ByteView in) {
  return coding::decode_message<Card>(in, kMaxPayload, "card");
}
Result<ServiceRecord> decode_service_record(ByteView in) {
  return coding::decode_message<ServiceRecord>(in, kMaxEnvelope, "service record");
}
Result<Setup> decode_setup(ByteView in) {
  return coding::decode_message<Setup>(in, kMaxPayload, "setup");
}
Result<DialProof> decode_dial_proof(ByteView in) {
  return coding::decode_message<DialProof>(in, kMaxPayload, "dial proof");
}
Result<SetupFrame> decode_setup_frame(ByteView in) {
  return coding::decode_message<SetupFrame>(in, kMaxPayload, "setup frame");
}
Result<Route> decode_route(ByteView in) {
  auto m = coding::decode_message<Route>(in, kMaxPayload, "route");
  if (!m) return m;
  if (m->hops.empty()) return fail(Errc::kMissing, "route: hops");
  auto sorted = m->hops;
  std::ranges::sort(sorted);
  if (std::ranges::adjacent_find(sorted) != sorted.end())
    return fail(Errc::kDuplicate, "route: hops");
  return m;
}
Result<SetupOkFrame> decode_setup_ok_frame(ByteView in) {
  return coding::decode_message<SetupOkFrame>(in, kMaxPayload, "setup ok frame");
}
Result<HostAnswer> decode_host_answer(ByteView in) {
  return coding::decode_message<HostAnswer>(in, kMaxPayload, "host answer");
}
Result<Answer> decode_answer(ByteView in) {
  return coding::decode_message<Answer>(in, kMaxPayload, "answer");
}
Result<SetupErr> decode_setup_err(ByteView in) {
  return coding::decode_message<SetupErr>(in, kMaxErrorPayload, "setup error");
}
Result<Reset> decode_reset(ByteView in) {
  return coding::decode_message<Reset>(in, kMaxErrorPayload, "reset");
}
Result<PathDown> decode_path_down(ByteView in) {
  return coding::decode_message<PathDown>(in, kMaxPayload, "path down");
}
Result<BindProof> decode_bind_proof(ByteView in) {
  return coding::decode_message<BindProof>(in, kMaxPayload, "bind proof");
}

}  // namespace sally::wire
