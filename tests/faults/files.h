// SPDX-License-Identifier: Apache-2.0
// Our own files' way to the disk under the test's control. The program is linked with --wrap for
// the calls that base/fs makes, so that nothing in base/fs is made for tests.
#pragma once

#include <cstdint>

namespace sally::faults {

/// At the n-th step on the way to the disk (create, write, mode, sync, close, rename, folder).
enum class FileFault : std::uint8_t { kNone, kStop, kTorn, kError };

void arm_files(FileFault fault, std::uint64_t at, int error = 0);
std::uint64_t file_steps();

}  // namespace sally::faults
