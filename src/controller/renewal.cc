// SPDX-License-Identifier: Apache-2.0
// Renewals that routers carry here.
#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "controller/network.h"

namespace sally::controller {
namespace {

constexpr std::uint64_t kPauseMs = 30'000;  // of who is told to come again
constexpr std::size_t kMaxBatch = 128;      // of one transaction
constexpr std::size_t kMaxWaiting = 20'000;
constexpr std::int64_t kDayMs = 86'400'000;
constexpr std::uint64_t kMaxEnds = 100'000;
constexpr std::uint64_t kPruneStep = 500;  // rows of one transaction

}  // namespace

// Many in one transaction: they share its sync. The more come, the more share one.
std::vector<wire::Renewed> Network::answer_renewals(const std::vector<Renewing>& batch) {
  std::vector<pki::RenewalDoor::Request> requests;
  for (const auto& r : batch) requests.push_back({r.renew.envelope, {r.renew.id, r.renew.serial}});
  const auto run = [&]() -> Result<std::vector<Result<pki::RenewalDoor::Outcome>>> {
    TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
    auto all = renewals_->take_all(*tx, requests, clock_.unix_ms(), random_);
    if (std::ranges::any_of(all, [](const auto& r) { return r && r->changed; })) TRY(tx->commit());
    return all;
  };
  auto all = run();
  std::vector<wire::Renewed> replies;
  bool superseded = false;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    superseded |= all && (*all)[i] && (*all)[i]->superseded > 0;
    replies.push_back(answer(batch[i], all ? std::move((*all)[i])
                                           : Result<pki::RenewalDoor::Outcome>(fail(all.error()))));
  }
  if (superseded) changed();
  return replies;
}

wire::Renewed Network::answer(const Renewing& of, Result<pki::RenewalDoor::Outcome> done) {
  const wire::Renew& renew = of.renew;
  wire::Renewed reply{.request = renew.request,
                      .id = renew.id,
                      .leaf = {},
                      .issuing = {},
                      .error = {},
                      .retry_after_ms = 0};
  if (!done) {
    const Error& e = done.error();
    log::warn("controller.renewal_refused",
              {{"router", of.router}, {"id", renew.id}, {"code", e.code()}, {"why", e.context()}});
    // What is our own fault, or of the moment, is tried again.
    const bool internal = e.source() != Source::kPeer;
    reply.error = internal ? std::string(error_name(Errc::kBusy)) : std::string(e.code());
    if (internal || e.retry()) reply.retry_after_ms = kPauseMs;
    if (!internal) audit_refusal(renew, e);
  } else if (done->issued) {
    reply.leaf = done->issued->leaf.der();
    reply.issuing = done->issued->issuing.der();
    log::info(
        "controller.renewed",
        {{"id", renew.id}, {"router", of.router}, {"serial", done->issued->leaf.serial_hex()}});
  }
  return reply;
}

void Network::audit_refusal(const wire::Renew& renew, const Error& why) {
  {
    const std::scoped_lock lock(mutex_);
    if (!denials_.take(clock_.mono_us())) return;
  }
  const auto write = [&]() -> Status {
    TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
    TRY(renewals_->audit_refusal(*tx, renew.envelope, pki::Door::kLane, why));
    return tx->commit();
  };
  if (const Status s = write(); !s)
    log::error("controller.renewal_refusal_not_audited", {{"why", s.error().text()}});
}

void Network::on_renew(Peer& peer, wire::Renew renew) {
  if (renew.id.empty()) {  // the router's own
    renew.id = peer.router;
    renew.serial = peer.lane->peer().serial();
  }
  bool room = peer.renewals.take(clock_.mono_us());
  bool start = false;
  if (room) {
    const std::scoped_lock lock(mutex_);
    room = renewing_.size() < kMaxWaiting;
    if (room) renewing_.push_back({peer.number, peer.router, renew});
    start = room && !std::exchange(renewals_run_, true);
  }
  if (start && !pool_.submit([this] { run_renewals(); })) {
    const std::scoped_lock lock(mutex_);
    renewals_run_ = room = false;
    renewing_.clear();  // only the one that was just put there: nothing ran
  }
  if (!room)
    peer.lane->send_control({wire::Renewed{.request = renew.request,
                                           .id = renew.id,
                                           .leaf = {},
                                           .issuing = {},
                                           .error = std::string(error_name(Errc::kBusy)),
                                           .retry_after_ms = kPauseMs}});
}

