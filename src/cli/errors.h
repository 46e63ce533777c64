// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace sally::cli {

/// Exit codes, stable (`sally --help`).
enum Exit : std::uint8_t {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,
  kDenied = 3,
  kNotFound = 4,
  kConflict = 5,
  kUnreachable = 6,
  kVerifyFailed = 7,
  kInterrupted = 130,  ///< as shells say of SIGINT
};

enum class Errc : std::uint8_t {
  kUsage,
  kNoContext,  ///< no admin identity where it was looked for
  kDenied,
  kNotFound,
  kConflict,
  kUnreachable,
  kVerify,
  kRunning,
  kFailed,
  kInterrupted,
};
std::string_view error_name(Errc e);

/// What a failed command says and exits with.
struct Failure {
  Exit exit = kFailed;
  std::string code;
  std::string message;
  std::string fix;  ///< the command that mends it, or empty
};
/// A code that another process gave, with the exit code it means here. Kept for the life of the
/// process: an Error holds static text.
class RemoteCode {
 public:
  RemoteCode(std::string_view code, Exit exit);
  friend std::string_view error_name(const RemoteCode& c) { return c.code_; }

 private:
  std::string_view code_;
};
/// What a code of any folder exits with; unknown ones with 1.
Exit exit_of(std::string_view code);
/// A context may end with a line of its own that says how to mend it.
Failure to_failure(const Error& error);
/// A SALLY_E_* code with its text.
Error sdk_error(int code, std::string text);

}  // namespace sally::cli
