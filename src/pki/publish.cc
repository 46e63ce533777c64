// SPDX-License-Identifier: Apache-2.0
#include "pki/publish.h"

#include <algorithm>

#include "crypto/hash.h"
#include "pki/errc.h"
#include "trust/records.h"
#include "wire/messages.h"

namespace sally::pki {
namespace {

constexpr std::size_t kAll = 1'000'000;

Status append(store::Transaction& tx, wire::StateOp op) {
  TRY(tx.append_op(wire::encode(op)));
  return {};
}

wire::IdentityState state_of(const store::Identity& i, std::int64_t at_ms) {
  wire::IdentityState s;
  s.id = i.id;
  s.standing =
      i.removed_ms != 0 ? wire::Standing::kRevoked : static_cast<wire::Standing>(i.standing);
  s.credential_epoch = i.credential_epoch;
  s.attr_epoch = i.attr_epoch;
  s.at_ms = at_ms;
  return s;
}

wire::RouterEntry entry_of(const store::Identity& r, const store::RouterInfo& info) {
  return {r.id, r.name, info.addresses};
}

}  // namespace

store::Hooks store_hooks() {
  return {[](ByteView data) -> store::Hash { return crypto::sha256(data); },
          [](std::uint64_t version, ByteView op) {
            return wire::encode(wire::LogEntry{version, to_bytes(op)});
          }};
}

Status publish_identity(store::Transaction& tx, const store::Identity& identity,
                        std::int64_t now_ms) {
  return append(tx, {state_of(identity, now_ms)});
}

Result<std::vector<store::CertificateRow>> older_certificates(const store::Transaction& tx,
                                                              std::string_view identity,
                                                              std::string_view serial,
                                                              std::int64_t now_ms) {
  TRY_ASSIGN(auto rows, tx.certificates_of(identity));
  const auto own = std::ranges::find(rows, serial, &store::CertificateRow::serial);
  const std::int64_t issued = own != rows.end() ? own->issued_ms : 0;
  std::erase_if(rows, [&](const store::CertificateRow& r) {
    return r.issued_ms >= issued || r.revoked_ms != 0 || r.not_after_s * 1000 <= now_ms;
  });
  return rows;
}

Status publish_service(store::Transaction& tx, const NetworkId& network, store::Service service,
                       const crypto::Signer& signer, std::int64_t now_ms) {
  TRY_ASSIGN(const auto grants, tx.grants(service.id));
  TRY_ASSIGN(const auto head, tx.log_head());
  wire::ServiceRecord r;
  r.network = network.str();
  r.id = service.id;
  r.name = service.name;
  r.e2e = static_cast<wire::E2e>(service.e2e);
  for (const auto& g : grants)
    (g.kind == store::GrantKind::kDial ? r.dial : r.bind).push_back(g.selector);
  r.version = head.version + 1;
  r.not_after_ms = now_ms + kRecordLifeMs;
  r.host_config = service.host_config;
  r.intercept_config = service.intercept_config;
  TRY_ASSIGN(service.record, trust::make_service_record(r, signer));
  service.version = r.version;
  service.record_until_ms = r.not_after_ms;
  TRY(tx.put_service(service));
  return append(tx, {wire::PutService{service.record}});
}

Status publish_service_removed(store::Transaction& tx, std::string_view id) {
  return append(tx, {wire::RemoveService{std::string(id)}});
}

Status publish_router(store::Transaction& tx, const store::Identity& router,
                      const store::RouterInfo& info) {
  return append(tx, {entry_of(router, info)});
}

Status publish_router_removed(store::Transaction& tx, std::string_view id) {
  return append(tx, {wire::RemoveRouter{std::string(id)}});
}

Result<std::size_t> refresh_services(store::Transaction& tx, const NetworkId& network,
                                     const crypto::Signer& signer, std::int64_t now_ms) {
  TRY_ASSIGN(const auto services, tx.services({kAll, 0}));
  std::size_t n = 0;
  for (const auto& s : services) {
    if (s.record_until_ms - now_ms > kRecordRefreshMs) continue;
    TRY(publish_service(tx, network, s, signer, now_ms));
    ++n;
  }
  return n;
}

Result<Bytes> make_card(const NetworkId& network, const store::Identity& identity,
                        const crypto::Signer& signer, std::int64_t now_ms) {
  if (identity.standing != store::Standing::kActive || identity.removed_ms != 0)
    return fail(Errc::kIdentityInactive, identity.id);
  wire::Card c;
  c.network = network.str();
  c.id = identity.id;
  c.name = identity.name;
  c.attributes = identity.tags;
  c.attr_epoch = identity.attr_epoch;
  c.credential_epoch = identity.credential_epoch;
  c.not_after_ms = now_ms + kCardLifeMs;
  c.issued_ms = now_ms;
  return trust::make_card(c, signer);
}

Result<std::vector<Bytes>> snapshot_ops(const store::Transaction& tx, std::int64_t now_ms) {
  std::vector<Bytes> ops;
  const auto add = [&](wire::StateOp op) { ops.push_back(wire::encode(op)); };
  TRY_ASSIGN(const auto routers, tx.identities(store::Kind::kRouter, {kAll, 0}));
  for (const auto& r : routers) {
    TRY_ASSIGN(const auto info, tx.router_info(r.id));
    if (info) add({entry_of(r, *info)});
  }
  TRY_ASSIGN(const auto services, tx.services({kAll, 0}));
  for (const auto& s : services)
    if (!s.record.empty()) add({wire::PutService{s.record}});
  TRY_ASSIGN(const auto identities, tx.special_identities());
  for (const auto& i : identities) add({state_of(i, i.changed_ms)});
  TRY_ASSIGN(const auto revoked, tx.revoked_certificates(now_ms / 1000));
  for (const auto& c : revoked)
    if (c.told)
      add({wire::RevokedCertificate{c.serial, c.not_after_s * 1000, c.revoked_ms, c.superseded}});
  TRY_ASSIGN(const auto authorities, tx.authorities());
  for (const auto& a : authorities) {
    if (a.revoked_ms == 0) continue;
    TRY_ASSIGN(const auto certificate, crypto::Certificate::from_der(a.certificate));
    add({wire::RevokedCertificate{certificate.serial_hex(), certificate.not_after() * 1000,
                                  a.revoked_ms, false}});
  }
  return ops;
}

}  // namespace sally::pki
