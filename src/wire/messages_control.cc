// SPDX-License-Identifier: Apache-2.0
// Control messages and replicated state.
#include "wire/coding.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace sally::wire {
// Found by argument-dependent lookup on the archive.
namespace coding {

constexpr std::size_t kMaxEntries =
    65'536;  // lists of a control message; its 8 MiB bound what they hold
constexpr std::size_t kMaxAddresses = 16;
constexpr std::size_t kMaxSigners = 8;
constexpr std::size_t kMaxOps = std::size_t{1} << 20U;

template <typename A, Is<SignerChain> M>
void fields(A& a, M& m) {
  a.blob(1, m.leaf, kMaxCertificate, Need::kYes);
  a.blob(2, m.issuing, kMaxCertificate, Need::kYes);
}
template <typename A, Is<Hello> M>
void fields(A& a, M& m) {
  a.number(1, m.version_min);
  a.number(2, m.version_max);
  a.number(3, m.features);
  a.text(4, m.network, kMaxNetwork, Need::kYes);
  a.fixed(5, m.epoch);
  a.number(6, m.bundle_version);
  a.time(7, m.time_ms);
  a.note(8, m.software);
  a.blob(9, m.card, kMaxPayload);
  a.number(10, m.state_version);
  a.fixed(11, m.state_hash, Need::kNo);
}
template <typename A, Is<Refused> M>
void fields(A& a, M& m) {
  a.text(1, m.code, kMaxId, Need::kYes);
  a.note(2, m.text);
}
template <typename A, Is<Bind> M>
void fields(A& a, M& m) {
  a.number(1, m.request);
  a.text(2, m.service, kMaxId, Need::kYes);
  a.fixed(3, m.instance);
  a.blob(4, m.proof, kMaxPayload, Need::kYes);
  a.number(5, m.cost);
  a.number(6, m.precedence);
}
template <typename A, Is<BindReply> M>
void fields(A& a, M& m) {
  a.number(1, m.request);
  a.choice(2, m.code, SetupCode::kShuttingDown);
  a.note(3, m.text);
  a.text(4, m.terminator, kMaxId);
}
template <typename A, Is<Unbind> M>
void fields(A& a, M& m) {
  a.text(1, m.service, kMaxId, Need::kYes);
  a.fixed(2, m.instance);
}
template <typename A, Is<ServiceEntry> M>
void fields(A& a, M& m) {
  a.blob(1, m.record, kMaxEnvelope, Need::kYes);
  a.flag(2, m.dial);
  a.flag(3, m.bind);
}
template <typename A, Is<Services> M>
void fields(A& a, M& m) {
  a.messages(1, m.entries, kMaxEntries);
  a.messages(2, m.signers, kMaxSigners);
}
template <typename A, Is<CardUpdate> M>
void fields(A& a, M& m) {
  a.blob(1, m.card, kMaxPayload, Need::kYes);
}
template <typename A, Is<RouterEntry> M>
void fields(A& a, M& m) {
  a.text(1, m.id, kMaxId, Need::kYes);
  a.text(2, m.name, kMaxName);
  a.texts(3, m.addresses, kMaxAddresses, kMaxName);
}
template <typename A, Is<Routers> M>
void fields(A& a, M& m) {
  a.messages(1, m.entries, kMaxEntries);
}
template <typename A, Is<CardRequest> M>
void fields(A& a, M& m) {
  a.number(1, m.request);
  a.text(2, m.id, kMaxId, Need::kYes);
}
template <typename A, Is<CardReply> M>
void fields(A& a, M& m) {
  a.number(1, m.request);
  a.text(2, m.id, kMaxId, Need::kYes);
  a.blob(3, m.card, kMaxPayload);
  a.text(4, m.error, kMaxId);
}
template <typename A, Is<Terminator> M>
void fields(A& a, M& m) {
  a.text(1, m.id, kMaxId, Need::kYes);
  a.text(2, m.service, kMaxId, Need::kYes);
  a.text(3, m.device, kMaxId, Need::kYes);
  a.fixed(4, m.instance);
  a.text(5, m.router, kMaxId, Need::kYes);
  a.time(6, m.since_ms);
  a.blob(7, m.proof, kMaxPayload);
  a.blob(8, m.leaf, kMaxCertificate);
  a.blob(9, m.issuing, kMaxCertificate);
  a.number(10, m.cost);
  a.number(11, m.precedence);
}
template <typename A, Is<Terminators> M>
void fields(A& a, M& m) {
  a.messages(1, m.entries, kMaxEntries);
}
template <typename A, Is<StateAck> M>
void fields(A& a, M& m) {
  a.number(1, m.version);
  a.number(2, m.flows_cut);
}
template <typename A, Is<Event> M>
void fields(A& a, M& m) {
  a.time(1, m.time_ms);
  a.text(2, m.code, kMaxId, Need::kYes);
  a.text(3, m.actor, kMaxName);
  a.text(4, m.subject, kMaxName);
  a.note(5, m.text);
}
template <typename A, Is<Events> M>
void fields(A& a, M& m) {
  a.messages(1, m.entries, 4'096);
}
template <typename A, Is<UsageEntry> M>
void fields(A& a, M& m) {
  a.number(1, m.day);
  a.text(2, m.device, kMaxId);
  a.text(3, m.service, kMaxId);
  a.number(4, m.sent);
  a.number(5, m.received);
  a.number(6, m.circuits);
  a.number(7, m.open_ms);
}
template <typename A, Is<RouterLive> M>
void fields(A& a, M& m) {
  a.time(1, m.time_ms);
  a.number(2, m.lanes);
  a.number(3, m.circuits);
  a.number(4, m.bytes_in);
  a.number(5, m.bytes_out);
  a.number(6, m.cpu_us);
  a.number(7, m.rss_bytes);
}
template <typename A, Is<Usage> M>
void fields(A& a, M& m) {
  a.fixed(1, m.epoch);
  a.number(2, m.sequence);
  a.number(3, m.interval_ms);
  a.messages(4, m.entries, kMaxUsageEntries);
  a.message(5, m.live);
}
template <typename A, Is<UsageAck> M>
void fields(A& a, M& m) {
  a.fixed(1, m.epoch);
  a.number(2, m.sequence);
  a.number(3, m.period_ms);
}
template <typename A, Is<StateUpdate> M>
void fields(A& a, M& m) {
  a.blob(1, m.snapshot_head, kMaxPayload);
  a.blob(2, m.snapshot, kMaxControlMessage);
  a.blobs(3, m.entries, kMaxEntries, kMaxEnvelope + 1'024);
  a.blob(4, m.head, kMaxPayload);
  a.messages(5, m.signers, kMaxSigners);
}
template <typename A, Is<RenewalRequest> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.text(2, m.id, kMaxId, Need::kYes);
  a.text(3, m.serial, 64, Need::kYes);
  a.blob(4, m.csr, kMaxCsr);
  a.time(5, m.time_ms);
  a.blob(6, m.session_csr, kMaxCsr);
}
template <typename A, Is<SessionToken> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.text(2, m.identity, kMaxId, Need::kYes);
  a.number(3, m.credential_epoch);
  a.text(4, m.session, kMaxId, Need::kYes);
  a.choice(5, m.use, SessionUse::kBind, Need::kYes);
  a.text(6, m.service, kMaxId);
  a.time(7, m.issued_ms);
  a.time(8, m.not_after_ms);
}
template <typename A, Is<Renew> M>
void fields(A& a, M& m) {
  a.number(1, m.request);
  a.text(2, m.id, kMaxId);
  a.text(3, m.serial, 64);
  a.blob(4, m.envelope, kMaxPayload, Need::kYes);
}
template <typename A, Is<Renewed> M>
void fields(A& a, M& m) {
  a.number(1, m.request);
  a.text(2, m.id, kMaxId, Need::kYes);
  a.blob(3, m.leaf, kMaxCertificate);
  a.blob(4, m.issuing, kMaxCertificate);
  a.text(5, m.error, kMaxId);
  a.number(6, m.retry_after_ms);
}
template <typename A, Is<RenewNow> M>
void fields(A& a, M& m) {
  a.text(1, m.id, kMaxId, Need::kYes);
  a.number(2, m.within_ms);
}
template <typename A, Is<Control> M>
void fields(A& a, M& m) {
  auto& v = m.member;
  a.template member<Hello>(1, v);
  a.template member<Refused>(2, v);
  a.template member<Bind>(3, v);
  a.template member<BindReply>(4, v);
  a.template member<Unbind>(5, v);
  a.template member<Services>(6, v);
  a.template member<CardUpdate>(7, v);
  a.template member<CardRequest>(8, v);
  a.template member<Terminators>(9, v);
  a.template member<StateAck>(10, v);
  a.template member<Events>(11, v);
  a.template member<StateUpdate>(12, v);
  a.template member<CardReply>(13, v);
  a.template member<Routers>(14, v);
  a.template member<Usage>(15, v);
  a.template member<UsageAck>(16, v);
  a.template member<Renew>(20, v);
  a.template member<Renewed>(21, v);
  a.template member<RenewNow>(22, v);
}
template <typename A, Is<StateHead> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.number(2, m.version);
  a.fixed(3, m.hash);
  a.time(4, m.time_ms);
}
template <typename A, Is<SnapshotHead> M>
void fields(A& a, M& m) {
  a.text(1, m.network, kMaxNetwork, Need::kYes);
  a.number(2, m.version);
  a.fixed(3, m.hash);
  a.fixed(4, m.snapshot_hash);
  a.time(5, m.time_ms);
}
template <typename A, Is<Snapshot> M>
void fields(A& a, M& m) {
  a.blobs(1, m.ops, kMaxOps, kMaxEnvelope + 512);
}
template <typename A, Is<LogEntry> M>
void fields(A& a, M& m) {
  a.number(1, m.version);
  a.blob(2, m.op, kMaxEnvelope + 512, Need::kYes);
}
template <typename A, Is<IdentityState> M>
void fields(A& a, M& m) {
  a.text(1, m.id, kMaxId, Need::kYes);
  a.choice(2, m.standing, Standing::kRevoked, Need::kYes);
  a.number(3, m.credential_epoch);
  a.number(4, m.attr_epoch);
  a.time(5, m.at_ms);
}
template <typename A, Is<RevokedCertificate> M>
void fields(A& a, M& m) {
  a.text(1, m.serial, 64, Need::kYes);
  a.time(2, m.not_after_ms);
  a.time(3, m.at_ms);
  a.flag(4, m.superseded);
}
template <typename A, Is<StateOp> M>
void fields(A& a, M& m) {
  auto& v = m.op;
  a.template member<RouterEntry>(1, v);
  a.template bare_text<RemoveRouter>(2, v, &RemoveRouter::id, kMaxId);
  a.template bare_blob<PutService>(3, v, &PutService::record, kMaxEnvelope);
  a.template bare_text<RemoveService>(4, v, &RemoveService::id, kMaxId);
  a.template member<IdentityState>(5, v);
  a.template member<RevokedCertificate>(6, v);
}

}  // namespace coding

