// SPDX-License-Identifier: Apache-2.0
#include "identity/device_clock.h"

#include <algorithm>

namespace sally::identity {

DeviceClock::DeviceClock(const Clock& inner, std::int64_t floor_ms, std::int64_t end_ms)
    : inner_(inner),
      floor_offset_ms_(std::max(floor_ms, kEarliestMs) - inner.mono_us() / 1000),
      end_ms_(end_ms) {}

std::int64_t DeviceClock::floor_ms() const {
  return mono_ms() + floor_offset_ms_;
}

std::int64_t DeviceClock::unix_ms() const {
  if (told_) return std::max(mono_ms() + told_offset_ms_, floor_ms());
  const std::int64_t own = inner_.unix_ms();
  return plausible(own) ? own : floor_ms();
}

bool DeviceClock::in_doubt() const {
  return !told_ && !plausible(inner_.unix_ms());
}

void DeviceClock::learn(std::int64_t peer_ms) {
  told_ = true;
  told_offset_ms_ = peer_ms - mono_ms();
}

bool DeviceClock::raise(std::int64_t ms) {
  if (ms <= floor_ms()) return false;
  floor_offset_ms_ = ms - mono_ms();
  return true;
}

}  // namespace sally::identity
