// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "loop/loop.h"

namespace sally::loop {

/// Bounded queue, many producers, one consumer, no lock (Vyukov's ring). Owned by the consumer.
/// `push` from any thread, `pop` from one. `push` fails when the queue is full; nothing else fails.
/// A producer that stalls between claim and publish delays later items, it never loses or reorders
/// them.
template <typename T>
class MpscRing {
 public:
  /// Rounded up to a power of two.
  explicit MpscRing(std::size_t capacity)
      : mask_(std::bit_ceil(capacity < 2 ? std::size_t{2} : capacity) - 1),
        cells_(new Cell[mask_ + 1]) {
    for (std::size_t i = 0; i <= mask_; ++i) cells_[i].turn.store(i, std::memory_order_relaxed);
  }
  MpscRing(const MpscRing&) = delete;
  MpscRing& operator=(const MpscRing&) = delete;

  /// Moves from `value` only on success.
  [[nodiscard]] bool push(T&& value) {
    std::size_t at = head_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[at & mask_];
      const auto lag = static_cast<std::ptrdiff_t>(cell.turn.load(std::memory_order_acquire) - at);
      if (lag < 0) return false;
      if (lag > 0) {
        at = head_.load(std::memory_order_relaxed);
      } else if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
        cell.value.emplace(std::move(value));
        cell.turn.store(at + 1, std::memory_order_release);
        return true;
      }
    }
  }
  std::optional<T> pop() {
    Cell& cell = cells_[tail_ & mask_];
    if (cell.turn.load(std::memory_order_acquire) != tail_ + 1) return std::nullopt;
    std::optional<T> out(std::move(*cell.value));
    cell.value.reset();
    cell.turn.store(tail_ + mask_ + 1, std::memory_order_release);
    ++tail_;
    return out;
  }
  [[nodiscard]] std::size_t capacity() const { return mask_ + 1; }

 private:
  struct Cell {
    std::atomic<std::size_t> turn{0};
    std::optional<T> value;
  };
  const std::size_t mask_;
  std::unique_ptr<Cell[]> cells_;
  alignas(64) std::atomic<std::size_t> head_{0};
  alignas(64) std::size_t tail_ = 0;
};

/// A ring whose items are handled on a loop's thread. Owned by the consumer, made and destroyed on
/// its thread after the producers stopped. `send` from any thread; false when full: the sender must
/// slow down or drop. At most `kBatch` items per turn, so a flood cannot starve sockets.
template <typename T>
class Mailbox {
 public:
  static constexpr int kBatch = 256;
  Mailbox(Loop& loop, std::size_t capacity, std::move_only_function<void(T)> on_item)
      : ring_(capacity), on_item_(std::move(on_item)), wakeup_(loop, [this] { drain(); }) {}

  [[nodiscard]] bool send(T&& item) {
    if (!ring_.push(std::move(item))) return false;
    wakeup_.signal();
    return true;
  }

 private:
  void drain() {
    for (int i = 0; i < kBatch; ++i) {
      auto item = ring_.pop();
      if (!item) return;
      on_item_(std::move(*item));
    }
    wakeup_.signal();
  }
  MpscRing<T> ring_;
  std::move_only_function<void(T)> on_item_;
  Wakeup wakeup_;
};

/// A queue for what must never be lost, handled in order on a loop's thread. Owned by the consumer,
/// made on its thread or before that runs, destroyed after the producers stopped. `send` from any
/// thread. It has no bound: whoever sends has one for what waits. At most `kBatch` items per turn.
template <typename T>
class Inbox {
 public:
  static constexpr int kBatch = 256;
  Inbox(Loop& loop, std::move_only_function<void(T)> on_item)
      : on_item_(std::move(on_item)), wakeup_(loop, [this] { drain(); }) {}

  void send(T item) {
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = waiting_.empty();
      waiting_.push_back(std::move(item));
    }
    if (first) wakeup_.signal();
  }

 private:
  void drain() {
    for (int i = 0; i < kBatch; ++i) {
      if (at_ == taken_.size()) {
        taken_.clear();
        at_ = 0;
        const std::lock_guard lock(mutex_);
        taken_.swap(waiting_);
      }
      if (taken_.empty()) return;
      on_item_(std::move(taken_[at_++]));
    }
    wakeup_.signal();
  }
  std::mutex mutex_;
  std::vector<T> waiting_;
  std::vector<T> taken_;  // the consumer's
  std::size_t at_ = 0;
  std::move_only_function<void(T)> on_item_;
  Wakeup wakeup_;
};

}  // namespace sally::loop
