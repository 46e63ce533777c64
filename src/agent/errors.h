// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::agent {

enum class Errc : std::uint8_t {
  kHostConfig,  ///< a host.v1 document we cannot serve
  kForward,     ///< a forward that cannot be made
  kNoForward,   ///< a forward that is not there
  kRefused,     ///< the network does not want this device
  kNoService,   ///< a service that this device may not dial, or that nobody has
  kRunning,     ///< another agent has this folder
  kState,       ///< a file of the agent's folder is damaged
  kRequest,     ///< a request on the control socket that makes no sense
  kSdk,         ///< the SDK refused; the context says why
};
std::string_view error_name(Errc e);

}  // namespace sally::agent
