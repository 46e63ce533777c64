// SPDX-License-Identifier: Apache-2.0
#include "loop/chunk_pool.h"

#include "base/check.h"

namespace sally::loop {

ChunkPool::~ChunkPool() {
  SALLY_CHECK(in_use_ == 0);
  trim();
}

ChunkPtr ChunkPool::take() {
  Chunk* chunk = free_;
  if (chunk != nullptr) {
    free_ = chunk->next;
    --free_count_;
    chunk->begin = chunk->end = 0;
    chunk->next = nullptr;
  } else {
    chunk = new Chunk;  // NOLINT: data stays uninitialised on purpose
    chunk->pool = this;
  }
  ++in_use_;
  return ChunkPtr(chunk);
}

void ChunkReturn::operator()(Chunk* chunk) const {
  ChunkPool& pool = *chunk->pool;
  --pool.in_use_;
  if (pool.free_count_ >= pool.keep_) {
    delete chunk;
    return;
  }
  chunk->next = pool.free_;
  pool.free_ = chunk;
  ++pool.free_count_;
}

void ChunkPool::trim() {
  while (free_ != nullptr) {
    Chunk* next = free_->next;
    delete free_;
    free_ = next;
  }
  free_count_ = 0;
}

}  // namespace sally::loop
