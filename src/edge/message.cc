// SPDX-License-Identifier: Apache-2.0
#include "edge/message.h"

#include <algorithm>

namespace sally::edge {
namespace {

constexpr std::size_t kEntryHead = 8;

std::uint32_t little(ByteView in, std::size_t at) {
  return static_cast<std::uint32_t>(get_little(in.data() + at, 4));
}

void put_u32_at(std::uint8_t* out, std::size_t value) {
  put_little(out, value, 4);
}

}  // namespace

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kMarker:
      return "edge.marker";
    case Errc::kHeaders:
      return "edge.headers";
    case Errc::kTooLarge:
      return "edge.too_large";
    case Errc::kProtocol:
      return "edge.protocol";
    case Errc::kNoHello:
      return "edge.no_hello";
    case Errc::kRefused:
      return "edge.refused";
    case Errc::kTooFast:
      return "edge.too_fast";
    case Errc::kStalled:
      return "edge.stalled";
    case Errc::kSilent:
      return "edge.silent";
    case Errc::kClosed:
      return "edge.closed";
  }
  return "edge.unknown";
}

Body body_of(Type type) {
  switch (type) {
    case Type::kData:
      return Body::kPieces;
    case Type::kHello:
    case Type::kLatency:
    case Type::kConnect:
    case Type::kStateClosed:
    case Type::kDialSuccess:
    case Type::kDialFailed:
    case Type::kBind:
    case Type::kUnbind:
    case Type::kUpdateBind:
    case Type::kHealth:
    case Type::kBindSuccess:
    case Type::kUpdateToken:
      return Body::kWhole;
    default:
      return Body::kSkipped;
  }
}

Result<Head> decode_head(std::span<const std::uint8_t, kFixedSize> in) {
  if (!std::equal(kMagic.begin(), kMagic.end(), in.begin())) return fail(Errc::kMarker);
  const Head h{.type = static_cast<Type>(little(in, 4)),
               .sequence = static_cast<std::int32_t>(little(in, 8)),
               .headers = little(in, 12),
               .body = little(in, 16)};
  const std::size_t most = h.type == Type::kHello            ? kMaxHelloBody
                           : body_of(h.type) == Body::kWhole ? kMaxText
                                                             : kMaxBody;
  if (h.headers > kMaxHeaders) return fail(Errc::kTooLarge, "headers");
  if (h.body > most) return fail(Errc::kTooLarge, "body");
  return h;
}

Result<Headers> Headers::parse(ByteView in) {
  Headers out;
  while (!in.empty()) {
    if (in.size() < kEntryHead) return fail(Errc::kHeaders, "a part of an entry");
    const auto id = static_cast<Id>(little(in, 0));
    const std::size_t size = little(in, 4);
    in = in.subspan(kEntryHead);
    if (size > in.size()) return fail(Errc::kHeaders, "an entry longer than the rest");
    if (out.entries_.size() == kMaxHeaderCount) return fail(Errc::kHeaders, "too many");
    if (out.bytes(id)) return fail(Errc::kHeaders, "twice");
    out.entries_.emplace_back(id, in.first(size));
    in = in.subspan(size);
  }
  return out;
}

std::optional<ByteView> Headers::bytes(Id id) const {
  const auto it = std::ranges::find(entries_, id, &std::pair<Id, ByteView>::first);
  if (it == entries_.end()) return std::nullopt;
  return it->second;
}

std::string Headers::text(Id id) const {
  const auto value = bytes(id);
  return value ? to_text(*value) : std::string();
}

std::optional<std::uint32_t> Headers::u32(Id id) const {
  const auto value = bytes(id);
  if (!value || value->size() != 4) return std::nullopt;
  return little(*value, 0);
}

std::optional<std::uint16_t> Headers::u16(Id id) const {
  const auto value = bytes(id);
  if (!value || value->size() != 2) return std::nullopt;
  return static_cast<std::uint16_t>(get_little(value->data(), 2));
}

std::optional<std::uint8_t> Headers::u8(Id id) const {
  const auto value = bytes(id);
  if (!value || value->empty()) return std::nullopt;
  return value->front();
}

