// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside store/sqlite only: what walks whole tables.
#include <cstdint>
#include <string>
#include <string_view>

#include "store/model.h"
#include "store/sqlite/database.h"
#include "store/store.h"

namespace sally::store {

/// The action of the row that tells where the audit begins since it was pruned, and its detail.
inline constexpr std::string_view kPrune = "audit.prune";
std::string prune_detail(const AuditBase& base);

/// Rows from `base` on; kAuditTampered names the first that is altered or missing.
Result<std::uint64_t> verify_audit(Database& db, const Hooks& hooks, const std::string& network,
                                   const AuditBase& base);
/// Entries of the change log; kLogTampered.
Result<std::uint64_t> verify_log(Database& db, const Hooks& hooks, const std::string& network);
/// All but `due`.
Result<Figures> count_figures(Database& db, const std::string& network, std::int64_t now_s);

}  // namespace sally::store
