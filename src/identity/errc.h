// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::identity {

enum class Errc : std::uint8_t {
  // tokens
  kBadToken,      ///< not an enrolment token of ours or of a compatible controller
  kTokenExpired,  ///< past its end, here or at the controller
  kTokenAltered,  ///< signature does not fit the controller's key: altered, or another server
                  ///< answers
  kTokenUsed,     ///< somebody has enrolled with it
  kTokenRefused,  ///< the controller does not take it: revoked, unknown, foreign, or it does not
                  ///< say
  kMethod,        ///< a kind of token this client cannot use
  // the controller
  kController,   ///< answers that are not those of a controller
  kNotBelieved,  ///< its certificate, its bundle or its root is not what the token names
  kBusy,         ///< try again later
  kRefused,      ///< any other refusal; the context holds the controller's code
  // the file
  kBadFile,         ///< not an identity file
  kMismatch,        ///< parts of it contradict each other
  kKeyUnavailable,  ///< the key lives where this build cannot reach it
};
std::string_view error_name(Errc e);

}  // namespace sally::identity
