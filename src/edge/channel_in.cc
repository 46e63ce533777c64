// SPDX-License-Identifier: Apache-2.0
// What an SDK says on its channel.
#include <algorithm>
#include <utility>

#include "base/text.h"
#include "edge/channel.h"

namespace sally::edge {
namespace {

constexpr std::size_t kMaxReason = 256;
constexpr std::size_t kMaxUuid = 16;
constexpr std::size_t kMaxKey = 128;  // SDKs have 32 and 65
constexpr std::size_t kMaxDelayed = 1'024;
/// Records of messages up to this leave in one piece with their head.
constexpr std::size_t kJoin = 2'048;

Bytes bytes_of(const MessageReader::Item& m, Id id) {
  const auto value = m.headers.bytes(id);
  return value ? to_bytes(*value) : Bytes();
}

// Told to another end, and logged.
std::string reason_of(ByteView body) {
  std::string out(as_text(body.first(std::min(body.size(), kMaxReason))));
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '.');
  return out.empty() ? "no reason given" : out;
}

}  // namespace

Status Channel::feed(ByteView in, std::int64_t now_ms, ChunkPtr* whole) {
  now_ms_ = heard_ms_ = now_ms;
  while (state_ != State::kRefused && !end_at_ms_) {
    TRY_ASSIGN(const auto item, reader_.next(in));
    if (!item) break;
    // What is behind the last piece of a body is nothing.
    whole_ = in.empty() ? whole : nullptr;
    const Status s = on_item(*item);
    whole_ = nullptr;
    if (!s) return s;
  }
  return {};
}

Status Channel::on_item(const MessageReader::Item& item) {
  if (!item.begins) {
    on_body(item.body, item.left);
    return {};
  }
  if (state_ == State::kLive) return on_message(item);
  if (state_ == State::kHello && item.head.type == Type::kHello) return on_hello(item);
  return fail(Errc::kProtocol, "a message before the answer to a hello");
}

Status Channel::on_hello(const MessageReader::Item& m) {
  state_ = State::kAsked;
  hello_sequence_ = m.head.sequence;
  user_.on_hello(*this, {.token = m.headers.text(Id::kSessionToken)});
  return {};
}

Status Channel::on_message(const MessageReader::Item& m) {
  const auto conn = m.headers.u32(Id::kConn);  // 0 is one
  switch (m.head.type) {
    case Type::kData:
      on_data(m);
      return {};
    case Type::kLatency: {
      Bytes out;
      MessageWriter message(out, Type::kResult, next_sequence());
      message.put_u32(Id::kReplyFor, static_cast<std::uint32_t>(m.head.sequence))
          .put_flag(Id::kResult, true);
      if (const auto stamp = m.headers.bytes(Id::kUuid); stamp && stamp->size() <= kMaxUuid)
        message.put(Id::kUuid, *stamp);
      message.body({});
      put(out);
      return {};
    }
    case Type::kConnect:
      on_connect(m);
      return {};
    case Type::kBind:
      return on_bind(m);
    case Type::kUnbind:
      if (!conn) return {};
      if (binds_.erase(*conn) != 0) user_.on_unbind(*this, *conn);
      put_closed(*conn, m.head.sequence, nullptr, "unbound");
      return {};
    case Type::kUpdateBind:
      if (conn && binds_.contains(*conn))
        user_.on_update_bind(*this, *conn, m.headers.u16(Id::kCost), m.headers.u8(Id::kPrecedence));
      return {};
    case Type::kHealth:
      if (conn && binds_.contains(*conn))
        user_.on_health(*this, *conn, m.headers.flag(Id::kHealth));
      return {};
    case Type::kDialSuccess:
      on_dial_success(m);
      return {};
    case Type::kDialFailed:
      on_dial_failed(m);
      return {};
    case Type::kStateClosed:
      if (conn) on_state_closed(*conn);
      return {};
    case Type::kUpdateToken:
    case Type::kBindSuccess:  // what an old SDK calls it
      on_update_token(m);
      return {};
    case Type::kHello:
      return fail(Errc::kProtocol, "a second hello");
    default:
      return {};  // a newer SDK knows more
  }
}

void Channel::on_connect(const MessageReader::Item& m) {
  const auto conn = m.headers.u32(Id::kConn);
  if (!conn)
    return refuse_connect(0, m.head.sequence,
                          {.code = Code::kNone, .text = "connId not set, required"});
  Bytes key = bytes_of(m, Id::kPublicKey);
  if (key.size() > kMaxKey)
    return refuse_connect(*conn, m.head.sequence, {.text = "public key is too long"});
  user_.on_connect(*this, {.conn = *conn,
                           .sequence = m.head.sequence,
                           .token = to_text(m.body),
                           .instance = m.headers.text(Id::kInstance),
                           .key = std::move(key),
                           .caller_id = m.headers.text(Id::kCallerId),
                           .app_data = bytes_of(m, Id::kAppData),
                           .marker = m.headers.text(Id::kMarker)});
}

Status Channel::on_bind(const MessageReader::Item& m) {
  const auto conn = m.headers.u32(Id::kConn);
  if (!conn) return {};
  // Who is refused waits; one that asks on and on meanwhile is no SDK.
  if (delayed_.size() >= kMaxDelayed) return fail(Errc::kTooFast, "refused binds");
  Bind bind{.conn = *conn,
            .sequence = m.head.sequence,
            .token = to_text(m.body),
            .instance = m.headers.text(Id::kInstance),
            .listener = m.headers.text(Id::kListenerId),
            .key = bytes_of(m, Id::kPublicKey),
            .cost = m.headers.u16(Id::kCost).value_or(0),
            .precedence = m.headers.u8(Id::kPrecedence).value_or(0),
            .router_ids = m.headers.flag(Id::kRouterConn),
            .wants_success = m.headers.flag(Id::kBindSuccess)};
  if (bind.key.size() > kMaxKey) {
    refuse_bind(bind, {.hint = Hint::kNotRetriable, .text = "public key is too long"});
    return {};
  }
  if (binds_.size() >= kMaxBinds && !binds_.contains(*conn)) {
    refuse_bind(bind, {.code = Code::kInternal, .hint = Hint::kTooBusy, .text = "too many binds"});
    return {};
  }
  user_.on_bind(*this, std::move(bind));
  return {};
}

