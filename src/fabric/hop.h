// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/chunk.h"
#include "base/error.h"
#include "fabric/windows.h"

namespace sally::fabric {

/// Adds a payload to a queue of chunks: `*whole`, its chunk, where that is given and the payload
/// large; otherwise a copy, merged into the queue's tail, so that one-byte frames cannot pin
/// memory. True when the queue grew by one chunk.
template <typename Queue>
bool merge_into(Queue& queue, ByteView payload, ChunkPtr* whole, ChunkPool& pool) {
  constexpr std::size_t kMergeBelow = 4096;
  if (whole != nullptr && payload.size() >= kMergeBelow) {
    queue.push_back(std::move(*whole));
    return true;
  }
  if (!queue.empty()) payload = payload.subspan(queue.back()->append(payload));
  if (payload.empty()) return false;
  queue.push_back(pool.copy_of(payload));
  return true;
}

/// Where one direction of a circuit enters a router: what the upstream neighbour may send. With the
/// HopOutlet, which may be on another worker, it is the hop. Owner: the circuit's side on the lane
/// the bytes come from. Thread: that lane's. Failure: data outside credit or order is the peer's
/// error.
class HopInlet {
 public:
  Status on_data(std::uint64_t offset, std::size_t size);
  Status on_fin(std::uint64_t offset);
  /// Whether grant() could have something to tell: before anything that costs.
  [[nodiscard]] bool grant_due(std::uint64_t drained) const {
    return fin_ == 0 && window_.due(drained, granted_);
  }
  /// The outlet has passed on everything up to `drained`: a limit worth a CREDIT frame to upstream
  /// now, if there is one; it counts as sent.
  std::optional<std::uint64_t> grant(std::uint64_t drained, const WindowConditions& now);
  /// How much must be drained before it is worth telling.
  [[nodiscard]] std::uint32_t quantum() const {
    return static_cast<std::uint32_t>(std::max(window_.bytes(), kInitialCredit) / 4);
  }

 private:
  std::uint64_t received_ : 63 = 0;
  std::uint64_t fin_ : 1 = 0;
  std::uint64_t granted_ = kInitialCredit;
  WindowSize window_;
};

/// Where it leaves: bytes wait here until the next hop's credit and lane let them go. Never drops,
/// never reorders; upstream is granted only what downstream has taken. Owner: the circuit's side on
/// the lane the bytes go to. Thread: that lane's. Never fails: its inlet has judged what it gets.
class HopOutlet {
 public:
  /// See merge_into.
  void push(ByteView payload, ChunkPtr* whole, ChunkPool& pool) {
    if (queue_.empty()) mark_ = ~place();
    queued_ += static_cast<std::uint32_t>(payload.size());
    merge_into(queue_, payload, whole, pool);
  }
  void push_fin() { fin_ = 1; }
  void on_credit(std::uint64_t limit) { limit_ = std::max(limit_, limit); }

  struct Piece {
    bool fin = false;
    std::uint64_t offset = 0;
    ChunkPtr chunk;  ///< at most kMaxPayload bytes; null for FIN
  };
  [[nodiscard]] bool sendable() const;
  std::optional<Piece> next();

  /// Everything up to here has been passed on.
  [[nodiscard]] std::uint64_t forwarded() const { return forwarded_; }
  /// The same, when it is `quantum` more than told last; for an inlet on another worker. Nothing is
  /// told after FIN: nothing more may come.
  std::optional<std::uint64_t> take_forwarded(std::uint32_t quantum);

  [[nodiscard]] std::uint64_t queued() const { return queued_; }
  [[nodiscard]] std::size_t queued_chunks() const { return queue_.size(); }
  /// What is queued now and has not moved when stalled() is asked is stalled.
  void mark() { mark_ = place(); }
  [[nodiscard]] bool stalled() const { return !queue_.empty() && mark_ == place(); }

 private:
  [[nodiscard]] std::uint32_t place() const { return static_cast<std::uint32_t>(forwarded_); }

  ChunkQueue queue_;
  std::uint64_t forwarded_ : 62 = 0;
  std::uint64_t fin_ : 1 = 0;
  std::uint64_t fin_sent_ : 1 = 0;
  std::uint64_t limit_ = kInitialCredit;  // from downstream
  std::uint32_t queued_ = 0;
  std::uint32_t untold_ = 0;
  std::uint32_t mark_ = 0;
};

}  // namespace sally::fabric
