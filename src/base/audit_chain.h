// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace sally {

/// What the hash of an audit row covers, without the hash before it. The store writes the chain,
/// the command line checks an export of it without the store: one form for both.
struct AuditText {
  std::uint64_t seq = 0;
  std::int64_t at_ms = 0;
  std::string actor;    ///< "admin/root", "device/ab12", "system"
  std::string action;   ///< "device.add", "enroll", ...
  std::string subject;  ///< id
  std::string detail;   ///< JSON object or empty
};

/// The bytes whose SHA-256 is the row's hash: the hash before, number, time, and every text with
/// its length, so that no two rows share an encoding.
Bytes audit_input(ByteView previous_hash, std::string_view network, const AuditText& row);

}  // namespace sally
