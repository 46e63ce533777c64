// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside store/sqlite only: rows out of statements, in the order of the columns in store.cc.
#include <string>
#include <string_view>
#include <vector>

#include "store/model.h"
#include "store/sqlite/database.h"

// What the functions below read, in that order. Text of statements: literals, because the statement
// cache keys on their addresses.
#define IDENTITY_COLUMNS                                                                         \
  "id, name, kind, standing, credential_epoch, attr_epoch, created_ms, changed_ms, removed_ms, " \
  "batch, (SELECT group_concat(tag, char(10)) FROM (SELECT tag FROM identity_tags t WHERE "      \
  "t.network=identities.network AND t.identity=identities.id ORDER BY tag))"
#define CERTIFICATE_COLUMNS                                                                      \
  "serial, identity, profile, key_hash, not_before_s, not_after_s, issued_ms, revoked_ms, der, " \
  "used_ms, superseded, request, issuer, reason, told"
#define ENROLLMENT_COLUMNS \
  "id, token_mac, identity, kind, created_ms, expires_ms, used_ms, revoked_ms"
#define API_SESSION_COLUMNS \
  "id, token_mac, identity, credential_epoch, config_types, address, created_ms, active_ms"
#define SERVICE_COLUMNS \
  "id, name, e2e, host_config, intercept_config, version, created_ms, record_until_ms, record"

namespace sally::store {

/// A list in one column.
std::string join(const std::vector<std::string>& list);
std::vector<std::string> unjoin(const std::string& text);
Identity read_identity(Statement& s);
Expiry read_expiry(Statement& s);
CertificateRow read_certificate(Statement& s);
Enrollment read_enrollment(Statement& s);
ApiSession read_api_session(Statement& s);
ServiceSession read_service_session(Statement& s);
Service read_service(Statement& s);
Grant read_grant(Statement& s);
Usage read_usage(Statement& s);
AuditRow read_audit(Statement& s);

}  // namespace sally::store
