// SPDX-License-Identifier: Apache-2.0
// The Router's half that opens and ends circuits (docs/wire-protocol.md).
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "router/router.h"

namespace sally::router {
namespace {

constexpr std::int64_t kOpenMs = 5'000;
constexpr std::uint32_t kMaxAttempts = 3;

}  // namespace

void Router::on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) {
  Device& device = *find(lane);
  wire::SetupErr err{
      .circuit = {}, .attempt = 0, .hop = options_.id, .code = wire::SetupCode::kNone, .text = {}};
  if (const auto code = begin(device, label, payload, err)) {
    err.code = *code;
    lane.send_setup_err(label, err);
  }
}

// Everything about the dialer is decided here; a code refuses. "No such service" and "not granted"
// differ in the log only.
std::optional<wire::SetupCode> Router::begin(Device& device, std::uint32_t label, ByteView payload,
                                             wire::SetupErr& err) {
  std::string service;
  const auto refuse = [&](wire::SetupCode code, const std::string& why) {
    log::warn("router.dial_refused", {{"device", device.id},
                                      {"service", service},
                                      {"code", wire::setup_code_name(code)},
                                      {"why", why}});
    if (code == wire::SetupCode::kNoService || code == wire::SetupCode::kInvalid)
      event("router.dial_denied", device.id, service, why);
    return std::optional(code);
  };
  // Before anything that costs: a set-up is three signatures to verify.
  if (!device.dials.take(loop_.clock().mono_us()))
    return refuse(wire::SetupCode::kBusy, "too many dials a second");
  if (!state().fresh(now_ms(), options_.grace_ms))
    return refuse(wire::SetupCode::kNoPath, "past the offline grace");
  const auto frame = wire::decode_setup_frame(payload);
  if (!frame) return refuse(wire::SetupCode::kInvalid, frame.error().text());
  auto setup = wire::decode_setup(frame->setup);
  if (!setup) return refuse(wire::SetupCode::kInvalid, setup.error().text());
  err.circuit = setup->circuit;
  service = setup->service;
  if (!frame->route.empty()) return refuse(wire::SetupCode::kInvalid, "a device cannot route");
  if (setup->kind != wire::SetupKind::kOpen)
    return refuse(wire::SetupCode::kNotKnown, "circuits do not move yet");
  if (device.half_open >= options_.max_half_open_per_lane ||
      circuits_.size() >= options_.max_circuits) {
    return refuse(wire::SetupCode::kBusy, "too many circuits or set-ups");
  }
  if (circuits_.contains(setup->circuit))
    return refuse(wire::SetupCode::kInvalid, "the circuit id is in use");
  const auto dial = trust::verify_dial_from_lane(*setup, options_.id, device.id, trust_context());
  if (!dial) return refuse(wire::SetupCode::kInvalid, dial.error().text());
  const auto* known = state().service(service, now_ms());
  if (known == nullptr) {
    const bool by_name = state().service_named(service, now_ms()) != nullptr;
    return refuse(wire::SetupCode::kNoService, by_name ? "not granted" : "unknown");
  }
  if (!may_dial(device, service)) return refuse(wire::SetupCode::kNoService, "not granted");
  if (known->record.e2e != wire::E2e::kTls)
    return refuse(wire::SetupCode::kInvalid, "not an end-to-end TLS service");

  auto opening = std::make_unique<Opening>();
  for (const LocalTerminator* t : terminators_.choose(service, random_))
    opening->candidates.push_back(t->record.id);
  if (opening->candidates.empty()) return refuse(wire::SetupCode::kNoTerminator, "nobody hosts it");
  std::ranges::reverse(opening->candidates);
  opening->setup_bytes = frame->setup;
  opening->setup = std::move(*setup);
  opening->dialer = &device;
  opening->label = label;
  opening->deadline_ms = loop_.now_ms() + kOpenMs;
  opening->last = err;
  opening->last.code = wire::SetupCode::kNoTerminator;
  const CircuitId id = opening->setup.circuit;
  opening->timer = std::make_unique<loop::Timer>(loop_.timers(), [this, id] {
    const auto it = circuits_.find(id);
    if (it == circuits_.end() || it->second.opening == nullptr) return;
    note_circuit(it->second.opening->terminator, 0, true);
    it->second.opening->last.code = wire::SetupCode::kTimeout;
    give_up(it->second);
  });
  opening->timer->arm(kOpenMs);
  ++device.half_open;
  Entry entry{
      .circuit = std::make_unique<Circuit>(*this, id, ServiceId(service), DeviceId(device.id)),
      .opening = std::move(opening),
      .terminator = {}};
  try_next(circuits_.emplace(id, std::move(entry)).first->second);
  return std::nullopt;
}

