// SPDX-License-Identifier: Apache-2.0
#include "store/store.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "store/sqlite/chains.h"
#include "store/sqlite/database.h"
#include "store/sqlite/rows.h"
#include "store/sqlite/transaction.h"

namespace sally::store {
namespace {

constexpr std::uint64_t kAll = 1'000'000;

class SqliteTransaction final : public SessionRows {
 public:
  using SessionRows::SessionRows;

  // ---- reads
  Result<Network> network() const override {
    auto s = query("SELECT id, name, controller_url, created_ms FROM networks WHERE id=?");
    TRY_ASSIGN(const bool row, s.step());
    if (!row) return fail(Errc::kNotFound, "network " + network_);
    Network n;
    n.id = s.text();
    n.name = s.text();
    n.controller_url = s.text();
    n.created_ms = s.i64();
    return n;
  }
  Result<std::vector<Authority>> authorities() const override {
    auto s = query(
        "SELECT name, purpose, generation, certificate, key_ref, created_ms, revoked_ms, reason "
        "FROM "
        "authorities WHERE network=? ORDER BY name");
    return all<Authority>(s, [](Statement& q) {
      Authority a;
      a.name = q.text();
      a.purpose = q.text();
      a.generation = static_cast<std::uint32_t>(q.i64());
      a.certificate = q.blob();
      a.key_ref = q.text();
      a.created_ms = q.i64();
      a.revoked_ms = q.i64();
      a.reason = static_cast<Reason>(q.i64());
      return a;
    });
  }
  Result<std::optional<Identity>> identity(std::string_view id) const override {
    auto s = query("SELECT " IDENTITY_COLUMNS " FROM identities WHERE network=? AND id=?");
    s << id;
    return one<Identity>(s, read_identity);
  }
  Result<std::optional<Identity>> identity_named(Kind kind, std::string_view name) const override {
    auto s = query("SELECT " IDENTITY_COLUMNS
                   " FROM identities WHERE network=? AND kind=? AND name=? AND removed_ms=0");
    s << static_cast<std::int64_t>(kind) << name;
    return one<Identity>(s, read_identity);
  }
  Result<std::vector<Identity>> identities(Kind kind, Page page) const override {
    auto s = query("SELECT " IDENTITY_COLUMNS
                   " FROM identities WHERE network=? AND kind=? AND removed_ms=0 ORDER BY name "
                   "LIMIT ? OFFSET ?");
    s << static_cast<std::int64_t>(kind) << std::uint64_t{page.limit} << std::uint64_t{page.offset};
    return all<Identity>(s, read_identity);
  }
  Result<std::vector<Identity>> batch(std::string_view name) const override {
    auto s = query("SELECT " IDENTITY_COLUMNS
                   " FROM identities WHERE network=? AND batch=? AND batch != '' AND removed_ms=0 "
                   "ORDER BY name");
    s << name;
    return all<Identity>(s, read_identity);
  }
  Result<std::uint64_t> count_identities(Kind kind) const override {
    auto s = query("SELECT count(*) FROM identities WHERE network=? AND kind=? AND removed_ms=0");
    s << static_cast<std::int64_t>(kind);
    TRY(s.step());
    return s.u64();
  }
  Result<std::vector<Identity>> special_identities() const override {
    auto s = query("SELECT " IDENTITY_COLUMNS
                   " FROM identities WHERE network=? AND (standing != 1 OR credential_epoch > 0 OR "
                   "attr_epoch > 0 OR removed_ms > 0) ORDER BY id");
    return all<Identity>(s, read_identity);
  }
  Result<std::optional<CertificateRow>> certificate(std::string_view serial) const override {
    auto s = query("SELECT " CERTIFICATE_COLUMNS " FROM certificates WHERE network=? AND serial=?");
    s << serial;
    return one<CertificateRow>(s, read_certificate);
  }
  Result<std::vector<CertificateRow>> certificates_of(std::string_view identity) const override {
    auto s =
        query("SELECT " CERTIFICATE_COLUMNS
              " FROM certificates WHERE network=? AND identity=? ORDER BY issued_ms DESC, serial");
    s << identity;
    return all<CertificateRow>(s, read_certificate);
  }
  Result<std::vector<CertificateRow>> certificates(const CertificateQuery& q,
                                                   Page page) const override {
    // Responders of status requests belong to nobody, and are there a week at a time.
    auto s = query("SELECT " CERTIFICATE_COLUMNS
                   " FROM certificates WHERE network=? AND (?='' OR identity=?) AND "
                   "(profile != 'ocsp' OR ?='ocsp') AND (?=0 OR "
                   "(revoked_ms=0 AND not_after_s > ?)) AND (?=0 OR not_after_s < ?) "
                   "ORDER BY not_after_s, serial LIMIT ? OFFSET ?");
    s << q.identity << q.identity << q.identity << q.after_s << q.after_s << q.before_s
      << q.before_s << std::uint64_t{page.limit} << std::uint64_t{page.offset};
    return all<CertificateRow>(s, read_certificate);
  }
  Result<std::vector<CertificateRow>> unproven(std::int64_t before_ms,
                                               std::int64_t now_s) const override {
    auto s = query("SELECT " CERTIFICATE_COLUMNS
                   " FROM certificates c WHERE network=? AND request != '' AND used_ms = 0 AND "
                   "revoked_ms = 0 AND issued_ms < ? AND EXISTS (SELECT 1 FROM certificates o "
                   "WHERE o.network=c.network AND o.identity=c.identity AND o.revoked_ms=0 AND "
                   "o.issued_ms < c.issued_ms AND o.not_after_s > ?)");
    s << before_ms << now_s;
    return all<CertificateRow>(s, read_certificate);
  }
  Result<std::vector<Expiry>> expiring(std::int64_t now_s, std::int64_t before_s,
                                       std::uint64_t limit) const override {
    // Beside MAX the other columns are those of its row. 100 days: a life that renews itself, or is
    // renewed by use.
    auto s = query(
        "SELECT i.kind, i.id, i.name, MAX(c.not_after_s) AS last FROM certificates c JOIN "
        "identities i "
        "ON i.network = c.network AND i.id = c.identity WHERE c.network=? AND c.revoked_ms = 0 AND "
        "i.removed_ms = 0 AND i.standing = ? GROUP BY i.id HAVING last < ? AND (last - "
        "c.not_before_s > 8640000 OR "
        "(last - ?) * 5 < last - c.not_before_s) ORDER BY last, i.id LIMIT ?");
    s << static_cast<std::int64_t>(Standing::kActive) << before_s << now_s
      << static_cast<std::int64_t>(limit);
    return all<Expiry>(s, read_expiry);
  }
  Result<std::vector<CertificateRow>> revoked_certificates(std::int64_t now_s) const override {
    auto s = query("SELECT " CERTIFICATE_COLUMNS
                   " FROM certificates WHERE network=? AND revoked_ms > 0 AND not_after_s > ? "
                   "ORDER BY serial");
    s << now_s;
    return all<CertificateRow>(s, read_certificate);
  }
  Result<std::vector<RevokedRow>> revoked_by(std::string_view issuer,
                                             std::int64_t now_s) const override {
    auto s = query(
        "SELECT serial, revoked_ms, reason FROM certificates WHERE network=?1 AND issuer=?2 AND "
        "revoked_ms > 0 AND not_after_s > ?3 UNION ALL "
        "SELECT c.serial, i.changed_ms, ?4 FROM identities i JOIN certificates c ON "
        "c.network=i.network AND c.identity=i.id WHERE i.network=?1 AND i.standing=?5 AND "
        "i.standing != 1 AND c.issuer=?2 AND c.revoked_ms=0 AND c.not_after_s > ?3 ORDER BY 1");
    s << issuer << now_s << static_cast<std::int64_t>(Reason::kCertificateHold)
      << static_cast<std::int64_t>(Standing::kSuspended);
    return all<RevokedRow>(s, [](Statement& q) {
      RevokedRow r;
      r.serial = q.text();
      r.at_ms = q.i64();
      r.reason = static_cast<Reason>(q.i64());
      return r;
    });
  }
  Result<std::optional<Enrollment>> enrollment(std::string_view id) const override {
    auto s = query("SELECT " ENROLLMENT_COLUMNS " FROM enrollments WHERE network=? AND id=?");
    s << id;
    return one<Enrollment>(s, read_enrollment);
  }
  Result<std::optional<Enrollment>> enrollment_by_mac(ByteView mac) const override {
    auto s =
        query("SELECT " ENROLLMENT_COLUMNS " FROM enrollments WHERE network=? AND token_mac=?");
    s << mac;
    return one<Enrollment>(s, read_enrollment);
  }
  Result<std::vector<Enrollment>> enrollments(Page page) const override {
    auto s =
        query("SELECT " ENROLLMENT_COLUMNS
              " FROM enrollments WHERE network=? ORDER BY created_ms DESC, id LIMIT ? OFFSET ?");
    s << std::uint64_t{page.limit} << std::uint64_t{page.offset};
    return all<Enrollment>(s, read_enrollment);
  }
  Result<std::optional<Service>> service(std::string_view id) const override {
    auto s = query("SELECT " SERVICE_COLUMNS " FROM services WHERE network=? AND id=?");
    s << id;
    return one<Service>(s, read_service);
  }
  Result<std::optional<Service>> service_named(std::string_view name) const override {
    auto s = query("SELECT " SERVICE_COLUMNS " FROM services WHERE network=? AND name=?");
    s << name;
    return one<Service>(s, read_service);
  }
  Result<std::vector<Service>> services(Page page) const override {
    auto s = query("SELECT " SERVICE_COLUMNS
                   " FROM services WHERE network=? ORDER BY name LIMIT ? OFFSET ?");
    s << std::uint64_t{page.limit} << std::uint64_t{page.offset};
    return all<Service>(s, read_service);
  }
  Result<std::vector<Grant>> grants(std::string_view service) const override {
    auto s = query(
        "SELECT id, service, kind, selector, created_ms FROM grants WHERE network=? AND "
        "(?='' OR service=?) ORDER BY service, kind, selector");
    s << service << service;
    return all<Grant>(s, read_grant);
  }
  Result<std::optional<Grant>> grant(std::string_view id) const override {
    auto s = query(
        "SELECT id, service, kind, selector, created_ms FROM grants WHERE network=? AND id=?");
    s << id;
    return one<Grant>(s, read_grant);
  }
  Result<std::optional<RouterInfo>> router_info(std::string_view id) const override {
    auto s = query("SELECT id, addresses, dns, ips FROM routers WHERE network=? AND id=?");
    s << id;
    return one<RouterInfo>(s, [](Statement& q) {
      RouterInfo r;
      r.id = q.text();
      r.addresses = unjoin(q.text());
      r.dns = unjoin(q.text());
      r.ips = unjoin(q.text());
      return r;
    });
  }
  Result<LogHead> log_head() const override {
    auto s = query(
        "SELECT version, hash, at_ms FROM change_log WHERE network=? ORDER BY version DESC LIMIT "
        "1");
    LogHead head;
    TRY_ASSIGN(const bool row, s.step());
    if (!row) return head;
    head.version = s.u64();
    const Bytes h = s.blob();
    if (h.size() != head.hash.size()) return fail(Errc::kLogTampered, "hash size", Source::kLocal);
    std::copy(h.begin(), h.end(), head.hash.begin());
    head.at_ms = s.i64();
    return head;
  }
  Result<std::vector<LogRow>> log_after(std::uint64_t version, std::size_t limit) const override {
    auto s = query(
        "SELECT version, entry, hash FROM change_log WHERE network=? AND version > ? "
        "ORDER BY version LIMIT ?");
    s << version << std::uint64_t{limit};
    return all<LogRow>(s, [](Statement& q) {
      LogRow r;
      r.version = q.u64();
      r.entry = q.blob();
      const Bytes h = q.blob();
      if (h.size() == r.hash.size()) std::copy(h.begin(), h.end(), r.hash.begin());
      return r;
    });
  }
  Result<std::vector<AuditRow>> audit_rows(std::uint64_t before, std::size_t limit) const override {
    auto s = query(
        "SELECT seq, at_ms, actor, action, subject, detail, hash FROM audit WHERE network=? AND "
        "(?=0 OR seq < ?) ORDER BY seq DESC LIMIT ?");
    s << before << before << std::uint64_t{limit};
    return all<AuditRow>(s, read_audit);
  }
  Result<std::vector<AuditRow>> audit_after(std::uint64_t seq, std::size_t limit) const override {
    auto s = query(
        "SELECT seq, at_ms, actor, action, subject, detail, hash FROM audit WHERE network=? AND "
        "seq > ? ORDER BY seq LIMIT ?");
    s << seq << std::uint64_t{limit};
    return all<AuditRow>(s, read_audit);
  }
  Result<AuditBase> audit_base() const override {
    auto s = query("SELECT seq, hash FROM audit_base WHERE network=?");
    AuditBase base;
    TRY_ASSIGN(const bool row, s.step());
    if (!row) return base;
    base.seq = s.u64();
    const Bytes h = s.blob();
    if (h.size() != base.hash.size())
      return fail(Errc::kAuditTampered, "where the audit begins", Source::kLocal);
    std::copy(h.begin(), h.end(), base.hash.begin());
    return base;
  }
  Result<std::uint64_t> verify_chains() const override {
    TRY_ASSIGN(const AuditBase base, audit_base());
    TRY_ASSIGN(const std::uint64_t rows, verify_audit(db_, hooks_, network_, base));
    TRY_ASSIGN(const std::uint64_t entries, verify_log(db_, hooks_, network_));
    return rows + entries;
  }