void Channel::on_dial_success(const MessageReader::Item& m) {
  const auto reply = m.headers.u32(Id::kReplyFor);
  Conn* conn = reply ? dialed(static_cast<std::int32_t>(*reply)) : nullptr;
  if (conn == nullptr) {  // too late: nobody waits, and the host must know
    if (m.body.size() == 4) {
      const auto id = static_cast<std::uint32_t>(get_little(m.body.data(), 4));
      if (find(id) == nullptr) put_closed(id, std::nullopt, nullptr, "the dial was given up");
    }
    return;
  }
  dials_.erase(std::exchange(conn->dial_, 0));
  const std::uint32_t bind = conn->bind_;
  const auto binding = binds_.find(bind);
  Bytes key = bytes_of(m, Id::kPublicKey);
  if (key.empty() && binding != binds_.end()) key = binding->second.key;
  if (!conn->named_) {
    const auto fail_dial = [&](const char* why) {
      detach(*conn);
      conn->on_dial_failed(why);
    };
    if (m.body.size() != 4) return fail_dial("the host named no conn id");
    conn->channel_ = nullptr;
    if (!attach(*conn, static_cast<std::uint32_t>(get_little(m.body.data(), 4))))
      return fail_dial("the host's conn id is in use");
    Bytes out;
    MessageWriter message(out, Type::kStateConnected, next_sequence());
    message.put_u32(Id::kConn, bind)
        .put_u32(Id::kReplyFor, static_cast<std::uint32_t>(m.head.sequence))
        .body({});
    put(out);
  }
  conn->open_ = true;
  conn->on_dialed(std::move(key));
}

void Channel::on_dial_failed(const MessageReader::Item& m) {
  const auto reply = m.headers.u32(Id::kReplyFor);
  Conn* conn = reply ? dialed(static_cast<std::int32_t>(*reply)) : nullptr;
  if (conn == nullptr) return;
  detach(*conn);
  conn->on_dial_failed(reason_of(m.body));
}

void Channel::on_state_closed(std::uint32_t id) {
  Conn* conn = find(id);
  if (conn == nullptr) return;  // a bind, or over
  const bool waits = conn->dial_ != 0;
  detach(*conn);
  if (waits) {
    conn->on_dial_failed("the host closed the connection");
  } else {
    conn->on_closed(true);
  }
}

void Channel::on_update_token(const MessageReader::Item& m) {
  const auto reply_for = static_cast<std::uint32_t>(m.head.sequence);
  Bytes out;
  if (user_.on_update_token(*this, to_text(m.body))) {
    MessageWriter(out, Type::kUpdateTokenSuccess, next_sequence())
        .put_u32(Id::kReplyFor, reply_for)
        .body({});
    return put(out);
  }
  MessageWriter(out, Type::kUpdateTokenFailure, next_sequence())
      .put_u32(Id::kReplyFor, reply_for)
      .put_u32(Id::kErrorCode, static_cast<std::uint32_t>(Code::kInvalidApiSession))
      .body(as_bytes("code: 2, message: invalid token"));
  put(out);
  end_at_ms_ = now_ms_;
  transport_.on_channel_changed();
}

void Channel::on_data(const MessageReader::Item& m) {
  const auto id = m.headers.u32(Id::kConn);
  Conn* conn = id ? find(*id) : nullptr;
  in_data_ = nullptr;
  if (conn == nullptr || !conn->open_ || conn->fin_in_) return;
  Record r{
      .length = m.head.body,
      .flags = static_cast<std::uint8_t>(m.headers.u32(Id::kFlags).value_or(0) & kMessageFlags),
      .uuid = std::nullopt};
  if (const auto uuid = m.headers.bytes(Id::kUuid); uuid && uuid->size() == kUuidSize)
    std::ranges::copy(*uuid, r.uuid.emplace().begin());
  conn->fin_in_ = (r.flags & kFin) != 0;
  std::uint8_t head[kMaxRecordHead + kJoin];
  std::size_t n = encode(r, std::span(head).first<kMaxRecordHead>());
  ByteView body = m.body;
  if (m.left == 0 && body.size() <= kJoin) {
    std::ranges::copy(body, head + n);
    n += body.size();
    body = {};
  }
  in_data_ = conn;
  conn->in_record_ = m.left != 0 || !body.empty();
  conn->on_stream(ByteView(head, n), nullptr);
  if (!body.empty()) on_body(body, m.left);
}

void Channel::on_body(ByteView piece, std::uint32_t left) {
  constexpr std::size_t kWorthTaking = 4'096;
  if (in_data_ == nullptr) return;
  if (whole_ != nullptr && piece.size() >= kWorthTaking) {
    Chunk& chunk = **whole_;
    chunk.begin = chunk.end - static_cast<std::uint32_t>(piece.size());
    in_data_->in_record_ = left != 0;
    return in_data_->on_stream(piece, whole_);
  }
  while (!piece.empty() && in_data_ != nullptr) {
    const ByteView part = piece.first(std::min(piece.size(), kMaxPiece));
    piece = piece.subspan(part.size());
    in_data_->in_record_ = left != 0 || !piece.empty();
    in_data_->on_stream(part, nullptr);
  }
}

}  // namespace sally::edge
