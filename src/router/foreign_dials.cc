// SPDX-License-Identifier: Apache-2.0
// A Worker opens the circuits that foreign ends dial. Both ends are foreign, and attached to this
// router.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "router/worker.h"

namespace sally::router {

void Worker::on_connect(edge::Channel& channel, edge::Connect connect) {
  Device& device = *find(channel);
  const std::uint32_t conn = connect.conn;
  const std::int32_t sequence = connect.sequence;
  if (const auto failure = begin_foreign(device, std::move(connect)))
    channel.refuse_connect(conn, sequence, *failure);
}

std::optional<edge::Failure> Worker::begin_foreign(Device& device, edge::Connect connect) {
  edge::Failure failure{
      .code = edge::Code::kInternal, .hint = edge::Hint::kTooBusy, .text = "too many dials"};
  std::string service;
  const auto refuse = [&](wire::SetupCode code, const std::string& why) {
    note_refused(device, service, code, why);
    return std::optional(failure);
  };
  // Before anything that costs: a token is a signature to verify.
  if (!device.share.account().may_dial_now(loop_.clock().mono_us()))
    return refuse(wire::SetupCode::kBusy, "too many dials a second");
  if (!state().fresh(now_ms(), options().grace_ms)) {
    failure.text = "no controller available, cannot create circuit";
    return refuse(wire::SetupCode::kNoPath, "past the offline grace");
  }
  const auto known = check_token(device, connect.token, wire::SessionUse::kDial, failure);
  if (!known)
    return refuse(failure.code == edge::Code::kInvalidSession ? wire::SetupCode::kInvalid
                                                              : wire::SetupCode::kNoService,
                  known.error().text());
  service = (*known)->record.id;
  edge::Channel& channel = device.foreign->connection->channel();
  if (channel.taken(connect.conn)) {
    failure.text = "connection id already in use";
    failure.hint = edge::Hint::kDefault;
    return refuse(wire::SetupCode::kInvalid, failure.text);
  }
  if ((*known)->record.e2e == wire::E2e::kCompatible && connect.key.empty()) {
    failure = {.code = edge::Code::kEncryptionMissing,
               .hint = edge::Hint::kDefault,
               .text = "encryption required on service, initiator did not send public header"};
    return refuse(wire::SetupCode::kE2eParameters, failure.text);
  }
  failure.text = "too many dials";
  failure.code = edge::Code::kInternal;
  failure.hint = edge::Hint::kTooBusy;
  auto opening = std::make_unique<Opening>();
  Share circuit_share;
  if (!may_open(device, *opening, circuit_share))
    return refuse(wire::SetupCode::kBusy, "too many circuits or set-ups");
  if (!may_dial_now(service))
    return refuse(wire::SetupCode::kBusy, "too many dials a second of this service");

  opening->candidates = shared_.terminators.choose(service, random_);
  std::erase_if(opening->candidates, [&](const CandidatePtr& c) {
    return !c->foreign || c->foreign->instance != connect.instance;
  });
  if (opening->candidates.empty()) {
    failure = {
        .code = edge::Code::kInternal,
        .hint = edge::Hint::kDefault,
        .text = connect.instance.empty()
                    ? "service " + service + " has no terminators"
                    : "service " + service +
                          " has no online terminators for the instanceId that was asked for"};
    return refuse(wire::SetupCode::kNoTerminator, "nobody hosts it");
  }
  CircuitId id;
  random_.fill(id.raw);
  if (shared_.circuits.claim(id) != CircuitRegistry::Claim::kOk)
    return refuse(wire::SetupCode::kBusy, "too many circuits");
  opening->setup.circuit = id;
  opening->setup.service = service;
  opening->dialer = &device;
  opening->last = {.circuit = id,
                   .attempt = 0,
                   .hop = options().id,
                   .code = wire::SetupCode::kNoTerminator,
                   .text = {}};
  auto circuit = std::make_unique<Circuit>(*this, id, std::move(circuit_share));
  auto side = std::make_unique<ForeignSide>(*circuit, loop_, device);
  SALLY_CHECK(channel.attach(*side, connect.conn));
  circuit->set_dialing(std::move(side));
  opening->call = std::make_unique<edge::Connect>(std::move(connect));
  start(std::move(circuit), std::move(opening));
  return std::nullopt;
}

// What the host hears of the dialer: who it is, is our word.
edge::Call Worker::call_of(const Circuit& circuit) const {
  const Opening& o = *circuit.opening;
  return {.circuit = circuit.id().hex(),
          .dialer_id = o.dialer->id,
          .dialer_name = o.dialer->card ? (*o.dialer->card)->name : o.dialer->id,
          .caller_id = o.call->caller_id,
          .marker = o.call->marker,
          .key = o.call->key,
          .app_data = o.call->app_data};
}

bool Worker::ask_foreign_host(Circuit& circuit, Device& host, const edge::Call& call,
                              std::uint32_t attempt) {
  Share share = host.share.more(Use::kAsked);
  if (!share) return false;
  auto side = std::make_unique<ForeignSide>(circuit, loop_, host);
  if (!host.foreign->connection->channel().dial(*side, circuit.host()->foreign->conn, call))
    return false;
  circuit.set_hosting(std::move(side));
  circuit.asked =
      std::make_unique<Asked>(Asked{.epoch = 0, .attempt = attempt, .share = std::move(share)});
  return true;
}

void Worker::on_foreign_answer(Circuit& circuit, Bytes key) {
  if (circuit.place == Circuit::kNowhere) return;
  circuit.asked.reset();
  const auto* known = state().service(circuit.host()->service, now_ms());
  const bool key_missing =
      key.empty() && known != nullptr && known->record.e2e == wire::E2e::kCompatible;
  if (circuit.hosting_half()) {
    if (key_missing) {
      circuit.hosting()->end(wire::ResetCode::kClosed, {});
      return refuse_hosted(circuit, wire::SetupCode::kE2eParameters);
    }
    circuit.crossing()->send(Crossing::End::kDialing,
                             [&](Crossing::Mail& m) { m.answer = std::move(key); });
    return circuit.opened();
  }
  if (!key_missing) return open(circuit, key);
  circuit.opening->last.code = wire::SetupCode::kE2eParameters;
  end_attempt(circuit, wire::ResetCode::kClosed);
  try_next(circuit);
}

void Worker::open_foreign(Circuit& circuit, ByteView key) {
  ForeignSide& side = *circuit.dialing()->foreign();
  side.channel()->connected(side, circuit.opening->call->sequence, circuit.id().hex(), key);
}

void Worker::refuse_foreign_dial(Circuit& circuit) {
  const Opening& o = *circuit.opening;
  ForeignSide& side = *circuit.dialing()->foreign();
  if (side.channel() == nullptr) return;
  edge::Failure failure{
      .code = edge::Code::kInternal, .hint = edge::Hint::kDefault, .text = "cannot create circuit"};
  switch (o.last.code) {
    case wire::SetupCode::kNoTerminator:
      failure.text = "service " + o.setup.service + " has no online terminators";
      break;
    case wire::SetupCode::kTimeout:
      failure.text = "timeout creating routes for circuit " + circuit.id().hex();
      break;
    case wire::SetupCode::kRefused:
      failure.text = "exceeded maximum retries creating circuit [c/" + circuit.id().hex() + "] (" +
                     o.last.text + ")";
      break;
    case wire::SetupCode::kE2eParameters:
      failure.code = edge::Code::kEncryptionMissing;
      failure.text = "encryption required on service, terminator did not send public header";
      break;
    case wire::SetupCode::kNoService:
      failure.code = edge::Code::kAccessDenied;
      failure.hint = edge::Hint::kStartOver;
      failure.text = "no dial access to the service";
      break;
    default:
      failure.hint = edge::Hint::kTooBusy;
      break;
  }
  side.channel()->refuse(side, o.call->sequence, failure);
}

}  // namespace sally::router