void Router::try_next(Entry& entry) {
  Opening& o = *entry.opening;
  while (o.attempt < kMaxAttempts && !o.candidates.empty()) {
    const LocalTerminator* t = terminators_.find(o.candidates.back());
    o.candidates.pop_back();
    if (t == nullptr) continue;
    const Device* host = find(*t->lane);
    if (host == nullptr || !t->lane->up() || !may_bind(*host, t->record.service)) continue;
    o.terminator = t->record.id;
    o.instance = t->record.instance;
    entry.circuit->set_host(DeviceId(t->record.device));
    const wire::Route route{.network = options_.network,
                            .circuit = o.setup.circuit,
                            .epoch = o.setup.epoch,
                            .attempt = o.attempt,
                            .service = o.setup.service,
                            .terminator = t->record.id,
                            .hops = {options_.id},
                            .expiry_ms = now_ms() + trust::kMaxRouteLifeMs,
                            .setup_hash = trust::hash_of(o.setup_bytes),
                            .instance = t->record.instance,
                            .ingress_leaf = options_.chain.front().der(),
                            .ingress_issuing = options_.chain.back().der()};
    auto sealed = trust::make_route(route, *options_.key);
    // We are the egress as well: what verify_route and verify_dial would check there was checked
    // above, the replay memory was not.
    const Status fresh =
        seen_.remember(route.circuit, route.epoch, route.attempt, route.expiry_ms, now_ms());
    if (!fresh && fresh.error().is(trust::Errc::kReplay)) {
      log::warn("router.dial_refused", {{"device", o.dialer->id}, {"why", fresh.error().text()}});
      event("router.dial_denied", o.dialer->id, o.setup.service, fresh.error().text());
      o.last.code = wire::SetupCode::kInvalid;
      break;
    }
    if (!sealed || !fresh) {
      log::error("router.route_failed",
                 {{"why", sealed ? fresh.error().text() : sealed.error().text()}});
      o.last.code = wire::SetupCode::kBusy;
      break;
    }
    const std::uint32_t attempt = o.attempt++;  // it is remembered: never used twice
    if (!t->lane->attach(entry.circuit->hosting())) {
      o.last.code = wire::SetupCode::kBusy;
      continue;
    }
    t->lane->send_setup(entry.circuit->hosting(),
                        {.setup = o.setup_bytes, .route = std::move(*sealed), .attempt = attempt});
    return;
  }
  give_up(entry);
}

void Router::give_up(Entry& entry) {
  Opening& o = *entry.opening;
  log::info("router.dial_failed", {{"device", entry.circuit->dialer().str()},
                                   {"service", entry.circuit->service().str()},
                                   {"code", wire::setup_code_name(o.last.code)}});
  if (entry.circuit->hosting().lane() != nullptr)
    entry.circuit->hosting().lane()->reset(entry.circuit->hosting(), wire::ResetCode::kTimeout);
  o.last.attempt = o.attempt;
  o.dialer->lane->send_setup_err(o.label, o.last);
  retire(*entry.circuit);
}

Status Router::on_circuit_answer(Circuit& circuit, ByteView payload) {
  Entry& entry = circuits_.at(circuit.id());
  Opening& o = *entry.opening;
  const Device& host = *find(*circuit.hosting().lane());
  TRY_ASSIGN(const auto frame, wire::decode_setup_ok_frame(payload));
  TRY_ASSIGN(auto answer, wire::decode_host_answer(frame.answer));
  if (answer.circuit != circuit.id() || answer.epoch != o.setup.epoch ||
      answer.attempt != o.attempt - 1) {
    return fail(lane::Errc::kProtocol, "an answer to another set-up");
  }
  const auto card = trust::verify_card(answer.card, trust_context());
  if (card && (*card)->id != host.id)
    return fail(lane::Errc::kProtocol, "an answer with another device's card");
  if (!card) {
    // It may have ended while the new one is on its way: this host cannot be shown now, another one
    // may.
    log::warn("router.host_card_refused", {{"device", host.id}, {"why", card.error().text()}});
    circuit.hosting().lane()->reset(circuit.hosting(), wire::ResetCode::kClosed);
    note_circuit(o.terminator, 0, true);
    o.last.code = wire::SetupCode::kInvalid;
    try_next(entry);
    return {};
  }
  auto sealed = trust::make_answer({.network = options_.network,
                                    .terminator = o.terminator,
                                    .instance = o.instance,
                                    .host = std::move(answer),
                                    .egress = options_.id,
                                    .egress_leaf = options_.chain.front().der(),
                                    .egress_issuing = options_.chain.back().der()},
                                   *options_.key);
  if (!sealed || !o.dialer->lane->attach(circuit.dialing(), o.label)) {
    o.last.code = wire::SetupCode::kBusy;
    give_up(entry);
    return {};
  }
  o.dialer->lane->send_setup_ok(circuit.dialing(),
                                wire::encode(wire::SetupOkFrame{.answer = std::move(*sealed)}));
  --o.dialer->half_open;
  entry.terminator = o.terminator;
  note_circuit(entry.terminator, 1, false);
  log::info("router.circuit_open", {{"circuit", circuit.id().hex()},
                                    {"dialer", circuit.dialer().str()},
                                    {"host", circuit.host().str()},
                                    {"service", circuit.service().str()}});
  entry.opening.reset();
  circuit.opened();
  return {};
}

