// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "base/clock.h"

namespace sally::loop {

class TimerWheel;

/// One timer on a wheel: calls back once per `arm`. Owned by the object whose time it measures.
/// Thread of the wheel only. The callback may destroy the timer, arm it again or arm others.
/// The destructor cancels. Never fires early; fires late by at most one tick plus the turn.
class Timer {
 public:
  Timer(TimerWheel& wheel, std::move_only_function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// Fires `ms` from now (0 = next turn); replaces an earlier deadline. Negative counts as 0.
  void arm(std::int64_t ms);
  void cancel();
  [[nodiscard]] bool armed() const { return prev_ != nullptr; }
  /// Milliseconds until it fires; 0 when due or not armed.
  [[nodiscard]] std::int64_t left_ms() const;

 private:
  friend class TimerWheel;
  TimerWheel* wheel_;
  Timer** prev_ = nullptr;  // what points at us; null when not armed
  Timer* next_ = nullptr;
  std::int64_t deadline_ = 0;
  std::uint16_t slot_ = 0;
  bool* gone_ = nullptr;  // set while the callback runs, so that it may destroy us
  std::move_only_function<void()> callback_;
};

/// Hierarchical timer wheel with a tick of one millisecond: arm and cancel in O(1).
/// Owned by a Loop, or by a test. One thread. Pure: time comes from the clock, `advance` fires what
/// is due. Four levels of 256 slots reach 49 days; longer deadlines are clipped to that and set
/// again.
class TimerWheel {
 public:
  explicit TimerWheel(const Clock& clock);
  ~TimerWheel();
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  /// Fires everything due at the clock's time; true when something fired.
  bool advance();
  /// Milliseconds until `advance` should be called again; -1 without timers. May be early, never
  /// late.
  [[nodiscard]] std::int64_t next_ms() const;
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::int64_t now_ms() const { return clock_->mono_us() / 1000; }

 private:
  friend class Timer;
  static constexpr int kLevels = 4;
  static constexpr int kSlots = 256;
  void link(Timer& t, std::int64_t earliest);
  void unlink(Timer& t);
  void push(Timer*& head, Timer& t, std::uint16_t slot);
  void cascade(int level, int slot);
  void fire_slot(int slot);
  void fire(Timer& t);

  const Clock* clock_;
  std::int64_t tick_;  // everything up to and including this tick has fired
  std::size_t size_ = 0;
  std::uint64_t fired_ = 0;
  std::array<std::array<Timer*, kSlots>, kLevels> slots_{};
  std::array<std::array<std::uint64_t, kSlots / 64>, kLevels> used_{};
};

}  // namespace sally::loop
