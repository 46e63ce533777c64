// SPDX-License-Identifier: Apache-2.0
// What routers report of traffic: stored once, shown while it is fresh.
#include <algorithm>

#include "base/log.h"
#include "controller/network.h"

namespace sally::controller {
namespace {

constexpr std::int64_t kDayMs = 86'400'000;
constexpr std::uint64_t kPeriodMs = 10'000;
constexpr std::uint64_t kWatchedPeriodMs = 2'000;
constexpr std::int64_t kWatchMs = 15'000;         // one look keeps routers awake for so long
constexpr std::int64_t kFreshMs = 30'000;         // older reports are of the past
constexpr std::size_t kMaxServices = 200;         // series of Prometheus; the rest is "other"
constexpr std::uint64_t kMaxCount = 1ULL << 50U;  // a petabyte a batch: what no router carries
constexpr std::int64_t kDaysBack = 60;

}  // namespace

std::uint64_t Network::period_ms() const {
  return clock_.unix_ms() < watched_until_ms_ ? kWatchedPeriodMs : kPeriodMs;
}

void Network::on_usage(Peer& peer, wire::Usage usage) {
  // What is in no order is not counted, and not acknowledged either: its sender is broken.
  if (!peer.reports || usage.sequence == 0)
    return peer.lane->close(Error(Errc::kUnexpected, "usage without a sequence"));
  for (auto& e : usage.entries) {
    for (std::uint64_t* n : {&e.sent, &e.received, &e.circuits, &e.open_ms})
      *n = std::min(*n, kMaxCount);
    const std::int64_t today = clock_.unix_ms() / kDayMs;
    e.day = static_cast<std::uint32_t>(
        std::clamp<std::int64_t>(e.day, std::max<std::int64_t>(0, today - kDaysBack), today + 1));
  }
  {
    const std::scoped_lock lock(mutex_);
    auto& r = routers_[peer.router];
    r.seen_ms = clock_.unix_ms();
    // A batch that is sent again says nothing new.
    if (usage.epoch == r.usage.epoch && usage.live.time_ms > r.usage.live.time_ms)
      r.before = r.usage.live;
    r.usage = usage;
  }
  const std::uint64_t lane = peer.number;
  if (usage.entries.empty()) return ack_usage(lane, usage);
  const bool ok = pool_.submit([this, lane, router = peer.router, batch = std::move(usage)] {
    const auto counted = store_usage(router, batch);
    if (!counted) {
      // Not acknowledged: it comes again.
      const std::scoped_lock lock(mutex_);
      ++usage_refused_;
      log::error("controller.usage_not_stored",
                 {{"router", router}, {"why", counted.error().text()}});
      return;
    }
    if (*counted) count_usage(batch);
    on_loop([this, lane, batch] { ack_usage(lane, batch); });
  });
  if (!ok) {
    const std::scoped_lock lock(mutex_);
    ++usage_refused_;
  }
}

void Network::ack_usage(std::uint64_t lane, const wire::Usage& usage) {
  Peer* peer = find(lane);
  if (peer == nullptr || !peer->lane->up()) return;
  peer->acked = {.epoch = usage.epoch, .sequence = usage.sequence, .period_ms = period_ms()};
  peer->lane->send_control({peer->acked});
}

Result<bool> Network::store_usage(const std::string& router, const wire::Usage& usage) {
  std::vector<store::Usage> rows;
  rows.reserve(usage.entries.size());
  for (const auto& e : usage.entries)
    rows.push_back({e.day, e.device, e.service, e.sent, e.received, e.circuits, e.open_ms});
  TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
  TRY_ASSIGN(const bool counted, tx->add_usage(router, usage.epoch, usage.sequence, rows));
  if (counted) TRY(tx->commit());
  return counted;
}

void Network::count_usage(const wire::Usage& usage) {
  const std::scoped_lock lock(mutex_);
  for (const auto& e : usage.entries) {
    const bool room = carried_.size() < kMaxServices || carried_.contains(e.service);
    Carried& c = carried_[room ? e.service : ""];
    c.sent += e.sent;
    c.received += e.received;
    c.circuits += e.circuits;
  }
}

api::Live::Load Network::traffic() {
  const std::int64_t now = clock_.unix_ms();
  if (watched_until_ms_.exchange(now + kWatchMs) < now) {
    on_loop([this] {
      for (auto& [lane, peer] : peers_) {
        if (!peer.reports || !peer.lane->up()) continue;
        peer.acked.period_ms = kWatchedPeriodMs;
        peer.lane->send_control({peer.acked});
      }
    });
  }
  Load out;
  const std::scoped_lock lock(mutex_);
  for (const auto& [id, r] : routers_) {
    const wire::RouterLive& at = r.usage.live;
    if (r.lane == 0 || at.time_ms == 0 || now - r.seen_ms > kFreshMs) continue;
    RouterLoad load{.router = id,
                    .at_ms = at.time_ms,
                    .lanes = at.lanes,
                    .circuits = at.circuits,
                    .rss_bytes = at.rss_bytes};
    const double s = static_cast<double>(at.time_ms - r.before.time_ms) / 1e3;
    if (r.before.time_ms != 0 && s > 0) {
      const auto rate = [s](std::uint64_t a, std::uint64_t b) {
        return a > b ? static_cast<double>(a - b) / s : 0;
      };
      load.in_per_s = rate(at.bytes_in, r.before.bytes_in);
      load.out_per_s = rate(at.bytes_out, r.before.bytes_out);
      load.cpu = rate(at.cpu_us, r.before.cpu_us) / 1e6;
    }
    out.routers.push_back(std::move(load));
    const double covered = static_cast<double>(r.usage.interval_ms) / 1e3;
    if (covered <= 0) continue;
    for (const auto& e : r.usage.entries)
      out.flows.push_back({.device = e.device,
                           .service = e.service,
                           .sent_per_s = static_cast<double>(e.sent) / covered,
                           .received_per_s = static_cast<double>(e.received) / covered});
  }
  return out;
}

}  // namespace sally::controller
