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
    note_refused(device, service, code, why);
    return std::optional(code);
  };
  // Before anything that costs: a set-up is three signatures to verify.
  Account& account = device.share.account();
  if (!account.may_dial_now(loop_.clock().mono_us()))
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
  auto opening = std::make_unique<Opening>();
  Share circuit_share;
  if (!may_open(device, *opening, circuit_share))
    return refuse(wire::SetupCode::kBusy, "too many circuits or set-ups");
  const auto refuse_claim = [&](CircuitRegistry::Claim claim) {
    return claim == CircuitRegistry::Claim::kInUse
               ? refuse(wire::SetupCode::kInvalid, "the circuit id is in use")
               : refuse(wire::SetupCode::kBusy, "too many circuits");
  };
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
  if (!may_dial_now(service))
    return refuse(wire::SetupCode::kBusy, "too many dials a second of this service");

  opening->candidates = shared_.terminators.choose(service, random_);
  // Foreign ends are reached by foreign ends only, so far.
  std::erase_if(opening->candidates, [](const CandidatePtr& c) { return c->foreign.has_value(); });
  if (opening->candidates.empty()) return refuse(wire::SetupCode::kNoTerminator, "nobody hosts it");
  // Now that the id is proven to be this dialer's: another worker may have seen it meanwhile.
  if (const auto claim = shared_.circuits.claim(setup->circuit);
      claim != CircuitRegistry::Claim::kOk) {
    return refuse_claim(claim);
  }
  opening->setup_bytes = frame->setup;
  opening->setup = std::move(*setup);
  opening->dialer = &device;
  opening->label = label;
  opening->last = err;
  opening->last.code = wire::SetupCode::kNoTerminator;
  auto circuit = std::make_unique<Circuit>(*this, opening->setup.circuit, std::move(circuit_share));
  start(std::move(circuit), std::move(opening));
  return std::nullopt;
}

void Worker::note_refused(const Device& device, const std::string& service, wire::SetupCode code,
                          const std::string& why) {
  log::warn("router.dial_refused", {{"device", device.id},
                                    {"service", service},
                                    {"code", wire::setup_code_name(code)},
                                    {"why", why}});
  counters_.dials_refused[static_cast<std::size_t>(code)].add();
  if (code == wire::SetupCode::kNoService || code == wire::SetupCode::kInvalid)
    event("router.dial_denied", device.id, service, why);
}

bool Worker::may_open(const Device& device, Opening& opening, Share& circuit) const {
  opening.share = device.share.more(Use::kOpening);
  circuit = device.share.more(Use::kCircuit);
  return opening.share && circuit && shared_.openings < options().max_openings;
}

// Of those who may dial it only: nobody else can use up its rate.
bool Worker::may_dial_now(const std::string& service) const {
  return shared_.services.open(service, Use::kNothing)
      .account()
      .may_dial_now(loop_.clock().mono_us());
}

// The best candidate is the last: those are taken from behind.
void Worker::start(std::unique_ptr<Circuit> circuit, std::unique_ptr<Opening> opening) {
  std::ranges::reverse(opening->candidates);
  opening->started_us = loop_.clock().mono_us();
  opening->timer = std::make_unique<loop::Timer>(loop_.timers(), [this, c = circuit.get()] {
    // Cancelled when it opens or retires.
    c->host()->load->failed();
    c->opening->last.code = wire::SetupCode::kTimeout;
    give_up(*c);
  });
  opening->timer->arm(kOpenMs);
  circuit->opening = std::move(opening);
  shared_.openings.fetch_add(1, std::memory_order_relaxed);
  Circuit& listed = *circuit;
  list(std::move(circuit));
  try_next(listed);
}

void Worker::list(std::unique_ptr<Circuit> circuit) {
  circuit->place = circuits_.size();
  circuits_.push_back(std::move(circuit));
}

