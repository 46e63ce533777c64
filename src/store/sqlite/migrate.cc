// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "store/sqlite/database.h"

namespace sally::store {
namespace {

// The schema, one step after the other; never edited after a release.
constexpr std::array<const char*, 7> kMigrations{
#include "store/migrations/0001_initial.sql.inc"
    ,
#include "store/migrations/0002_usage.sql.inc"
    ,
#include "store/migrations/0003_renewal.sql.inc"
    ,
#include "store/migrations/0004_revocation.sql.inc"
    ,
#include "store/migrations/0005_audit_base.sql.inc"
    ,
#include "store/migrations/0006_told.sql.inc"
    ,
#include "store/migrations/0007_api_sessions.sql.inc"
};

}  // namespace

Status migrate(Database& db) {
  std::int64_t have = 0;
  {
    auto s = db.statement("PRAGMA user_version");
    TRY(s.step());
    have = s.i64();
  }
  if (have > static_cast<std::int64_t>(kMigrations.size()))
    return fail(Errc::kNewerSchema,
                "database schema " + std::to_string(have) + "; this program knows " +
                    std::to_string(kMigrations.size()) + ": use a newer version",
                Source::kConfig);
  for (auto n = static_cast<std::size_t>(have); n < kMigrations.size(); ++n)
    TRY(db.exec("BEGIN IMMEDIATE;" + std::string(kMigrations[n]) +
                "PRAGMA user_version=" + std::to_string(n + 1) + ";COMMIT"));
  return {};
}

}  // namespace sally::store
