// SPDX-License-Identifier: Apache-2.0
#include "http/errc.h"

namespace sally::http {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kBadUrl:
      return "http.bad_url";
    case Errc::kBadResponse:
      return "http.bad_response";
    case Errc::kTooLarge:
      return "http.too_large";
    case Errc::kTimeout:
      return "http.timeout";
    case Errc::kForbidden:
      return "http.not_loopback";
    case Errc::kClosed:
      return "http.closed";
  }
  return "http.unknown";
}

}  // namespace sally::http