// On the pool: all that wait, and what comes meanwhile.
void Network::run_renewals() {
  for (;;) {
    std::vector<Renewing> batch;
    {
      const std::scoped_lock lock(mutex_);
      const std::size_t n = std::min(renewing_.size(), kMaxBatch);
      if (n == 0) {
        renewals_run_ = false;
        return;
      }
      const auto end = renewing_.begin() + static_cast<std::ptrdiff_t>(n);
      batch.assign(std::make_move_iterator(renewing_.begin()), std::make_move_iterator(end));
      renewing_.erase(renewing_.begin(), end);
    }
    auto replies = answer_renewals(batch);
    on_loop([this, batch = std::move(batch), replies = std::move(replies)]() mutable {
      for (std::size_t i = 0; i < batch.size(); ++i)
        if (Peer* to = find(batch[i].lane); to != nullptr)
          to->lane->send_control({std::move(replies[i])});
    });
  }
}

// Who never came back with its new certificate does not keep two for ever.
Status Network::end_unproven() {
  TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
  TRY_ASSIGN(const auto n, pki::supersede_unproven(*tx, clock_.unix_ms()));
  return n > 0 ? tx->commit() : Status{};
}

// In small transactions, and what is left the next time: nobody waits for it.
Status Network::prune_certificates() {
  for (int step = 0; step < 20; ++step) {
    TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
    TRY_ASSIGN(const auto n, renewals_->prune(*tx, clock_.unix_ms(), kPruneStep));
    if (n == 0) return {};
    TRY(tx->commit());
    if (n < kPruneStep) return {};
  }
  return {};
}

// Once a day: what ends within 90, 30, 7 days though it does not renew itself, or should have.
Status Network::warn_of_ends() {
  const std::int64_t now = clock_.unix_ms();
  if (warned_day_ == now / kDayMs) return {};
  warned_day_ = now / kDayMs;
  struct Window {
    std::int64_t days;
    std::size_t count = 0;
    std::string first;
    std::int64_t at_s = 0;
  };
  std::array<Window, 4> windows{{{0}, {7}, {30}, {90}}};
  TRY_ASSIGN(const auto tx, store_->read(id_));
  TRY_ASSIGN(const auto rows, tx->expiring(now / 1000, (now + 90 * kDayMs) / 1000, kMaxEnds));
  for (const auto& e : rows) {
    auto& w = *std::ranges::find_if(windows, [&](const Window& x) {
      return e.not_after_s * 1000 - now <= x.days * kDayMs || x.days == 90;
    });
    if (w.count++ == 0) {
      w.first = std::string(store::kind_name(e.kind)) + " " + e.name;
      w.at_s = e.not_after_s;
    }
  }
  for (const auto& w : windows)
    if (w.count > 0)
      log::warn("controller.certificates_end", {{"within_days", w.days},
                                                {"count", w.count},
                                                {"first", w.first},
                                                {"at", format_time(w.at_s * 1000)}});
  for (const auto& ca : authority_->bundle())
    if (ca.not_after() * 1000 - now < 90 * kDayMs)
      log::warn("controller.ca_ends",
                {{"ca", ca.subject_cn()}, {"at", format_time(ca.not_after() * 1000)}});
  return {};
}

// Whose lane the device is on only the routers know.
void Network::renew_now(const std::string& id, std::int64_t within_ms) {
  on_loop([this, wish = wire::RenewNow{id, static_cast<std::uint64_t>(within_ms)}] {
    for (auto& [lane, peer] : peers_)
      if (peer.hears_renew_now && lane->up()) peer.lane->send_control({wish});
  });
}

}  // namespace sally::controller