  // ---- changes
  Status put_network(const Network& r) override {
    auto s = change(
        "INSERT INTO networks(id, name, controller_url, created_ms) VALUES(?,?,?,?) ON "
        "CONFLICT(id) "
        "DO UPDATE SET name=excluded.name, controller_url=excluded.controller_url");
    if (r.id != network_) return fail(Errc::kInternal, "another network's row", Source::kInternal);
    s << r.name << r.controller_url << r.created_ms;
    return run(s);
  }
  Status put_authority(const Authority& r) override {
    auto s = change(
        "INSERT OR REPLACE INTO authorities(network, name, purpose, generation, certificate, "
        "key_ref, created_ms, revoked_ms, reason) VALUES(?,?,?,?,?,?,?,?,?)");
    s << r.name << r.purpose << r.generation << ByteView(r.certificate) << r.key_ref << r.created_ms
      << r.revoked_ms << static_cast<std::int64_t>(r.reason);
    return run(s);
  }
  Status put_identity(const Identity& r) override {
    auto s = change(
        "INSERT INTO identities(network, id, name, kind, standing, credential_epoch, attr_epoch, "
        "created_ms, changed_ms, removed_ms, batch) VALUES(?,?,?,?,?,?,?,?,?,?,?) ON "
        "CONFLICT(network, id) DO UPDATE "
        "SET name=excluded.name, standing=excluded.standing, "
        "credential_epoch=excluded.credential_epoch, "
        "attr_epoch=excluded.attr_epoch, changed_ms=excluded.changed_ms, "
        "removed_ms=excluded.removed_ms, batch=excluded.batch");
    s << r.id << r.name << static_cast<std::int64_t>(r.kind)
      << static_cast<std::int64_t>(r.standing) << r.credential_epoch << r.attr_epoch << r.created_ms
      << now_ms_ << r.removed_ms << r.batch;
    TRY(run(s));
    auto d = change("DELETE FROM identity_tags WHERE network=? AND identity=?");
    d << r.id;
    TRY(run(d));
    for (const auto& tag : r.tags) {
      auto t = change("INSERT OR IGNORE INTO identity_tags(network, identity, tag) VALUES(?,?,?)");
      t << r.id << tag;
      TRY(run(t));
    }
    return {};
  }
  Status put_certificate(const CertificateRow& r) override {
    auto s = change(
        "INSERT INTO certificates(network, serial, identity, profile, key_hash, not_before_s, "
        "not_after_s, "
        "issued_ms, revoked_ms, der, used_ms, superseded, request, issuer, reason, told) "
        "VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(network, serial) DO UPDATE SET "
        "revoked_ms=excluded.revoked_ms, used_ms=excluded.used_ms, "
        "superseded=excluded.superseded, request=excluded.request, reason=excluded.reason, "
        "told=excluded.told");
    s << r.serial << r.identity << r.profile << r.key_hash << r.not_before_s << r.not_after_s
      << r.issued_ms << r.revoked_ms << ByteView(r.der) << r.used_ms
      << static_cast<std::int64_t>(r.superseded) << r.request << r.issuer
      << static_cast<std::int64_t>(r.reason) << static_cast<std::int64_t>(r.told);
    return run(s);
  }
  Result<std::uint64_t> revoke_certificates_of(std::string_view identity, Reason reason) override {
    std::uint64_t live = 0;
    {
      auto s = query(
          "SELECT count(*) FROM certificates WHERE network=?1 AND identity=?2 AND revoked_ms=0 AND "
          "not_after_s > ?3 / 1000");
      s << identity << now_ms_;
      TRY(s.step());
      live = s.u64();
    }
    auto s = change(
        "UPDATE certificates SET revoked_ms=?2, reason=?3 WHERE network=?1 AND identity=?4 AND "
        "revoked_ms=0");
    s << now_ms_ << static_cast<std::int64_t>(reason) << identity;
    TRY(run(s));
    return live;
  }
  Result<std::uint64_t> revoke_certificates_by(std::string_view issuer, Reason reason) override {
    auto s = change(
        "UPDATE certificates SET revoked_ms=iif(revoked_ms=0, ?2, revoked_ms), reason=?3 WHERE "
        "network=?1 AND issuer=?4 AND (revoked_ms=0 OR superseded=1)");
    s << now_ms_ << static_cast<std::int64_t>(reason) << issuer;
    return run_many(s);
  }
  Result<std::uint64_t> prune_certificates(std::int64_t before_s, std::uint64_t limit) override {
    auto s = change(
        "DELETE FROM certificates WHERE network=?1 AND serial IN (SELECT c.serial FROM "
        "certificates c WHERE c.network=?1 AND c.not_after_s < ?2 AND EXISTS (SELECT 1 FROM "
        "certificates o WHERE o.network=?1 AND o.identity=c.identity AND "
        "o.issued_ms > c.issued_ms) AND NOT EXISTS (SELECT 1 FROM certificates o WHERE "
        "o.network=?1 AND o.identity=c.identity AND o.not_after_s >= ?2 AND (o.issued_ms <= "
        "c.issued_ms OR (o.key_hash = c.key_hash AND c.revoked_ms > 0 AND (c.superseded = 0 OR "
        "c.reason = ?4)))) ORDER BY c.not_after_s LIMIT ?3)");
    s << before_s << limit << static_cast<std::int64_t>(Reason::kCaCompromise);
    return run_many(s);
  }
  Status remove_certificate(std::string_view serial) override {
    auto s = change("DELETE FROM certificates WHERE network=? AND serial=?");
    s << serial;
    return run(s);
  }
  Result<std::uint64_t> revoke_enrollments_of(std::string_view identity) override {
    auto s = change(
        "UPDATE enrollments SET revoked_ms=?2 WHERE network=?1 AND identity=?3 AND used_ms=0 AND "
        "revoked_ms=0");
    s << now_ms_ << identity;
    return run_many(s);
  }
  Status put_enrollment(const Enrollment& r) override {
    auto s = change(
        "INSERT INTO enrollments(network, id, token_mac, identity, kind, created_ms, expires_ms, "
        "used_ms, "
        "revoked_ms) VALUES(?,?,?,?,?,?,?,?,?) ON CONFLICT(network, id) DO UPDATE SET "
        "used_ms=excluded.used_ms, revoked_ms=excluded.revoked_ms");
    s << r.id << ByteView(r.token_mac) << r.identity << static_cast<std::int64_t>(r.kind)
      << r.created_ms << r.expires_ms << r.used_ms << r.revoked_ms;
    return run(s);
  }
  Status put_service(const Service& r) override {
    auto s = change(
        "INSERT INTO services(network, id, name, e2e, host_config, intercept_config, version, "
        "created_ms, record_until_ms, record) VALUES(?,?,?,?,?,?,?,?,?,?) ON CONFLICT(network, id) "
        "DO UPDATE SET name=excluded.name, e2e=excluded.e2e, host_config=excluded.host_config, "
        "intercept_config=excluded.intercept_config, version=excluded.version, "
        "record_until_ms=excluded.record_until_ms, record=excluded.record");
    s << r.id << r.name << static_cast<std::int64_t>(r.e2e) << r.host_config << r.intercept_config
      << r.version << r.created_ms << r.record_until_ms << ByteView(r.record);
    return run(s);
  }
  Status remove_service(std::string_view id) override {
    auto g = change("DELETE FROM grants WHERE network=? AND service=?");
    g << id;
    TRY(run(g));
    auto s = change("DELETE FROM services WHERE network=? AND id=?");
    s << id;
    return run_one(s);
  }
  Status put_grant(const Grant& r) override {
    auto s = change(
        "INSERT INTO grants(network, id, service, kind, selector, created_ms) VALUES(?,?,?,?,?,?)");
    s << r.id << r.service << static_cast<std::int64_t>(r.kind) << r.selector << r.created_ms;
    return run(s);
  }
  Status remove_grant(std::string_view id) override {
    auto s = change("DELETE FROM grants WHERE network=? AND id=?");
    s << id;
    return run_one(s);
  }
  Result<std::vector<Usage>> usage(const UsageQuery& q, Page page) const override {
    // Two statements: the cache keys on their addresses.
#define USAGE_SUMS                                                                       \
  ", device, service, sum(sent), sum(received), sum(circuits), sum(open_ms) FROM usage " \
  "WHERE network=? AND day >= ? AND day <= ? AND (?='' OR device=?) AND (?='' OR service=?) "
    auto s = q.by_day
                 ? query("SELECT day" USAGE_SUMS
                         "GROUP BY day, device, service ORDER BY day, sum(sent) + sum(received) "
                         "DESC, device, service LIMIT ? OFFSET ?")
                 : query("SELECT 0" USAGE_SUMS
                         "GROUP BY device, service ORDER BY sum(sent) + sum(received) DESC, "
                         "device, service LIMIT ? OFFSET ?");
#undef USAGE_SUMS
    s << std::uint64_t{q.from} << std::uint64_t{q.to} << q.device << q.device << q.service
      << q.service << std::uint64_t{page.limit} << std::uint64_t{page.offset};
    return all<Usage>(s, read_usage);
  }
  Result<bool> add_usage(std::string_view router, ByteView epoch, std::uint64_t sequence,
                         const std::vector<Usage>& rows) override {
    {
      auto s = query("SELECT sequence FROM usage_batches WHERE network=? AND router=? AND epoch=?");
      s << router << epoch;
      TRY_ASSIGN(const bool known, s.step());
      if (known && s.u64() >= sequence) return false;
    }
    {
      auto s = query(
          "INSERT OR REPLACE INTO usage_batches(network, router, epoch, sequence, at_ms) "
          "VALUES(?,?,?,?,?)");
      s << router << epoch << sequence << now_ms_;
      TRY(run(s));
    }
    for (const auto& u : rows) {
      auto s = query(
          "INSERT INTO usage(network, day, device, service, sent, received, circuits, open_ms) "
          "VALUES(?,?,?,?,?,?,?,?) ON CONFLICT(network, day, device, service) DO UPDATE SET "
          "sent=sent+excluded.sent, received=received+excluded.received, "
          "circuits=circuits+excluded.circuits, open_ms=open_ms+excluded.open_ms");
      s << std::uint64_t{u.day} << u.device << u.service << u.sent << u.received << u.circuits
        << u.open_ms;
      TRY(run(s));
    }
    return true;
  }
  Status expire_usage(std::uint32_t day, std::int64_t before_ms) override {
    {
      auto s = query("DELETE FROM usage WHERE network=? AND day < ?");
      s << std::uint64_t{day};
      TRY(run(s));
    }
    auto s = query("DELETE FROM usage_batches WHERE network=? AND at_ms < ?");
    s << before_ms;
    return run(s);
  }
  Result<Figures> figures(std::int64_t now_s) const override {
    TRY_ASSIGN(Figures f, count_figures(db_, network_, now_s));
    constexpr std::int64_t kDay = 86'400;
    TRY_ASSIGN(const auto rows, expiring(now_s, now_s + 90 * kDay, kAll));
    for (const auto& e : rows) {
      const std::int64_t left = e.not_after_s - now_s;
      ++f.due[left <= 0 ? 0 : left <= 7 * kDay ? 1 : left <= 30 * kDay ? 2 : 3];
    }
    return f;
  }

