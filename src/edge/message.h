// SPDX-License-Identifier: Apache-2.0
// Messages of a channel between a Ziti SDK and a router (docs/edge-protocol.md): 20 bytes, a table
// of headers, a body.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "edge/errors.h"

namespace sally::edge {

/// What the first four bytes of every message are.
inline constexpr std::array<std::uint8_t, 4> kMagic = {0x03, 0x06, 0x09, 0x0c};
inline constexpr std::size_t kFixedSize = 20;
inline constexpr std::size_t kMaxHeaders = 16'384;
inline constexpr std::size_t kMaxHeaderCount = 128;
inline constexpr std::size_t kMaxHelloBody = 4'192;
/// Of what is put together before it is looked at: tokens and reasons.
inline constexpr std::size_t kMaxText = 16'384;
/// Of data, and of messages that are passed over.
inline constexpr std::size_t kMaxBody = (std::size_t{1} << 24U) - 1;

enum class Type : std::int32_t {
  kHello = 0,
  kResult = 2,
  kLatency = 3,
  kConnect = 60783,
  kStateConnected = 60784,
  kStateClosed = 60785,
  kData = 60786,
  kDial = 60787,
  kDialSuccess = 60788,
  kDialFailed = 60789,
  kBind = 60790,
  kUnbind = 60791,
  kUpdateBind = 60794,
  kHealth = 60795,
  kBindSuccess = 60800,  ///< of an old SDK: UpdateToken
  kUpdateTokenSuccess = 60801,
  kUpdateTokenFailure = 60802,
  kUpdateToken = 60803,
};

enum class Id : std::int32_t {
  kConnectionId = 0,
  kReplyFor = 1,
  kResult = 2,
  kVersion = 4,
  kRouterId = 8,
  kRejectClass = 13,
  kUuid = 128,
  kConn = 1000,
  kSessionToken = 1002,
  kPublicKey = 1003,
  kCost = 1004,
  kPrecedence = 1005,
  kInstance = 1006,
  kCallerId = 1008,
  kFlags = 1010,
  kAppData = 1011,
  kRouterConn = 1012,
  kHealth = 1013,
  kErrorCode = 1014,
  kListenerId = 1021,
  kBindSuccess = 1024,
  kMarker = 1025,
  kCircuit = 1026,
  kStructuredError = 1033,
  kDialerId = 1034,
  kDialerName = 1035,
};

/// The 20 bytes. A plain value.
struct Head {
  Type type = Type::kHello;
  std::int32_t sequence = 0;
  std::uint32_t headers = 0;  ///< bytes that follow
  std::uint32_t body = 0;     ///< bytes behind those
  friend bool operator==(const Head&, const Head&) = default;
};
/// kMarker; kTooLarge by the cap of the type.
Result<Head> decode_head(std::span<const std::uint8_t, kFixedSize> in);
/// Its body comes in pieces (data), or is put together, or is passed over.
enum class Body : std::uint8_t { kPieces, kWhole, kSkipped };
Body body_of(Type type);

/// The headers of one message. Views into what they were parsed from, which must live as long.
class Headers {
 public:
  /// kHeaders: lengths that do not add up, more than kMaxHeaderCount, one id twice (peers would not
  /// agree which one counts).
  static Result<Headers> parse(ByteView in);

  [[nodiscard]] std::optional<ByteView> bytes(Id id) const;
  /// Empty where it is absent.
  [[nodiscard]] std::string text(Id id) const;
  /// Little endian, of exactly that size; another size is as if absent.
  [[nodiscard]] std::optional<std::uint32_t> u32(Id id) const;
  [[nodiscard]] std::optional<std::uint16_t> u16(Id id) const;
  [[nodiscard]] std::optional<std::uint8_t> u8(Id id) const;
  /// The first byte is exactly 1.
  [[nodiscard]] bool flag(Id id) const { return u8(id) == 1; }

 private:
  std::vector<std::pair<Id, ByteView>> entries_;
};

/// Takes a peer's bytes apart. Owner: a Channel. Thread: its. Failure: the first error is final;
/// it holds at most the headers and, of what is put together, the body of one message.
class MessageReader {
 public:
  /// A message, or a piece of the body of the last one.
  struct Item {
    Head head;
    bool begins = false;  ///< headers are there, and the first piece; false: another piece
    Headers headers;
    ByteView body;           ///< the whole of it, or a piece; lives as long as `in` and this reader
    std::uint32_t left = 0;  ///< of the body, behind this piece
  };
  /// Takes from the front of `in`; nothing when all of it is taken and more is needed.
  Result<std::optional<Item>> next(ByteView& in);

 private:
  Result<std::optional<Item>> take(ByteView message, ByteView& in);
  ByteView piece_of(ByteView& in);
  /// False when `in` ended before `partial_` had `size` bytes.
  bool collect(ByteView& in, std::size_t size);

  Bytes partial_;      // a message that came in parts, without pieces
  bool done_ = false;  // partial_ was given out
  Head head_;
  std::uint32_t left_ = 0;  // of a body in pieces, or passed over
};

/// Puts one message together, behind what `out` holds already. The body may be left out with its
/// size told, to be put behind it by the caller. Owner and thread: the caller's. Never fails.
class MessageWriter {
 public:
  MessageWriter(Bytes& out, Type type, std::int32_t sequence);
  MessageWriter& put(Id id, ByteView value);
  MessageWriter& put(Id id, std::string_view value) { return put(id, as_bytes(value)); }
  MessageWriter& put_u32(Id id, std::uint32_t value);
  MessageWriter& put_flag(Id id, bool value);
  void body(ByteView bytes);
  void body_follows(std::uint32_t size);

 private:
  Bytes& out_;
  std::size_t at_;
};

}  // namespace sally::edge
