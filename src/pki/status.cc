// SPDX-License-Identifier: Apache-2.0
#include "pki/status.h"

#include <algorithm>
#include <array>

#include "crypto/status.h"
#include "pki/errc.h"

namespace sally::pki {
namespace {

constexpr char kKey[] = "ocsp";
constexpr char kIdentity[] = "ocsp";  // whose the responders' certificates are
constexpr std::int64_t kBackdateS = 300;

std::optional<crypto::Certificate> newest(const std::vector<store::CertificateRow>& rows,
                                          const Authority::Issuer& issuer,
                                          const crypto::PublicKey& key) {
  for (const auto& row : rows) {
    if (row.issuer != issuer.name || row.revoked_ms != 0 || row.key_hash != key.hash_hex())
      continue;
    if (auto certificate = crypto::Certificate::from_der(row.der)) return std::move(*certificate);
  }
  return std::nullopt;
}

Result<crypto::OcspAnswer> status_of(const store::Transaction& tx, const std::string& serial,
                                     std::string_view issuer) {
  TRY_ASSIGN(const auto row, tx.certificate(serial));
  if (!row || row->issuer != issuer) return crypto::OcspAnswer{};
  if (row->revoked_ms != 0)
    return crypto::OcspAnswer{.status = crypto::OcspStatus::kRevoked,
                              .revoked_s = row->revoked_ms / 1000,
                              .reason = static_cast<int>(row->reason)};
  TRY_ASSIGN(const auto identity, tx.identity(row->identity));
  if (identity && identity->standing != store::Standing::kActive)
    return crypto::OcspAnswer{.status = crypto::OcspStatus::kRevoked,
                              .revoked_s = identity->changed_ms / 1000,
                              .reason = static_cast<int>(store::Reason::kCertificateHold)};
  return crypto::OcspAnswer{.status = crypto::OcspStatus::kGood};
}

}  // namespace

Result<crypto::SignerPtr> StatusDesk::key() const {
  auto made = keys_.create(kKey, crypto::KeyType::kP256);
  if (!made && made.error().is(Errc::kExists)) made = keys_.load(kKey);
  if (!made) return fail(std::move(made).error());
  return crypto::SignerPtr(std::move(*made));
}

Result<bool> StatusDesk::renew(store::Transaction& tx, std::int64_t now_ms, Random& random) {
  TRY_ASSIGN(const auto signer, key());
  TRY_ASSIGN(const auto rows, tx.certificates_of(kIdentity));
  bool any = false;
  for (const bool of_devices : {true, false}) {
    const auto issuer = authority_->issuer(of_devices);
    const auto have = newest(rows, *issuer, signer->public_key());
    const std::int64_t life_ms = lifetime_days(Profile::kOcspDevices) * std::int64_t{86'400'000};
    if (have && have->not_before() * 1000 <= now_ms &&
        have->not_after() * 1000 - now_ms > life_ms / 2)
      continue;
    const auto issued = authority_->issue(
        tx, {.id = kIdentity, .dns = {}, .ips = {}}, signer->public_key(),
        of_devices ? Profile::kOcspDevices : Profile::kOcspInfrastructure, now_ms, random);
    // Revoked, and its successor is still to come.
    if (!issued && issued.error().is(Errc::kNoSuccessor)) continue;
    if (!issued) return fail(issued.error());
    TRY(tx.audit("system", "certificate.renew", kIdentity,
                 "{\"door\":\"upkeep\",\"serial\":\"" + issued->leaf.serial_hex() +
                     "\",\"key\":\"" + signer->public_key().hash_hex() + "\"}"));
    any = true;
  }
  return any;
}

Status StatusDesk::use(const store::Transaction& tx) {
  TRY_ASSIGN(auto signer, key());
  TRY_ASSIGN(const auto rows, tx.certificates_of(kIdentity));
  std::map<std::string, Responder, std::less<>> found;
  for (const bool of_devices : {true, false}) {
    auto issuer = authority_->issuer(of_devices);
    if (auto certificate = newest(rows, *issuer, signer->public_key()))
      found.emplace(issuer->name, Responder{issuer, std::move(*certificate)});
  }
  const std::scoped_lock lock(responders_mutex_);
  responders_ = std::move(found);
  key_ = std::move(signer);
  return {};
}

Status StatusDesk::refresh(std::unique_ptr<const store::Transaction> tx, std::int64_t now_ms) {
  const std::int64_t now_s = now_ms / 1000;
  crypto::CrlSpec spec{.this_s = now_s - kBackdateS, .next_s = now_s + kListLifeMs / 1000};
  {
    const std::scoped_lock lock(lists_mutex_);
    // Seconds go on over a restart; they are not asked to when the clock is set back.
    spec.number = number_ = std::max(number_ + 1, static_cast<std::uint64_t>(now_s));
  }
  const std::array issuers = {authority_->issuer(true), authority_->issuer(false)};
  std::array<std::vector<store::RevokedRow>, 2> rows;
  for (std::size_t i = 0; i < issuers.size(); ++i) {
    TRY_ASSIGN(rows[i], tx->revoked_by(issuers[i]->name, now_s));
  }
  TRY_ASSIGN(const auto authorities, tx->authorities());
  tx.reset();
  std::map<std::string, Bytes, std::less<>> made;
  for (std::size_t i = 0; i < issuers.size(); ++i) {
    const auto& issuer = *issuers[i];
    spec.revoked.clear();
    for (const auto& r : rows[i])
      spec.revoked.push_back({r.serial, r.at_ms / 1000, static_cast<int>(r.reason)});
    TRY_ASSIGN(made[issuer.name], crypto::sign_crl(spec, issuer.certificate, *issuer.key));
  }
  spec.revoked.clear();
  std::string root_key;
  for (const auto& a : authorities) {
    if (a.purpose == "root") root_key = a.key_ref;
    if (a.revoked_ms == 0) continue;
    TRY_ASSIGN(const auto certificate, crypto::Certificate::from_der(a.certificate));
    spec.revoked.push_back(
        {certificate.serial_hex(), a.revoked_ms / 1000, static_cast<int>(a.reason)});
  }
  // It may be in a token, or not here at all; and it changes once in years.
  const bool due = [&] {
    const std::scoped_lock lock(lists_mutex_);
    const auto it = lists_.find("root");
    if (it != lists_.end()) made.insert(*it);
    return it == lists_.end() || root_revoked_ != spec.revoked.size() || root_at_ms_ > now_ms ||
           now_ms - root_at_ms_ > kListLifeMs / 4;
  }();
  if (due) {
    made.erase("root");
    if (const auto key = keys_.load(root_key)) {
      TRY_ASSIGN(made["root"], crypto::sign_crl(spec, authority_->root(), **key));
    }
  }
  const std::scoped_lock lock(lists_mutex_);
  if (spec.number < listed_) return {};  // a later one was faster
  listed_ = spec.number;
  lists_ = std::move(made);
  if (due) {
    root_revoked_ = spec.revoked.size();
    root_at_ms_ = now_ms;
  }
  return {};
}

std::optional<Bytes> StatusDesk::list(std::string_view ca) const {
  const std::scoped_lock lock(lists_mutex_);
  const auto it = lists_.find(ca);
  return it == lists_.end() ? std::nullopt : std::optional(it->second);
}

Bytes StatusDesk::answer(std::unique_ptr<const store::Transaction> tx, ByteView request,
                         std::int64_t now_ms) const {
  using crypto::OcspFailure;
  const auto asked = crypto::OcspRequest::parse(request);
  if (!asked) return ocsp_failure(OcspFailure::kMalformed);
  std::optional<Responder> responder;
  crypto::SignerPtr signer;
  {
    const std::scoped_lock lock(responders_mutex_);
    for (const auto& [name, r] : responders_)
      if (asked->is_of(0, r.issuer->certificate)) responder = r;
    signer = key_;
  }
  if (!responder) return ocsp_failure(OcspFailure::kUnauthorized);
  std::vector<crypto::OcspAnswer> answers;
  for (std::size_t i = 0; i < asked->size(); ++i) {
    if (!asked->is_of(i, responder->issuer->certificate))
      return ocsp_failure(OcspFailure::kUnauthorized);
    auto answer = status_of(*tx, asked->serial_hex(i), responder->issuer->name);
    if (!answer) return ocsp_failure(OcspFailure::kInternal);
    answers.push_back(*answer);
  }
  tx.reset();
  auto out = crypto::sign_ocsp(*asked, answers, responder->certificate, *signer, now_ms / 1000,
                               (now_ms + kAnswerLifeMs) / 1000);
  return out ? std::move(*out) : ocsp_failure(OcspFailure::kInternal);
}

}  // namespace sally::pki
