// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::fabric {

/// What a peer did wrong on a circuit. Each closes the lane: only a broken or hostile peer does it.
enum class Errc : std::uint8_t {
  kBeyondCredit,  ///< data past the granted offset
  kGap,           ///< an offset that does not continue the stream
  kBadAck,        ///< acknowledged more than was sent
  kAfterFin,      ///< data after the end of the stream
  kBadFin,        ///< FIN at another offset than the stream's end
  kBadLabel,      ///< a label that was never given out
  kLabelsFull,    ///< the lane's label table is full
};
std::string_view error_name(Errc e);

}  // namespace sally::fabric
