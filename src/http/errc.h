// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::http {

enum class Errc : std::uint8_t {
  kBadUrl,       ///< not https://host[:port][/path]
  kBadResponse,  ///< not HTTP/1.1
  kTooLarge,     ///< response past the caller's limit
  kTimeout,
  kForbidden,  ///< plain HTTP to more than this machine
  kClosed,     ///< the server ended the connection before the response was complete
};
std::string_view error_name(Errc e);

}  // namespace sally::http
