// SPDX-License-Identifier: Apache-2.0
#pragma once

// The only file pair that includes sqlite3.h, together with store.cc beside it.
#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/bytes.h"
#include "base/error.h"
#include "store/errc.h"

namespace sally::store {

/// A prepared statement in use: bind with `<<`, then step(); columns are read left to right with
/// the get functions. Lives on the stack inside one transaction; resets itself when it goes. Errors
/// of binding are kept and reported by step().
class Statement {
 public:
  Statement(sqlite3* db, sqlite3_stmt* stmt, int code) : db_(db), stmt_(stmt), code_(code) {}
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  Statement(Statement&& o) noexcept;
  ~Statement();

  Statement& operator<<(std::string_view text);
  Statement& operator<<(std::int64_t number);
  Statement& operator<<(std::uint64_t number) { return *this << static_cast<std::int64_t>(number); }
  Statement& operator<<(std::uint32_t number) { return *this << static_cast<std::int64_t>(number); }
  Statement& operator<<(ByteView blob);

  /// True while there is a row.
  [[nodiscard]] Result<bool> step();
  /// For statements without rows.
  [[nodiscard]] Status run();

  std::string text();
  std::int64_t i64();
  std::uint64_t u64() { return static_cast<std::uint64_t>(i64()); }
  Bytes blob();

 private:
  sqlite3* db_;
  sqlite3_stmt* stmt_;
  int code_;
  int bind_ = 1;
  int column_ = 0;
};

/// One SQLite connection with a cache of prepared statements.
/// Owned by the store and used under its lock. Fails with store codes.
class Database {
 public:
  static Result<std::unique_ptr<Database>> open(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// `sql` must be a literal: the cache keys on its address.
  Statement statement(const char* sql);
  /// Several statements without parameters.
  Status exec(const std::string& sql);
  [[nodiscard]] sqlite3* native() const { return db_; }

 private:
  explicit Database(sqlite3* db) : db_(db) {}
  sqlite3* db_;
  std::unordered_map<const char*, sqlite3_stmt*> cache_;
};

/// Brings the schema up to date; kNewerSchema. Each step is a transaction.
Status migrate(Database& db);

}  // namespace sally::store
