// SPDX-License-Identifier: Apache-2.0
#include "vfs.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ranges>
#include <vector>

#include "base/random.h"

namespace sally::faults {
namespace {

struct File {
  sqlite3_file base;
  sqlite3_file* real;
};

/// How a file was before a change that is not yet synced.
struct Before {
  sqlite3_file* real;
  sqlite3_int64 size;
  sqlite3_int64 at;
  std::vector<char> bytes;
};

struct State {
  Fault fault = Fault::kNone;
  std::uint64_t at = 0;
  std::uint64_t count = 0;
  SeededRandom coin{1};
  std::vector<Before> unsynced;
};
State& state() {
  static State s;
  return s;
}
sqlite3_vfs* base_vfs = nullptr;
int pages = 1000;

sqlite3_file* real(sqlite3_file* f) {
  return reinterpret_cast<File*>(f)->real;
}

sqlite3_int64 size_of(sqlite3_file* r) {
  sqlite3_int64 n = 0;
  (void)r->pMethods->xFileSize(r, &n);
  return n;
}

void keep(sqlite3_file* r, sqlite3_int64 at, sqlite3_int64 length) {
  Before b{.real = r, .size = size_of(r), .at = at, .bytes = {}};
  const auto there = std::clamp<sqlite3_int64>(b.size - at, 0, length);
  b.bytes.resize(static_cast<std::size_t>(there));
  if (there > 0) (void)r->pMethods->xRead(r, b.bytes.data(), static_cast<int>(there), at);
  state().unsynced.push_back(std::move(b));
}

[[noreturn]] void stop() {
  State& s = state();
  if (s.fault == Fault::kPowerCut || s.fault == Fault::kLottery) {
    for (const Before& b : s.unsynced | std::views::reverse) {
      if (s.fault == Fault::kLottery && s.coin.below(2) == 0) continue;
      if (!b.bytes.empty())
        (void)b.real->pMethods->xWrite(b.real, b.bytes.data(), static_cast<int>(b.bytes.size()),
                                       b.at);
      if (size_of(b.real) > b.size) (void)b.real->pMethods->xTruncate(b.real, b.size);
    }
  }
  ::_exit(kStopped);
}

// An error to give instead of the change, or SQLITE_OK.
int step(int broken) {
  State& s = state();
  const std::uint64_t n = ++s.count;
  if (s.fault == Fault::kNone || n < s.at) return SQLITE_OK;
  if (s.fault == Fault::kFull) return broken == SQLITE_IOERR_WRITE ? SQLITE_FULL : SQLITE_OK;
  if (n > s.at) return SQLITE_OK;
  if (s.fault == Fault::kBroken) return broken;
  if (s.fault == Fault::kTorn && broken == SQLITE_IOERR_WRITE) return SQLITE_OK;  // in write()
  stop();
}

int close_file(sqlite3_file* f) {
  File* file = reinterpret_cast<File*>(f);
  std::erase_if(state().unsynced, [&](const Before& b) { return b.real == file->real; });
  const int r = file->real->pMethods->xClose(file->real);
  std::free(file->real);
  return r;
}
int read_file(sqlite3_file* f, void* to, int n, sqlite3_int64 at) {
  return real(f)->pMethods->xRead(real(f), to, n, at);
}
int write_file(sqlite3_file* f, const void* from, int n, sqlite3_int64 at) {
  if (const int e = step(SQLITE_IOERR_WRITE); e != SQLITE_OK) return e;
  State& s = state();
  if (s.fault == Fault::kPowerCut || s.fault == Fault::kLottery) keep(real(f), at, n);
  if (s.fault == Fault::kTorn && s.count == s.at) {
    (void)real(f)->pMethods->xWrite(real(f), from, n / 2, at);
    stop();
  }
  return real(f)->pMethods->xWrite(real(f), from, n, at);
}
int truncate_file(sqlite3_file* f, sqlite3_int64 size) {
  if (const int e = step(SQLITE_IOERR_TRUNCATE); e != SQLITE_OK) return e;
  keep(real(f), size, std::max<sqlite3_int64>(size_of(real(f)) - size, 0));
  return real(f)->pMethods->xTruncate(real(f), size);
}
// Only the count: the kernel outlives the process, and what a power cut takes away is ours to say.
int sync_file(sqlite3_file* f, int) {
  if (const int e = step(SQLITE_IOERR_FSYNC); e != SQLITE_OK) return e;
  std::erase_if(state().unsynced, [&](const Before& b) { return b.real == real(f); });
  return SQLITE_OK;
}
int file_size(sqlite3_file* f, sqlite3_int64* n) {
  return real(f)->pMethods->xFileSize(real(f), n);
}
int lock(sqlite3_file* f, int level) {
  return real(f)->pMethods->xLock(real(f), level);
}
int unlock(sqlite3_file* f, int level) {
  return real(f)->pMethods->xUnlock(real(f), level);
}
int check_lock(sqlite3_file* f, int* out) {
  return real(f)->pMethods->xCheckReservedLock(real(f), out);
}
int control(sqlite3_file* f, int op, void* arg) {
  return real(f)->pMethods->xFileControl(real(f), op, arg);
}
int sector(sqlite3_file* f) {
  return real(f)->pMethods->xSectorSize(real(f));
}
// Nothing is promised of a write that was not synced: no atomic pages, no order.
int characteristics(sqlite3_file*) {
  return 0;
}
int shm_map(sqlite3_file* f, int page, int size, int extend, void volatile** out) {
  return real(f)->pMethods->xShmMap(real(f), page, size, extend, out);
}
int shm_lock(sqlite3_file* f, int offset, int n, int flags) {
  return real(f)->pMethods->xShmLock(real(f), offset, n, flags);
}
void shm_barrier(sqlite3_file* f) {
  real(f)->pMethods->xShmBarrier(real(f));
}
int shm_unmap(sqlite3_file* f, int remove) {
  return real(f)->pMethods->xShmUnmap(real(f), remove);
}

const sqlite3_io_methods kMethods = {
    .iVersion = 2,
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = file_size,
    .xLock = lock,
    .xUnlock = unlock,
    .xCheckReservedLock = check_lock,
    .xFileControl = control,
    .xSectorSize = sector,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

int open_file(sqlite3_vfs*, const char* name, sqlite3_file* f, int flags, int* out) {
  File* file = reinterpret_cast<File*>(f);
  file->base.pMethods = nullptr;
  file->real =
      static_cast<sqlite3_file*>(std::calloc(1, static_cast<std::size_t>(base_vfs->szOsFile)));
  const int r = base_vfs->xOpen(base_vfs, name, file->real, flags, out);
  if (r != SQLITE_OK) {
    std::free(file->real);
    return r;
  }
  file->base.pMethods = &kMethods;
  return r;
}
int delete_file(sqlite3_vfs*, const char* name, int sync) {
  if (const int e = step(SQLITE_IOERR_DELETE); e != SQLITE_OK) return e;
  return base_vfs->xDelete(base_vfs, name, sync);
}

int on_connection(sqlite3* db, char**, const sqlite3_api_routines*) {
  return sqlite3_wal_autocheckpoint(db, pages);
}

}  // namespace

void install_vfs(int checkpoint_pages) {
  static sqlite3_vfs ours;
  if (base_vfs != nullptr) return;
  pages = checkpoint_pages;
  base_vfs = sqlite3_vfs_find(nullptr);
  ours = *base_vfs;
  ours.zName = "faults";
  ours.szOsFile = sizeof(File);
  ours.xOpen = open_file;
  ours.xDelete = delete_file;
  if (sqlite3_vfs_register(&ours, 1) != SQLITE_OK ||
      sqlite3_auto_extension(reinterpret_cast<void (*)()>(on_connection)) != SQLITE_OK)
    std::abort();
}

void arm(Fault fault, std::uint64_t at, std::uint64_t seed) {
  state() = State{.fault = fault, .at = at, .count = 0, .coin = SeededRandom(seed), .unsynced = {}};
}

std::uint64_t changes() {
  return state().count;
}

}  // namespace sally::faults