  Status put_router_info(const RouterInfo& r) override {
    auto s = change(
        "INSERT OR REPLACE INTO routers(network, id, addresses, dns, ips) VALUES(?,?,?,?,?)");
    s << r.id << join(r.addresses) << join(r.dns) << join(r.ips);
    return run(s);
  }
  Status remove_router_info(std::string_view id) override {
    auto s = change("DELETE FROM routers WHERE network=? AND id=?");
    s << id;
    return run_one(s);
  }

  Result<std::uint64_t> prune_audit(std::string_view actor, std::int64_t before_ms) override {
    TRY_ASSIGN(const AuditBase base, audit_base());
    // Up to the first row that stays, whatever clocks did: the chain has one beginning.
    AuditBase fresh;
    {
      auto s = query(
          "SELECT seq, hash FROM audit WHERE network=?1 AND seq < ifnull((SELECT min(seq) FROM "
          "audit "
          "WHERE network=?1 AND at_ms >= ?2), (SELECT max(seq) FROM audit WHERE network=?1)) "
          "ORDER BY seq DESC LIMIT 1");
      s << before_ms;
      TRY_ASSIGN(const bool any, s.step());
      if (!any) return 0;
      fresh.seq = s.u64();
      const Bytes h = s.blob();
      if (h.size() != fresh.hash.size())
        return fail(Errc::kAuditTampered, "audit row " + std::to_string(fresh.seq), Source::kLocal);
      std::copy(h.begin(), h.end(), fresh.hash.begin());
    }
    auto put = change("INSERT OR REPLACE INTO audit_base(network, seq, hash) VALUES(?,?,?)");
    put << fresh.seq << ByteView(fresh.hash);
    TRY(run(put));
    auto d = change("DELETE FROM audit WHERE network=? AND seq <= ?");
    d << fresh.seq;
    TRY(run(d));
    TRY(audit(actor, kPrune, "", prune_detail(fresh)));
    return fresh.seq - base.seq;
  }

