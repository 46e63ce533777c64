// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

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

/// A free list of chunks.
/// Owner: one worker; it must outlive its chunks. Thread: the worker's only; a chunk crosses to
/// another worker by let_go here and adopt there. Keeps at most `keep` idle chunks, the rest goes
/// back to the allocator. Failure: out of memory ends the process, as everywhere.
class ChunkPool {
 public:
  explicit ChunkPool(std::size_t keep = 256) : keep_(keep) {}
  ~ChunkPool();
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;

  [[nodiscard]] ChunkPtr get();                    ///< empty, with headroom
  [[nodiscard]] ChunkPtr copy_of(ByteView bytes);  ///< at most kSize - kHeadroom bytes
  /// A chunk of this pool leaves it; until a pool adopts it, its end gives it to the allocator.
  void let_go(Chunk& chunk);
  /// An idle chunk leaves it; null when there is none.
  [[nodiscard]] ChunkPtr give();
  /// A chunk without a home is from now on one of this pool.
  void adopt(Chunk& chunk);
  [[nodiscard]] std::size_t in_use() const { return in_use_; }
  [[nodiscard]] std::size_t idle() const { return idle_; }

 private:
  friend struct ChunkRelease;
  void put(Chunk* chunk);

  std::size_t keep_;
  std::size_t in_use_ = 0;
  std::size_t idle_ = 0;
  Chunk* free_ = nullptr;
};

/// Chunks in a row, linked through themselves: empty it is three words. Owner and thread: whoever
/// owns it. Never fails.
class ChunkQueue {
 public:
  ChunkQueue() = default;
  ~ChunkQueue() {
    while (!empty()) pop_front();
  }
  ChunkQueue(const ChunkQueue&) = delete;
  ChunkQueue& operator=(const ChunkQueue&) = delete;

  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] Chunk& front() { return *head_; }
  [[nodiscard]] Chunk* back() { return tail_; }
  void push_back(ChunkPtr chunk) {
    chunk->next = nullptr;
    (empty() ? head_ : tail_->next) = chunk.get();
    tail_ = chunk.release();
    ++size_;
  }
  ChunkPtr pop_front() {
    ChunkPtr chunk(head_);
    head_ = chunk->next;
    --size_;
    return chunk;
  }

 private:
  Chunk* head_ = nullptr;
  Chunk* tail_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sally
