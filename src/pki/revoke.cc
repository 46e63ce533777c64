// SPDX-License-Identifier: Apache-2.0
#include "pki/revoke.h"

#include <algorithm>

#include "pki/errc.h"
#include "pki/publish.h"
#include "wire/messages.h"

namespace sally::pki {
namespace {

Status tell(store::Transaction& tx, store::CertificateRow row) {
  row.told = true;
  TRY(tx.put_certificate(row));
  TRY(tx.append_op(wire::encode(wire::StateOp{wire::RevokedCertificate{
      row.serial, row.not_after_s * 1000, row.revoked_ms, row.superseded}})));
  return {};
}

bool ended(const store::CertificateRow& row, std::int64_t now_ms) {
  return row.not_after_s * 1000 <= now_ms;
}
// Whatever a router's clock says: so long they remember it (replica/tables.cc).
bool forgotten(const store::CertificateRow& row, std::int64_t now_ms) {
  return ended(row, now_ms - 24LL * 3600 * 1000);
}

}  // namespace

std::optional<store::Reason> parse_reason(std::string_view text) {
  using store::Reason;
  for (const Reason r :
       {Reason::kUnspecified, Reason::kKeyCompromise, Reason::kAffiliationChanged,
        Reason::kSuperseded, Reason::kCessationOfOperation, Reason::kPrivilegeWithdrawn})
    if (store::reason_name(r) == text) return r;
  return std::nullopt;
}

Status revoke_certificate(store::Transaction& tx, store::CertificateRow row, std::int64_t now_ms,
                          bool superseded, store::Reason reason) {
  if (row.revoked_ms != 0 && (!row.superseded || superseded)) return {};
  row.revoked_ms = now_ms;
  row.superseded = superseded;
  row.reason = superseded ? store::Reason::kSuperseded : reason;
  // One that has ended opens nothing by itself, but it must not vouch for the next one either.
  return forgotten(row, now_ms) ? tx.put_certificate(row) : tell(tx, std::move(row));
}

Result<std::size_t> revoke_certificates(store::Transaction& tx, std::string_view identity,
                                        std::int64_t now_ms, store::Reason reason) {
  TRY_ASSIGN(const auto rows, tx.certificates_of(identity));
  std::size_t n = 0;
  for (const auto& row : rows) {
    if (row.revoked_ms != 0 && !row.superseded) continue;
    TRY(revoke_certificate(tx, row, now_ms, false, reason));
    if (!ended(row, now_ms)) ++n;
  }
  return n;
}

Result<Revoked> revoke_identity(store::Transaction& tx, store::Identity identity,
                                store::Reason reason, std::int64_t now_ms, bool removed) {
  Revoked out;
  if (identity.standing == store::Standing::kRevoked && !removed) return out;
  identity.standing = store::Standing::kRevoked;
  if (removed) identity.removed_ms = now_ms;
  ++identity.credential_epoch;
  TRY(tx.put_identity(identity));
  TRY(publish_identity(tx, identity, now_ms));
  // Routers know those that were superseded as such.
  TRY_ASSIGN(const auto rows, tx.certificates_of(identity.id));
  for (const auto& row : rows) {
    if (!row.superseded) continue;
    TRY(revoke_certificate(tx, row, now_ms, false, reason));
    ++out.certificates;
  }
  TRY_ASSIGN(const auto others, tx.revoke_certificates_of(identity.id, reason));
  out.certificates += others;
  TRY(tx.revoke_enrollments_of(identity.id));
  out.devices = 1;
  return out;
}

Status suspend_identity(store::Transaction& tx, store::Identity identity, std::int64_t now_ms) {
  if (identity.standing != store::Standing::kActive) return {};
  identity.standing = store::Standing::kSuspended;
  ++identity.credential_epoch;
  TRY(tx.put_identity(identity));
  return publish_identity(tx, identity, now_ms);
}

Status resume_identity(store::Transaction& tx, store::Identity identity, std::int64_t now_ms) {
  if (identity.standing == store::Standing::kActive) return {};
  if (identity.standing == store::Standing::kRevoked) {
    TRY_ASSIGN(const auto rows, tx.certificates_of(identity.id));
    for (const auto& row : rows)
      if (row.revoked_ms != 0 && !row.told && !forgotten(row, now_ms)) TRY(tell(tx, row));
  }
  identity.standing = store::Standing::kActive;
  TRY(tx.put_identity(identity));
  return publish_identity(tx, identity, now_ms);
}

Result<Revoked> revoke_batch(store::Transaction& tx, std::string_view batch, store::Reason reason,
                             std::int64_t now_ms) {
  TRY_ASSIGN(const auto rows, tx.batch(batch));
  Revoked out;
  for (const auto& row : rows) {
    TRY_ASSIGN(const auto one, revoke_identity(tx, row, reason, now_ms));
    out.devices += one.devices;
    out.certificates += one.certificates;
  }
  return out;
}

Result<Revoked> revoke_authority(store::Transaction& tx, std::string_view name,
                                 store::Reason reason, std::int64_t now_ms) {
  TRY_ASSIGN(auto rows, tx.authorities());
  const auto row = std::ranges::find(rows, name, &store::Authority::name);
  if (row == rows.end()) {
    std::string names;
    for (const auto& r : rows) names += (names.empty() ? "" : ", ") + r.name;
    return fail(Errc::kNoAuthority, "no CA '" + std::string(name) + "'; there is: " + names);
  }
  if (row->purpose != "devices")
    return fail(Errc::kInfrastructure,
                row->name +
                    " vouches for routers, admins and this controller: without it there is "
                    "no network; make a new one");
  Revoked out;
  if (row->revoked_ms != 0) return out;
  row->revoked_ms = now_ms;
  row->reason = reason;
  TRY(tx.put_authority(*row));
  TRY_ASSIGN(const auto certificate, crypto::Certificate::from_der(row->certificate));
  TRY(tx.append_op(wire::encode(wire::StateOp{wire::RevokedCertificate{
      certificate.serial_hex(), certificate.not_after() * 1000, now_ms, false}})));
  TRY_ASSIGN(out.certificates, tx.revoke_certificates_by(row->name, store::Reason::kCaCompromise));
  return out;
}

}  // namespace sally::pki
