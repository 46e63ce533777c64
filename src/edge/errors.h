// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::edge {

/// Why a channel of a foreign end is over.
enum class Errc : std::uint8_t {
  kMarker,    ///< not this protocol
  kHeaders,   ///< the table of headers does not add up, or a header is there twice
  kTooLarge,  ///< headers or body over the cap of their kind
  kProtocol,  ///< a message that may not come now
  kNoHello,   ///< no hello in time
  kRefused,   ///< its hello was refused
  kTooFast,   ///< it goes on with what is refused
  kStalled,   ///< it does not read what it asked for
  kSilent,    ///< nothing heard for minutes: an SDK asks at least each minute
  kClosed,    ///< closed by us
};
std::string_view error_name(Errc e);

}  // namespace sally::edge
