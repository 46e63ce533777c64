// SPDX-License-Identifier: Apache-2.0
#include "base/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/random.h"

namespace sally::fs {
namespace {

std::unexpected<Error> errno_error(const std::string& path, const char* what) {
  const int e = errno;
  const Errc code = e == ENOENT                  ? Errc::kNotFound
                    : e == EACCES || e == EPERM  ? Errc::kDenied
                    : e == EEXIST                ? Errc::kExists
                    : e == ENOSPC || e == EDQUOT ? Errc::kFull
                    : e == EROFS                 ? Errc::kReadOnly
                                                 : Errc::kIo;
  return fail(code, path + ": " + what + ": " + std::strerror(e), Source::kLocal,
              code == Errc::kFull);
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  int close() { return ::close(release()); }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

constexpr char kTempMark[] = ".new-";
/// No write takes that long: what is older belongs to nobody.
constexpr std::int64_t kLeftoverS = 60;

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
}

Status sync_folder(const std::string& dir) {
  const Fd folder(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder.get()) != 0) return errno_error(dir, "sync");
  return {};
}

// Temporary files of the same path whose writer died. Both times are the file system's own.
void clear_leftovers(const std::string& path, int fresh) {
  struct stat now{};
  const std::string dir = folder_of(path);
  const std::string mark = path.substr(path.rfind('/') + 1) + kTempMark;
  if (::fstat(fresh, &now) != 0) return;
  DIR* list = ::opendir(dir.c_str());
  if (list == nullptr) return;
  while (const dirent* entry = ::readdir(list)) {
    struct stat st{};
    if (!std::string_view(entry->d_name).starts_with(mark) ||
        ::fstatat(::dirfd(list), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        now.st_mtim.tv_sec - st.st_mtim.tv_sec < kLeftoverS)
      continue;
    ::unlinkat(::dirfd(list), entry->d_name, 0);
  }
  ::closedir(list);
}

// False: errno tells.
bool write_all(int fd, ByteView content) {
  while (!content.empty()) {
    const auto n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    content = content.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kNotFound:
      return "fs.not_found";
    case Errc::kDenied:
      return "fs.denied";
    case Errc::kTooLarge:
      return "fs.too_large";
    case Errc::kIo:
      return "fs.io";
    case Errc::kExists:
      return "fs.exists";
    case Errc::kFull:
      return "fs.full";
    case Errc::kReadOnly:
      return "fs.read_only";
    case Errc::kLocked:
      return "fs.locked";
  }
  return "fs.unknown";
}

Result<Bytes> read_file(const std::string& path, std::size_t max) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return errno_error(path, "open");
  Bytes out;
  std::uint8_t buffer[16384];
  for (;;) {
    const auto n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(path, "read");
    if (n == 0) return out;
    append(out, ByteView(buffer, static_cast<std::size_t>(n)));
    if (out.size() > max)
      return fail(Errc::kTooLarge, path + ": over " + std::to_string(max) + " bytes",
                  Source::kLocal);
  }
}

Result<std::string> read_text(const std::string& path, std::size_t max) {
  TRY_ASSIGN(const auto raw, read_file(path, max));
  return to_text(raw);
}

Status move(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return errno_error(to, "rename");
  return sync_folder(folder_of(to));
}

Status room_for(const std::string& path, std::size_t bytes) {
  const std::string probe = path + kTempMark + system_random().hex(6);
  const auto ok = write_file_atomic(probe, Bytes(bytes));
  ::unlink(probe.c_str());
  return ok;
}

Status append_file(const std::string& path, ByteView content) {
  Fd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  struct stat before{};
  if (fd.get() < 0 || ::fstat(fd.get(), &before) != 0) return errno_error(path, "open");
  const auto give_up = [&](const char* what) {
    auto e = errno_error(path, what);
    (void)!::ftruncate(fd.get(), before.st_size);
    return e;
  };
  if (!write_all(fd.get(), content)) return give_up("write");
  if (::fsync(fd.get()) != 0) return give_up("sync");
  if (fd.close() != 0) return errno_error(path, "close");
  return {};
}

Status write_file_atomic(const std::string& path, ByteView content, unsigned mode) {
  const std::string dir = folder_of(path);
  const std::string temp = path + kTempMark + system_random().hex(6);
  {
    Fd fd(::open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    if (fd.get() < 0) return errno_error(temp, "create");
    clear_leftovers(path, fd.get());
    const auto give_up = [&](const char* what) {
      auto e = errno_error(temp, what);
      ::unlink(temp.c_str());
      return e;
    };
    if (!write_all(fd.get(), content)) return give_up("write");
    if (::fchmod(fd.get(), mode) != 0) return give_up("chmod");
    if (::fsync(fd.get()) != 0) return give_up("sync");
    if (fd.close() != 0) return give_up("close");
    if (::rename(temp.c_str(), path.c_str()) != 0) return give_up("rename");
  }
  return sync_folder(dir);
}

Status make_dirs(const std::string& path, unsigned mode) {
  for (std::size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    const bool last = at == std::string::npos;
    if (!part.empty()) {
      if (::mkdir(part.c_str(), mode) == 0) {
        TRY(sync_folder(folder_of(part)));
      } else if (errno != EEXIST) {
        return errno_error(part, "mkdir");
      }
    }
    if (last) break;
  }
  struct stat st{};
  if (::stat(path.c_str(), &st) != 0) return errno_error(path, "stat");
  if (!S_ISDIR(st.st_mode)) return fail(Errc::kExists, path + ": not a folder", Source::kLocal);
  return {};
}

Status not_shared(const std::string& dir) {
  struct stat st{};
  if (::stat(dir.c_str(), &st) != 0) return errno_error(dir, "stat");
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) == 0) return {};
  return fail(Errc::kDenied, dir + ": others may write in this folder\nchmod go-w " + dir,
              Source::kConfig);
}

Result<FileLock> FileLock::take(const std::string& path, int wait_ms) {
  for (int tries = 0;;) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) return errno_error(path, "open");
    while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return errno_error(path, "lock");
      if (tries++ >= wait_ms)
        return fail(Errc::kLocked,
                    path + ": another process is changing it\ntry again, or end that process",
                    Source::kLocal, true);
      ::usleep(1'000);
    }
    // Replaced while we waited: then what we have is the lock of a file that is gone.
    struct stat held{};
    struct stat there{};
    if (::fstat(fd.get(), &held) != 0 || ::stat(path.c_str(), &there) != 0)
      return errno_error(path, "stat");
    if (held.st_dev == there.st_dev && held.st_ino == there.st_ino) return FileLock(fd.release());
  }
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

Status remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error(path, "remove");
  return {};
}

}  // namespace sally::fs
