// SPDX-License-Identifier: Apache-2.0
#include "loop/errc.h"

namespace sally::loop {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kBadAddress:
      return "loop.bad_address";
    case Errc::kBind:
      return "loop.bind";
    case Errc::kDns:
      return "loop.dns";
    case Errc::kConnect:
      return "loop.connect";
    case Errc::kTimeout:
      return "loop.timeout";
    case Errc::kSpawn:
      return "loop.spawn";
    case Errc::kIo:
      return "loop.io";
  }
  return "loop.unknown";
}

}  // namespace sally::loop
