// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"

namespace sally::loop {

class ChunkPool;

/// One pooled buffer, as large as a TLS record's plaintext. [begin, end) is what it holds.
struct Chunk {
  static constexpr std::size_t kSize = 16 * 1024;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  Chunk* next = nullptr;  ///< for intrusive lists of whoever owns it
  ChunkPool* pool = nullptr;
  std::array<std::uint8_t, kSize> data;

  [[nodiscard]] ByteView view() const { return {data.data() + begin, end - begin}; }
  [[nodiscard]] MutableBytes room() { return {data.data() + end, kSize - end}; }
  [[nodiscard]] std::size_t size() const { return end - begin; }
};
struct ChunkReturn {
  void operator()(Chunk* chunk) const;
};
using ChunkPtr = std::unique_ptr<Chunk, ChunkReturn>;

/// Free list of chunks: no allocation after warm-up. Owned by one worker; its thread only; outlives
/// its chunks. Grows without bound by itself: budgets belong to who takes (`in_use` counts). Keeps
/// at most `keep` free chunks. Content of a taken chunk is undefined.
class ChunkPool {
 public:
  explicit ChunkPool(std::size_t keep = 256) : keep_(keep) {}
  ~ChunkPool();
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;
  ChunkPtr take();
  [[nodiscard]] std::size_t in_use() const { return in_use_; }
  /// Gives all free chunks back to the system (idle agents).
  void trim();

 private:
  friend struct ChunkReturn;
  Chunk* free_ = nullptr;
  std::size_t free_count_ = 0;
  std::size_t in_use_ = 0;
  std::size_t keep_;
};

}  // namespace sally::loop
