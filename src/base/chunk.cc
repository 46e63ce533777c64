// SPDX-License-Identifier: Apache-2.0
#include "base/chunk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace sally {

std::size_t Chunk::append(ByteView more) {
  const std::size_t n = std::min(more.size(), room());
  if (n != 0) std::memcpy(data + end, more.data(), n);
  end += static_cast<std::uint32_t>(n);
  return n;
}

void ChunkRelease::operator()(Chunk* chunk) const {
  if (chunk->home == nullptr) {
    delete chunk;
  } else {
    chunk->home->put(chunk);
  }
}

ChunkPool::~ChunkPool() {
  SALLY_CHECK(in_use_ == 0);
  if (budget_ != nullptr) budget_->add(uncounted_);
  trim();
}

void ChunkPool::trim() {
  while (free_ != nullptr) delete std::exchange(free_, free_->next);
  idle_ = 0;
}

void ChunkPool::count(std::int64_t chunks) {
  constexpr std::int64_t kBatch = 16;
  uncounted_ += chunks;
  if (budget_ != nullptr && (uncounted_ >= kBatch || uncounted_ <= -kBatch))
    budget_->add(std::exchange(uncounted_, 0));
}

ChunkPtr ChunkPool::get() {
  Chunk* chunk = free_;
  if (chunk != nullptr) {
    free_ = chunk->next;
    --idle_;
  } else {
    chunk = new Chunk;  // data stays uninitialised: it is written before it is read
    chunk->home = this;
  }
  chunk->begin = chunk->end = Chunk::kHeadroom;
  ++in_use_;
  count(1);
  return ChunkPtr(chunk);
}

ChunkPtr ChunkPool::copy_of(ByteView bytes) {
  ChunkPtr chunk = get();
  SALLY_CHECK(chunk->append(bytes) == bytes.size());
  return chunk;
}

void ChunkPool::let_go(Chunk& chunk) {
  SALLY_CHECK(chunk.home == this);
  --in_use_;
  chunk.home = nullptr;
}

ChunkPtr ChunkPool::give() {
  Chunk* chunk = free_;
  if (chunk == nullptr) return nullptr;
  free_ = chunk->next;
  --idle_;
  chunk->home = nullptr;
  return ChunkPtr(chunk);
}

void ChunkPool::keep(ChunkPtr given) {
  SALLY_CHECK(given->home == nullptr);
  given->home = this;
  hold(given.release());
}

void ChunkPool::adopt(Chunk& chunk) {
  SALLY_CHECK(chunk.home == nullptr);
  ++in_use_;
  chunk.home = this;
}

void ChunkPool::put(Chunk* chunk) {
  --in_use_;
  count(-1);
  hold(chunk);
}

void ChunkPool::hold(Chunk* chunk) {
  if (idle_ >= keep_) {
    delete chunk;
    return;
  }
  chunk->next = free_;
  free_ = chunk;
  ++idle_;
}

}  // namespace sally
