// SPDX-License-Identifier: Apache-2.0
// A Worker holds what lives against the state and the cards of now, and cuts what may not live any
// more.
#include <utility>

#include "base/log.h"
#include "router/worker.h"

namespace sally::router {

std::uint64_t Worker::take_state(replica::StatePtr state, bool enforce_it, bool routers_changed) {
  state_ = std::move(state);
  const std::uint64_t cut = enforce_it ? enforce() : 0;
  if (routers_changed) {
    for (auto& [lane, device] : lanes_) {
      if (lane->up()) push_routers(*device);
    }
  }
  return cut;
}

void Worker::ask_missing_cards() {
  for (auto& [lane, device] : lanes_) {
    if (lane->up() && (!device->card || device->stale_since_ms != 0)) ask_card(*device);
  }
}

// Returns the circuits cut here; one that another worker cuts as well counts once.
std::uint64_t Worker::enforce() {
  const std::uint64_t cut = enforce_devices() + enforce_circuits();
  const bool unbound = shared_.terminators.remove_if(index_, [this](const Candidate& t) {
    const Device* device = find(*t.lane);
    return device == nullptr || !may_bind(*device, t.service);
  });
  if (unbound) shared_.desk.report_terminators(index_);
  return cut;
}

void Worker::enforce_cards() {
  if (const std::uint64_t cut = enforce(); cut != 0) shared_.desk.flows_cut(index_, cut);
}

std::uint64_t Worker::enforce_devices() {
  std::uint64_t cut = 0;
  for (auto& [lane, device] : lanes_) {
    if (const Status s = alive(lane->peer()); !s) {
      cut += lane->circuits();
      event("router.cut", device->id, lane->peer().serial(), s.error().text());
      device->lane->close(s.error());
      continue;
    }
    if (!lane->up()) continue;
    const wire::IdentityState standing = standing_of(device->id);
    if (device->card && (*device->card)->credential_epoch < standing.credential_epoch) {
      device->card.reset();
      ask_card(*device);
    }
    if (device->card && (*device->card)->attr_epoch < standing.attr_epoch &&
        device->stale_since_ms == 0) {
      device->stale_since_ms = now_ms();
      ask_card(*device);
    }
    push_services(*device);
  }
  return cut;
}

std::uint64_t Worker::enforce_circuits() {
  const auto allowed = [this](const HopSide* side, const std::string& service, bool dial) {
    if (side == nullptr || side->lane() == nullptr) return true;  // not attached, over, or not here
    const Device* device = find(*side->lane());
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
      circuit->hosting()->lane()->reset(*circuit->hosting(), wire::ResetCode::kPolicy);
      refuse_hosted(*circuit, wire::SetupCode::kNoTerminator);
    } else {
      end_attempt(*circuit, wire::ResetCode::kPolicy);
      circuit->opening->last.code = wire::SetupCode::kNoTerminator;
      try_next(*circuit);
    }
  }
  std::uint64_t cut = 0;
  for (Circuit* circuit : denied) {
    if (circuit->crossing() == nullptr || circuit->crossing()->first_cut()) {
      event("router.circuit_cut", circuit->dialer(), circuit->host()->service, "grant withdrawn");
      ++cut;
    }
    end_circuit(*circuit, wire::ResetCode::kPolicy, {});
  }
  return cut;
}

}  // namespace sally::router
