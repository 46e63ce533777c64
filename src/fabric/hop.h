// SPDX-License-Identifier: Apache-2.0
#pragma once

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
  /// The limit that the outlet let us tell upstream.
  void granted(std::uint64_t limit) { granted_ = limit; }

 private:
  std::uint64_t received_ = 0;
  std::uint64_t granted_ = kInitialCredit;
  bool fin_ = false;
};

/// Where it leaves: bytes wait here until the next hop's credit and lane let them go. Never drops,
/// never reorders; upstream is granted only what downstream has taken. Owner: the circuit's side on
/// the lane the bytes go to. Thread: that lane's. Never fails: its inlet has judged what it gets.
class HopOutlet {
 public:
  /// See merge_into.
  void push(ByteView payload, ChunkPtr* whole, ChunkPool& pool) {
    received_ += payload.size();
    merge_into(queue_, payload, whole, pool);
  }
  void push_fin() { fin_ = true; }
  void on_credit(std::uint64_t limit);

  struct Piece {
    bool fin = false;
    std::uint64_t offset = 0;
    ChunkPtr chunk;  ///< at most kMaxPayload bytes; null for FIN
  };
  [[nodiscard]] bool sendable() const;
  std::optional<Piece> next();

  /// A limit worth a CREDIT frame to upstream now; it counts as sent: the inlet's granted().
  std::optional<std::uint64_t> take_credit();

  [[nodiscard]] std::uint64_t queued() const { return received_ - forwarded_; }
  [[nodiscard]] std::size_t queued_chunks() const { return queue_.size(); }
  [[nodiscard]] std::uint64_t forwarded() const { return forwarded_; }

 private:
  ChunkQueue queue_;
  std::uint64_t received_ = 0;
  std::uint64_t forwarded_ = 0;
  std::uint64_t granted_ = kInitialCredit;  // to upstream
  std::uint64_t limit_ = kInitialCredit;    // from downstream
  bool fin_ = false;
  bool fin_sent_ = false;
};

}  // namespace sally::fabric
