// SPDX-License-Identifier: Apache-2.0
#include "router/circuit_registry.h"

namespace sally::router {

CircuitRegistry::Claim CircuitRegistry::look(const CircuitId& id) const {
  const std::lock_guard lock(mutex_);
  if (in_use_.size() >= max_) return Claim::kFull;
  return in_use_.contains(id) ? Claim::kInUse : Claim::kOk;
}

CircuitRegistry::Claim CircuitRegistry::claim(const CircuitId& id) {
  const std::lock_guard lock(mutex_);
  if (in_use_.size() >= max_) return Claim::kFull;
  return in_use_.insert(id).second ? Claim::kOk : Claim::kInUse;
}

void CircuitRegistry::release(const CircuitId& id) {
  const std::lock_guard lock(mutex_);
  in_use_.erase(id);
}

std::size_t CircuitRegistry::size() const {
  const std::lock_guard lock(mutex_);
  return in_use_.size();
}

Status CircuitRegistry::remember(const CircuitId& circuit, std::uint32_t epoch,
                                 std::uint32_t attempt, std::int64_t expiry_ms,
                                 std::int64_t now_ms) {
  const std::lock_guard lock(mutex_);
  return seen_.remember(circuit, epoch, attempt, expiry_ms, now_ms);
}

}  // namespace sally::router
