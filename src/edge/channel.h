// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/error.h"
#include "edge/conn.h"
#include "edge/message.h"
#include "fabric/scheduler.h"

namespace sally::edge {

/// Why a foreign end is refused: numbers that SDKs know. docs/edge-protocol.md.
enum class Code : std::uint8_t {
  kNone = 0,
  kInternal = 1,
  kInvalidApiSession = 2,
  kInvalidSession = 3,
  kWrongSessionType = 4,
  kInvalidService = 6,
  kInvalidTerminator = 8,
  kEncryptionMissing = 11,
  kWrongApiSessionType = 12,
  kAccessDenied = 14,
};
/// What a host makes of it.
enum class Hint : std::uint8_t { kDefault = 0, kTooBusy = 1, kStartOver = 2, kNotRetriable = 3 };
/// The text is never empty: a C SDK takes an empty one for "ask for a new session".
struct Failure {
  Code code = Code::kInternal;
  Hint hint = Hint::kDefault;
  std::string text;
};

struct Hello {
  std::string token;
};
struct Connect {
  std::uint32_t conn = 0;
  std::int32_t sequence = 0;
  std::string token;
  std::string instance;  ///< addressed host; empty: any
  Bytes key;             ///< for the encryption between the ends; empty: none
  std::string caller_id;
  Bytes app_data;
  std::string marker;
};
struct Bind {
  std::uint32_t conn = 0;
  std::int32_t sequence = 0;
  std::string token;
  std::string instance;
  std::string listener;
  Bytes key;
  std::uint16_t cost = 0;
  std::uint8_t precedence = 0;  ///< 0 default, 1 required, 2 failed
  bool router_ids = false;      ///< conns get their ids from us
  bool wants_success = false;
};
/// What a host hears of a caller.
struct Call {
  std::string circuit;
  std::string dialer_id;
  std::string dialer_name;
  std::string caller_id;
  std::string marker;
  Bytes key;
  Bytes app_data;
};

/// Who uses a channel. Calls may close it, and destroy it only in a turn of their own.
class ChannelUser {
 public:
  virtual ~ChannelUser() = default;
  /// Once, first; accept_hello or refuse_hello follows, now or later.
  virtual void on_hello(Channel& channel, const Hello& hello) = 0;
  /// attach and connected, or refuse_connect.
  virtual void on_connect(Channel& channel, Connect connect) = 0;
  /// bound or refuse_bind.
  virtual void on_bind(Channel& channel, Bind bind) = 0;
  virtual void on_unbind(Channel& channel, std::uint32_t bind) = 0;
  virtual void on_update_bind(Channel& channel, std::uint32_t bind,
                              std::optional<std::uint16_t> cost,
                              std::optional<std::uint8_t> precedence) = 0;
  virtual void on_health(Channel& channel, std::uint32_t bind, bool passed) = 0;
  /// True: from now on this token counts.
  virtual bool on_update_token(Channel& channel, const std::string& token) = 0;
};

/// What carries a channel's bytes.
class ChannelTransport {
 public:
  virtual ~ChannelTransport() = default;
  /// Something may be different: next_record, wants_read, deadline_ms. Not inside a call of it.
  virtual void on_channel_changed() = 0;
};

struct ChannelOptions {
  std::string router_id;
  std::string connection_id;  ///< unique in this process, 4 characters or more
  std::string software;       ///< version|revision|date|os|arch
  std::int64_t hello_ms = 5'000;
  std::int64_t silent_ms = 180'000;
  /// For so long a channel is not read because of conns whose other end takes nothing, all in all:
  /// what is spent comes back while it is read. And so long the rest of a message may take to come.
  std::int64_t stalled_ms = 30'000;
  std::size_t most_unfinished = std::size_t{32} << 20U;  ///< bytes of messages that are not whole
  std::int64_t refused_hello_ms = 1'000;  ///< refusals wait: some SDKs come back at once
  std::int64_t refused_bind_ms = 2'000;
};

/// The router's half of a connection with a Ziti SDK, without socket and clock: hello, dials,
/// hosted services, data. Owner: a Connection. Thread: its loop's. Failure: an error of feed or
/// on_time ends the channel; what is refused is told to the SDK, in time.
class Channel {
 public:
  Channel(ChannelUser& user, ChannelTransport& transport, ChunkPool& pool, ChannelOptions options,
          std::int64_t now_ms);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // ---- of the transport
  /// `whole`: the chunk that `in` is all of; it may be taken.
  Status feed(ByteView in, std::int64_t now_ms, ChunkPtr* whole = nullptr);
  /// The next bytes to write, at most a chunk; null: none now.
  ChunkPtr next_record(std::int64_t now_ms);
  /// False: nothing more is to be read for now.
  [[nodiscard]] bool wants_read() const;
  /// When on_time must be called; monotonic.
  [[nodiscard]] std::int64_t deadline_ms() const;
  /// An error: the channel is over, and what next_record still gives may leave.
  Status on_time(std::int64_t now_ms);

