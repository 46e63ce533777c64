// SPDX-License-Identifier: Apache-2.0
// What a Worker does so that data that waits here stays inside the router's memory.
#include <malloc.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "router/worker.h"

namespace sally::router {
namespace {

constexpr std::int64_t kMarkMs = 1'000;  // what has not moved for this long is stalled
// Free memory beyond this, and twice what stayed when it was given back last, goes back to the
// system.
constexpr std::size_t kKeepFree = std::size_t{1} << 20U;

}  // namespace

// Free memory is shared out among the circuits, however few of them use it now: what is granted
// cannot be taken back.
fabric::WindowConditions Worker::window_conditions(const lane::Lane& upstream) const {
  const ChunkBudget& budget = shared_.budget;
  std::uint64_t most = fabric::kMaxWindow;
  if (const std::size_t share = budget.free() / (shared_.circuits.size() + 1);
      budget.scarce() || share < fabric::kFirstWindow) {
    most = std::clamp<std::uint64_t>(share, fabric::kInitialCredit, fabric::kFirstWindow);
  }
  return {.now_us = loop_.clock().mono_us(), .rtt_us = upstream.round_trip_us(), .most = most};
}

// The same of foreign ends, who know no credit: what they sent is here already.
std::uint64_t Worker::most_waiting() const {
  constexpr std::uint64_t kLeast = std::uint64_t{256} << 10U;
  const std::uint64_t share = shared_.budget.free() / (shared_.circuits.size() + 1);
  return std::clamp(share, kLeast, ForeignSide::kMaxWaiting);
}

void Worker::on_memory_scarce() {
  if (!mark_timer_.armed()) mark_timer_.arm(kMarkMs);
  if (shared_.budget.exhausted()) shared_.desk.memory_exhausted(index_);
}

void Worker::mark_stalled() {
  for (const auto& circuit : circuits_) {
    for (Side* side : {circuit->dialing(), circuit->hosting()}) {
      if (side != nullptr) side->outlet().mark();
    }
  }
  if (shared_.budget.scarce()) mark_timer_.arm(kMarkMs);
}

void Worker::shed() {
  const ChunkBudget& budget = shared_.budget;
  if (!budget.exhausted()) return;  // another worker did enough
  struct Load {
    bool stalled;
    std::size_t chunks;
    Circuit* circuit;
  };
  std::vector<Load> loads;
  std::size_t here = 0;
  for (const auto& circuit : circuits_) {
    Load load{.stalled = false, .chunks = 0, .circuit = circuit.get()};
    for (Side* side : {circuit->dialing(), circuit->hosting()}) {
      if (side == nullptr) continue;
      load.stalled |= side->stalled();
      load.chunks += side->chunks();
    }
    if (load.chunks == 0) continue;
    here += load.chunks;
    loads.push_back(load);
  }
  std::ranges::sort(loads, std::greater{},
                    [](const Load& l) { return std::pair(l.stalled, l.chunks); });
  // Down to 15/16 of the budget, each worker its part: not again at the next frame.
  const std::size_t over = budget.used() - budget.limit() / 16 * 15;
  const std::size_t ours = std::min(here, over / sizeof(Chunk) + 1);
  std::size_t freed = 0;
  std::size_t cut = 0;
  for (const Load& load : loads) {
    if (freed >= ours) break;
    freed += load.chunks;
    ++cut;
    end_circuit(*load.circuit, wire::ResetCode::kBudget, "the router's memory is used up");
  }
  if (cut == 0) return;
  counters_.circuits_shed.add(cut);
  log::warn("router.memory_exhausted",
            {{"limit_mb", budget.limit() >> 20U}, {"circuits_cut", cut}, {"chunks", freed}});
  event("router.memory_exhausted", options().id, {}, std::to_string(cut) + " circuits cut");
}

// What a busy time left behind goes back to the system.
void Worker::rest() {
  if (pool_.in_use() < pool_.idle()) pool_.trim();
  if (index_ != 0) return;
  shared_.services.tidy(loop_.clock().mono_us());
  shared_.devices.tidy(loop_.clock().mono_us());
  if (shared_.budget.used() > shared_.budget.limit() / 16 ||
      ::mallinfo2().fordblks < kKeepFree + 2 * kept_free_)
    return;
  ::malloc_trim(0);
  kept_free_ = ::mallinfo2().fordblks;
}

}  // namespace sally::router
