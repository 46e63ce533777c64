// SPDX-License-Identifier: Apache-2.0
// The edge protocol has messages, a circuit is a stream: inside it a message is a record, 4 bytes
// {length 24, flags 8}, little endian, 16 bytes of id where the flags say so, then the body.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/chunk.h"
#include "edge/message.h"
#include "fabric/hop.h"

namespace sally::edge {

inline constexpr std::uint8_t kFin = 1;  ///< nothing follows in this direction but kClose
/// Flags of a message that ends pass on to each other, kFin among them.
inline constexpr std::uint8_t kMessageFlags = 0x1f;
/// The sender has closed the circuit; the body says why.
inline constexpr std::uint8_t kClose = 0x40;
inline constexpr std::uint8_t kHasUuid = 0x80;
inline constexpr std::size_t kUuidSize = 16;
/// Of what is copied at a time: it fits an empty chunk.
inline constexpr std::size_t kMaxPiece = 16'000;
inline constexpr std::size_t kMaxRecordHead = 4 + kUuidSize;

struct Record {
  std::uint32_t length = 0;  ///< of the body, at most kMaxBody
  std::uint8_t flags = 0;    ///< without kHasUuid
  std::optional<std::array<std::uint8_t, kUuidSize>> uuid;
  friend bool operator==(const Record&, const Record&) = default;
};
/// How many bytes of `out` it takes.
std::size_t encode(const Record& r, std::span<std::uint8_t, kMaxRecordHead> out);

/// What came out of a circuit and is not a whole message yet: a message leaves at once or not at
/// all, so that none of a slow sender holds up the others of a channel.
/// Owner: a Conn. Thread: its worker's. Failure: none; every sequence of bytes is records.
class RecordAssembler {
 public:
  void push(ChunkPtr piece) {
    held_bytes_ += piece->size();
    held_.push_back(std::move(piece));
  }
  /// The next record, when all of it is there; `take_body` follows.
  [[nodiscard]] std::optional<Record> next();
  /// Behind what `out` holds.
  void take_body(ChunkQueue& out, ChunkPool& pool);
  [[nodiscard]] std::size_t chunks() const { return held_.size(); }
  [[nodiscard]] std::size_t bytes() const { return held_bytes_; }

 private:
  std::array<std::uint8_t, kMaxRecordHead> head_{};
  std::uint8_t head_size_ = 0;
  bool head_done_ = false;
  ChunkQueue held_;
  std::size_t held_bytes_ = 0;
};

}  // namespace sally::edge