  Status audit(std::string_view actor, std::string_view action, std::string_view subject,
               std::string_view detail) override {
    TRY_ASSIGN(const auto last, audit_rows(0, 1));
    AuditRow row;
    row.seq = last.empty() ? 1 : last.front().seq + 1;
    row.at_ms = now_ms_;
    row.actor = actor;
    row.action = action;
    row.subject = subject;
    row.detail = detail;
    row.hash = hooks_.sha256(audit_input(last.empty() ? Hash{} : last.front().hash, network_, row));
    auto s = change(
        "INSERT INTO audit(network, seq, at_ms, actor, action, subject, detail, hash) "
        "VALUES(?,?,?,?,?,?,?,?)");
    s << row.seq << row.at_ms << row.actor << row.action << row.subject << row.detail
      << ByteView(row.hash);
    TRY(run(s));
    audited_ = true;
    return {};
  }

  Result<std::uint64_t> append_op(ByteView op) override {
    TRY_ASSIGN(const LogHead head, log_head());
    const std::uint64_t version = head.version + 1;
    const Bytes entry = hooks_.log_entry(version, op);
    Bytes in = to_bytes(ByteView(head.hash));
    append(in, entry);
    const Hash hash = hooks_.sha256(in);
    auto s =
        change("INSERT INTO change_log(network, version, at_ms, entry, hash) VALUES(?,?,?,?,?)");
    s << version << now_ms_ << ByteView(entry) << ByteView(hash);
    TRY(run(s));
    return version;
  }