void Worker::try_next(Circuit& circuit) {
  Opening& o = *circuit.opening;
  while (o.attempt < kMaxAttempts && !o.candidates.empty()) {
    circuit.set_host(std::move(o.candidates.back()));
    o.candidates.pop_back();
    const Candidate& host = *circuit.host();
    const bool here = host.worker == index_;
    Device* device = here ? may_ask(host) : nullptr;
    if (here && device == nullptr) continue;
    if (o.call != nullptr) {
      const std::uint32_t attempt = o.attempt++;
      if (!here) return ask_host_beyond(circuit, {}, attempt);
      if (ask_foreign_host(circuit, *device, call_of(circuit), attempt)) return;
      o.last.code = wire::SetupCode::kBusy;
      continue;
    }
    const wire::Route route{.network = options().network,
                            .circuit = o.setup.circuit,
                            .epoch = o.setup.epoch,
                            .attempt = o.attempt,
                            .service = o.setup.service,
                            .terminator = host.id,
                            .hops = {options().id},
                            .expiry_ms = now_ms() + trust::kMaxRouteLifeMs,
                            .setup_hash = trust::hash_of(o.setup_bytes),
                            .instance = host.instance,
                            .ingress_leaf = credential_.chain.front().der(),
                            .ingress_issuing = credential_.chain.back().der()};
    auto sealed = trust::make_route(route, *credential_.key);
    // We are the egress as well: what verify_route and verify_dial would check there was checked
    // above, the replay memory was not. It forgets by time that nobody sets.
    const Status fresh =
        shared_.circuits.remember(route.circuit, route.epoch, route.attempt,
                                  loop_.now_ms() + trust::kMaxRouteLifeMs, loop_.now_ms());
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
    if (!here) return ask_host_beyond(circuit, std::move(*sealed), attempt);
    if (ask_host_here(circuit, std::move(*sealed), attempt)) return;
    o.last.code = wire::SetupCode::kBusy;
  }
  give_up(circuit);
}

Device* Worker::may_ask(const Candidate& host) const {
  // By now the lane may be gone, and another one may have bound instead.
  const auto t = shared_.terminators.find(host.service, host.id);
  if (t == nullptr || t->worker != index_ || t->on != host.on) return nullptr;
  return t->on->up() && may_bind(*t->on, host.service) ? t->on : nullptr;
}

bool Worker::ask_host_here(Circuit& circuit, Bytes route, std::uint32_t attempt) {
  const Opening& o = *circuit.opening;
  return send_order(circuit, *circuit.host()->on,
                    {.setup = o.setup_bytes, .route = std::move(route), .attempt = attempt},
                    o.setup.epoch);
}

void Worker::ask_host_beyond(Circuit& circuit, Bytes route, std::uint32_t attempt) {
  const Opening& o = *circuit.opening;
  circuit.set_crossing(
      std::make_shared<Crossing>(*shared_.crossings[index_],
                                 *shared_.crossings[circuit.host()->worker], shared_.budget),
      Crossing::End::kDialing);
  circuit.crossing()->send(Crossing::End::kHosting, [&](Crossing::Mail& m) {
    m.order = {
        .circuit = circuit.id(),
        .dialer = o.dialer->share.more(Use::kNothing),
        .service = circuit.host()->service,
        .setup = o.setup_bytes,
        .route = std::move(route),
        .attempt = attempt,
        .epoch = o.setup.epoch,
        .terminator = circuit.host()->id,
        .call = o.call == nullptr ? nullptr : std::make_unique<edge::Call>(call_of(circuit))};
  });
}

void Worker::end_attempt(Circuit& circuit, wire::ResetCode code) {
  if (Side* side = circuit.hosting(); side != nullptr) side->end(code, {});
  circuit.asked.reset();
  circuit.end_beyond(code);
  circuit.set_crossing(nullptr, Crossing::End::kDialing);
}

void Worker::give_up(Circuit& circuit) {
  Opening& o = *circuit.opening;
  log::info("router.dial_failed", {{"device", circuit.dialer()},
                                   {"service", o.setup.service},
                                   {"code", wire::setup_code_name(o.last.code)}});
  counters_.dials_refused[static_cast<std::size_t>(o.last.code)].add();
  end_attempt(circuit, wire::ResetCode::kTimeout);
  o.last.attempt = o.attempt;
  if (o.call != nullptr) {
    refuse_foreign_dial(circuit);
  } else {
    o.dialer->lane->send_setup_err(o.label, o.last);
  }
  retire(circuit);
}

Status Worker::on_circuit_answer(Circuit& circuit, ByteView payload) {
  if (circuit.hosting_half()) return on_hosted_answer(circuit, payload);
  TRY_ASSIGN(auto sealed, seal_answer(circuit, payload));
  if (sealed.code == wire::SetupCode::kNone) {
    open(circuit, sealed.answer);
    return {};
  }
  circuit.opening->last.code = sealed.code;
  end_attempt(circuit, wire::ResetCode::kClosed);
  try_next(circuit);
  return {};
}

