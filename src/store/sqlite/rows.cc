// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite/rows.h"

#include <algorithm>

#include "base/text.h"

namespace sally::store {

std::string join(const std::vector<std::string>& list) {
  std::string out;
  for (const auto& s : list) {
    if (!out.empty()) out += '\n';
    out += s;
  }
  return out;
}

std::vector<std::string> unjoin(const std::string& text) {
  std::vector<std::string> out;
  if (text.empty()) return out;
  for (const auto part : split(text, '\n')) out.emplace_back(part);
  return out;
}

Identity read_identity(Statement& s) {
  Identity r;
  r.id = s.text();
  r.name = s.text();
  r.kind = static_cast<Kind>(s.i64());
  r.standing = static_cast<Standing>(s.i64());
  r.credential_epoch = s.u64();
  r.attr_epoch = s.u64();
  r.created_ms = s.i64();
  r.changed_ms = s.i64();
  r.removed_ms = s.i64();
  r.batch = s.text();
  r.tags = unjoin(s.text());
  return r;
}

Expiry read_expiry(Statement& s) {
  Expiry e;
  e.kind = static_cast<Kind>(s.i64());
  e.id = s.text();
  e.name = s.text();
  e.not_after_s = s.i64();
  return e;
}

CertificateRow read_certificate(Statement& s) {
  CertificateRow r;
  r.serial = s.text();
  r.identity = s.text();
  r.profile = s.text();
  r.key_hash = s.text();
  r.not_before_s = s.i64();
  r.not_after_s = s.i64();
  r.issued_ms = s.i64();
  r.revoked_ms = s.i64();
  r.der = s.blob();
  r.used_ms = s.i64();
  r.superseded = s.i64() != 0;
  r.request = s.text();
  r.issuer = s.text();
  r.reason = static_cast<Reason>(s.i64());
  r.told = s.i64() != 0;
  return r;
}

Enrollment read_enrollment(Statement& s) {
  Enrollment r;
  r.id = s.text();
  r.token_mac = s.blob();
  r.identity = s.text();
  r.kind = static_cast<Kind>(s.i64());
  r.created_ms = s.i64();
  r.expires_ms = s.i64();
  r.used_ms = s.i64();
  r.revoked_ms = s.i64();
  return r;
}

ApiSession read_api_session(Statement& s) {
  ApiSession r;
  r.id = s.text();
  r.token_mac = s.blob();
  r.identity = s.text();
  r.credential_epoch = s.u64();
  r.config_types = unjoin(s.text());
  r.address = s.text();
  r.created_ms = s.i64();
  r.active_ms = s.i64();
  return r;
}

ServiceSession read_service_session(Statement& s) {
  ServiceSession r;
  r.id = s.text();
  r.api_session = s.text();
  r.service = s.text();
  r.kind = static_cast<GrantKind>(s.i64());
  r.created_ms = s.i64();
  return r;
}

Service read_service(Statement& s) {
  Service r;
  r.id = s.text();
  r.name = s.text();
  r.e2e = static_cast<E2e>(s.i64());
  r.host_config = s.text();
  r.intercept_config = s.text();
  r.version = s.u64();
  r.created_ms = s.i64();
  r.record_until_ms = s.i64();
  r.record = s.blob();
  return r;
}

Grant read_grant(Statement& s) {
  Grant r;
  r.id = s.text();
  r.service = s.text();
  r.kind = static_cast<GrantKind>(s.i64());
  r.selector = s.text();
  r.created_ms = s.i64();
  return r;
}

Usage read_usage(Statement& s) {
  Usage u;
  u.day = static_cast<std::uint32_t>(s.i64());
  u.device = s.text();
  u.service = s.text();
  u.sent = s.u64();
  u.received = s.u64();
  u.circuits = s.u64();
  u.open_ms = s.u64();
  return u;
}

AuditRow read_audit(Statement& s) {
  AuditRow r;
  r.seq = s.u64();
  r.at_ms = s.i64();
  r.actor = s.text();
  r.action = s.text();
  r.subject = s.text();
  r.detail = s.text();
  const Bytes h = s.blob();
  if (h.size() == r.hash.size()) std::copy(h.begin(), h.end(), r.hash.begin());
  return r;
}

}  // namespace sally::store
