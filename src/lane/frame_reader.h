// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/error.h"
#include "wire/frame.h"

namespace sally::lane {

/// Cuts what TLS delivers into frames, wherever the records end: a frame that lies whole in one
/// chunk is not copied. Owner: a Lane. Thread: the lane's. Failure: a header that wire/ refuses is
/// the peer's fault; it is refused before its payload is awaited. Holds at most two chunks.
class FrameReader {
 public:
  explicit FrameReader(ChunkPool& pool) : pool_(pool) {}

  struct Frame {
    wire::FrameHeader header;
    ByteView payload;  ///< lives until the next call of next()
    /// Set when the payload is the rest of its chunk, which may then be taken.
    ChunkPtr* whole = nullptr;
  };
  /// What was read next. Only when next() gave none.
  void feed(ChunkPtr chunk) { chunk_ = std::move(chunk); }
  /// The next frame; none: more must be fed.
  Result<std::optional<Frame>> next();

 private:
  void fill(std::size_t size);

  ChunkPool& pool_;
  ChunkPtr chunk_;           // what was fed
  std::size_t payload_ = 0;  // bytes at its front that belong to the frame given out last
  ChunkPtr partial_;         // the beginning of a frame that spans chunks
  ChunkPtr joined_;          // the same, whole and given out
};

}  // namespace sally::lane
