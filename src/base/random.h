// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace sally {

/// Randomness comes in through this. Tests seed it; everything else uses the kernel's.
class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableBytes out) = 0;
  std::uint64_t u64();
  /// Uniform in [0, bound); bound > 0.
  std::uint64_t below(std::uint64_t bound);
  /// `bytes` random bytes as lower-case hex.
  std::string hex(std::size_t bytes);
  /// RFC 9562 version 4 UUID text.
  std::string uuid();
};

/// getrandom(2); aborts the process when the kernel has none. Any thread.
Random& system_random();

/// Random, the same for the life of the process: keys the hashes of what peers choose.
std::uint64_t hash_secret();

/// Deterministic, for tests and simulation only (SplitMix64).
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}
  void fill(MutableBytes out) override;

 private:
  std::uint64_t state_;
};

}  // namespace sally
