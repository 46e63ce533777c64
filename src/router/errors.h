// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::router {

/// Why the router refuses or ends something. For our log and, as a code without context, for the
/// peer.
enum class Errc : std::uint8_t {
  kRevoked,        ///< certificate revoked, identity suspended or revoked
  kStale,          ///< no head of the controller within the offline grace: no new sessions
  kNoState,        ///< nothing replicated yet
  kConfig,         ///< the router's own identity or folder is unusable
  kThread,         ///< the system gives no thread
  kTooManyLanes,   ///< a device has as many connections as it may
  kDeviceKeyOnly,  ///< a session certificate of a device that may have none
  kTooFast,        ///< it goes on with what costs beyond its rate
};
std::string_view error_name(Errc e);

}  // namespace sally::router
