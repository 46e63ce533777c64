// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "wire/messages.h"

namespace sally::router {

/// What the circuits of one device to one service carry, as the dialer's worker sees it: where a
/// circuit counts. Owner: a UsageTable. Thread: the worker's. Never fails.
struct UsageCell {
  std::uint64_t sent = 0;      ///< bytes from the dialer
  std::uint64_t received = 0;  ///< bytes to it
  std::uint64_t circuits = 0;  ///< opened
  std::uint64_t open_ms = 0;
  std::uint64_t open = 0;  ///< now
  std::int64_t counted_ms = 0;
  /// Up to now, what is open has been open.
  void pass(std::int64_t mono_ms) {
    open_ms += open * static_cast<std::uint64_t>(mono_ms - counted_ms);
    counted_ms = mono_ms;
  }
};

/// The cells of one worker. A circuit keeps a pointer from opened() to closed(); nothing else is
/// kept per circuit, and no circuit is walked to report what lives. Owner: the worker. Thread: its.
/// Full, it counts for nobody in particular.
class UsageTable {
 public:
  static constexpr std::size_t kMax = 8'192;
  explicit UsageTable(std::size_t max = kMax) : max_(max) {}
  /// Pays for a circuit from now on.
  UsageCell* opened(const std::string& device, const std::string& service, std::int64_t mono_ms);
  static void closed(UsageCell& cell, std::int64_t mono_ms);
  /// What was counted since the last call, dated `day`.
  std::vector<wire::UsageEntry> take(std::uint32_t day, std::int64_t mono_ms);

 private:
  struct Named {
    std::string device;
    std::string service;
    UsageCell cell;
  };
  const std::size_t max_;
  std::unordered_map<std::string, std::unique_ptr<Named>> cells_;
  Named other_;
};

/// What waits to be told to the controller: one batch under way until it is acknowledged, the rest
/// summed up. Owner: the router. Thread: its loop's. Full, it keeps the sums for nobody in
/// particular; nothing is lost or told twice but what a crash takes.
class UsageLedger {
 public:
  static constexpr std::size_t kMax = 16'384;
  explicit UsageLedger(const wire::ProcessEpoch& epoch, std::size_t max = kMax)
      : epoch_(epoch), max_(max) {}
  void start(std::int64_t mono_ms) { since_ms_ = mono_ms; }
  void add(const std::vector<wire::UsageEntry>& entries);
  /// The batch to send now: the one under way again, or a new one.
  const wire::Usage& next(std::int64_t mono_ms, const wire::RouterLive& live);
  /// True where it was the one under way.
  bool acknowledged(const wire::UsageAck& ack);
  /// Nothing would be lost now.
  [[nodiscard]] bool empty() const;
  /// Of these, the first one is full: the next batch should follow at once.
  [[nodiscard]] bool more() const { return !old_.empty() || waiting_.size() >= kBatch; }

  /// For the next process: what waits and what is under way.
  [[nodiscard]] Bytes save() const;
  /// Of a process before. An error leaves the ledger as it was.
  Status load(ByteView saved);

 private:
  static constexpr std::size_t kBatch = wire::kMaxUsageEntries;
  static constexpr std::int64_t kLeastAssumedMs = 1'000;
  using Key = std::tuple<std::uint32_t, std::string, std::string>;
  [[nodiscard]] wire::Usage sealed(std::uint64_t sequence, std::size_t most) const;

  wire::ProcessEpoch epoch_;
  const std::size_t max_;
  std::map<Key, wire::UsageEntry> waiting_;
  std::optional<wire::Usage> under_way_;
  std::deque<wire::Usage> old_;  ///< of processes before
  std::uint64_t sequence_ = 0;   ///< of the last batch that was made
  std::int64_t since_ms_ = 0;
  std::int64_t interval_ms_ = kLeastAssumedMs;
};

}  // namespace sally::router
