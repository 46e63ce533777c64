// SPDX-License-Identifier: Apache-2.0
#include "identity/errc.h"

namespace sally::identity {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kBadToken:
      return "identity.bad_token";
    case Errc::kTokenExpired:
      return "identity.token_expired";
    case Errc::kTokenAltered:
      return "identity.token_altered";
    case Errc::kTokenUsed:
      return "identity.token_used";
    case Errc::kTokenRefused:
      return "identity.token_refused";
    case Errc::kMethod:
      return "identity.method";
    case Errc::kController:
      return "identity.controller";
    case Errc::kNotBelieved:
      return "identity.not_believed";
    case Errc::kBusy:
      return "identity.busy";
    case Errc::kRefused:
      return "identity.refused";
    case Errc::kBadFile:
      return "identity.bad_file";
    case Errc::kMismatch:
      return "identity.mismatch";
    case Errc::kKeyUnavailable:
      return "identity.key_unavailable";
  }
  return "identity.unknown";
}

}  // namespace sally::identity
