// SPDX-License-Identifier: Apache-2.0
// A Worker opens and ends the circuits that its devices dial (docs/wire-protocol.md).
#include <algorithm>
#include <map>
#include <utility>

#include "base/log.h"
#include "router/worker.h"

namespace sally::router {
namespace {

constexpr std::int64_t kOpenMs = 5'000;
constexpr std::uint32_t kMaxAttempts = 3;

}  // namespace

void Worker::on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) {
  Device& device = *find(lane);
  wire::SetupErr err{
      .circuit = {}, .attempt = 0, .hop = options().id, .code = wire::SetupCode::kNone, .text = {}};
  if (const auto code = begin(device, label, payload, err)) {
    err.code = *code;
    lane.send_setup_err(label, err);
  }
}

// Everything about the dialer is decided here; a code refuses. "No such service" and "not granted"
// differ in the log only.
std::optional<wire::SetupCode> Worker::begin(Device& device, std::uint32_t label, ByteView payload,
                                             wire::SetupErr& err) {
  std::string service;
  const auto refuse = [&](wire::SetupCode code, const std::string& why) {
    log::warn("router.dial_refused", {{"device", device.id},
                                      {"service", service},
                                      {"code", wire::setup_code_name(code)},
                                      {"why", why}});
    counters_.dials_refused[static_cast<std::size_t>(code)].add();
    if (code == wire::SetupCode::kNoService || code == wire::SetupCode::kInvalid)
      event("router.dial_denied", device.id, service, why);
    return std::optional(code);
  };
  // Before anything that costs: a set-up is three signatures to verify.
  if (!device.dials.take(loop_.clock().mono_us()))
    return refuse(wire::SetupCode::kBusy, "too many dials a second");
  if (!state().fresh(now_ms(), options().grace_ms))
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
  const auto refuse_claim = [&](CircuitRegistry::Claim claim) {
    return claim == CircuitRegistry::Claim::kInUse
               ? refuse(wire::SetupCode::kInvalid, "the circuit id is in use")
               : refuse(wire::SetupCode::kBusy, "too many circuits or set-ups");
  };
  if (device.half_open >= options().max_half_open_per_lane)
    return refuse_claim(CircuitRegistry::Claim::kFull);
  if (const auto claim = shared_.circuits.look(setup->circuit);
      claim != CircuitRegistry::Claim::kOk) {
    return refuse_claim(claim);
  }
  const auto dial = trust::verify_dial_from_lane(*setup, options().id, device.id, trust_context());
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
  opening->candidates = shared_.terminators.choose(service, random_);
  if (opening->candidates.empty()) return refuse(wire::SetupCode::kNoTerminator, "nobody hosts it");
  // Now that the id is proven to be this dialer's: another worker may have seen it meanwhile.
  if (const auto claim = shared_.circuits.claim(setup->circuit);
      claim != CircuitRegistry::Claim::kOk) {
    return refuse_claim(claim);
  }
  std::ranges::reverse(opening->candidates);
  opening->setup_bytes = frame->setup;
  opening->setup = std::move(*setup);
  opening->dialer = &device;
  opening->label = label;
  opening->started_us = loop_.clock().mono_us();
  opening->last = err;
  opening->last.code = wire::SetupCode::kNoTerminator;
  const CircuitId id = opening->setup.circuit;
  opening->timer = std::make_unique<loop::Timer>(loop_.timers(), [this, id] {
    const auto it = circuits_.find(id);
    if (it == circuits_.end() || it->second.opening == nullptr) return;
    it->second.opening->host.load->failed();
    it->second.opening->last.code = wire::SetupCode::kTimeout;
    give_up(it->second);
  });
  opening->timer->arm(kOpenMs);
  ++device.half_open;
  Entry entry{
      .circuit = std::make_unique<Circuit>(*this, id, ServiceId(service), DeviceId(device.id)),
      .opening = std::move(opening),
      .load = nullptr};
  try_next(circuits_.emplace(id, std::move(entry)).first->second);
  return std::nullopt;
}

