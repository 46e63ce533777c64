// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace sally::identity {

/// No program of this version ran before (2026-01-01).
inline constexpr std::int64_t kEarliestMs = 1'767'225'600'000;

/// What a device believes of the time. Its machine's clock may have been set never (1970) or
/// wrongly (2040), and is asked only where nobody better was: it is taken between the floor, which
/// is what the network has signed of the past, and the end of our own certificate. Outside it is in
/// doubt, and the floor is the time. What an authenticated peer tells replaces it, though never
/// below the floor. Owner: an engine. Thread: its loop's. Failure: none; in doubt it is early, so
/// that a peer's certificate that ended since the floor may still pass (docs/threat-model.md).
class DeviceClock final : public Clock {
 public:
  /// `floor_ms`, `end_ms`: Unix time.
  DeviceClock(const Clock& inner, std::int64_t floor_ms, std::int64_t end_ms);
  [[nodiscard]] std::int64_t unix_ms() const override;
  [[nodiscard]] std::int64_t mono_us() const override { return inner_.mono_us(); }
  /// An authenticated peer says it is `peer_ms`.
  void learn(std::int64_t peer_ms);
  /// What was told is believed no more: with it a peer that should pass does not.
  void forget() { told_ = false; }
  /// It is at least `ms`: signed by the network. True where that was news.
  bool raise(std::int64_t ms);
  /// The end of our own certificate, which is another one now.
  void set_end(std::int64_t ms) { end_ms_ = ms; }
  [[nodiscard]] std::int64_t floor_ms() const;
  /// What to date a request with that its receiver judges: the machine's clock, right or wrong,
  /// until somebody told better. Believe nothing by it.
  [[nodiscard]] std::int64_t guess_ms() const { return told_ ? unix_ms() : inner_.unix_ms(); }
  /// Nobody told the time, and the machine's clock cannot be right.
  [[nodiscard]] bool in_doubt() const;

 private:
  [[nodiscard]] std::int64_t mono_ms() const { return inner_.mono_us() / 1000; }
  [[nodiscard]] bool plausible(std::int64_t ms) const { return ms >= floor_ms() && ms <= end_ms_; }

  const Clock& inner_;
  std::int64_t floor_offset_ms_;  ///< to monotonic time
  std::int64_t end_ms_;
  bool told_ = false;
  std::int64_t told_offset_ms_ = 0;
};

}  // namespace sally::identity
