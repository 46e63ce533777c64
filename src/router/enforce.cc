// SPDX-License-Identifier: Apache-2.0
// A Worker holds what lives against the state and the cards of now, and cuts what may not live any
// more.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "router/worker.h"

namespace sally::router {

void Worker::take_state(replica::StatePtr state, const replica::Diff* diff,
                        std::move_only_function<void(std::uint64_t)> done) {
  state_ = std::move(state);
  const std::uint64_t cut = diff != nullptr ? enforce(diff) : 0;
  if (diff != nullptr && !diff->routers.empty()) {
    for (auto& [lane, device] : lanes_) {
      if (lane->up()) push_routers(*device);
    }
  }
  if (!done) return;
  // Lanes are closed at the end of the turn; confirmed is what has happened.
  loop_.defer([alive = alive_, done = std::move(done), cut]() mutable {
    if (*alive) done(cut);
  });
}

void Worker::ask_missing_cards() {
  each_device([this](Device& device) {
    const bool waits = device.foreign != nullptr && device.foreign->card != nullptr;
    if (waits || (device.up() && (!device.card || device.stale_since_ms != 0))) ask_card(device);
  });
}

// Returns the circuits cut here; one that another worker cuts as well counts once. Where the diff
// names identities and certificates only, nobody else is judged.
std::uint64_t Worker::enforce(const replica::Diff* diff) {
  const bool all = diff == nullptr || diff->whole || !diff->services.empty();
  const auto named = [diff](const Device& device) {
    const auto& peer = device.peer();
    if (diff->identities.contains(device.id)) return true;
    if (diff->serials.empty()) return false;
    const auto named_in = [diff](const std::string& s) { return diff->serials.contains(s); };
    return std::ranges::any_of(trust::serials_of(peer.leaf()), named_in) ||
           named_in(peer.issuer().serial_hex());
  };
  std::uint64_t cut = 0;
  bool as_before = !all;
  each_device([&](Device& device) {
    if (all || named(device)) as_before &= enforce_device(device, cut);
  });
  cut += enforce_left();
  // A connection that is closed takes its circuits and terminators along.
  if (as_before) return cut;
  cut += enforce_circuits();
  enforce_terminators();
  return cut;
}

void Worker::enforce_terminators() {
  const bool unbound = shared_.terminators.remove_if(
      index_, [this](const Candidate& t) { return !may_bind(*t.on, t.service); });
  end_lost_bindings();
  if (unbound) shared_.desk.report_terminators(index_);
}

void Worker::enforce_cards() {
  if (const std::uint64_t cut = enforce(nullptr); cut != 0) shared_.desk.flows_cut(index_, cut);
}

bool Worker::enforce_device(Device& device, std::uint64_t& cut) {
  if (const Status s = alive(device.peer()); !s) {
    cut += device.circuits();
    event("router.cut", device.id, device.peer().serial(), s.error().text());
    device.close(s.error());
    return true;
  }
  const wire::IdentityState standing = standing_of(device.id);
  // What its session was opened with is worth nothing any more; a lane has its card for that.
  if (device.foreign != nullptr && device.foreign->credential_epoch < standing.credential_epoch) {
    cut += device.circuits();
    event("router.cut", device.id, device.peer().serial(), "an old credential epoch");
    device.close(Error(Errc::kRevoked, "device " + device.id));
    return true;
  }
  if (!device.up()) return true;
  bool as_before = true;
  if (device.card && (*device.card)->credential_epoch < standing.credential_epoch) {
    device.card.reset();
    ask_card(device);
    as_before = false;
  }
  if (device.card && (*device.card)->attr_epoch < standing.attr_epoch &&
      device.stale_since_ms == 0) {
    device.stale_since_ms = now_ms();
    ask_card(device);
  }
  if (device.lane != nullptr) push_services(device);
  return as_before;
}

// A foreign end that has left, while what it sent is still on its way, has no connection to close
// and no card of its own here: the last one that any worker saw speaks for it.
bool Worker::may_linger(const ForeignSide& side, const std::string& service, bool dial) const {
  const wire::IdentityState standing = standing_of(side.device());
  if (standing.standing != wire::Standing::kActive || state().serial_cut(side.serial()))
    return false;
  const auto* known = state().service(service, now_ms());
  const auto envelope = shared_.cards.find(side.device(), now_ms(), state());
  if (known == nullptr || !envelope) return false;
  const auto card = trust::verify_card(*envelope, trust_context());
  if (!card) return false;
  const auto subject = trust::subject(**card);
  return dial ? policy::may_dial(subject, known->record.dial)
              : policy::may_bind(subject, known->record.bind);
}

std::uint64_t Worker::enforce_left() {
  std::vector<Circuit*> denied;
  for (const auto& c : circuits_) {
    if (!c->open()) continue;
    for (Side* side : {c->dialing(), c->hosting()}) {
      if (side == nullptr || side->foreign() == nullptr || side->attached()) continue;
      if (may_linger(*side->foreign(), c->host()->service, side == c->dialing())) continue;
      denied.push_back(c.get());
      break;
    }
  }
  return cut_circuits(denied, "its end had left");
}

std::uint64_t Worker::enforce_circuits() {
  const auto allowed = [this](Side* side, const std::string& service, bool dial) {
    if (side == nullptr) return true;         // not here
    const Device* device = device_of(*side);  // null: not attached, or over
    return device == nullptr || (dial ? may_dial(*device, service) : may_bind(*device, service));
  };
  std::vector<Circuit*> denied;
  std::vector<Circuit*> without_host;
  for (const auto& c : circuits_) {
    const std::string& service = c->host()->service;
    const bool dialer_ok = c->opening == nullptr ? allowed(c->dialing(), service, true)
                                                 : may_dial(*c->opening->dialer, service);
    if (dialer_ok && allowed(c->hosting(), service, false)) continue;
    // A host that was asked may not any more: another one is tried.
    (dialer_ok && !c->open() ? without_host : denied).push_back(c.get());
  }
  for (Circuit* circuit : without_host) {
    if (circuit->hosting_half()) {
      circuit->hosting()->end(wire::ResetCode::kPolicy, {});
      refuse_hosted(*circuit, wire::SetupCode::kNoTerminator);
    } else {
      end_attempt(*circuit, wire::ResetCode::kPolicy);
      circuit->opening->last.code = wire::SetupCode::kNoTerminator;
      try_next(*circuit);
    }
  }
  return cut_circuits(denied, "grant withdrawn");
}

std::uint64_t Worker::cut_circuits(const std::vector<Circuit*>& denied, const char* why) {
  std::uint64_t cut = 0;
  for (Circuit* circuit : denied) {
    if (circuit->crossing() == nullptr || circuit->crossing()->first_cut()) {
      event("router.circuit_cut", circuit->dialer(), circuit->host()->service, why);
      ++cut;
    }
    end_circuit(*circuit, wire::ResetCode::kPolicy, {});
  }
  return cut;
}

}  // namespace sally::router
