// SPDX-License-Identifier: Apache-2.0
#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>

#include "vfs.h"

namespace sally::faults {
namespace {

struct State {
  FileFault fault = FileFault::kNone;
  std::uint64_t at = 0;
  std::uint64_t count = 0;
  int error = 0;
} state;

// False: give `errno` instead.
bool step(bool torn = false) {
  if (state.at == 0 || ++state.count != state.at) return true;
  if (state.fault == FileFault::kError) {
    errno = state.error;
    return false;
  }
  if (state.fault == FileFault::kTorn && torn) return true;
  if (state.fault != FileFault::kNone) ::_exit(kStopped);
  return true;
}

}  // namespace

void arm_files(FileFault fault, std::uint64_t at, int error) {
  state = {.fault = fault, .at = at, .count = 0, .error = error};
}
std::uint64_t file_steps() {
  return state.count;
}

}  // namespace sally::faults

using sally::faults::step;

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names
int __real_open(const char* path, int flags, ...);
ssize_t __real_write(int fd, const void* data, size_t n);
int __real_fchmod(int fd, mode_t mode);
int __real_fsync(int fd);
int __real_close(int fd);
int __real_rename(const char* from, const char* to);
int __real_mkdir(const char* path, mode_t mode);

int __wrap_open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list args;
    va_start(args, flags);
    mode = va_arg(args, mode_t);
    va_end(args);
    if (!step()) return -1;
  }
  return __real_open(path, flags, mode);
}
ssize_t __wrap_write(int fd, const void* data, size_t n) {
  if (!step(true)) {
    // As a disk does that fills up: what fits is taken, the rest is refused the next time.
    return -1;
  }
  if (sally::faults::state.fault == sally::faults::FileFault::kTorn &&
      sally::faults::state.count == sally::faults::state.at && sally::faults::state.at != 0) {
    (void)!__real_write(fd, data, n / 2);
    ::_exit(sally::faults::kStopped);
  }
  return __real_write(fd, data, n);
}
int __wrap_fchmod(int fd, mode_t mode) {
  return step() ? __real_fchmod(fd, mode) : -1;
}
int __wrap_fsync(int fd) {
  return step() ? __real_fsync(fd) : -1;
}
int __wrap_close(int fd) {
  if (step()) return __real_close(fd);
  const int e = errno;
  (void)__real_close(fd);  // the descriptor is gone, whatever it says
  errno = e;
  return -1;
}
int __wrap_rename(const char* from, const char* to) {
  return step() ? __real_rename(from, to) : -1;
}
int __wrap_mkdir(const char* path, mode_t mode) {
  return step() ? __real_mkdir(path, mode) : -1;
}
// NOLINTEND(bugprone-reserved-identifier)
}
