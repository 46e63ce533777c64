// SPDX-License-Identifier: Apache-2.0
// The Router's half that follows the controller: replicated state on its way to the workers,
// events, the report of terminators.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "router/router.h"

namespace sally::router {
namespace {

constexpr std::size_t kMaxEvents = 4'096;
constexpr std::size_t kEventsPerMessage = 64;
constexpr std::int64_t kEventDelayMs = 100;
constexpr std::int64_t kReportDelayMs = 20;
constexpr std::size_t kReportPerMs = 2;
constexpr std::uint64_t kRenewalPauseMs = 30'000;

}  // namespace

// What all workers have enforced, not what we hold: the controller counts on it.
wire::Hello Router::control_hello() {
  wire::Hello hello;
  hello.network = options_.network;
  hello.epoch = shared_.process_epoch;
  hello.software = "sally-router/" SALLY_VERSION;
  hello.state_version = enforced_->version();
  hello.state_hash = enforced_->hash();
  hello.features = wire::kFeatureUsage | wire::kFeatureRenewNow;
  return hello;
}

void Router::on_control_up(const wire::Hello& peer) {
  reports_usage_ = (peer.features & wire::kFeatureUsage) != 0;
  carries_renewals_ = (peer.features & wire::kFeatureRenewal) != 0;
  renewer_.on_up();
  report_terminators(0);
  flush_events();
  report_usage();
  for (unsigned i = 0; i < seats_.size(); ++i)
    on_worker(i, [w = seats_[i].worker.get()] { w->ask_missing_cards(); });
}

void Router::on_control_message(wire::Control&& message) {
  if (const auto* update = std::get_if<wire::StateUpdate>(&message.member))
    return on_state(*update);
  if (auto* reply = std::get_if<wire::CardReply>(&message.member))
    return on_card_reply(std::move(*reply));
  if (auto* renewed = std::get_if<wire::Renewed>(&message.member))
    return on_renewed(std::move(*renewed));
  if (auto* wish = std::get_if<wire::RenewNow>(&message.member))
    return on_renew_now(std::move(*wish));
  if (const auto* ack = std::get_if<wire::UsageAck>(&message.member)) return on_usage_ack(*ack);
  log::warn("router.unexpected_control_message", {});
}

void Router::on_card_reply(wire::CardReply&& reply) {
  if (!reply.error.empty()) {
    log::warn("router.no_card", {{"device", reply.id}, {"code", reply.error}});
    return;
  }
  const auto shared = std::make_shared<const wire::CardReply>(std::move(reply));
  for (unsigned i = 0; i < seats_.size(); ++i)
    on_worker(i, [w = seats_[i].worker.get(), shared] { w->on_card_reply(*shared); });
}

void Router::on_state(const wire::StateUpdate& update) {
  const auto before = state().version();
  auto diff = replica_.apply(update, now_ms());
  if (!diff) {
    // Nothing was taken over. A new connection tells the controller what we hold, so that it sends
    // what is missing.
    log::error("router.state_refused", {{"version", before}, {"why", diff.error().text()}});
    own_event("router.state_refused", std::to_string(before), diff.error().text());
    if (diff.error().is(replica::Errc::kDiverged)) {
      replica_.reset();
      hand_out(nullptr);
    }
    control_->reconnect();
    return;
  }
  control_->settled();
  if (options_.time != nullptr) options_.time->raise(state().head_time_ms());
  if (diff->older_head)
    log::warn("router.controller_clock_back", {{"newest", format_time(state().head_time_ms())}});
  if (diff->unverified_services != 0)
    log::warn("router.services_unverified", {{"count", diff->unverified_services}});
  if (!diff->empty()) {
    log::info("router.state",
              {{"version", state().version()}, {"services", state().services().size()}});
  }
  hand_out(diff->empty() ? nullptr : std::make_shared<const replica::Diff>(std::move(*diff)));
}

void Router::hand_out(std::shared_ptr<const replica::Diff> diff) {
  const auto round =
      std::make_shared<Round>(Round{.state = replica_.state(), .waiting = seats_.size()});
  for (unsigned i = 0; i < seats_.size(); ++i) {
    on_worker(i, [this, i, round, diff] {
      seats_[i].worker->take_state(round->state, diff.get(), [this, i, round](std::uint64_t cut) {
        at_desk(i, [this, round, cut] { taken(*round, cut); });
      });
    });
  }
}

// A worker has enforced the round's state. The last one makes it true for the router: only then the
// controller hears of it. Rounds end in their order, since each worker answers in order.
void Router::taken(Round& round, std::uint64_t cut) {
  round.cut += cut;
  if (--round.waiting != 0) return;
  flows_cut_ += round.cut;
  enforced_ = round.state;
  if (enforced_->version() == 0) return;  // reset: nothing to confirm or to keep
  control_->send({wire::StateAck{.version = enforced_->version(), .flows_cut = flows_cut_}});
  // First enforced, then kept: a crash in between asks the controller again.
  if (enforced_ != replica_.state() || !replica_.save_due(now_ms())) return;
  if (const Status s = replica_.save(options_.state_path, now_ms()); !s) {
    log::error("router.state_not_saved",
               {{"path", options_.state_path}, {"why", s.error().text()}});
  }
}

void Router::ask_card(unsigned worker, std::string id) {
  at_desk(worker, [this, id = std::move(id)] {
    control_->send({wire::CardRequest{.request = next_request_++, .id = id}});
  });
}

void Router::renew(unsigned worker, wire::Renew request) {
  at_desk(worker, [this, request = std::move(request)] {
    if (control_->up() && carries_renewals_) return control_->send({request});
    on_renewed({.request = request.request,
                .id = request.id,
                .leaf = {},
                .issuing = {},
                .error = "router.no_controller",
                .retry_after_ms = kRenewalPauseMs});
  });
}

void Router::on_renewed(wire::Renewed&& reply) {
  if (reply.id == options_.id) return renewer_.on_renewed(reply);
  const auto shared = std::make_shared<const wire::Renewed>(std::move(reply));
  for (unsigned i = 0; i < seats_.size(); ++i)
    on_worker(i, [w = seats_[i].worker.get(), shared] { w->on_renewed(*shared); });
}

void Router::on_renew_now(wire::RenewNow&& wish) {
  if (wish.id == options_.id) return renewer_.renew_within(wish.within_ms);
  const auto shared = std::make_shared<const wire::RenewNow>(std::move(wish));
  for (unsigned i = 0; i < seats_.size(); ++i)
    on_worker(i, [w = seats_[i].worker.get(), shared] { w->on_renew_now(*shared); });
}

void Router::flows_cut(unsigned worker, std::uint64_t count) {
  at_desk(worker, [this, count] {
    flows_cut_ += count;
    if (enforced_->version() == 0) return;
    control_->send({wire::StateAck{.version = enforced_->version(), .flows_cut = flows_cut_}});
  });
}

void Router::report_terminators(unsigned worker) {
  if (report_asked_.exchange(true)) return;  // one call waits, however many bind
  at_desk(worker, [this] {
    report_asked_ = false;
    // A long list goes less often, however fast its hosts bind and unbind.
    const auto more = static_cast<std::int64_t>(shared_.terminators.size() / kReportPerMs);
    if (!report_timer_.armed()) report_timer_.arm(kReportDelayMs + more);
  });
}

void Router::own_event(std::string code, std::string subject, std::string text) {
  event(0, {.time_ms = now_ms(),
            .code = std::move(code),
            .actor = options_.id,
            .subject = std::move(subject),
            .text = std::move(text)});
}

void Router::event(unsigned worker, wire::Event event) {
  {
    const std::lock_guard lock(events_mutex_);
    if (events_.size() >= kMaxEvents) {
      ++events_lost_;
      return;
    }
    events_.push_back(std::move(event));
    if (events_.size() > 1) return;  // whoever added the first one has told
  }
  at_desk(worker, [this] {
    if (!events_timer_.armed()) events_timer_.arm(kEventDelayMs);
  });
}

void Router::flush_events() {
  if (!control_->up()) return;  // they wait; on_control_up flushes
  std::vector<wire::Event> waiting;
  std::uint64_t lost = 0;
  {
    const std::lock_guard lock(events_mutex_);
    waiting = std::exchange(events_, {});
    lost = std::exchange(events_lost_, 0);
  }
  if (lost != 0) log::warn("router.events_lost", {{"count", lost}});
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
