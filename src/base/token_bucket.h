// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace sally {

/// A rate with a burst: full at first.
/// Owner: whoever limits. Thread: the owner's. Failure: none; time that goes back adds nothing.
class TokenBucket {
 public:
  TokenBucket(double per_second, double burst)
      : per_second_(per_second), burst_(burst), tokens_(burst) {}

  /// False when the rate is exceeded; that costs nothing.
  [[nodiscard]] bool take(std::int64_t now_us) {
    if (at_us_ != 0 && now_us > at_us_) {
      const double passed_s = static_cast<double>(now_us - at_us_) / 1e6;
      tokens_ = std::min(burst_, tokens_ + passed_s * per_second_);
    }
    at_us_ = std::max(at_us_, now_us);
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  double per_second_;
  double burst_;
  double tokens_;
  std::int64_t at_us_ = 0;
};

}  // namespace sally