Bytes encode(const Control& m) {
  return coding::encode_message(m);
}
Bytes encode(const StateUpdate& m) {
  return coding::encode_message(m);
}
Bytes encode(const StateHead& m) {
  return coding::encode_message(m);
}
Bytes encode(const SnapshotHead& m) {
  return coding::encode_message(m);
}
Bytes encode(const Snapshot& m) {
  return coding::encode_message(m);
}
Bytes encode(const LogEntry& m) {
  return coding::encode_message(m);
}
Bytes encode(const StateOp& m) {
  return coding::encode_message(m);
}

Bytes encode(const RenewalRequest& m) {
  return coding::encode_message(m);
}
Result<RenewalRequest> decode_renewal_request(ByteView in) {
  return coding::decode_message<RenewalRequest>(in, kMaxPayload, "renewal request");
}
Bytes encode(const SessionToken& m) {
  return coding::encode_message(m);
}
Result<SessionToken> decode_session_token(ByteView in) {
  return coding::decode_message<SessionToken>(in, kMaxPayload, "session token");
}
Result<Control> decode_control(ByteView in) {
  return coding::decode_message<Control>(in, kMaxControlMessage, "control");
}
Result<StateUpdate> decode_state_update(ByteView in) {
  return coding::decode_message<StateUpdate>(in, kMaxControlMessage, "state update");
}
Result<StateHead> decode_state_head(ByteView in) {
  return coding::decode_message<StateHead>(in, kMaxPayload, "state head");
}
Result<SnapshotHead> decode_snapshot_head(ByteView in) {
  return coding::decode_message<SnapshotHead>(in, kMaxPayload, "snapshot head");
}
Result<Snapshot> decode_snapshot(ByteView in) {
  return coding::decode_message<Snapshot>(in, kMaxControlMessage, "snapshot");
}
Result<LogEntry> decode_log_entry(ByteView in) {
  return coding::decode_message<LogEntry>(in, kMaxEnvelope + 2'048, "log entry");
}
Result<StateOp> decode_state_op(ByteView in) {
  return coding::decode_message<StateOp>(in, kMaxEnvelope + 1'024, "state op");
}

}  // namespace sally::wire