  Status begin_part() override {
    part_ = {changed_, audited_};
    changed_ = audited_ = false;
    return db_.exec("SAVEPOINT part");
  }
  Status end_part(bool keep) override {
    const bool whole = !failed_ && (!changed_ || audited_);
    const bool kept = keep && whole;
    TRY(db_.exec(kept ? "RELEASE part" : "ROLLBACK TO part; RELEASE part"));
    const bool failed = std::exchange(failed_, false);
    changed_ = part_.changed || (kept && changed_);
    audited_ = part_.audited || (kept && audited_);
    if (!keep || whole) return {};
    return failed ? fail(Errc::kInternal, "a change of this part failed", Source::kInternal)
                  : fail(Errc::kNoAudit, "a change needs an audit row", Source::kInternal);
  }
  Status commit() override {
    if (!open_) return fail(Errc::kInternal, "transaction is over", Source::kInternal);
    if (failed_)
      return fail(Errc::kInternal, "a change of this transaction failed", Source::kInternal);
    if (changed_ && !audited_)
      return fail(Errc::kNoAudit, "a change needs an audit row", Source::kInternal);
    TRY(db_.exec("COMMIT"));
    open_ = false;
    lock_.unlock();
    return {};
  }
};

class SqliteStore final : public Store {
 public:
  SqliteStore(std::unique_ptr<Database> db, const Hooks& hooks)
      : db_(std::move(db)), hooks_(hooks) {}