bool MessageReader::collect(ByteView& in, std::size_t size) {
  if (partial_.size() < size) {
    const std::size_t n = std::min(size - partial_.size(), in.size());
    append(partial_, in.first(n));
    in = in.subspan(n);
  }
  return partial_.size() >= size;
}

ByteView MessageReader::piece_of(ByteView& in) {
  const ByteView piece = in.first(std::min<std::size_t>(left_, in.size()));
  in = in.subspan(piece.size());
  left_ -= static_cast<std::uint32_t>(piece.size());
  return piece;
}

// Headers and, where it is put together, the body of head_.
Result<std::optional<MessageReader::Item>> MessageReader::take(ByteView message, ByteView& in) {
  Item item{.head = head_, .begins = true, .headers = {}, .body = {}, .left = 0};
  TRY_ASSIGN(item.headers, Headers::parse(message.subspan(kFixedSize, head_.headers)));
  item.body = message.subspan(kFixedSize + head_.headers);
  left_ = head_.body - static_cast<std::uint32_t>(item.body.size());
  if (body_of(head_.type) == Body::kPieces) item.body = piece_of(in);
  item.left = left_;
  return item;
}

Result<std::optional<MessageReader::Item>> MessageReader::next(ByteView& in) {
  if (std::exchange(done_, false)) partial_.clear();
  for (;;) {
    if (left_ > 0) {
      const ByteView piece = piece_of(in);
      if (piece.empty()) return std::nullopt;
      if (body_of(head_.type) == Body::kSkipped) continue;
      return Item{.head = head_, .begins = false, .headers = {}, .body = piece, .left = left_};
    }
    const auto size = [this] {
      return kFixedSize + head_.headers + (body_of(head_.type) == Body::kWhole ? head_.body : 0);
    };
    if (partial_.empty() && in.size() >= kFixedSize) {
      TRY_ASSIGN(head_, decode_head(in.first<kFixedSize>()));
      if (in.size() >= size()) {
        const ByteView message = in.first(size());
        in = in.subspan(message.size());
        return take(message, in);
      }
    }
    if (!collect(in, kFixedSize)) {
      // At once, so that a stranger who says something else is not waited for.
      const std::size_t n = std::min(partial_.size(), kMagic.size());
      if (!std::equal(partial_.begin(), partial_.begin() + static_cast<std::ptrdiff_t>(n),
                      kMagic.begin()))
        return fail(Errc::kMarker);
      return std::nullopt;
    }
    TRY_ASSIGN(head_, decode_head(std::span<const std::uint8_t>(partial_).first<kFixedSize>()));
    if (!collect(in, size())) return std::nullopt;
    done_ = true;
    return take(partial_, in);
  }
}

MessageWriter::MessageWriter(Bytes& out, Type type, std::int32_t sequence)
    : out_(out), at_(out.size()) {
  out_.resize(at_ + kFixedSize);
  std::uint8_t* head = out_.data() + at_;
  std::ranges::copy(kMagic, head);
  put_u32_at(head + 4, static_cast<std::uint32_t>(type));
  put_u32_at(head + 8, static_cast<std::uint32_t>(sequence));
}

MessageWriter& MessageWriter::put(Id id, ByteView value) {
  std::uint8_t head[kEntryHead];
  put_u32_at(head, static_cast<std::uint32_t>(id));
  put_u32_at(head + 4, value.size());
  append(out_, head);
  append(out_, value);
  return *this;
}

MessageWriter& MessageWriter::put_u32(Id id, std::uint32_t value) {
  std::uint8_t raw[4];
  put_u32_at(raw, value);
  return put(id, ByteView(raw));
}

MessageWriter& MessageWriter::put_flag(Id id, bool value) {
  const std::uint8_t raw[1] = {value ? std::uint8_t{1} : std::uint8_t{0}};
  return put(id, ByteView(raw));
}

void MessageWriter::body_follows(std::uint32_t size) {
  put_u32_at(out_.data() + at_ + 12, out_.size() - at_ - kFixedSize);
  put_u32_at(out_.data() + at_ + 16, size);
}

void MessageWriter::body(ByteView bytes) {
  body_follows(static_cast<std::uint32_t>(bytes.size()));
  append(out_, bytes);
}

}  // namespace sally::edge
