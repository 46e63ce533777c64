// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/error.h"
#include "fabric/errors.h"

namespace sally::fabric {

/// Both sides know it without a message: how far past its start a stream may run before the first
/// CREDIT.
inline constexpr std::uint64_t kInitialCredit = 16 * 1024;
/// What a router with memory to spare grants first.
inline constexpr std::uint64_t kFirstWindow = 64 * 1024;
/// What an end grants first: this much of a stream arrives although nobody reads yet.
inline constexpr std::uint64_t kFirstEndWindow = 1024 * 1024;
/// What it lets a sender have outstanding at most.
inline constexpr std::uint64_t kMaxWindow = 4 * 1024 * 1024;
/// What an end keeps for a peer that has not acknowledged it; more where the next hop grants more.
inline constexpr std::uint64_t kRetain = 1024 * 1024;
/// A sender whose credit ends inside a record or chunk sends the part it covers, if it is this
/// long: so it is never stuck with more than this unused, and a window of four times as much flows.
inline constexpr std::uint64_t kSplitFrom = 4096;
/// Payload of the largest DATA frame: header and payload fill one TLS record.
inline constexpr std::size_t kMaxPayload = 16368;
/// Data is acknowledged after this much of it, or after kAckDelayUs.
inline constexpr std::uint64_t kAckEvery = 256 * 1024;
inline constexpr std::int64_t kAckDelayUs = 50'000;

/// What decides about a window when more is granted.
struct WindowConditions {
  std::int64_t now_us = 0;  ///< monotonic
  std::int64_t rtt_us = 0;  ///< to whoever sends; 0: not known
  std::uint64_t first = kFirstWindow;
  std::uint64_t most = kMaxWindow;  ///< kInitialCredit..kMaxWindow; less where memory is scarce
};

/// How much a receiver lets a sender have outstanding: it doubles while the sender uses up half of
/// it within two round trips, and halves towards what conditions allow. Owner: a RecvWindow or
/// HopInlet. Thread: its. Never fails.
class WindowSize {
 public:
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  /// Whether grant() could have something to tell: before anything that costs.
  [[nodiscard]] bool due(std::uint64_t taken, std::uint64_t granted) const {
    return bytes_ == 0 || taken + bytes_ >= granted + bytes_ / 2;
  }
  /// `taken` of all that was granted so far, `granted`, has been used and passed on: a limit worth
  /// telling now, if there is one.
  std::optional<std::uint64_t> grant(std::uint64_t taken, std::uint64_t granted,
                                     const WindowConditions& now);

 private:
  std::uint32_t bytes_ = 0;    // before the first grant
  std::uint32_t last_us_ = 0;  // of the last one; wraps
};

/// The sending half of a circuit end: the exact ciphertext, kept until the other end has it.
/// Owner: a CircuitEnd. Thread: its worker's. Failure: a peer's impossible ACK is an error, nothing
/// else can fail.
class SendWindow {
 public:
  explicit SendWindow(std::uint64_t retain = kRetain) : retain_(retain) {}

  /// False while the retained bytes fill the budget, or after push_fin: stop encrypting. What the
  /// next hop has granted may be retained as well: it was measured to be worth it.
  [[nodiscard]] bool has_room() const {
    return end_ < std::max(acked_ + retain_, std::min(limit_, acked_ + kMaxWindow)) && !fin_;
  }
  /// Takes one record (1..kMaxPayload bytes). The caller asked has_room() before it encrypted.
  void push(Bytes record);
  void push(ChunkPtr record);
  /// The stream ends here; idempotent.
  void push_fin() { fin_ = true; }

  /// One DATA piece, or the FIN (empty payload). The view lives until the next call of a non-const
  /// member. `whole`: the payload is all that is in this chunk, the bytes in front of it are free.
  struct Piece {
    bool fin = false;
    std::uint64_t offset = 0;
    ByteView payload;
    Chunk* whole = nullptr;
  };
  [[nodiscard]] bool sendable() const;
  std::optional<Piece> next();

  /// Absolute limit granted by the next hop; a lower one than before changes nothing.
  void on_credit(std::uint64_t limit);
  /// Cumulative; end of stream + 1 acknowledges the FIN.
  Status on_ack(std::uint64_t offset);
  /// A new epoch: everything from `next_expected` is sent again under fresh credit.
  Status restart(std::uint64_t next_expected);

  [[nodiscard]] std::uint64_t end_offset() const { return end_; }
  [[nodiscard]] std::uint64_t retained() const { return end_ - acked_; }
  [[nodiscard]] bool fin_pushed() const { return fin_; }
  [[nodiscard]] bool fin_acked() const { return fin_acked_; }

 private:
  struct Record {
    std::uint64_t offset;
    Bytes bytes;
    ChunkPtr chunk;  // or this
    [[nodiscard]] ByteView view() const { return chunk != nullptr ? chunk->view() : bytes; }
    [[nodiscard]] std::uint64_t end() const { return offset + view().size(); }
  };
  void take(Record record);
  std::deque<Record> records_;  // from the first one not wholly acknowledged
  std::size_t cursor_ = 0;      // records_[cursor_] holds sent_, if sent_ < end_
  std::uint64_t retain_;
  std::uint64_t end_ = 0;
  std::uint64_t acked_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t limit_ = kInitialCredit;
  bool fin_ = false;
  bool fin_sent_ = false;
  bool fin_acked_ = false;
};

/// The receiving half of a circuit end: what has come, what may come, what is acknowledged.
/// Owner: a CircuitEnd. Thread: its worker's. Failure: data outside credit, gaps and a wrong FIN
/// are errors of the peer.
class RecvWindow {
 public:
  /// The new part of the payload (empty for a duplicate).
  Result<ByteView> on_data(std::uint64_t offset, ByteView payload);
  Status on_fin(std::uint64_t offset);
  /// The application has taken `n` more bytes: they may be granted again.
  void consumed(std::uint64_t n) { consumed_ += n; }

  /// A limit worth a CREDIT frame now, if there is one; it counts as sent.
  std::optional<std::uint64_t> take_credit(const WindowConditions& now);
  [[nodiscard]] bool credit_due() const { return !fin_ && window_.due(consumed_, granted_); }
  /// A cumulative offset worth an ACK frame now, if there is one; it counts as sent. `flush`:
  /// whatever is unacknowledged.
  std::optional<std::uint64_t> take_ack(bool flush);
  [[nodiscard]] bool ack_pending() const { return position() > ack_sent_; }

  [[nodiscard]] std::uint64_t expected() const { return expected_; }
  [[nodiscard]] bool fin_received() const { return fin_; }
  [[nodiscard]] bool fin_ack_sent() const { return fin_ && ack_sent_ > expected_; }
  /// A new epoch: credit starts afresh from what is expected next.
  void restart();

 private:
  [[nodiscard]] std::uint64_t position() const { return expected_ + (fin_ ? 1 : 0); }

  WindowSize window_;
  std::uint64_t expected_ = 0;
  std::uint64_t consumed_ = 0;
  std::uint64_t granted_ = kInitialCredit;
  std::uint64_t ack_sent_ = 0;
  bool fin_ = false;
};

}  // namespace sally::fabric
