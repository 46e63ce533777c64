// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::loop {

enum class Errc : std::uint8_t {
  kBadAddress,  ///< text is no address of this machine
  kBind,        ///< cannot bind or listen
  kDns,         ///< name has no address
  kConnect,     ///< every address refused
  kTimeout,
  kSpawn,  ///< program could not be started
  kIo,
};
std::string_view error_name(Errc e);

}  // namespace sally::loop
