// SPDX-License-Identifier: Apache-2.0
#include "sdk/errors.h"

#include <sally/sally.h>

namespace sally::sdk {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kArgument:
      return "sally.argument";
    case Errc::kIdentity:
      return "sally.identity";
    case Errc::kNoService:
      return "sally.no_service";
    case Errc::kNoHost:
      return "sally.no_host";
    case Errc::kUnreachable:
      return "sally.unreachable";
    case Errc::kTimeout:
      return "sally.timeout";
    case Errc::kRefused:
      return "sally.refused";
    case Errc::kBusy:
      return "sally.busy";
    case Errc::kVerify:
      return "sally.verify";
    case Errc::kReset:
      return "sally.reset";
    case Errc::kClosed:
      return "sally.closed";
    case Errc::kDenied:
      return "sally.denied";
    case Errc::kWouldDeadlock:
      return "sally.would_deadlock";
    case Errc::kInternal:
      return "sally.internal";
    case Errc::kWouldBlock:
      return "sally.would_block";
    case Errc::kMemory:
      return "sally.memory";
  }
  return "sally.unknown";
}

int abi_code(const Error& error) {
  // The enum and the numbers of sally.h stand in the same order.
  for (int i = 0; i <= static_cast<int>(Errc::kMemory); ++i) {
    if (error.is(static_cast<Errc>(i))) return SALLY_E_ARGUMENT - i;
  }
  return SALLY_E_INTERNAL;
}
static_assert(SALLY_E_ARGUMENT - static_cast<int>(Errc::kMemory) == SALLY_E_MEMORY);

Error from_setup_err(const wire::SetupErr& err) {
  const auto text = [&](std::string_view fallback) {
    return (err.text.empty() ? std::string(fallback) : err.text) +
           (err.hop.empty() ? "" : " (at " + err.hop + ")");
  };
  switch (err.code) {
    case wire::SetupCode::kNoService:
      return Error(Errc::kNoService, "no such service");
    case wire::SetupCode::kNoTerminator:
      return Error(Errc::kNoHost, text("nobody hosts it now"), Source::kPeer, true);
    case wire::SetupCode::kBusy:
      return Error(Errc::kBusy, text("a limit was reached"), Source::kPeer, true);
    case wire::SetupCode::kNoPath:
      return Error(Errc::kUnreachable, text("no path to the host"), Source::kPeer, true);
    case wire::SetupCode::kTimeout:
      return Error(Errc::kTimeout, text("the host did not answer"), Source::kPeer, true);
    case wire::SetupCode::kRefused:
      return Error(Errc::kRefused, text("the host's target refused"), Source::kPeer, true);
    case wire::SetupCode::kShuttingDown:
      return Error(Errc::kUnreachable, text("shutting down"), Source::kPeer, true);
    case wire::SetupCode::kE2eParameters:
      return Error(Errc::kVerify, text("the ends share no inner TLS parameters"));
    case wire::SetupCode::kInvalid:
    case wire::SetupCode::kNotKnown:
    case wire::SetupCode::kNone:
      break;
  }
  return Error(Errc::kVerify, text("the set-up was not accepted"));
}

}  // namespace sally::sdk
