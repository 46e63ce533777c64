// SPDX-License-Identifier: Apache-2.0
#include "edge/channel.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace sally::edge {
namespace {

// Answers that an SDK makes us give and does not read: stop reading from it.
constexpr std::size_t kPauseOut = std::size_t{256} << 10U;
constexpr std::uint32_t kFirstId = 0x8000'0000;
constexpr std::int32_t kNoReply = -1;

std::string json_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

Conn::~Conn() {
  if (channel_ != nullptr) channel_->close(*this, "closed");
}

Channel::Channel(ChannelUser& user, ChannelTransport& transport, ChunkPool& pool,
                 ChannelOptions options, std::int64_t now_ms)
    : user_(user),
      transport_(transport),
      pool_(pool),
      options_(std::move(options)),
      last_id_(kFirstId - 1),
      now_ms_(now_ms),
      started_ms_(now_ms),
      heard_ms_(now_ms) {}

Channel::~Channel() {
  for (const auto& [id, conn] : conns_) conn->channel_ = nullptr;
  for (const auto& [sequence, conn] : dials_) conn->channel_ = nullptr;
}

// ---- the wire out
// --------------------------------------------------------------------------------

void Channel::put(ByteView bytes) {
  out_bytes_ += bytes.size();
  while (!bytes.empty()) {
    const ByteView part = bytes.first(std::min(bytes.size(), kMaxPiece));
    fabric::merge_into(out_, part, nullptr, pool_);
    bytes = bytes.subspan(part.size());
  }
  transport_.on_channel_changed();
}

ChunkPtr Channel::next_record(std::int64_t now_ms) {
  now_ms_ = std::max(now_ms_, now_ms);
  while (out_bytes_ < Chunk::kSize) {
    auto* conn = static_cast<Conn*>(
        ring_.current([](const fabric::Turn&) { return fabric::DeficitRoundRobin::kQuantum; }));
    if (conn == nullptr) break;
    emit(*conn);
  }
  if (out_.empty()) return nullptr;
  ChunkPtr record = out_.pop_front();
  out_bytes_ -= record->size();
  return record;
}

// One message of the conn whose turn it is, when all of it is there.
void Channel::emit(Conn& conn) {
  auto record = conn.assembler_.next();
  while (!record) {
    ChunkPtr piece;
    if (!conn.next_piece(piece)) {
      ring_.nothing(conn);
      return hold_unfinished(conn);
    }
    conn.grown_ms_ = now_ms_;
    conn.assembler_.push(std::move(piece));
    record = conn.assembler_.next();
  }
  forget_unfinished(conn);
  if ((record->flags & kClose) != 0) {
    ChunkQueue why;
    conn.assembler_.take_body(why, pool_);
    const std::string text(why.empty() ? "closed" : as_text(why.front().view()));
    const std::uint32_t id = conn.id_;
    detach(conn);
    put_closed(id, std::nullopt, nullptr, text);
    return conn.on_ended();
  }
  scratch_.clear();
  MessageWriter message(scratch_, Type::kData, next_sequence());
  message.put_u32(Id::kConn, conn.id_);
  if (record->uuid) message.put(Id::kUuid, ByteView(*record->uuid));
  if (record->flags != 0) message.put_u32(Id::kFlags, record->flags);
  message.body_follows(record->length);
  fabric::merge_into(out_, scratch_, nullptr, pool_);
  conn.assembler_.take_body(out_, pool_);
  const std::size_t size = scratch_.size() + record->length;
  out_bytes_ += size;
  ring_.charge(conn, size);
}

// What came of a message that is not whole was passed on, for the end that sent it: so here is what
// bounds it. The largest goes first.
void Channel::hold_unfinished(Conn& conn) {
  if (conn.assembler_.bytes() == 0) return forget_unfinished(conn);
  if (!std::exchange(conn.unfinished_, true)) unfinished_.push_back(&conn);
  const auto size = [](const Conn* c) { return c->assembler_.bytes(); };
  std::size_t all = 0;
  for (const Conn* c : unfinished_) all += size(c);
  if (all <= options_.most_unfinished) return;
  Conn& largest = **std::ranges::max_element(unfinished_, {}, size);
  forget_unfinished(largest);
  largest.on_stalled();
}

void Channel::forget_unfinished(Conn& conn) {
  if (std::exchange(conn.unfinished_, false)) std::erase(unfinished_, &conn);
}

Bytes Channel::closed_message(std::uint32_t conn, std::optional<std::int32_t> reply_for,
                              const Failure* why, std::string_view text) {
  Bytes out;
  MessageWriter message(out, Type::kStateClosed, next_sequence());
  message.put_u32(Id::kConn, conn);
  if (reply_for) message.put_u32(Id::kReplyFor, static_cast<std::uint32_t>(*reply_for));
  if (why != nullptr && why->code != Code::kNone) {
    const auto code = static_cast<unsigned>(why->code);
    message.put_u32(Id::kErrorCode, code);
    message.put(Id::kStructuredError,
                "{\"message\":\"" + json_text(text) + "\",\"code\":" + std::to_string(code) +
                    ",\"retryHint\":" + std::to_string(static_cast<unsigned>(why->hint)) + "}");
  }
  message.body(as_bytes(text));
  return out;
}

void Channel::put_closed(std::uint32_t conn, std::optional<std::int32_t> reply_for,
                         const Failure* why, std::string_view text) {
  put(closed_message(conn, reply_for, why, text));
}

// ---- time
// ----------------------------------------------------------------------------------------

bool Channel::wants_read() const {
  return blocked_.empty() && out_bytes_ < kPauseOut && state_ != State::kRefused;
}

std::int64_t Channel::deadline_ms() const {
  std::int64_t at = state_ == State::kHello && !end_at_ms_ ? started_ms_ + options_.hello_ms
                                                           : heard_ms_ + options_.silent_ms;
  if (end_at_ms_) at = std::min(at, *end_at_ms_);
  if (!delayed_.empty()) at = std::min(at, delayed_.front().at_ms);
  if (!blocked_.empty()) at = std::min(at, blocked_ms_ + options_.stalled_ms - spent_ms_);
  for (const Conn* c : unfinished_) at = std::min(at, c->grown_ms_ + options_.stalled_ms);
  return at;
}

Status Channel::on_time(std::int64_t now_ms) {
  now_ms_ = now_ms;
  if (state_ == State::kHello && now_ms >= started_ms_ + options_.hello_ms)
    return fail(Errc::kNoHello);
  std::size_t due = 0;
  while (due < delayed_.size() && delayed_[due].at_ms <= now_ms) put(delayed_[due++].message);
  delayed_.erase(delayed_.begin(), delayed_.begin() + static_cast<std::ptrdiff_t>(due));
  if (end_at_ms_ && now_ms >= *end_at_ms_) return fail(Errc::kRefused);
  // While nothing is read, nothing is heard.
  if (!wants_read()) heard_ms_ = std::max(heard_ms_, now_ms - options_.silent_ms / 2);
  if (now_ms >= heard_ms_ + options_.silent_ms) return fail(Errc::kSilent);
  const bool spent = now_ms >= blocked_ms_ + options_.stalled_ms - spent_ms_;
  while (spent && !blocked_.empty()) {
    Conn& conn = *blocked_.back();
    unblock(conn, now_ms);
    conn.on_stalled();
  }
  for (std::size_t i = 0; i < unfinished_.size();) {
    Conn& conn = *unfinished_[i];
    if (now_ms < conn.grown_ms_ + options_.stalled_ms) {
      ++i;
      continue;
    }
    forget_unfinished(conn);
    conn.on_stalled();
  }
  return {};
}

// ---- what is said to the SDK
// --------------------------------------------------------------------------------

void Channel::accept_hello() {
  if (state_ != State::kAsked) return;
  state_ = State::kLive;
  Bytes out;
  MessageWriter message(out, Type::kResult, kNoReply);
  message.put_u32(Id::kReplyFor, static_cast<std::uint32_t>(hello_sequence_))
      .put_flag(Id::kResult, true)
      .put(Id::kVersion, options_.software)
      .put(Id::kRouterId, options_.router_id)
      .put(Id::kConnectionId, options_.connection_id)
      .put_flag(Id::kBindSuccess, true)
      .body({});
  put(out);
}

void Channel::refuse_hello(const std::string& why, bool busy, std::int64_t now_ms) {
  if (state_ != State::kAsked) return;
  now_ms_ = now_ms;
  state_ = State::kRefused;
  Bytes out;
  MessageWriter message(out, Type::kResult, kNoReply);
  message.put_u32(Id::kReplyFor, static_cast<std::uint32_t>(kNoReply))
      .put_flag(Id::kResult, false)
      .put_u32(Id::kRejectClass, busy ? 1 : 2)
      .body(as_bytes(why));
  delayed_.push_back({now_ms_ + options_.refused_hello_ms, std::move(out)});
  end_at_ms_ = now_ms_ + options_.refused_hello_ms;
  transport_.on_channel_changed();
}

bool Channel::attach(Conn& conn, std::uint32_t id) {
  SALLY_CHECK(conn.channel_ == nullptr);
  if (!conns_.try_emplace(id, &conn).second) return false;
  conn.channel_ = this;
  conn.id_ = id;
  conn.named_ = true;
  return true;
}

void Channel::connected(Conn& conn, std::int32_t sequence, std::string_view circuit, ByteView key) {
  conn.open_ = true;
  Bytes out;
  MessageWriter message(out, Type::kStateConnected, next_sequence());
  message.put_u32(Id::kConn, conn.id_)
      .put_u32(Id::kReplyFor, static_cast<std::uint32_t>(sequence))
      .put(Id::kCircuit, circuit);
  if (!key.empty()) message.put(Id::kPublicKey, key);
  message.body({});
  put(out);
}

void Channel::refuse_connect(std::uint32_t conn, std::int32_t sequence, const Failure& why) {
  put_closed(conn, sequence, &why, why.text);
}

void Channel::bound(const Bind& bind) {
  binds_[bind.conn] = {
      .token = to_bytes(bind.token), .key = bind.key, .router_ids = bind.router_ids};
  Bytes out;
  MessageWriter message(out, Type::kStateConnected, next_sequence());
  message.put_u32(Id::kConn, bind.conn)
      .put_u32(Id::kReplyFor, static_cast<std::uint32_t>(bind.sequence));
  if (bind.router_ids) message.put_flag(Id::kRouterConn, true);
  message.body({});
  if (bind.wants_success)
    MessageWriter(out, Type::kBindSuccess, next_sequence()).put_u32(Id::kConn, bind.conn).body({});
  put(out);
}

void Channel::refuse_bind(const Bind& bind, const Failure& why) {
  delayed_.push_back({now_ms_ + options_.refused_bind_ms,
                      closed_message(bind.conn, bind.sequence, &why, why.text)});
  transport_.on_channel_changed();
}

void Channel::end_bind(std::uint32_t bind, const Failure& why) {
  if (binds_.erase(bind) != 0) put_closed(bind, std::nullopt, &why, why.text);
}

std::uint32_t Channel::new_id() {
  do {
    last_id_ = last_id_ == UINT32_MAX ? kFirstId : last_id_ + 1;
  } while (conns_.contains(last_id_));
  return last_id_;
}

bool Channel::dial(Conn& conn, std::uint32_t bind, const Call& call) {
  const auto it = binds_.find(bind);
  if (state_ != State::kLive || end_at_ms_ || it == binds_.end()) return false;
  const Binding& binding = it->second;
  if (binding.router_ids && !attach(conn, new_id())) return false;
  conn.channel_ = this;
  conn.bind_ = bind;
  conn.dial_ = next_sequence();
  dials_[conn.dial_] = &conn;
  Bytes out;
  MessageWriter message(out, Type::kDial, conn.dial_);
  message.put_u32(Id::kConn, bind)
      .put(Id::kCallerId, call.caller_id)
      .put(Id::kCircuit, call.circuit)
      .put(Id::kDialerId, call.dialer_id)
      .put(Id::kDialerName, call.dialer_name);
  if (binding.router_ids) message.put_u32(Id::kRouterConn, conn.id_);
  if (!call.key.empty()) message.put(Id::kPublicKey, call.key);
  if (!call.app_data.empty()) message.put(Id::kAppData, call.app_data);
  if (!call.marker.empty()) message.put(Id::kMarker, call.marker);
  message.body(binding.token);
  put(out);
  return true;
}

void Channel::close(Conn& conn, std::string_view why) {
  if (conn.channel_ != this) return;
  const std::uint32_t id = conn.id_;
  const bool known = conn.open_;
  detach(conn);
  if (known) put_closed(id, std::nullopt, nullptr, why);
}

void Channel::refuse(Conn& conn, std::int32_t sequence, const Failure& why) {
  if (conn.channel_ != this) return;
  const std::uint32_t id = conn.id_;
  detach(conn);
  refuse_connect(id, sequence, why);
}

void Channel::ready(Conn& conn) {
  if (conn.channel_ != this || !conn.open_) return;
  ring_.add(conn);
  transport_.on_channel_changed();
}

void Channel::block(Conn& conn, bool on, std::int64_t now_ms) {
  if (conn.channel_ != this || conn.blocked_ == on) return;
  if (!on) return unblock(conn, now_ms);
  if (blocked_.empty())
    spent_ms_ =
        std::max<std::int64_t>(0, spent_ms_ - (now_ms - std::exchange(blocked_ms_, now_ms)));
  conn.blocked_ = true;
  blocked_.push_back(&conn);
  transport_.on_channel_changed();
}

void Channel::unblock(Conn& conn, std::int64_t now_ms) {
  if (!std::exchange(conn.blocked_, false)) return;
  std::erase(blocked_, &conn);
  if (blocked_.empty()) {
    const std::int64_t now = std::max(now_ms, blocked_ms_);  // ours may be of the last turn
    spent_ms_ = std::min(options_.stalled_ms, spent_ms_ + (now - blocked_ms_));
    blocked_ms_ = now;
  }
  transport_.on_channel_changed();
}

Conn* Channel::find(std::uint32_t id) const {
  const auto it = conns_.find(id);
  return it == conns_.end() ? nullptr : it->second;
}

Conn* Channel::dialed(std::int32_t sequence) const {
  const auto it = dials_.find(sequence);
  return it == dials_.end() ? nullptr : it->second;
}

void Channel::detach(Conn& conn) {
  unblock(conn, now_ms_);
  forget_unfinished(conn);
  fabric::DeficitRoundRobin::remove(conn);
  if (conn.named_) conns_.erase(conn.id_);
  if (conn.dial_ != 0) dials_.erase(conn.dial_);
  if (in_data_ == &conn) in_data_ = nullptr;
  conn.named_ = conn.open_ = false;
  conn.dial_ = 0;
  conn.channel_ = nullptr;
}

void Channel::end(bool cut) {
  end_at_ms_ = now_ms_;
  const auto all = [this] {
    return !conns_.empty() ? conns_.begin()->second : dials_.begin()->second;
  };
  while (!conns_.empty() || !dials_.empty()) {
    Conn& conn = *all();
    const bool waits = conn.dial_ != 0;
    detach(conn);
    if (waits) {
      conn.on_dial_failed("the host's connection is gone");
    } else {
      conn.on_closed(!cut && !conn.in_record_);
    }
  }
}

}  // namespace sally::edge
