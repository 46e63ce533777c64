// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"

namespace sally::fs {

enum class Errc : std::uint8_t {
  kNotFound,
  kDenied,
  kTooLarge,
  kIo,
  kExists,
  kFull,      ///< the disk or the quota; worth another try
  kReadOnly,  ///< mounted read-only
  kLocked,    ///< another process is changing it; worth another try
};
std::string_view error_name(Errc e);

/// The whole file; kTooLarge past `max` bytes.
Result<Bytes> read_file(const std::string& path, std::size_t max = 1 << 20);
Result<std::string> read_text(const std::string& path, std::size_t max = 1 << 20);
/// Writes beside, syncs, renames, syncs the folder: after a crash the old or the new content is
/// there, never a mix. What an earlier crash left beside it is cleared away.
Status write_file_atomic(const std::string& path, ByteView content, unsigned mode = 0600);
/// Adds to a file that is there. After a crash it may end in a part of `content`; after an error it
/// is as it was, where the disk lets us.
Status append_file(const std::string& path, ByteView content);
/// Renames a file or a folder; after a power cut it has the old or the new name.
Status move(const std::string& from, const std::string& to);
/// That write_file_atomic could write `bytes` to `path` now: to be asked before what cannot be
/// asked for twice.
Status room_for(const std::string& path, std::size_t bytes);
/// Makes the folder and its parents; mode applies to all it makes. They are there after a power
/// cut.
Status make_dirs(const std::string& path, unsigned mode = 0700);
/// One at a time, over all processes, between reading a file and writing it back with
/// write_file_atomic. It is the file that is locked: whoever may not open it cannot hold us up.
/// Owner: whoever changes the file. Any thread; waits, not for ever: the holder may have been
/// stopped. Failure: none is held (kLocked, or as read_file).
class FileLock {
 public:
  static Result<FileLock> take(const std::string& path, int wait_ms = 2'000);
  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};
bool exists(const std::string& path);
/// kDenied where others than its owner may write in the folder: what we keep there could be theirs.
Status not_shared(const std::string& dir);
Status remove_file(const std::string& path);

}  // namespace sally::fs