void Worker::open(Circuit& circuit, ByteView answer) {
  Opening& o = *circuit.opening;
  if (o.call != nullptr) {
    open_foreign(circuit, answer);
  } else {
    lane::Lane& lane = *o.dialer->lane;
    HopSide& side = circuit.make_dialing();
    if (!lane.attach(side, o.label)) {
      o.last.code = wire::SetupCode::kBusy;
      return give_up(circuit);
    }
    lane.send_setup_ok(side, answer);
  }
  circuit.host()->load->opened();
  counters_.circuits_opened.add();
  if (circuit.crossing() != nullptr) counters_.circuits_crossing.add();
  counters_.dial.observe_us(loop_.clock().mono_us() - o.started_us);
  circuit.set_usage(usage_.opened(circuit.dialer(), circuit.host()->service, loop_.now_ms()));
  log::info("router.circuit_open", {{"circuit", circuit.id().hex()},
                                    {"dialer", circuit.dialer()},
                                    {"host", circuit.host()->device.str()},
                                    {"service", circuit.host()->service}});
  o.timer->cancel();
  circuit.opening.reset();
  circuit.asked.reset();
  shared_.openings.fetch_sub(1, std::memory_order_relaxed);
  circuit.opened();
}

void Worker::on_circuit_refused(Circuit& circuit, const wire::SetupErr& err) {
  if (circuit.hosting_half()) return on_hosted_refused(circuit, err);
  circuit.asked.reset();
  circuit.host()->load->failed();
  wire::SetupErr& last = circuit.opening->last;
  last.code = err.code;
  last.hop = circuit.host()->device.str();
  last.text = err.text;
  try_next(circuit);
}

// One side is over (its attachment is off its lane); end the other.
void Worker::on_circuit_over(Circuit& circuit, const wire::Reset& reset) {
  // Both sides may end in one turn: the first one retired the circuit, and nothing is left to tell.
  if (circuit.place == Circuit::kNowhere) return;
  if (circuit.hosting_half()) return on_hosted_over(circuit, reset);
  if (circuit.opening != nullptr) {
    // The host's lane broke before it answered: another host may do.
    circuit.asked.reset();
    circuit.opening->last.code = wire::SetupCode::kNoTerminator;
    try_next(circuit);
    return;
  }
  end_sides(circuit, reset);
  circuit.end_beyond(reset.code, reset.text);
  retire(circuit);
}

// What stands on a living lane because another one is lost is told in one batch per lane: see
// retire.
void Worker::end_sides(Circuit& circuit, const wire::Reset& reset) {
  if (reset.code == wire::ResetCode::kLaneLost) {
    path_down_.push_back(&circuit);
    for (Side* side : {circuit.dialing(), circuit.hosting()}) {
      if (side != nullptr && side->on_lane() == nullptr) side->end(reset.code, reset.text);
    }
    return;
  }
  for (Side* side : {circuit.dialing(), circuit.hosting()}) {
    if (side != nullptr) side->end(reset.code, reset.text);
  }
}

void Worker::end_circuit(Circuit& circuit, wire::ResetCode code, const std::string& text) {
  if (circuit.opening != nullptr) {
    circuit.opening->last.code = wire::SetupCode::kNoService;
    give_up(circuit);
    return;
  }
  end_sides(circuit, {.code = code, .text = text});
  circuit.end_beyond(code, text);
  retire(circuit);
}

// Out of the table now, freed at the end of the turn: one of its sides, or its timer, is on the
// stack. Those that wait are told in one PATH_DOWN per lane before.
void Worker::retire(Circuit& circuit) {
  circuit.end_beyond(wire::ResetCode::kClosed);  // unless it knows already
  circuit.leave_crossing();
  if (circuit.hosting_half()) {
    shared_.hosted.fetch_sub(1, std::memory_order_relaxed);
  } else {
    shared_.circuits.release(circuit.id());
    if (circuit.open()) circuit.host()->load->closed();
    if (circuit.usage() != nullptr) UsageTable::closed(*circuit.usage(), loop_.now_ms());
    circuit.set_usage(nullptr);
  }
  if (circuit.opening != nullptr) {
    circuit.opening->timer->cancel();
    circuit.opening->share = {};
    shared_.openings.fetch_sub(1, std::memory_order_relaxed);
  }
  circuit.asked.reset();
  auto& place = circuits_[circuit.place];
  retired_.push_back(std::move(place));
  if (&place != &circuits_.back()) {
    place = std::move(circuits_.back());
    place->place = circuit.place;
  }
  circuits_.pop_back();
  circuit.place = Circuit::kNowhere;
  if (std::exchange(cleanup_scheduled_, true)) return;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    cleanup_scheduled_ = false;
    std::map<lane::Lane*, std::vector<lane::Attachment*>> by_lane;
    for (Circuit* c : std::exchange(path_down_, {})) {
      for (Side* side : {c->dialing(), c->hosting()}) {
        HopSide* hop = side == nullptr ? nullptr : side->on_lane();
        if (hop != nullptr && hop->lane() != nullptr) by_lane[hop->lane()].push_back(hop);
      }
    }
    for (const auto& [lane, sides] : by_lane) lane->path_down(sides, wire::ResetCode::kLaneLost);
    retired_.clear();
  });
}

}  // namespace sally::router
