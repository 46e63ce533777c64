// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside store/sqlite only: rows out of statements, in the order of the columns in store.cc.
#include <string>
#include <string_view>
#include <vector>

#include "store/model.h"
#include "store/sqlite/database.h"

namespace sally::store {

/// A list in one column.
std::string join(const std::vector<std::string>& list);
std::vector<std::string> unjoin(const std::string& text);
Identity read_identity(Statement& s);
Expiry read_expiry(Statement& s);
CertificateRow read_certificate(Statement& s);
Enrollment read_enrollment(Statement& s);
Service read_service(Statement& s);
Grant read_grant(Statement& s);
Usage read_usage(Statement& s);
AuditRow read_audit(Statement& s);

}  // namespace sally::store