void Router::on_circuit_refused(Circuit& circuit, const wire::SetupErr& err) {
  Entry& entry = circuits_.at(circuit.id());
  note_circuit(entry.opening->terminator, 0, true);
  entry.opening->last.code = err.code;
  entry.opening->last.hop = circuit.host().str();
  entry.opening->last.text = err.text;
  try_next(entry);
}

// One side is over (its attachment is off its lane); end the other.
void Router::on_circuit_over(Circuit& circuit, const wire::Reset& reset) {
  const auto it = circuits_.find(circuit.id());
  // Both sides may end in one turn: the first one retired the circuit, and nothing is left to tell.
  if (it == circuits_.end() || it->second.circuit.get() != &circuit) return;
  Entry& entry = it->second;
  if (entry.opening != nullptr) {
    // The host's lane broke before it answered: another host may do.
    entry.opening->last.code = wire::SetupCode::kNoTerminator;
    try_next(entry);
    return;
  }
  HopSide& other = circuit.dialing().lane() != nullptr ? circuit.dialing() : circuit.hosting();
  if (reset.code == wire::ResetCode::kLaneLost && other.lane() != nullptr) {
    path_down_.push_back(&circuit);
  } else if (other.lane() != nullptr) {
    other.lane()->reset(other, reset.code, reset.text);
  }
  retire(circuit);
}

void Router::end_circuit(Circuit& circuit, wire::ResetCode code, const std::string& text) {
  Entry& entry = circuits_.at(circuit.id());
  if (entry.opening != nullptr) {
    entry.opening->last.code = wire::SetupCode::kNoService;
    give_up(entry);
    return;
  }
  for (HopSide* side : {&circuit.dialing(), &circuit.hosting()}) {
    if (side->lane() != nullptr) side->lane()->reset(*side, code, text);
  }
  retire(circuit);
}

// Out of the table now, freed at the end of the turn: one of its sides is on the stack. Sides that
// stand on a living lane because theirs died are told together, in one PATH_DOWN per lane.
void Router::retire(Circuit& circuit) {
  const auto it = circuits_.find(circuit.id());
  if (it->second.opening != nullptr && it->second.opening->dialer->half_open > 0)
    --it->second.opening->dialer->half_open;
  if (!it->second.terminator.empty()) note_circuit(it->second.terminator, -1, false);
  retired_.push_back(std::move(it->second.circuit));
  // It must not fire for a circuit that is out of the table; it may be what called us.
  if (it->second.opening != nullptr) it->second.opening->timer->cancel();
  loop_.defer([opening = std::shared_ptr<Opening>(std::move(it->second.opening))] {});
  circuits_.erase(it);
  if (std::exchange(cleanup_scheduled_, true)) return;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    cleanup_scheduled_ = false;
    std::map<lane::Lane*, std::vector<lane::Attachment*>> by_lane;
    for (Circuit* c : std::exchange(path_down_, {})) {
      for (HopSide* side : {&c->dialing(), &c->hosting()}) {
        if (side->lane() != nullptr) by_lane[side->lane()].push_back(side);
      }
    }
    for (const auto& [lane, sides] : by_lane) lane->path_down(sides, wire::ResetCode::kLaneLost);
    retired_.clear();
  });
}

void Router::note_circuit(const std::string& terminator, int change, bool failed) {
  LocalTerminator* t = terminators_.find(terminator);
  if (t == nullptr) return;
  if (failed) ++t->failures;
  if (change > 0) t->failures = 0;
  t->circuits = static_cast<std::uint32_t>(std::max(0, static_cast<int>(t->circuits) + change));
}

}  // namespace sally::router
