// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "wire/messages.h"

namespace sally::sdk {

/// What a program that uses the SDK may meet. The C ABI maps each to a SALLY_E_* number.
enum class Errc : std::uint8_t {
  kArgument,
  kIdentity,
  kNoService,
  kNoHost,
  kUnreachable,
  kTimeout,
  kRefused,
  kBusy,
  kVerify,
  kReset,
  kClosed,
  kDenied,
  kWouldDeadlock,
  kInternal,
  kWouldBlock,
  kMemory,
};
std::string_view error_name(Errc e);
/// SALLY_E_* of an error; those of other folders are SALLY_E_INTERNAL.
int abi_code(const Error& error);
/// What a router's or host's refusal means to the dialing program.
Error from_setup_err(const wire::SetupErr& err);

}  // namespace sally::sdk
