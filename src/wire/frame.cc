// SPDX-License-Identifier: Apache-2.0
#include "wire/frame.h"

#include <limits>

#include "base/bytes.h"

namespace sally::wire {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kFrameType:
      return "wire.frame_type";
    case Errc::kFrameReserved:
      return "wire.frame_reserved";
    case Errc::kFrameLength:
      return "wire.frame_length";
    case Errc::kFrameLabel:
      return "wire.frame_label";
    case Errc::kFrameFlags:
      return "wire.frame_flags";
    case Errc::kFrameClass:
      return "wire.frame_class";
    case Errc::kFrameOffset:
      return "wire.frame_offset";
    case Errc::kMalformed:
      return "wire.malformed";
    case Errc::kTooLarge:
      return "wire.too_large";
    case Errc::kTooMany:
      return "wire.too_many";
    case Errc::kValue:
      return "wire.value";
    case Errc::kMissing:
      return "wire.missing";
    case Errc::kDuplicate:
      return "wire.duplicate";
  }
  return "wire.unknown";
}

std::string_view frame_name(FrameType t) {
  static constexpr std::string_view kNames[] = {
      "DATA",      "CREDIT",    "ACK",   "FIN",  "RESET", "SETUP",  "SETUP_OK",
      "SETUP_ERR", "PATH_DOWN", "DGRAM", "PING", "PONG",  "CONTROL"};
  const auto i = static_cast<std::size_t>(t);
  return i < std::size(kNames) ? kNames[i] : "?";
}

namespace {

enum class LabelRule : std::uint8_t { kLane, kCircuit };
enum class OffsetRule : std::uint8_t { kAny, kZero, kLabel, kStream };

struct Rule {
  LabelRule label;
  std::uint32_t min_length;
  std::uint32_t max_length;
  std::uint8_t flags;
  bool payload_class;
  OffsetRule offset;
};

constexpr Rule kRules[] = {
    {LabelRule::kCircuit, 1, kMaxPayload, 0, true, OffsetRule::kStream},         // DATA
    {LabelRule::kCircuit, 0, 0, 0, false, OffsetRule::kAny},                     // CREDIT
    {LabelRule::kCircuit, 0, 0, 0, false, OffsetRule::kAny},                     // ACK
    {LabelRule::kCircuit, 0, 0, 0, false, OffsetRule::kAny},                     // FIN
    {LabelRule::kCircuit, 0, kMaxErrorPayload, 0, false, OffsetRule::kZero},     // RESET
    {LabelRule::kLane, 1, kMaxPayload, 0, false, OffsetRule::kLabel},            // SETUP
    {LabelRule::kCircuit, 1, kMaxPayload, 0, false, OffsetRule::kLabel},         // SETUP_OK
    {LabelRule::kCircuit, 0, kMaxErrorPayload, 0, false, OffsetRule::kZero},     // SETUP_ERR
    {LabelRule::kLane, 1, kMaxPayload, 0, false, OffsetRule::kZero},             // PATH_DOWN
    {LabelRule::kCircuit, 1, kMaxPayload, 0, true, OffsetRule::kAny},            // DGRAM
    {LabelRule::kLane, 0, 0, 0, false, OffsetRule::kAny},                        // PING
    {LabelRule::kLane, kPongPayload, kPongPayload, 0, false, OffsetRule::kAny},  // PONG
    {LabelRule::kLane, 1, kMaxPayload, kFlagMore, false, OffsetRule::kZero},     // CONTROL
};

}  // namespace

Result<FrameHeader> decode_header(std::span<const std::uint8_t, kFrameHeaderSize> in) {
  FrameHeader h;
  h.label = static_cast<std::uint32_t>(get_little(&in[0], 4));
  h.length = static_cast<std::uint32_t>(get_little(&in[4], 3));
  const unsigned type = in[7] & 0x0fU;
  h.flags = in[7] >> 4U;
  h.offset = get_little(&in[9], 6);
  if (type >= std::size(kRules)) return fail(Errc::kFrameType, std::to_string(type));
  h.type = static_cast<FrameType>(type);
  const Rule& rule = kRules[type];
  const auto refuse = [&h](Errc e) { return fail(e, std::string(frame_name(h.type))); };
  if (in[15] != 0) return refuse(Errc::kFrameReserved);
  if (in[8] > static_cast<unsigned>(Class::kBulk)) return refuse(Errc::kFrameClass);
  h.cls = static_cast<Class>(in[8]);
  if (rule.payload_class && h.cls == Class::kControl) return refuse(Errc::kFrameClass);
  if ((h.flags & ~rule.flags) != 0) return refuse(Errc::kFrameFlags);
  if (h.length < rule.min_length || h.length > rule.max_length) return refuse(Errc::kFrameLength);
  if ((h.label == 0) != (rule.label == LabelRule::kLane)) return refuse(Errc::kFrameLabel);
  switch (rule.offset) {
    case OffsetRule::kAny:
      break;
    case OffsetRule::kZero:
      if (h.offset != 0) return refuse(Errc::kFrameOffset);
      break;
    case OffsetRule::kLabel:
      if (h.offset == 0 || h.offset > std::numeric_limits<std::uint32_t>::max())
        return refuse(Errc::kFrameOffset);
      break;
    case OffsetRule::kStream:
      if (h.offset + h.length > kMaxOffset) return refuse(Errc::kFrameOffset);
      break;
  }
  return h;
}

}  // namespace sally::wire
