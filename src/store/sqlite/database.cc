// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite/database.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace sally::store {
namespace {

std::string full(const std::string& file) {
  return file +
         ": no space left on its disk\nfree some; nothing was changed, and nothing else needs "
         "to be done";
}
std::string read_only(const std::string& file) {
  return file + ": its disk is mounted read-only\nmount it for writing";
}

std::unexpected<Error> sqlite_fail(sqlite3* db, int code) {
  const std::string text = sqlite3_errmsg(db);
  const char* name = sqlite3_db_filename(db, "main");
  const std::string file = name != nullptr ? name : "";
  const int system = sqlite3_system_errno(db);
  switch (code & 0xff) {
    case SQLITE_CONSTRAINT:
      return fail(Errc::kConflict, text, Source::kPeer);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return fail(Errc::kBusy, text, Source::kLocal, true);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return fail(Errc::kCorrupt, text, Source::kLocal);
    case SQLITE_FULL:
      return fail(Errc::kFull, full(file), Source::kLocal, true);
    case SQLITE_READONLY:
      return fail(Errc::kDiskReadOnly, read_only(file), Source::kLocal, true);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      // What lies beside the database (the log, its index) did not fit or could not be made.
      if (system == ENOSPC || system == EDQUOT)
        return fail(Errc::kFull, full(file), Source::kLocal, true);
      if (system == EROFS) return fail(Errc::kDiskReadOnly, read_only(file), Source::kLocal, true);
      return fail(Errc::kIo, file + ": " + text, Source::kLocal, true);
    default:
      return fail(Errc::kInternal, text, Source::kInternal);
  }
}

}  // namespace

Statement::Statement(Statement&& o) noexcept
    : db_(o.db_),
      stmt_(std::exchange(o.stmt_, nullptr)),
      code_(o.code_),
      bind_(o.bind_),
      column_(o.column_) {}

Statement::~Statement() {
  if (stmt_ == nullptr) return;
  sqlite3_reset(stmt_);
  sqlite3_clear_bindings(stmt_);
}

Statement& Statement::operator<<(std::string_view text) {
  if (code_ == SQLITE_OK)
    code_ = sqlite3_bind_text64(stmt_, bind_++, text.data() != nullptr ? text.data() : "",
                                text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

Statement& Statement::operator<<(std::int64_t number) {
  if (code_ == SQLITE_OK) code_ = sqlite3_bind_int64(stmt_, bind_++, number);
  return *this;
}

Statement& Statement::operator<<(ByteView blob) {
  if (code_ == SQLITE_OK)
    code_ = blob.empty()
                ? sqlite3_bind_zeroblob(stmt_, bind_++, 0)
                : sqlite3_bind_blob64(stmt_, bind_++, blob.data(), blob.size(), SQLITE_TRANSIENT);
  return *this;
}

Result<bool> Statement::step() {
  if (code_ != SQLITE_OK) return sqlite_fail(db_, code_);
  column_ = 0;
  const int r = sqlite3_step(stmt_);
  if (r == SQLITE_ROW) return true;
  if (r == SQLITE_DONE) return false;
  return sqlite_fail(db_, r);
}

Status Statement::run() {
  TRY_ASSIGN(const bool row, step());
  if (row) return fail(Errc::kInternal, "unexpected row", Source::kInternal);
  return {};
}

std::string Statement::text() {
  const int c = column_++;
  const unsigned char* p = sqlite3_column_text(stmt_, c);
  if (p == nullptr) return {};
  return {reinterpret_cast<const char*>(p),
          static_cast<std::size_t>(sqlite3_column_bytes(stmt_, c))};
}

std::int64_t Statement::i64() {
  return sqlite3_column_int64(stmt_, column_++);
}

Bytes Statement::blob() {
  const int c = column_++;
  const auto* p = static_cast<const std::uint8_t*>(sqlite3_column_blob(stmt_, c));
  if (p == nullptr) return {};
  return {p, p + sqlite3_column_bytes(stmt_, c)};
}

Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
  if (path != ":memory:") {
    // Made by us first, so that the file (and the WAL, which copies its mode) is never readable by
    // others.
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EROFS)
      return fail(Errc::kDiskReadOnly, read_only(path), Source::kConfig);
    if (fd < 0 && (errno == ENOSPC || errno == EDQUOT))
      return fail(Errc::kFull, full(path), Source::kLocal, true);
    if (fd < 0)
      return fail(Errc::kIo, "cannot open the database " + path + ": " + std::strerror(errno),
                  Source::kConfig);
    ::close(fd);
  }
  sqlite3* raw = nullptr;
  const int r =
      sqlite3_open_v2(path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Database> db(new Database(raw));
  if (r != SQLITE_OK) return sqlite_fail(raw, r);
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, 5000);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  TRY(
      db->exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
               "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY;"));
  return db;
}

Database::~Database() {
  for (auto& [sql, stmt] : cache_) sqlite3_finalize(stmt);
  sqlite3_close_v2(db_);
}

Statement Database::statement(const char* sql) {
  auto& slot = cache_[sql];
  int code = SQLITE_OK;
  if (slot == nullptr)
    code = sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &slot, nullptr);
  return {db_, slot, code};
}

Status Database::exec(const std::string& sql) {
  const int r = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  if (r != SQLITE_OK) return sqlite_fail(db_, r);
  return {};
}

}  // namespace sally::store
