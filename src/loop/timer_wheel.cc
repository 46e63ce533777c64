// SPDX-License-Identifier: Apache-2.0
#include "loop/timer_wheel.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "base/check.h"

namespace sally::loop {
namespace {
constexpr int kBits = 8;
constexpr std::int64_t kReach = (std::int64_t{1} << (kBits * 4)) - 1;
}  // namespace

Timer::Timer(TimerWheel& wheel, std::move_only_function<void()> callback)
    : wheel_(&wheel), callback_(std::move(callback)) {}

Timer::~Timer() {
  cancel();
  if (gone_ != nullptr) *gone_ = true;
}

void Timer::arm(std::int64_t ms) {
  cancel();
  ms = std::clamp<std::int64_t>(ms, 0, std::numeric_limits<std::int32_t>::max() * std::int64_t{8});
  // One tick more: a deadline inside the running tick must not fire before its time.
  const bool whole = wheel_->clock_->mono_us() % 1000 == 0;
  deadline_ = wheel_->now_ms() + ms + (whole || ms == 0 ? 0 : 1);
  // What is due already goes to the next tick: never fired from inside arm.
  wheel_->link(*this, wheel_->tick_ + 1);
}

void Timer::cancel() {
  if (armed()) wheel_->unlink(*this);
}

std::int64_t Timer::left_ms() const {
  return armed() ? std::max<std::int64_t>(0, deadline_ - wheel_->now_ms()) : 0;
}

TimerWheel::TimerWheel(const Clock& clock) : clock_(&clock), tick_(now_ms() - 1) {}

TimerWheel::~TimerWheel() {
  SALLY_CHECK(size_ == 0);
}

void TimerWheel::push(Timer*& head, Timer& t, std::uint16_t slot) {
  t.next_ = head;
  t.prev_ = &head;
  t.slot_ = slot;
  if (head != nullptr) head->prev_ = &t.next_;
  head = &t;
}

void TimerWheel::link(Timer& t, std::int64_t earliest) {
  const std::int64_t at = std::clamp(t.deadline_, earliest, tick_ + kReach);
  // The level is that of the highest digit in which deadline and current tick differ.
  const auto differ = static_cast<std::uint64_t>(at) ^ static_cast<std::uint64_t>(tick_);
  const int level = std::min(kLevels - 1, (63 - std::countl_zero(differ | 1)) / kBits);
  const int slot = static_cast<int>(at >> (kBits * level)) & (kSlots - 1);
  push(slots_[level][slot], t, static_cast<std::uint16_t>(level * kSlots + slot));
  used_[level][slot / 64] |= std::uint64_t{1} << (slot % 64);
  ++size_;
}

void TimerWheel::unlink(Timer& t) {
  *t.prev_ = t.next_;
  if (t.next_ != nullptr) t.next_->prev_ = t.prev_;
  t.prev_ = nullptr;
  t.next_ = nullptr;
  --size_;
  const int level = t.slot_ / kSlots;
  const int slot = t.slot_ % kSlots;
  if (slots_[level][slot] == nullptr) used_[level][slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
}

void TimerWheel::cascade(int level, int slot) {
  while (Timer* t = slots_[level][slot]) {
    unlink(*t);
    link(*t, tick_);
  }
}

void TimerWheel::fire(Timer& t) {
  bool gone = false;
  ++fired_;
  t.gone_ = &gone;
  // The callback lives here while it runs: it may destroy its timer.
  auto callback = std::move(t.callback_);
  callback();
  if (gone) return;
  t.gone_ = nullptr;
  t.callback_ = std::move(callback);
}

void TimerWheel::fire_slot(int slot) {
  // Taken off first: what callbacks arm anew belongs to later ticks and cannot loop here.
  while (Timer* t = slots_[0][slot]) {
    unlink(*t);
    if (t->deadline_ > tick_) {
      link(*t, tick_ + 1);  // clipped to the reach of the wheel
      continue;
    }
    fire(*t);
  }
}

namespace {
/// First used slot after `from` (exclusive), or -1.
int next_used(const std::array<std::uint64_t, 4>& used, int from) {
  for (int s = from + 1; s < 256; s = (s / 64 + 1) * 64) {
    const std::uint64_t word = used[s / 64] >> (s % 64);
    if (word != 0) return s + std::countr_zero(word);
  }
  return -1;
}
}  // namespace

std::int64_t TimerWheel::next_ms() const {
  if (size_ == 0) return -1;
  // Levels above hold only what lies in later digits, so the first used slot of the lowest level is
  // next.
  for (int level = 0; level < kLevels; ++level) {
    const int shift = kBits * level;
    const int at = static_cast<int>(tick_ >> shift) & (kSlots - 1);
    const int slot = next_used(used_[level], at);
    if (slot < 0) continue;
    const std::int64_t base = (tick_ >> (shift + kBits)) << (shift + kBits);
    const std::int64_t when = base + (static_cast<std::int64_t>(slot) << shift);
    return std::max<std::int64_t>(0, when - now_ms());
  }
  // Only the top level wrapped around.
  const std::int64_t next_lap = ((tick_ >> (kBits * kLevels)) + 1) << (kBits * kLevels);
  return std::max<std::int64_t>(0, next_lap - now_ms());
}

bool TimerWheel::advance() {
  const std::uint64_t before = fired_;
  const std::int64_t now = now_ms();
  while (tick_ < now) {
    if (size_ == 0) {
      tick_ = now;
      break;
    }
    // The next tick at which something can happen: a used slot of this page, or the page's end.
    const int slot = next_used(used_[0], static_cast<int>(tick_ & (kSlots - 1)));
    tick_ = std::min(now, ((tick_ >> kBits) << kBits) + (slot >= 0 ? slot : kSlots));
    // Digits that rolled over bring their slot down, highest first.
    for (int level = kLevels - 1; level > 0; --level) {
      if ((tick_ & ((std::int64_t{1} << (kBits * level)) - 1)) == 0)
        cascade(level, static_cast<int>(tick_ >> (kBits * level)) & (kSlots - 1));
    }
    fire_slot(static_cast<int>(tick_ & (kSlots - 1)));
  }
  return fired_ != before;
}

}  // namespace sally::loop
