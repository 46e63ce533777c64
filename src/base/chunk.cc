// SPDX-License-Identifier: Apache-2.0
#include "base/chunk.h"

#include <algorithm>
#include <cstring>

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
  while (free_ != nullptr) {
    Chunk* next = free_->next;
    delete free_;
    free_ = next;
  }
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
  if (free_ == nullptr) return nullptr;
  ChunkPtr chunk = get();
  let_go(*chunk);
  return chunk;
}

void ChunkPool::adopt(Chunk& chunk) {
  SALLY_CHECK(chunk.home == nullptr);
  ++in_use_;
  chunk.home = this;
}

void ChunkPool::put(Chunk* chunk) {
  --in_use_;
  if (idle_ >= keep_) {
    delete chunk;
    return;
  }
  chunk->next = free_;
  free_ = chunk;
  ++idle_;
}

}  // namespace sally