  Result<std::unique_ptr<Transaction>> begin(const NetworkId& network,
                                             std::int64_t now_ms) override {
    std::unique_lock lock(mutex_);
    TRY(db_->exec("BEGIN IMMEDIATE"));
    return std::make_unique<SqliteTransaction>(*db_, hooks_, std::move(lock), network.str(), now_ms,
                                               true);
  }
  Result<std::unique_ptr<const Transaction>> read(const NetworkId& network) override {
    std::unique_lock lock(mutex_);
    TRY(db_->exec("BEGIN"));
    return std::make_unique<SqliteTransaction>(*db_, hooks_, std::move(lock), network.str(), 0,
                                               false);
  }
  Result<std::vector<NetworkId>> networks() override {
    const std::unique_lock lock(mutex_);
    auto s = db_->statement("SELECT id FROM networks ORDER BY id");
    std::vector<NetworkId> out;
    for (;;) {
      TRY_ASSIGN(const bool row, s.step());
      if (!row) return out;
      out.emplace_back(s.text());
    }
  }

 private:
  std::mutex mutex_;
  std::unique_ptr<Database> db_;
  Hooks hooks_;
};

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite(const std::string& path, const Hooks& hooks) {
  TRY_ASSIGN(auto db, Database::open(path));
  TRY(migrate(*db));
  return std::make_unique<SqliteStore>(std::move(db), hooks);
}

}  // namespace sally::store
