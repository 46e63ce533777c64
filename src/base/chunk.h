// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/bytes.h"

namespace sally {

class ChunkPool;

/// 16 KiB with a used range [begin, end): one TLS record, or a payload with room for its frame
/// header in front.
struct Chunk {
  static constexpr std::size_t kSize = 16384;
  static constexpr std::size_t kHeadroom = 16;
  std::uint32_t begin = kHeadroom;
  std::uint32_t end = kHeadroom;
  ChunkPool* home = nullptr;
  Chunk* next = nullptr;
  std::uint8_t data[kSize];

  [[nodiscard]] ByteView view() const { return {data + begin, end - begin}; }
  [[nodiscard]] std::size_t size() const { return end - begin; }
  [[nodiscard]] std::size_t room() const { return kSize - end; }
  /// Copies as much of `more` as fits; returns how much.
  std::size_t append(ByteView more);
};

struct ChunkRelease {
  void operator()(Chunk* chunk) const;
};
using ChunkPtr = std::unique_ptr<Chunk, ChunkRelease>;

/// What the chunks in use in several pools, and on the way between them, may hold together. Pools
/// tell it in batches: it is right to a few chunks per pool.
/// Owner: who owns the pools. Thread: any. Failure: none; it counts, others refuse.
class ChunkBudget {
 public:
  explicit ChunkBudget(std::size_t bytes) : limit_(bytes) {}

  void add(std::int64_t chunks) { chunks_.fetch_add(chunks, std::memory_order_relaxed); }
  [[nodiscard]] std::size_t limit() const { return limit_; }
  [[nodiscard]] std::size_t used() const {
    const std::int64_t chunks = chunks_.load(std::memory_order_relaxed);
    return chunks <= 0 ? 0 : static_cast<std::size_t>(chunks) * sizeof(Chunk);
  }
  [[nodiscard]] std::size_t free() const { return limit_ - std::min(limit_, used()); }
  /// From here on nothing may grow.
  [[nodiscard]] bool scarce() const { return used() > limit_ / 4 * 3; }
  [[nodiscard]] bool exhausted() const { return used() > limit_; }

 private:
  const std::size_t limit_;
  std::atomic<std::int64_t> chunks_{0};
};

/// A free list of chunks.
/// Owner: one worker; it must outlive its chunks. Thread: the worker's only; a chunk crosses to
/// another worker by let_go here and adopt there. Keeps at most `keep` idle chunks, the rest goes
/// back to the allocator. Failure: out of memory ends the process, as everywhere.
class ChunkPool {
 public:
  explicit ChunkPool(std::size_t keep = 256, ChunkBudget* budget = nullptr)
      : keep_(keep), budget_(budget) {}
  ~ChunkPool();
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;

  [[nodiscard]] ChunkPtr get();                    ///< empty, with headroom
  [[nodiscard]] ChunkPtr copy_of(ByteView bytes);  ///< at most kSize - kHeadroom bytes
  /// A chunk of this pool leaves it; until a pool adopts it, its end gives it to the allocator. It
  /// still counts in the budget.
  void let_go(Chunk& chunk);
  /// A chunk that was let go is from now on one of this pool.
  void adopt(Chunk& chunk);
  /// An idle chunk leaves it; null when there is none.
  [[nodiscard]] ChunkPtr give();
  /// Takes what another pool gave.
  void keep(ChunkPtr given);
  /// Idle chunks go back to the allocator.
  void trim();
  [[nodiscard]] std::size_t in_use() const { return in_use_; }
  [[nodiscard]] std::size_t idle() const { return idle_; }

 private:
  friend struct ChunkRelease;
  void put(Chunk* chunk);
  void hold(Chunk* chunk);
  void count(std::int64_t chunks);

  std::size_t keep_;
  ChunkBudget* budget_;
  std::int64_t uncounted_ = 0;  // not told to the budget yet
  std::size_t in_use_ = 0;
  std::size_t idle_ = 0;
  Chunk* free_ = nullptr;
};

/// Chunks in a ring, linked through themselves: empty it is two words. Owner and thread: whoever
/// owns it. Never fails.
class ChunkQueue {
 public:
  ChunkQueue() = default;
  ~ChunkQueue() {
    while (!empty()) pop_front();
  }
  ChunkQueue(const ChunkQueue&) = delete;
  ChunkQueue& operator=(const ChunkQueue&) = delete;

  [[nodiscard]] bool empty() const { return tail_ == nullptr; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] Chunk& front() { return *tail_->next; }
  [[nodiscard]] Chunk* back() { return tail_; }
  void push_back(ChunkPtr chunk) {
    Chunk* last = chunk.release();
    last->next = empty() ? last : std::exchange(tail_->next, last);
    tail_ = last;
    ++size_;
  }
  ChunkPtr pop_front() {
    ChunkPtr chunk(tail_->next);
    if (--size_ == 0) {
      tail_ = nullptr;
    } else {
      tail_->next = chunk->next;
    }
    return chunk;
  }

 private:
  Chunk* tail_ = nullptr;  // its next is the front
  std::uint32_t size_ = 0;
};

}  // namespace sally
