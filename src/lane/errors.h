// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::lane {

enum class Errc : std::uint8_t {
  kVersion,    ///< no protocol version in common
  kNetwork,    ///< HELLO of another network than the certificate's
  kProtocol,   ///< a frame that may not come now
  kTooLong,    ///< a control message over the cap of this peer
  kNoHello,    ///< no HELLO in time
  kDead,       ///< silence for too long
  kRefused,    ///< the peer said so; its code is in the context
  kClosed,     ///< closed by us
  kQueueFull,  ///< the peer does not read what it asked for
};
std::string_view error_name(Errc e);

}  // namespace sally::lane
