// SPDX-License-Identifier: Apache-2.0
#include "pki/renew.h"

#include <algorithm>

#include "base/text.h"
#include "crypto/csr.h"
#include "crypto/hash.h"
#include "pki/publish.h"
#include "pki/revoke.h"
#include "trust/records.h"
#include "trust/renewal.h"

namespace sally::pki {
namespace {

constexpr std::int64_t kSkewMs = 5LL * 60 * 1000;  // relayed, and it may have waited
constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::ptrdiff_t kPerHour = 60;
constexpr std::int64_t kDayS = 86'400;
// Of those that a later one has superseded, so many say enough.
constexpr std::size_t kKeptRows = 16;
constexpr std::size_t kMostRows = 3'000;

std::string actor(const store::Identity& identity) {
  return std::string(store::kind_name(identity.kind)) + "/" + identity.id;
}

std::string_view door_name(Door door) {
  switch (door) {
    case Door::kLane:
      return "lane";
    case Door::kRecovery:
      return "recovery";
    case Door::kExtension:
      return "extension";
  }
  return "unknown";
}

Status audit_renewal(store::Transaction& tx, const store::Identity& identity, Door door,
                     const crypto::Certificate& leaf, const store::CertificateRow& by) {
  return tx.audit(actor(identity), "certificate.renew", identity.id,
                  "{\"door\":\"" + std::string(door_name(door)) + "\",\"serial\":\"" +
                      leaf.serial_hex() + "\",\"by\":\"" + by.serial + "\",\"key\":\"" +
                      leaf.public_key().hash_hex() + "\"}");
}

// Of what is signed: an ECDSA signature has a twin, so the same request has more than one envelope.
std::string request_hash(const wire::RenewalRequest& request) {
  return to_hex(crypto::sha256(wire::encode(request)));
}

// Its key is or was the identity's: neither revoked for good nor an answer that may be lost.
bool served(const store::CertificateRow& r) {
  return (r.revoked_ms == 0 || r.superseded) && (r.request.empty() || r.used_ms != 0);
}

}  // namespace

Result<RenewalDoor::Signed> RenewalDoor::open(ByteView envelope, const Find& find) const {
  auto request = trust::read_renewal(envelope, authority_->network().str());
  if (!request) {
    if (request.error().is(trust::Errc::kWrongNetwork))
      return fail(Errc::kRequestForeign, request.error().context());
    return fail(std::move(request).error());
  }
  TRY_ASSIGN(auto row, find(request->serial));
  if (!row) return fail(Errc::kCertificateUnknown, request->serial);
  if (row->identity != request->id)
    return fail(Errc::kNotYours, "certificate of " + row->identity + ", not " + request->id);
  TRY_ASSIGN(const auto leaf, crypto::Certificate::from_der(row->der));
  TRY(trust::verify_renewal(envelope, authority_->network().str(), leaf.public_key()));
  return Signed{std::move(*request), std::move(*row)};
}

Result<RenewalDoor::Signed> RenewalDoor::open(const store::Transaction& tx,
                                              ByteView envelope) const {
  return open(envelope, [&tx](std::string_view serial) { return tx.certificate(serial); });
}

Result<RenewalDoor::Checked> RenewalDoor::check(const store::Transaction& tx, Signed from,
                                                const Presenter* presenter,
                                                std::int64_t now_ms) const {
  Checked c{std::move(from), {}};
  // What was signed by then may have been revoked or renewed since.
  TRY_ASSIGN(auto row, tx.certificate(c.request.serial));
  if (!row) return fail(Errc::kCertificateUnknown, c.request.serial);
  c.row = std::move(*row);
  // The lane may have come up with an earlier certificate of the identity: it lives on through
  // renewals.
  if (presenter != nullptr) {
    TRY_ASSIGN(const auto proven, tx.certificate(presenter->serial));
    if (presenter->id != c.request.id || !proven || proven->identity != c.request.id)
      return fail(Errc::kNotYours,
                  "request of " + c.request.id + ", lane of " + std::string(presenter->id));
  }
  TRY_ASSIGN(auto identity, tx.identity(c.row.identity));
  if (!identity || identity->removed_ms != 0 || identity->standing != store::Standing::kActive)
    return fail(Errc::kIdentityInactive, c.row.identity);
  c.identity = std::move(*identity);
  if (c.identity.kind != store::Kind::kDevice && c.identity.kind != store::Kind::kRouter)
    return fail(Errc::kNotYours, "this door is for devices and routers");
  if (presenter == nullptr) {
    TRY(check_recovery(tx, c, now_ms));
  } else if (c.row.revoked_ms != 0) {
    return fail(Errc::kCertificateRevoked, c.row.serial);
  } else if (c.row.not_after_s * 1000 <= now_ms) {
    return fail(Errc::kCertificateExpired, c.row.serial);
  }
  if (c.request.time_ms < now_ms - kSkewMs || c.request.time_ms > now_ms + kSkewMs)
    return fail(Errc::kRequestTime, std::to_string((c.request.time_ms - now_ms) / 1000) + " s off");
  return c;
}

Status RenewalDoor::check_recovery(const store::Transaction& tx, const Checked& c,
                                   std::int64_t now_ms) const {
  // Superseded is not revoked: what followed may never have arrived. But a key of which any
  // certificate was revoked gets nothing by an older one.
  TRY_ASSIGN(const auto rows, tx.certificates_of(c.identity.id));
  if (std::ranges::any_of(rows, [&](const store::CertificateRow& r) {
        return r.key_hash == c.row.key_hash && r.revoked_ms != 0 &&
               (!r.superseded || r.reason == store::Reason::kCaCompromise);
      }))
    return fail(Errc::kCertificateRevoked, c.row.serial);
  if ((c.row.not_after_s + grace_s_) * 1000 <= now_ms)
    return fail(Errc::kBeyondGrace, c.row.serial);
  // Newest first. The current key is that of the last one in use: not revoked, and not an answer
  // that may never have arrived.
  const auto current = std::ranges::find_if(rows, served);
  if (current == rows.end() || current->key_hash != c.row.key_hash)
    return fail(Errc::kKeyNotCurrent, c.identity.id);
  return {};
}

namespace {

Result<crypto::Csr> own_csr(ByteView text, const std::string& id) {
  TRY_ASSIGN(auto csr, crypto::parse_csr(text));
  if (csr.asks_ca) return fail(Errc::kCaAsked, id);
  if (csr.asks_names || csr.subject_cn != id)
    return fail(Errc::kNameAsked, "'" + csr.subject_cn + "' of " + id);
  return csr;
}

// A short life leaves many: those that ended, are superseded and bar nothing go with the next one,
// but the newest and `asking`. `rows`: newest first. How many are left.
Result<std::size_t> forget_superseded(store::Transaction& tx,
                                      const std::vector<store::CertificateRow>& rows,
                                      std::string_view asking, std::int64_t now_ms) {
  std::size_t gone = 0;
  const auto current = std::ranges::find_if(rows, served);
  for (std::size_t i = kKeptRows; i < rows.size(); ++i) {
    const auto& r = rows[i];
    if (!r.superseded || r.reason == store::Reason::kCaCompromise ||
        r.not_after_s + 2 * kDayS > now_ms / 1000 || r.serial == asking || &r == &*current)
      continue;
    TRY(tx.remove_certificate(r.serial));
    ++gone;
  }
  return rows.size() - gone;
}

// One more certificate for `id`, whose `asking` brings the request: not too often, not too many.
Status make_room(store::Transaction& tx, const std::vector<store::CertificateRow>& rows,
                 const std::string& id, std::string_view asking, std::int64_t now_ms) {
  if (std::ranges::count_if(rows, [&](const store::CertificateRow& r) {
        return r.issued_ms > now_ms - kHourMs;
      }) >= kPerHour)
    return fail(Errc::kTooOften, id, Source::kPeer, true);
  TRY_ASSIGN(const auto left, forget_superseded(tx, rows, asking, now_ms));
  if (left >= kMostRows) return fail(Errc::kTooOften, id, Source::kPeer, true);
  return {};
}

}  // namespace

// The same request twice gives two certificates of one key, which fall together: harmless, and
// within the rate of its router. So nothing of it is remembered but the audit.
Result<RenewalDoor::Outcome> RenewalDoor::issue_session(store::Transaction& tx, const Checked& c,
                                                        std::int64_t now_ms, Random& random) const {
  const std::string& id = c.identity.id;
  if (c.identity.kind != store::Kind::kDevice || !c.request.csr.empty())
    return fail(Errc::kSessionNotHere, id);
  if (std::ranges::contains(c.identity.tags, trust::kDeviceKeyOnly))
    return fail(Errc::kDeviceKeyOnly, id);
  TRY_ASSIGN(const auto csr, own_csr(c.request.session_csr, id));
  TRY_ASSIGN(auto parent, crypto::Certificate::from_der(c.row.der));
  if (csr.key == parent.public_key()) return fail(Errc::kSessionKey, id);
  Outcome out{.changed = true, .session = true};
  TRY_ASSIGN(
      out.issued,
      authority_->issue(tx, {.id = id, .dns = {}, .ips = {}, .parent = std::move(parent)}, csr.key,
                        Profile::kSession, now_ms, random, std::min(life_s_, kSessionLifeS)));
  TRY(tx.audit(actor(c.identity), "certificate.session", id,
               "{\"serial\":\"" + out.issued->leaf.serial_hex() + "\",\"by\":\"" + c.row.serial +
                   "\",\"key\":\"" + csr.key.hash_hex() + "\"}"));
  return out;
}

Result<RenewalDoor::Outcome> RenewalDoor::issue(store::Transaction& tx, const Checked& c, Door door,
                                                std::int64_t now_ms, Random& random) const {
  TRY_ASSIGN(const auto csr, own_csr(c.request.csr, c.identity.id));
  const std::string hash = request_hash(c.request);
  TRY_ASSIGN(const auto rows, tx.certificates_of(c.identity.id));
  if (std::ranges::find(rows, hash, &store::CertificateRow::request) != rows.end())
    return fail(Errc::kRequestReplayed, c.identity.id);
  TRY(make_room(tx, rows, c.identity.id, c.row.serial, now_ms));

  Outcome out{.changed = true};
  for (const auto& r : rows) {
    if (r.request.empty() || r.used_ms != 0 || r.revoked_ms != 0 || r.serial == c.row.serial ||
        r.issued_ms < c.row.issued_ms || r.not_after_s * 1000 <= now_ms)
      continue;
    TRY(revoke_certificate(tx, r, now_ms, true));
    ++out.superseded;
  }
  Subject subject;
  subject.id = c.identity.id;
  if (c.identity.kind == store::Kind::kRouter) {
    TRY_ASSIGN(const auto info, tx.router_info(c.identity.id));
    if (!info) return fail(Errc::kBadSubject, "router without addresses", Source::kInternal);
    subject.dns = info->dns;
    subject.ips = info->ips;
  }
  TRY_ASSIGN(out.issued, authority_->issue(tx, subject, csr.key, profile_of(c.identity.kind),
                                           now_ms, random, life_s_));
  TRY_ASSIGN(auto fresh, tx.certificate(out.issued->leaf.serial_hex()));
  if (!fresh) return fail(Errc::kCertificateUnknown, "own row", Source::kInternal);
  fresh->request = hash;
  TRY(tx.put_certificate(*fresh));
  TRY(audit_renewal(tx, c.identity, door, out.issued->leaf, c.row));
  return out;
}

// Until received() its row looks like that of an enrolment, so that no day's wait ends the older.
Result<Issued> RenewalDoor::extend(store::Transaction& tx, const store::Identity& identity,
                                   const store::CertificateRow& current, ByteView csr_text,
                                   std::int64_t now_ms, Random& random) const {
  TRY_ASSIGN(const auto csr, crypto::parse_csr(csr_text));
  if (csr.asks_ca) return fail(Errc::kCaAsked, identity.id);
  TRY_ASSIGN(const auto rows, tx.certificates_of(identity.id));
  TRY(make_room(tx, rows, identity.id, current.serial, now_ms));
  for (const auto& r : rows)
    if (r.issued_ms > current.issued_ms && r.used_ms == 0 && r.revoked_ms == 0 &&
        r.not_after_s * 1000 > now_ms)
      TRY(revoke_certificate(tx, r, now_ms, true));
  // As long as the one before: who was to come back every month still is.
  TRY_ASSIGN(auto issued, authority_->issue(tx, {.id = identity.id, .dns = {}, .ips = {}}, csr.key,
                                            profile_of(identity.kind), now_ms, random,
                                            current.not_after_s - current.issued_ms / 1000));
  TRY(audit_renewal(tx, identity, Door::kExtension, issued.leaf, current));
  return issued;
}

Status RenewalDoor::received(store::Transaction& tx, const store::Identity& identity,
                             const store::CertificateRow& current, const crypto::Certificate& shown,
                             std::int64_t now_ms) const {
  const std::string& serial = shown.serial_hex();
  TRY_ASSIGN(auto row, tx.certificate(serial));
  // Newer than a valid one, so never an enrolment's: that ends all before it.
  if (!row || row->identity != identity.id || row->der != shown.der() || row->revoked_ms != 0 ||
      row->not_after_s * 1000 <= now_ms || row->issued_ms < current.issued_ms ||
      (row->serial == current.serial && row->request.empty() && row->used_ms == 0))
    return fail(Errc::kCertificateUnknown, serial);
  if (!row->request.empty()) return {};
  row->request = to_hex(crypto::sha256(row->der));
  TRY(tx.put_certificate(*row));
  return tx.audit(actor(identity), "certificate.received", identity.id,
                  "{\"serial\":\"" + serial + "\",\"by\":\"" + current.serial + "\"}");
}

Result<RenewalDoor::Outcome> RenewalDoor::note_use(store::Transaction& tx, Checked c,
                                                   std::int64_t now_ms) {
  Outcome out;
  // Also told by who was only enrolled, and again until it is answered.
  if (c.row.request.empty()) return out;
  if (c.row.used_ms != 0) {
    TRY_ASSIGN(const auto older, older_certificates(tx, c.identity.id, c.row.serial, now_ms));
    if (older.empty()) return out;
  }
  TRY_ASSIGN(out.superseded, prove_use(tx, c.identity, std::move(c.row), now_ms));
  out.changed = true;
  return out;
}

Result<std::size_t> prove_use(store::Transaction& tx, const store::Identity& identity,
                              store::CertificateRow row, std::int64_t now_ms) {
  TRY_ASSIGN(const auto older, older_certificates(tx, identity.id, row.serial, now_ms));
  for (const auto& r : older) TRY(revoke_certificate(tx, r, now_ms, true));
  row.used_ms = now_ms;
  TRY(tx.put_certificate(row));
  TRY(tx.audit(
      actor(identity), "certificate.used", identity.id,
      "{\"serial\":\"" + row.serial + "\",\"superseded\":" + std::to_string(older.size()) + "}"));
  return older.size();
}

Result<std::size_t> supersede_unproven(store::Transaction& tx, std::int64_t now_ms) {
  std::size_t n = 0;
  TRY_ASSIGN(const auto rows, tx.unproven(now_ms - kUnprovenMs, now_ms / 1000));
  for (const auto& row : rows) {
    TRY_ASSIGN(const auto older, older_certificates(tx, row.identity, row.serial, now_ms));
    for (const auto& r : older) TRY(revoke_certificate(tx, r, now_ms, true));
    if (older.empty()) continue;
    n += older.size();
    TRY(tx.audit("system", "certificate.superseded", row.identity,
                 "{\"serial\":\"" + row.serial + "\",\"superseded\":" +
                     std::to_string(older.size()) + ",\"why\":\"not used in 24 h\"}"));
  }
  return n;
}

Result<RenewalDoor::Outcome> RenewalDoor::take(store::Transaction& tx, ByteView envelope,
                                               const Presenter& presenter, std::int64_t now_ms,
                                               Random& random) const {
  TRY_ASSIGN(auto from, open(tx, envelope));
  TRY_ASSIGN(auto c, check(tx, std::move(from), &presenter, now_ms));
  if (!c.request.session_csr.empty()) return issue_session(tx, c, now_ms, random);
  if (c.request.csr.empty()) return note_use(tx, std::move(c), now_ms);
  return issue(tx, c, Door::kLane, now_ms, random);
}

std::vector<Result<RenewalDoor::Outcome>> RenewalDoor::take_all(
    store::Transaction& tx, const std::vector<Request>& requests, std::int64_t now_ms,
    Random& random) const {
  std::vector<Result<Outcome>> all;
  all.reserve(requests.size());
  for (const auto& r : requests) {
    const auto one = [&]() -> Result<Outcome> {
      TRY(tx.begin_part());
      auto done = take(tx, r.envelope, r.presenter, now_ms, random);
      TRY(tx.end_part(done && done->changed));
      return done;
    };
    all.push_back(one());
  }
  return all;
}

Result<RenewalDoor::Outcome> RenewalDoor::recover(store::Transaction& tx, Signed from,
                                                  std::int64_t now_ms, Random& random) const {
  TRY_ASSIGN(const auto c, check(tx, std::move(from), nullptr, now_ms));
  if (!c.request.session_csr.empty()) return fail(Errc::kSessionNotHere, c.identity.id);
  return issue(tx, c, Door::kRecovery, now_ms, random);
}

Result<std::uint64_t> RenewalDoor::prune(store::Transaction& tx, std::int64_t now_ms,
                                         std::uint64_t limit) const {
  // A day more: what is refused at the door must not be unknown to it for a clock's sake.
  const std::int64_t before_s = now_ms / 1000 - grace_s_ - kDayS;
  TRY_ASSIGN(const auto n, tx.prune_certificates(before_s, limit));
  if (n > 0)
    TRY(tx.audit("system", "certificate.pruned", "",
                 "{\"rows\":" + std::to_string(n) +
                     ",\"ended_before_s\":" + std::to_string(before_s) + "}"));
  return n;
}

Status RenewalDoor::audit_refusal(store::Transaction& tx, ByteView envelope, Door door,
                                  const Error& why) const {
  const auto request = trust::read_renewal(envelope, authority_->network().str());
  const std::string id = request ? request->id : "";
  const std::string serial = request ? request->serial : "";
  return tx.audit("unknown", "certificate.renew_refused", id,
                  "{\"door\":\"" + std::string(door_name(door)) + "\",\"code\":\"" +
                      std::string(why.code()) + "\",\"serial\":" + json_quote(serial) + "}");
}

}  // namespace sally::pki
