// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_set>

#include "base/error.h"
#include "base/ids.h"
#include "trust/circuit.h"

namespace sally::router {

/// The circuit ids in use and the replay memory of all workers: what may happen once in a router.
/// Owner: the router. Thread: any; one lock, held for a look-up in a hash table, beside the
/// signatures of a dial. Failure: a full table refuses.
class CircuitRegistry {
 public:
  explicit CircuitRegistry(std::size_t max) : max_(max) {}

  enum class Claim : std::uint8_t { kOk, kInUse, kFull };
  /// What claim() would say now: before anything that costs.
  [[nodiscard]] Claim look(const CircuitId& id) const;
  /// kOk must be followed by one release().
  Claim claim(const CircuitId& id);
  void release(const CircuitId& id);
  [[nodiscard]] std::size_t size() const;

  /// See trust::SeenCircuits.
  Status remember(const CircuitId& circuit, std::uint32_t epoch, std::uint32_t attempt,
                  std::int64_t expiry_ms, std::int64_t now_ms);

 private:
  const std::size_t max_;
  mutable std::mutex mutex_;  // all below
  std::unordered_set<CircuitId> in_use_;
  trust::SeenCircuits seen_;
};

}  // namespace sally::router
