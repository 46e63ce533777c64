// SPDX-License-Identifier: Apache-2.0
#include "controller/errc.h"

namespace sally::controller {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kUsage:
      return "controller.usage";
    case Errc::kExists:
      return "controller.exists";
    case Errc::kNoNetwork:
      return "controller.no_network";
    case Errc::kReplaced:
      return "controller.replaced";
    case Errc::kRemoved:
      return "controller.removed";
    case Errc::kBusy:
      return "controller.busy";
    case Errc::kUnexpected:
      return "controller.unexpected";
  }
  return "controller.unknown";
}

}  // namespace sally::controller
