// SPDX-License-Identifier: Apache-2.0
// SQLite's disk under the test's control: counts what changes it, and fails or ends there.
#pragma once

#include <cstdint>

namespace sally::faults {

/// What happens at the n-th change (write, sync, truncate, delete) of any file of SQLite's.
enum class Fault : std::uint8_t {
  kNone,      ///< only counts
  kStop,      ///< the process is gone before it
  kTorn,      ///< half of it is written, then the process is gone
  kPowerCut,  ///< as kStop, and nothing that was not synced is on the disk
  kLottery,   ///< as kPowerCut, but a coin decides for each write that was not synced
  kFull,      ///< from here on nothing fits any more, until the next arm()
  kBroken,    ///< this one fails, the following ones do not
};

/// Exit code of a process that a fault ended.
inline constexpr int kStopped = 77;

/// Makes ours the VFS of every database opened from now on; `checkpoint_pages` is set on each, so
/// that short scripts write into the database itself too. The first call counts.
void install_vfs(int checkpoint_pages);
/// The count starts anew. `at` counts from 1. Not while another thread uses a database.
void arm(Fault fault, std::uint64_t at, std::uint64_t seed = 1);
/// Changes since arm().
std::uint64_t changes();

}  // namespace sally::faults
