// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/chunk.h"
#include "edge/record.h"
#include "fabric/scheduler.h"

namespace sally::edge {

class Channel;

/// A circuit's place on a channel, as lane::Attachment is on a lane: what the SDK sends, as the
/// bytes of records, and what goes to it when it is its turn. Owner: the circuit; its destruction
/// tells the SDK that the conn is closed. Thread: the channel's. Any on_* may destroy the conn.
class Conn : public fabric::Turn {
 public:
  Conn() = default;
  ~Conn() override;

  /// The next bytes of the circuit; whole records in the end. At most kMaxPiece, or all of the
  /// chunk `whole`, which may then be taken.
  virtual void on_stream(ByteView bytes, ChunkPtr* whole) = 0;
  /// The SDK has closed it, or its channel is gone: off the channel. `whole`: no record was cut
  /// off.
  virtual void on_closed(bool whole) = 0;
  /// The record with kClose that next_piece gave has been passed on: off the channel.
  virtual void on_ended() = 0;
  /// It has held up its channel for as long as one may, or the rest of a message does not come.
  virtual void on_stalled() = 0;
  /// A host's answers; `key` is empty where it has none. After a failure off the channel.
  virtual void on_dialed(Bytes key) = 0;
  virtual void on_dial_failed(const std::string& why) = 0;
  /// More of what goes to the SDK, records in any pieces. False: nothing now; it waits for
  /// Channel::ready.
  virtual bool next_piece(ChunkPtr& piece) = 0;

  /// Null once it is off.
  [[nodiscard]] Channel* channel() const { return channel_; }
  [[nodiscard]] std::uint32_t id() const { return id_; }
  /// Chunks of a message that is not complete yet.
  [[nodiscard]] std::size_t held_chunks() const { return assembler_.chunks(); }

 private:
  friend class Channel;
  Channel* channel_ = nullptr;
  RecordAssembler assembler_;
  std::uint32_t id_ = 0;
  std::uint32_t bind_ = 0;     // of a host's
  std::int32_t dial_ = 0;      // sequence of the Dial that waits for its answer; 0: none does
  std::int64_t grown_ms_ = 0;  // when the last piece of its unfinished record came
  bool named_ = false;         // id_ is in the channel's table
  bool open_ = false;          // data may flow
  bool in_record_ = false;     // a record is not whole yet, from the SDK
  bool fin_in_ = false;        // the SDK has said that no more data comes
  bool blocked_ = false;
  bool unfinished_ = false;  // part of a record is held
};

}  // namespace sally::edge
