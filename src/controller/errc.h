// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::controller {

enum class Errc : std::uint8_t {
  kUsage,       ///< options that make no sense
  kExists,      ///< the folder holds a network already
  kNoNetwork,   ///< the folder holds none
  kReplaced,    ///< a newer lane of the same router took over
  kRemoved,     ///< the peer lost its right to be here
  kBusy,        ///< the work queue is full
  kUnexpected,  ///< a message that does not belong on this lane
};
std::string_view error_name(Errc e);

}  // namespace sally::controller
