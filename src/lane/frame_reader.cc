// SPDX-License-Identifier: Apache-2.0
#include "lane/frame_reader.h"

#include <algorithm>
#include <span>
#include <utility>

namespace sally::lane {
namespace {

Result<wire::FrameHeader> header_of(const Chunk& chunk) {
  return wire::decode_header(chunk.view().first<wire::kFrameHeaderSize>());
}

}  // namespace

// Moves bytes from the chunk until the partial frame has `size` of them. A frame never exceeds a
// chunk.
void FrameReader::fill(std::size_t size) {
  if (partial_->size() >= size) return;
  const std::size_t n = std::min(size - partial_->size(), chunk_->size());
  partial_->append(chunk_->view().first(n));
  chunk_->begin += static_cast<std::uint32_t>(n);
}

Result<std::optional<FrameReader::Frame>> FrameReader::next() {
  joined_.reset();
  if (chunk_ != nullptr) chunk_->begin += static_cast<std::uint32_t>(std::exchange(payload_, 0));
  payload_ = 0;
  if (chunk_ == nullptr || chunk_->size() == 0) {
    chunk_.reset();
    return std::nullopt;
  }
  if (partial_ == nullptr && chunk_->size() >= wire::kFrameHeaderSize) {
    TRY_ASSIGN(const auto header, header_of(*chunk_));
    const std::size_t size = wire::kFrameHeaderSize + header.length;
    if (size <= chunk_->size()) {
      const bool last = size == chunk_->size();
      chunk_->begin += wire::kFrameHeaderSize;
      payload_ = header.length;
      return Frame{header, chunk_->view().first(payload_), last ? &chunk_ : nullptr};
    }
  }
  if (partial_ == nullptr) {
    partial_ = pool_.get();
    partial_->begin = partial_->end = 0;
  }
  fill(wire::kFrameHeaderSize);
  if (partial_->size() < wire::kFrameHeaderSize) {
    chunk_.reset();
    return std::nullopt;
  }
  TRY_ASSIGN(const auto header, header_of(*partial_));
  const std::size_t size = wire::kFrameHeaderSize + header.length;
  fill(size);
  if (partial_->size() < size) {
    chunk_.reset();
    return std::nullopt;
  }
  joined_ = std::move(partial_);
  joined_->begin += wire::kFrameHeaderSize;
  return Frame{header, joined_->view(), &joined_};
}

}  // namespace sally::lane