void Worker::try_next(Entry& entry) {
  Opening& o = *entry.opening;
  while (o.attempt < kMaxAttempts && !o.candidates.empty()) {
    o.host = std::move(o.candidates.back());
    o.candidates.pop_back();
    const bool here = o.host.worker == index_;
    if (here && !may_ask(o.host)) continue;
    entry.circuit->set_host(o.host.device);
    const wire::Route route{.network = options().network,
                            .circuit = o.setup.circuit,
                            .epoch = o.setup.epoch,
                            .attempt = o.attempt,
                            .service = o.setup.service,
                            .terminator = o.host.id,
                            .hops = {options().id},
                            .expiry_ms = now_ms() + trust::kMaxRouteLifeMs,
                            .setup_hash = trust::hash_of(o.setup_bytes),
                            .instance = o.host.instance,
                            .ingress_leaf = options().chain.front().der(),
                            .ingress_issuing = options().chain.back().der()};
    auto sealed = trust::make_route(route, *options().key);
    // We are the egress as well: what verify_route and verify_dial would check there was checked
    // above, the replay memory was not.
    const Status fresh = shared_.circuits.remember(route.circuit, route.epoch, route.attempt,
                                                   route.expiry_ms, now_ms());
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
    if (!here) return ask_host_beyond(entry, std::move(*sealed), attempt);
    if (ask_host_here(entry, std::move(*sealed), attempt)) return;
    o.last.code = wire::SetupCode::kBusy;
  }
  give_up(entry);
}

// Its lane is here and up, and its device may still bind.
bool Worker::may_ask(const Candidate& host) const {
  // The entry was copied: by now the lane may be gone, and another one may have bound instead.
  const auto t = shared_.terminators.find(host.service, host.id);
  if (!t || t->worker != index_ || t->lane != host.lane) return false;
  const Device* device = find(*host.lane);
  return device != nullptr && device->lane->up() && may_bind(*device, host.service);
}

bool Worker::ask_host_here(Entry& entry, Bytes route, std::uint32_t attempt) {
  HopSide& side = entry.circuit->hosting();
  lane::Lane& lane = *entry.opening->host.lane;
  if (!lane.attach(side)) return false;
  lane.send_setup(
      side, {.setup = entry.opening->setup_bytes, .route = std::move(route), .attempt = attempt});
  return true;
}

void Worker::ask_host_beyond(Entry& entry, Bytes route, std::uint32_t attempt) {
  const Opening& o = *entry.opening;
  Circuit& circuit = *entry.circuit;
  circuit.set_crossing(
      std::make_shared<Crossing>(circuit.id(), circuit.service(), circuit.dialer(),
                                 *shared_.crossings[index_], *shared_.crossings[o.host.worker]),
      Crossing::End::kDialing);
  circuit.crossing()->send(Crossing::End::kHosting, [&](Crossing::Mail& m) {
    m.order = {.setup = o.setup_bytes,
               .route = std::move(route),
               .attempt = attempt,
               .epoch = o.setup.epoch,
               .terminator = o.host.id};
  });
}

void Worker::end_attempt(Circuit& circuit, wire::ResetCode code) {
  if (circuit.hosting().lane() != nullptr) circuit.hosting().lane()->reset(circuit.hosting(), code);
  circuit.end_beyond(code);
  circuit.set_crossing(nullptr, Crossing::End::kDialing);
}

void Worker::give_up(Entry& entry) {
  Opening& o = *entry.opening;
  log::info("router.dial_failed", {{"device", entry.circuit->dialer().str()},
                                   {"service", entry.circuit->service().str()},
                                   {"code", wire::setup_code_name(o.last.code)}});
  counters_.dials_refused[static_cast<std::size_t>(o.last.code)].add();
  end_attempt(*entry.circuit, wire::ResetCode::kTimeout);
  o.last.attempt = o.attempt;
  o.dialer->lane->send_setup_err(o.label, o.last);
  retire(*entry.circuit);
}

Status Worker::on_circuit_answer(Circuit& circuit, ByteView payload) {
  if (circuit.crossing() != nullptr)
    return on_hosted_answer(hosted_.at(circuit.crossing().get()), payload);
  Entry& entry = circuits_.at(circuit.id());
  Opening& o = *entry.opening;
  TRY_ASSIGN(auto sealed, seal_answer(circuit, payload, o.setup.epoch, o.attempt - 1, o.host));
  if (sealed.code == wire::SetupCode::kNone) {
    open(entry, sealed.answer);
    return {};
  }
  o.last.code = sealed.code;
  end_attempt(circuit, wire::ResetCode::kClosed);
  try_next(entry);
  return {};
}

