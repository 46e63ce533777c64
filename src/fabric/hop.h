// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "base/chunk.h"
#include "base/error.h"
#include "fabric/windows.h"

namespace sally::fabric {

/// One direction of a circuit through a router: bytes wait here until the next hop's credit and
/// lane let them go. Never drops, never reorders; the upstream neighbour is granted only what the
/// downstream one has taken. Owner: the router's circuit. Thread: its worker's. Failure: data
/// outside credit or order is the peer's error.
class HopDirection {
 public:
  explicit HopDirection(std::uint64_t start = 0, std::uint64_t window = kWindow)
      : window_(window),
        received_(start),
        forwarded_(start),
        granted_(start + kInitialCredit),
        limit_(start + kInitialCredit) {}

  /// Takes a payload from upstream: `*whole`, its chunk, where that is given and the payload large;
  /// otherwise a copy, merged into the queue's tail, so that one-byte frames cannot pin memory.
  Status on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole, ChunkPool& pool);
  Status on_fin(std::uint64_t offset);
  void on_credit(std::uint64_t limit);

  struct Piece {
    bool fin = false;
    std::uint64_t offset = 0;
    ChunkPtr chunk;  ///< at most kMaxPayload bytes; null for FIN
  };
  [[nodiscard]] bool sendable() const;
  std::optional<Piece> next();

  /// A limit worth a CREDIT frame to upstream now; it counts as sent.
  std::optional<std::uint64_t> take_credit();

  [[nodiscard]] std::uint64_t queued() const { return received_ - forwarded_; }
  [[nodiscard]] std::size_t queued_chunks() const { return queue_.size(); }
  [[nodiscard]] std::uint64_t forwarded() const { return forwarded_; }

 private:
  static constexpr std::size_t kMergeBelow = 4096;

  std::deque<ChunkPtr> queue_;
  std::uint64_t window_;
  std::uint64_t received_;
  std::uint64_t forwarded_;
  std::uint64_t granted_;  // to upstream
  std::uint64_t limit_;    // from downstream
  bool fin_ = false;
  bool fin_sent_ = false;
};

}  // namespace sally::fabric
