// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite/chains.h"

#include <algorithm>
#include <array>

#include "store/sqlite/rows.h"

namespace sally::store {

std::string prune_detail(const AuditBase& base) {
  return "{\"through\":" + std::to_string(base.seq) + ",\"hash\":\"" + to_hex(base.hash) + "\"}";
}

Result<std::uint64_t> verify_audit(Database& db, const Hooks& hooks, const std::string& network,
                                   const AuditBase& base) {
  const auto wrong = [](std::uint64_t number, const char* what) {
    return fail(Errc::kAuditTampered, "audit row " + std::to_string(number) + what, Source::kLocal);
  };
  // A beginning that no row of the chain tells of is not ours: rows were cut off the front.
  bool told = base.seq == 0;
  std::uint64_t seq = base.seq;
  Hash previous = base.hash;
  auto s = db.statement(
      "SELECT seq, at_ms, actor, action, subject, detail, hash FROM audit WHERE network=? ORDER "
      "BY seq");
  s << std::string_view(network);
  for (;;) {
    TRY_ASSIGN(const bool row, s.step());
    if (!row) break;
    const AuditRow r = read_audit(s);
    if (r.seq != ++seq) return wrong(seq, " is missing");
    if (hooks.sha256(audit_input(previous, network, r)) != r.hash)
      return wrong(seq, " was altered");
    told |= r.action == kPrune && r.detail == prune_detail(base);
    previous = r.hash;
  }
  if (!told) return wrong(base.seq, " and those before it are missing, and no row says why");
  return seq - base.seq;
}

Result<std::uint64_t> verify_log(Database& db, const Hooks& hooks, const std::string& network) {
  std::uint64_t version = 0;
  Hash previous{};
  auto s =
      db.statement("SELECT version, entry, hash FROM change_log WHERE network=? ORDER BY version");
  s << std::string_view(network);
  for (;;) {
    TRY_ASSIGN(const bool row, s.step());
    if (!row) return version;
    const std::uint64_t v = s.u64();
    const Bytes entry = s.blob();
    const Bytes stored = s.blob();
    Bytes in = to_bytes(ByteView(previous));
    append(in, entry);
    previous = hooks.sha256(in);
    if (v != ++version ||
        !std::equal(stored.begin(), stored.end(), previous.begin(), previous.end()))
      return fail(Errc::kLogTampered, "change log version " + std::to_string(version),
                  Source::kLocal);
  }
}

Result<Figures> count_figures(Database& db, const std::string& network, std::int64_t now_s) {
  const auto query = [&](const char* sql) {
    Statement s = db.statement(sql);
    s << std::string_view(network);
    return s;
  };
  Figures f;
  {
    auto s = query(
        "SELECT i.kind, i.standing, (SELECT MAX(c.not_after_s) FROM certificates c WHERE "
        "c.network=i.network AND c.identity=i.id AND c.revoked_ms=0) AS last "
        "FROM identities i WHERE i.network=? AND i.removed_ms=0");
    std::array<Figures::State, 6> states{};
    for (;;) {
      TRY_ASSIGN(const bool row, s.step());
      if (!row) break;
      const auto kind = static_cast<std::size_t>(s.i64());
      const auto standing = static_cast<Standing>(s.i64());
      const std::int64_t last = s.i64();  // 0: none
      if (kind == 0 || kind >= states.size()) continue;
      Figures::State& at = states[kind];
      if (standing == Standing::kSuspended) {
        ++at.suspended;
      } else if (standing != Standing::kActive) {
        ++at.revoked;
      } else if (last == 0) {
        ++at.waiting;
      } else if (last <= now_s) {
        ++at.expired;
      } else {
        ++at.active;
        constexpr std::array<std::int64_t, 4> kDays = {1, 7, 30, 90};
        const auto window = std::find_if(kDays.begin(), kDays.end(), [&](std::int64_t days) {
          return last - now_s <= days * 86'400;
        });
        ++f.ending[static_cast<std::size_t>(window - kDays.begin())];
      }
    }
    for (std::size_t kind = 1; kind < states.size(); ++kind) {
      states[kind].kind = static_cast<Kind>(kind);
      f.identities.push_back(states[kind]);
    }
  }
  const auto number = [&](const char* sql, std::uint64_t& into) -> Status {
    auto s = query(sql);
    TRY_ASSIGN(const bool row, s.step());
    if (row) into = s.u64();
    return {};
  };
  TRY(number("SELECT count(*) FROM services WHERE network=?", f.services));
  TRY(number("SELECT ifnull(max(seq), 0) FROM audit WHERE network=?", f.audit_seq));
  TRY(number("SELECT ifnull(max(version), 0) FROM change_log WHERE network=?", f.log_version));
  TRY(
      number("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size() "
             "WHERE ? != ''",
             f.database_bytes));
  return f;
}

}  // namespace sally::store
