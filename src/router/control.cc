// SPDX-License-Identifier: Apache-2.0
// The Router's half that follows the controller: replicated state and what it cuts, events, the
// report of terminators.
#include <utility>

#include "base/log.h"
#include "router/router.h"

namespace sally::router {
namespace {

constexpr std::size_t kMaxEvents = 4'096;
constexpr std::size_t kEventsPerMessage = 64;
constexpr std::int64_t kEventDelayMs = 100;
constexpr std::int64_t kReportDelayMs = 20;

}  // namespace

wire::Hello Router::control_hello() {
  wire::Hello hello;
  hello.network = options_.network;
  hello.epoch = process_epoch_;
  hello.software = "sally-router/" SALLY_VERSION;
  hello.state_version = state().version();
  hello.state_hash = state().hash();
  return hello;
}

void Router::on_control_up() {
  report_terminators();
  flush_events();
  for (auto& [lane, device] : lanes_) {
    if (lane->up() && (!device->card || device->stale_since_ms != 0)) ask_card(*device);
  }
}

void Router::on_control_message(wire::Control&& message) {
  if (const auto* update = std::get_if<wire::StateUpdate>(&message.member))
    return on_state(*update);
  if (const auto* reply = std::get_if<wire::CardReply>(&message.member))
    return on_card_reply(*reply);
  log::warn("router.unexpected_control_message", {});
}

void Router::on_state(const wire::StateUpdate& update) {
  const auto before = state().version();
  const auto diff = replica_.apply(update, now_ms());
  if (!diff) {
    // Nothing was taken over. A new connection tells the controller what we hold, so that it sends
    // what is missing.
    log::error("router.state_refused", {{"version", before}, {"why", diff.error().text()}});
    event("router.state_refused", options_.id, std::to_string(before), diff.error().text());
    if (diff.error().is(replica::Errc::kDiverged)) replica_.reset();
    control_->reconnect();
    return;
  }
  control_->settled();
  if (diff->unverified_services != 0)
    log::warn("router.services_unverified", {{"count", diff->unverified_services}});
  if (!diff->empty()) {
    flows_cut_ += enforce();
    if (!diff->routers.empty()) {
      for (auto& [lane, device] : lanes_) {
        if (lane->up()) push_routers(*device);
      }
    }
    log::info("router.state",
              {{"version", state().version()}, {"services", state().services().size()}});
  }
  control_->send({wire::StateAck{.version = state().version(), .flows_cut = flows_cut_}});
  // First enforced, then kept: a crash in between asks the controller again.
  if (!replica_.save_due(now_ms())) return;
  if (const Status s = replica_.save(options_.state_path, now_ms()); !s) {
    log::error("router.state_not_saved",
               {{"path", options_.state_path}, {"why", s.error().text()}});
  }
}

// Holds everything that lives against the state and the cards of now; cuts what may not live any
// more. Returns the circuits cut.
std::uint64_t Router::enforce() {
  std::uint64_t cut = 0;
  for (auto& [lane, device] : lanes_) {
    if (const Status s = admit(lane->peer()); !s && s.error().is(Errc::kRevoked)) {
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
  const auto allowed = [this](const lane::Attachment& side, const std::string& service, bool dial) {
    if (side.lane() == nullptr) return true;  // not attached yet, or over already
    const Device* device = find(*side.lane());
    return device == nullptr || (dial ? may_dial(*device, service) : may_bind(*device, service));
  };
  std::vector<Circuit*> denied;
  std::vector<Circuit*> without_host;
  for (auto& [id, entry] : circuits_) {
    Circuit& c = *entry.circuit;
    const std::string& service = c.service().str();
    const bool dialer_ok = entry.opening == nullptr ? allowed(c.dialing(), service, true)
                                                    : may_dial(*entry.opening->dialer, service);
    if (dialer_ok && allowed(c.hosting(), service, false)) continue;
    (dialer_ok && entry.opening != nullptr ? without_host : denied).push_back(&c);
  }
  for (Circuit* circuit : without_host) {
    // The dialer may, the host that was asked may not any more: another one is tried.
    Entry& entry = circuits_.at(circuit->id());
    circuit->hosting().lane()->reset(circuit->hosting(), wire::ResetCode::kPolicy);
    entry.opening->last.code = wire::SetupCode::kNoTerminator;
    try_next(entry);
  }
  for (Circuit* circuit : denied) {
    event("router.circuit_cut", circuit->dialer().str(), circuit->service().str(),
          "grant withdrawn");
    end_circuit(*circuit, wire::ResetCode::kPolicy, {});
    ++cut;
  }
  const bool unbound = terminators_.remove_if([this](const LocalTerminator& t) {
    const Device* device = find(*t.lane);
    return device == nullptr || !may_bind(*device, t.record.service);
  });
  if (unbound) report_terminators();
  return cut;
}

void Router::report_terminators() {
  if (!report_timer_.armed()) report_timer_.arm(kReportDelayMs);
}

void Router::event(std::string code, std::string actor, std::string subject, std::string text) {
  if (events_.size() >= kMaxEvents) {
    ++events_lost_;
    return;
  }
  events_.push_back({.time_ms = now_ms(),
                     .code = std::move(code),
                     .actor = std::move(actor),
                     .subject = std::move(subject),
                     .text = std::move(text)});
  if (!events_timer_.armed()) events_timer_.arm(kEventDelayMs);
}

void Router::flush_events() {
  if (!control_->up()) return;  // they wait; on_control_up flushes
  if (events_lost_ != 0) {
    log::warn("router.events_lost", {{"count", events_lost_}});
    events_lost_ = 0;
  }
  auto waiting = std::exchange(events_, {});
  for (std::size_t at = 0; at < waiting.size(); at += kEventsPerMessage) {
    const auto end = std::min(waiting.size(), at + kEventsPerMessage);
    wire::Events batch;
    batch.entries.assign(
        std::make_move_iterator(waiting.begin() + static_cast<std::ptrdiff_t>(at)),
        std::make_move_iterator(waiting.begin() + static_cast<std::ptrdiff_t>(end)));
    control_->send({std::move(batch)});
  }
}

}  // namespace sally::router
