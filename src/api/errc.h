// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::api {

enum class Errc : std::uint8_t {
  kNoCertificate,   ///< no client certificate
  kNotAdmin,        ///< a certificate, but not an active admin of this network
  kNoRoute,         ///< no such path
  kMethod,          ///< path exists, method does not
  kBadJson,         ///< body is not a JSON object
  kBadField,        ///< a member is missing, of the wrong type or out of range
  kBadName,         ///< a name nobody may have
  kUnknown,         ///< a name or id that does not exist
  kTaken,           ///< a name that exists
  kInUse,           ///< cannot go while something needs it
  kLastAdmin,       ///< would lock the owner out
  kNoSession,       ///< a foreign end that is not logged in, or not as who it proves to be
  kSessionExpired,  ///< it was
  kTooMany,         ///< too many at once
};
std::string_view error_name(Errc e);

}  // namespace sally::api