  // ---- of the user
  [[nodiscard]] bool live() const { return state_ == State::kLive; }
  void accept_hello();
  /// `busy`: it may come again, else it is not permitted.
  void refuse_hello(const std::string& why, bool busy, std::int64_t now_ms);
  [[nodiscard]] bool taken(std::uint32_t id) const { return conns_.contains(id); }
  /// False: a conn of that id is there.
  [[nodiscard]] bool attach(Conn& conn, std::uint32_t id);
  void connected(Conn& conn, std::int32_t sequence, std::string_view circuit, ByteView key);
  void refuse_connect(std::uint32_t conn, std::int32_t sequence, const Failure& why);
  void bound(const Bind& bind);
  void refuse_bind(const Bind& bind, const Failure& why);
  /// Not any more; the SDK is told.
  void end_bind(std::uint32_t bind, const Failure& why);
  /// Asks the host of `bind`; false when that is not there or the channel is full.
  [[nodiscard]] bool dial(Conn& conn, std::uint32_t bind, const Call& call);
  /// The SDK is told, and the conn is off the channel. What waits in it is dropped.
  void close(Conn& conn, std::string_view why);
  /// The same, of a dial that is not answered yet.
  void refuse(Conn& conn, std::int32_t sequence, const Failure& why);
  /// next_piece has something.
  void ready(Conn& conn);
  /// Nothing is read while a conn is blocked: too much of it waits.
  void block(Conn& conn, bool on, std::int64_t now_ms);
  [[nodiscard]] std::size_t conns() const { return conns_.size(); }
  [[nodiscard]] std::size_t binds() const { return binds_.size(); }
  /// All conns hear that the channel is gone; `cut`: as if each was cut off.
  void end(bool cut);

  static constexpr std::size_t kMaxBinds = 1'000;

 private:
  enum class State : std::uint8_t { kHello, kAsked, kLive, kRefused };
  struct Binding {
    Bytes token;
    Bytes key;
    bool router_ids = false;
  };
  struct Delayed {
    std::int64_t at_ms;
    Bytes message;
  };
  friend class Conn;

  Status on_item(const MessageReader::Item& item);
  Status on_message(const MessageReader::Item& m);
  Status on_hello(const MessageReader::Item& m);
  void on_connect(const MessageReader::Item& m);
  Status on_bind(const MessageReader::Item& m);
  void on_dial_success(const MessageReader::Item& m);
  void on_dial_failed(const MessageReader::Item& m);
  void on_state_closed(std::uint32_t id);
  void on_data(const MessageReader::Item& m);
  void on_update_token(const MessageReader::Item& m);
  void on_body(ByteView piece, std::uint32_t left);

  [[nodiscard]] Conn* find(std::uint32_t id) const;
  [[nodiscard]] Conn* dialed(std::int32_t sequence) const;
  std::uint32_t new_id();
  void detach(Conn& conn);
  void put(ByteView bytes);
  void put_closed(std::uint32_t conn, std::optional<std::int32_t> reply_for, const Failure* why,
                  std::string_view text);
  [[nodiscard]] Bytes closed_message(std::uint32_t conn, std::optional<std::int32_t> reply_for,
                                     const Failure* why, std::string_view text);
  void emit(Conn& conn);
  void hold_unfinished(Conn& conn);
  void forget_unfinished(Conn& conn);
  void unblock(Conn& conn, std::int64_t now_ms);
  [[nodiscard]] std::int32_t next_sequence() {
    return sequence_ == INT32_MAX ? sequence_ = 1 : ++sequence_;
  }

  ChannelUser& user_;
  ChannelTransport& transport_;
  ChunkPool& pool_;
  const ChannelOptions options_;
  State state_ = State::kHello;
  MessageReader reader_;
  std::int32_t hello_sequence_ = 0;
  std::int32_t sequence_ = 0;
  std::uint32_t last_id_ = 0;                       // of those we gave
  std::unordered_map<std::uint32_t, Conn*> conns_;  // by id
  std::unordered_map<std::int32_t, Conn*> dials_;   // by sequence of the Dial
  std::unordered_map<std::uint32_t, Binding> binds_;
  std::vector<Conn*> blocked_;
  std::int64_t blocked_ms_ = 0;    // since when it is, or since when it is not
  std::int64_t spent_ms_ = 0;      // of stalled_ms, as of then
  std::vector<Conn*> unfinished_;  // conns that hold a part of a record
  std::vector<Delayed> delayed_;   // refusals, in order of their time
  Conn* in_data_ = nullptr;        // whose body is coming in
  ChunkPtr* whole_ = nullptr;      // of what is being fed
  Bytes scratch_;                  // the head of a message that leaves
  fabric::DeficitRoundRobin ring_;
  ChunkQueue out_;
  std::size_t out_bytes_ = 0;
  std::int64_t now_ms_;
  std::int64_t started_ms_;
  std::int64_t heard_ms_;
  std::optional<std::int64_t> end_at_ms_;  // after a refusal
};

}  // namespace sally::edge
