// SPDX-License-Identifier: Apache-2.0
#include "cli/errors.h"

#include <sally/sally.h>

#include <array>
#include <map>

namespace sally::cli {
namespace {

std::map<std::string, Exit, std::less<>>& remote_codes() {
  static std::map<std::string, Exit, std::less<>> codes;
  return codes;
}

}  // namespace

RemoteCode::RemoteCode(std::string_view code, Exit exit)
    : code_(remote_codes().try_emplace(std::string(code), exit).first->first) {}

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kUsage:
      return "cli.usage";
    case Errc::kNoContext:
      return "cli.no_context";
    case Errc::kDenied:
      return "cli.denied";
    case Errc::kNotFound:
      return "cli.not_found";
    case Errc::kConflict:
      return "cli.conflict";
    case Errc::kUnreachable:
      return "cli.unreachable";
    case Errc::kVerify:
      return "cli.verify";
    case Errc::kRunning:
      return "cli.running";
    case Errc::kFailed:
      return "cli.failed";
    case Errc::kInterrupted:
      return "cli.interrupted";
  }
  return "cli.unknown";
}

Exit exit_of(std::string_view code) {
  if (const auto remote = remote_codes().find(code); remote != remote_codes().end())
    return remote->second;
  struct Rule {
    std::string_view prefix;
    Exit exit;
  };
  // The first that fits; whole folders last.
  static constexpr std::array rules{
      Rule{"cli.usage", kUsage},
      Rule{"cli.no_context", kUsage},
      Rule{"cli.denied", kDenied},
      Rule{"cli.not_found", kNotFound},
      Rule{"cli.conflict", kConflict},
      Rule{"cli.interrupted", kInterrupted},
      Rule{"cli.running", kConflict},
      Rule{"cli.unreachable", kUnreachable},
      Rule{"cli.verify", kVerifyFailed},
      Rule{"agent.no_forward", kNotFound},
      Rule{"agent.no_service", kNotFound},
      Rule{"agent.request", kUsage},
      Rule{"agent.refused", kDenied},
      Rule{"agent.sdk", kUnreachable},
      Rule{"agent.", kConflict},
      Rule{"tls.timeout", kUnreachable},
      Rule{"tls.truncated", kUnreachable},
      Rule{"tls.io", kUnreachable},
      Rule{"tls.peer_refused", kDenied},
      Rule{"tls.", kVerifyFailed},
      Rule{"crypto.bad_key_name", kUsage},
      Rule{"crypto.module_missing", kNotFound},
      Rule{"crypto.token_missing", kNotFound},
      Rule{"crypto.key_missing", kNotFound},
      Rule{"crypto.pin_", kDenied},
      Rule{"crypto.key_operation", kFailed},
      Rule{"crypto.", kVerifyFailed},
      Rule{"loop.bad_address", kUsage},
      Rule{"loop.bind", kConflict},
      Rule{"loop.", kUnreachable},
      Rule{"http.timeout", kUnreachable},
      Rule{"http.closed", kUnreachable},
      Rule{"fs.not_found", kNotFound},
      Rule{"fs.denied", kDenied},
      Rule{"fs.locked", kConflict},
      Rule{"identity.bad_token", kUsage},
      Rule{"identity.method", kUsage},
      Rule{"identity.bad_file", kUsage},
      Rule{"identity.key_unavailable", kUsage},
      Rule{"identity.token_altered", kVerifyFailed},
      Rule{"identity.not_believed", kVerifyFailed},
      Rule{"identity.mismatch", kVerifyFailed},
      Rule{"identity.token_", kDenied},
      Rule{"identity.refused", kDenied},
      Rule{"identity.", kUnreachable},
  };
  for (const auto& rule : rules) {
    if (code.starts_with(rule.prefix)) return rule.exit;
  }
  return kFailed;
}

Failure to_failure(const Error& error) {
  Failure f{
      .exit = kFailed, .code = std::string(error.code()), .message = error.context(), .fix = {}};
  if (const auto line = f.message.find('\n'); line != std::string::npos) {
    f.fix = f.message.substr(line + 1);
    f.message.resize(line);
  }
  if (f.message.empty()) f.message = f.code;
  f.exit = exit_of(f.code);
  return f;
}

namespace {

Exit exit_of_sdk(int code) {
  switch (code) {
    case SALLY_E_ARGUMENT:
    case SALLY_E_IDENTITY:
      return kUsage;
    case SALLY_E_NO_SERVICE:
      return kNotFound;
    case SALLY_E_DENIED:
      return kDenied;
    case SALLY_E_VERIFY:
      return kVerifyFailed;
    case SALLY_E_NO_HOST:
    case SALLY_E_UNREACHABLE:
    case SALLY_E_TIMEOUT:
    case SALLY_E_REFUSED:
    case SALLY_E_BUSY:
    case SALLY_E_RESET:
      return kUnreachable;
    default:
      return kFailed;
  }
}

}  // namespace

Error sdk_error(int code, std::string text) {
  return Error(RemoteCode(sally_error_name(code), exit_of_sdk(code)), std::move(text));
}

}  // namespace sally::cli
