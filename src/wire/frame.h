// SPDX-License-Identifier: Apache-2.0
// The 16-byte header in front of every payload on a lane, little endian:
// bytes 0-3 label, 4-6 length, 7 type | flags << 4, 8 class, 9-14 offset, 15 reserved (0).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "wire/error.h"

namespace sally::wire {

enum class FrameType : std::uint8_t {
  kData = 0,
  kCredit = 1,
  kAck = 2,
  kFin = 3,
  kReset = 4,
  kSetup = 5,
  kSetupOk = 6,
  kSetupErr = 7,
  kPathDown = 8,
  kDgram = 9,
  kPing = 10,
  kPong = 11,
  kControl = 12,
};
/// "DATA", "CREDIT", ...: for logs and tests.
std::string_view frame_name(FrameType t);

enum class Class : std::uint8_t { kControl = 0, kInteractive = 1, kNormal = 2, kBulk = 3 };

inline constexpr std::size_t kFrameHeaderSize = 16;
/// Payload of any frame, so that header + payload are one TLS record of 16,384 bytes.
inline constexpr std::size_t kMaxPayload = 16'368;
inline constexpr std::size_t kMaxFrame = kFrameHeaderSize + kMaxPayload;
/// RESET and SETUP_ERR carry a code and a short text.
inline constexpr std::size_t kMaxErrorPayload = 1'024;
/// PONG carries the sender's unix time in ms, 8 bytes little endian; 0 = it does not know. PING
/// carries nothing; the offset of a PING is a token that its PONG repeats.
inline constexpr std::size_t kPongPayload = 8;
inline constexpr std::uint64_t kMaxOffset = (std::uint64_t{1} << 48U) - 1;

/// CONTROL: the message goes on in the next CONTROL frame of this lane (fragments follow each
/// other; other frames may stand between them). Lets a message be longer than a frame.
inline constexpr std::uint8_t kFlagMore = 1;
/// What a receiver puts together at most: from a device or before its HELLO, and from an
/// authenticated controller or router.
inline constexpr std::size_t kMaxControlFromDevice = std::size_t{64} << 10U;
inline constexpr std::size_t kMaxControlMessage = std::size_t{8} << 20U;

/// One decoded header. A plain value; any thread.
struct FrameHeader {
  std::uint32_t label = 0;   ///< of the receiver; 0 = the lane itself
  std::uint32_t length = 0;  ///< payload bytes that follow
  FrameType type = FrameType::kData;
  std::uint8_t flags = 0;
  Class cls = Class::kControl;
  std::uint64_t offset = 0;  ///< 48 bits; by type
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

/// Writes 16 bytes. The caller's values are trusted: length < 2^24, flags < 16, offset < 2^48.
inline void encode(const FrameHeader& h, std::span<std::uint8_t, kFrameHeaderSize> out) {
  const auto put = [&out](std::size_t at, std::uint64_t v, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[at + i] = static_cast<std::uint8_t>(v >> (8 * i));
  };
  put(0, h.label, 4);
  put(4, h.length, 3);
  out[7] = static_cast<std::uint8_t>(static_cast<unsigned>(h.type) | (unsigned{h.flags} << 4U));
  out[8] = static_cast<std::uint8_t>(h.cls);
  put(9, h.offset, 6);
  out[15] = 0;
}

/// Reads 16 bytes of a peer and applies the rules of each type:
///   DATA       label, length 1..16368, class 1..3, offset + length <= 2^48 - 1
///   DGRAM      label, length 1..16368, class 1..3
///   CREDIT ACK FIN   label, length 0
///   RESET      label, length <= 1024, offset 0
///   SETUP      label 0, length 1..16368, offset = return label (1 .. 2^32 - 1)
///   SETUP_OK   label, length 1..16368, offset = responder's label (1 .. 2^32 - 1)
///   SETUP_ERR  label, length <= 1024, offset 0
///   PATH_DOWN  label 0, length 1..16368, offset 0
///   PING       label 0, length 0          PONG  label 0, length 8
///   CONTROL    label 0, length 1..16368, offset 0, flag kFlagMore
/// All flags not named and class > 3 are refused: an error closes the lane.
Result<FrameHeader> decode_header(std::span<const std::uint8_t, kFrameHeaderSize> in);

}  // namespace sally::wire
