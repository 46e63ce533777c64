// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

namespace sally::store {

/// The schema, one step after the other; never edited after a release.
inline constexpr std::array<const char*, 6> kMigrations{
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
};

}  // namespace sally::store
