// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"

#include <chrono>
#include <cstdio>

namespace sally {
namespace {

class SystemClock final : public Clock {
 public:
  [[nodiscard]] std::int64_t unix_ms() const override {
    const auto t = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(t).count();
  }
  [[nodiscard]] std::int64_t mono_us() const override {
    const auto t = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(t).count();
  }
};

std::optional<int> number(std::string_view& in, std::size_t digits) {
  if (in.size() < digits) return std::nullopt;
  int v = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    if (in[i] < '0' || in[i] > '9') return std::nullopt;
    v = v * 10 + (in[i] - '0');
  }
  in.remove_prefix(digits);
  return v;
}

bool literal(std::string_view& in, char c) {
  if (in.empty() || in.front() != c) return false;
  in.remove_prefix(1);
  return true;
}

}  // namespace

const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

void FlooredClock::raise(std::int64_t unix_ms) {
  const std::int64_t offset = unix_ms - inner_.mono_us() / 1000;
  std::int64_t now = offset_ms_.load();
  while (now < offset && !offset_ms_.compare_exchange_weak(now, offset)) {
  }
}

std::string format_time(std::int64_t unix_ms) {
  using namespace std::chrono;
  const sys_time<milliseconds> t{milliseconds(unix_ms)};
  const auto day = floor<days>(t);
  const year_month_day date{day};
  const hh_mm_ss time{t - day};
  char out[40];
  std::snprintf(out, sizeof out, "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ",
                static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                static_cast<unsigned>(date.day()), static_cast<int>(time.hours().count()),
                static_cast<int>(time.minutes().count()), static_cast<int>(time.seconds().count()),
                static_cast<int>(time.subseconds().count()));
  return out;
}

std::optional<std::int64_t> parse_time(std::string_view in) {
  using namespace std::chrono;
  const auto y = number(in, 4);
  if (!y || !literal(in, '-')) return std::nullopt;
  const auto mo = number(in, 2);
  if (!mo || !literal(in, '-')) return std::nullopt;
  const auto d = number(in, 2);
  if (!d || !(literal(in, 'T') || literal(in, 't') || literal(in, ' '))) return std::nullopt;
  const auto h = number(in, 2);
  if (!h || !literal(in, ':')) return std::nullopt;
  const auto mi = number(in, 2);
  if (!mi || !literal(in, ':')) return std::nullopt;
  const auto s = number(in, 2);
  if (!s) return std::nullopt;
  std::int64_t ms = 0;
  if (literal(in, '.')) {
    std::int64_t scale = 100;
    if (in.empty() || in.front() < '0' || in.front() > '9') return std::nullopt;
    while (!in.empty() && in.front() >= '0' && in.front() <= '9') {
      ms += (in.front() - '0') * scale;
      scale /= 10;
      in.remove_prefix(1);
    }
  }
  std::int64_t offset_min = 0;
  if (!literal(in, 'Z') && !literal(in, 'z')) {
    if (in.empty() || (in.front() != '+' && in.front() != '-')) return std::nullopt;
    const int sign = in.front() == '-' ? -1 : 1;
    in.remove_prefix(1);
    const auto oh = number(in, 2);
    if (!oh || !literal(in, ':')) return std::nullopt;
    const auto om = number(in, 2);
    if (!om || *oh > 23 || *om > 59) return std::nullopt;
    offset_min = sign * (*oh * 60 + *om);
  }
  const year_month_day date{year(*y), month(static_cast<unsigned>(*mo)),
                            day(static_cast<unsigned>(*d))};
  if (!in.empty() || !date.ok() || *h > 23 || *mi > 59 || *s > 60) return std::nullopt;
  const std::int64_t seconds =
      sys_days(date).time_since_epoch().count() * 86'400LL + *h * 3600 + *mi * 60 + *s;
  return (seconds - offset_min * 60) * 1000 + ms;
}

}  // namespace sally