void Worker::open(Entry& entry, ByteView sealed_answer) {
  Opening& o = *entry.opening;
  Circuit& circuit = *entry.circuit;
  if (!o.dialer->lane->attach(circuit.dialing(), o.label)) {
    o.last.code = wire::SetupCode::kBusy;
    return give_up(entry);
  }
  o.dialer->lane->send_setup_ok(circuit.dialing(), sealed_answer);
  --o.dialer->half_open;
  entry.load = o.host.load;
  entry.load->opened();
  counters_.circuits_opened.add();
  if (circuit.crossing() != nullptr) counters_.circuits_crossing.add();
  counters_.dial.observe_us(loop_.clock().mono_us() - o.started_us);
  circuit.set_usage(usage_.opened(circuit.dialer().str(), circuit.service().str(), loop_.now_ms()));
  log::info("router.circuit_open", {{"circuit", circuit.id().hex()},
                                    {"dialer", circuit.dialer().str()},
                                    {"host", circuit.host().str()},
                                    {"service", circuit.service().str()}});
  o.timer->cancel();
  entry.opening.reset();
  circuit.opened();
}

void Worker::on_circuit_refused(Circuit& circuit, const wire::SetupErr& err) {
  if (circuit.crossing() != nullptr)
    return on_hosted_refused(hosted_.at(circuit.crossing().get()), err);
  Entry& entry = circuits_.at(circuit.id());
  entry.opening->host.load->failed();
  entry.opening->last.code = err.code;
  entry.opening->last.hop = circuit.host().str();
  entry.opening->last.text = err.text;
  try_next(entry);
}

// One side is over (its attachment is off its lane); end the other.
void Worker::on_circuit_over(Circuit& circuit, const wire::Reset& reset) {
  if (circuit.crossing() != nullptr && circuit.end() == Crossing::End::kHosting) {
    const auto half = hosted_.find(circuit.crossing().get());
    if (half != hosted_.end()) on_hosted_over(half->second, reset);
    return;
  }
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
  end_side(circuit, circuit.dialing().lane() != nullptr ? circuit.dialing() : circuit.hosting(),
           reset);
  circuit.end_beyond(reset.code, reset.text);
  retire(circuit);
}

// What stands on a living lane because another one is lost is told in one batch per lane: see bury.
void Worker::end_side(Circuit& circuit, HopSide& side, const wire::Reset& reset) {
  if (side.lane() == nullptr) return;
  if (reset.code == wire::ResetCode::kLaneLost) {
    path_down_.push_back(&circuit);
  } else {
    side.lane()->reset(side, reset.code, reset.text);
  }
}

void Worker::end_circuit(Circuit& circuit, wire::ResetCode code, const std::string& text) {
  Entry& entry = circuits_.at(circuit.id());
  if (entry.opening != nullptr) {
    entry.opening->last.code = wire::SetupCode::kNoService;
    give_up(entry);
    return;
  }
  for (HopSide* side : {&circuit.dialing(), &circuit.hosting()}) {
    if (side->lane() != nullptr) side->lane()->reset(*side, code, text);
  }
  circuit.end_beyond(code, text);
  retire(circuit);
}

// Out of the table now, freed at the end of the turn: one of its sides is on the stack.
void Worker::retire(Circuit& circuit) {
  const auto it = circuits_.find(circuit.id());
  if (it->second.opening != nullptr && it->second.opening->dialer->half_open > 0)
    --it->second.opening->dialer->half_open;
  if (it->second.load != nullptr) it->second.load->closed();
  if (circuit.usage() != nullptr) UsageTable::closed(*circuit.usage(), loop_.now_ms());
  circuit.set_usage(nullptr);
  circuit.end_beyond(wire::ResetCode::kClosed);  // unless it knows already
  shared_.circuits.release(circuit.id());
  bury(std::move(it->second.circuit));
  // It must not fire for a circuit that is out of the table; it may be what called us.
  if (it->second.opening != nullptr) it->second.opening->timer->cancel();
  loop_.defer([opening = std::shared_ptr<Opening>(std::move(it->second.opening))] {});
  circuits_.erase(it);
}

// Freed at the end of the turn, after those that wait were told in one PATH_DOWN per lane.
void Worker::bury(std::unique_ptr<Circuit> circuit) {
  retired_.push_back(std::move(circuit));
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

}  // namespace sally::router
