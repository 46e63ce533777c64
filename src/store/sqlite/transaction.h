// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside store/sqlite only: what the statements of a transaction share.
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/sqlite/database.h"
#include "store/store.h"

namespace sally::store {

/// Statements on one network's rows, and what of them must hold at commit.
/// Owner, thread and failures: as Transaction, which the classes above this one complete.
class Rows : public Transaction {
 public:
  Rows(Database& db, const Hooks& hooks, std::unique_lock<std::mutex> lock, std::string network,
       std::int64_t now_ms, bool writable)
      : db_(db),
        hooks_(hooks),
        lock_(std::move(lock)),
        network_(std::move(network)),
        now_ms_(now_ms),
        writable_(writable) {}
  ~Rows() override {
    if (open_) (void)db_.exec("ROLLBACK");
  }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

 protected:
  // Every statement's first parameter is the network.
  Statement query(const char* sql) const {
    Statement s = db_.statement(sql);
    s << std::string_view(network_);
    return s;
  }
  Statement change(const char* sql) {
    changed_ = true;
    return query(sql);
  }
  Status run(Statement& s) {
    if (!writable_) return fail(Errc::kReadOnly, "change in a read transaction", Source::kInternal);
    auto r = s.run();
    if (!r) failed_ = true;
    return r;
  }
  Status run_one(Statement& s) {
    TRY(run(s));
    if (sqlite3_changes(db_.native()) == 0) return fail(Errc::kNotFound, "no such row");
    return {};
  }
  Result<std::uint64_t> run_many(Statement& s) {
    TRY(run(s));
    return static_cast<std::uint64_t>(sqlite3_changes(db_.native()));
  }
  template <typename T, typename F>
  Result<std::optional<T>> one(Statement& s, F read) const {
    TRY_ASSIGN(const bool row, s.step());
    if (!row) return std::optional<T>();
    return std::optional<T>(read(s));
  }
  template <typename T, typename F>
  Result<std::vector<T>> all(Statement& s, F read) const {
    std::vector<T> out;
    for (;;) {
      TRY_ASSIGN(const bool row, s.step());
      if (!row) return out;
      out.push_back(read(s));
    }
  }

  Database& db_;
  const Hooks& hooks_;
  std::unique_lock<std::mutex> lock_;
  std::string network_;
  std::int64_t now_ms_;
  bool writable_;
  bool open_ = true, changed_ = false, audited_ = false, failed_ = false;
  struct {
    bool changed = false, audited = false;
  } part_;  ///< before begin_part
};

/// The rows of foreign ends that are logged in (sessions.cc).
class SessionRows : public Rows {
 public:
  using Rows::Rows;
  Result<std::optional<ApiSession>> api_session_by_mac(ByteView mac) const override;
  Result<std::optional<ApiSession>> api_session(std::string_view id) const override;
  Result<std::vector<ApiSession>> api_sessions_of(std::string_view identity) const override;
  Result<std::vector<ApiSession>> api_sessions(Page page) const override;
  Result<std::vector<ServiceSession>> service_sessions(std::string_view api_session,
                                                       std::uint64_t limit) const override;
  Status touch_api_session(std::string_view id, std::int64_t active_ms) override;
  Result<std::uint64_t> expire_api_sessions(std::int64_t active_ms,
                                            std::int64_t created_ms) override;
  Status put_service_session(const ServiceSession& r) override;
  Status remove_service_session(std::string_view id) override;
  Status put_api_session(const ApiSession& r) override;
  Status remove_api_session(std::string_view id) override;
};

}  // namespace sally::store
