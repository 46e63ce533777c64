// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/random.h"

namespace sally {

/// Pauses between tries: doubling, half fixed and half chance, so that a fleet that lost the same
/// peer does not come back in one instant. Owner: whoever reconnects. Thread: the owner's. Failure:
/// none.
class Backoff {
 public:
  explicit Backoff(std::int64_t first_ms) : first_ms_(first_ms) {}

  /// Milliseconds until the next try; at most `cap_ms`.
  [[nodiscard]] std::int64_t next_ms(Random& random, std::int64_t cap_ms) {
    pause_ms_ = std::min(cap_ms, pause_ms_ == 0 ? first_ms_ : pause_ms_ * 2);
    const auto half = static_cast<std::uint64_t>(pause_ms_) / 2;
    return static_cast<std::int64_t>(half + random.below(half + 1));
  }
  /// It worked: the next loss begins with the shortest pause.
  void reset() { pause_ms_ = 0; }

 private:
  std::int64_t first_ms_;
  std::int64_t pause_ms_ = 0;
};

}  // namespace sally
