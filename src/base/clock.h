// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sally {

/// Time comes in through this. Unix time may jump, monotonic time never goes back.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Milliseconds since 1970-01-01 UTC.
  [[nodiscard]] virtual std::int64_t unix_ms() const = 0;
  /// Microseconds since an arbitrary start.
  [[nodiscard]] virtual std::int64_t mono_us() const = 0;
  [[nodiscard]] std::int64_t unix_s() const { return unix_ms() / 1000; }
};

/// The machine's clock. One instance for the process, immutable.
const Clock& system_clock();

/// A clock that a test moves.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(std::int64_t unix_ms = 1'800'000'000'000) : unix_ms_(unix_ms) {}
  [[nodiscard]] std::int64_t unix_ms() const override { return unix_ms_; }
  [[nodiscard]] std::int64_t mono_us() const override { return mono_us_; }
  void advance_ms(std::int64_t ms) {
    unix_ms_ += ms;
    mono_us_ += ms * 1000;
  }
  void set_unix_ms(std::int64_t ms) { unix_ms_ = ms; }

 private:
  std::int64_t unix_ms_;
  std::int64_t mono_us_ = 1'000'000;
};

/// Another clock, held up by times that somebody proved: a machine's clock that is set back does
/// not make old again what is over. One set forward is not held down: then things end too early,
/// until it is set right. Owner: the process. Any thread. Failure: none.
class FlooredClock final : public Clock {
 public:
  explicit FlooredClock(const Clock& inner) : inner_(inner) {}
  [[nodiscard]] std::int64_t unix_ms() const override {
    return std::max(inner_.unix_ms(), inner_.mono_us() / 1000 + offset_ms_.load());
  }
  [[nodiscard]] std::int64_t mono_us() const override { return inner_.mono_us(); }
  /// It is at least `unix_ms` now.
  void raise(std::int64_t unix_ms);

 private:
  const Clock& inner_;
  std::atomic<std::int64_t> offset_ms_ = INT64_MIN / 2;  ///< to monotonic time
};

/// RFC 3339 in UTC with milliseconds: "2026-01-01T10:00:05.250Z".
std::string format_time(std::int64_t unix_ms);
/// RFC 3339 with optional fraction and 'Z' or an offset; nullopt where the text is something else.
std::optional<std::int64_t> parse_time(std::string_view text);

}  // namespace sally
