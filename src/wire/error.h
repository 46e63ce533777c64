// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::wire {

/// Why bytes of a peer were refused.
enum class Errc : std::uint8_t {
  kFrameType,      ///< a type this version does not know
  kFrameReserved,  ///< byte 15 is not 0
  kFrameLength,    ///< length not allowed for the type
  kFrameLabel,     ///< label 0 where a circuit is meant, or a label where the lane is meant
  kFrameFlags,     ///< a flag the type does not have
  kFrameClass,     ///< class above 3, or payload sent as class 0
  kFrameOffset,    ///< offset not allowed for the type, or past 2^48
  kMalformed,      ///< not protobuf, or a known field with another wire type
  kTooLarge,       ///< a field or message over its cap
  kTooMany,        ///< a list over its cap
  kValue,          ///< a number, enum or text out of its range
  kMissing,        ///< a field that must be there is not
  kDuplicate,      ///< a sub-message twice
};
std::string_view error_name(Errc e);

}  // namespace sally::wire
