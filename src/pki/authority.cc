// SPDX-License-Identifier: Apache-2.0
#include "pki/authority.h"

#include <algorithm>

namespace sally::pki {
namespace {

constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kBackdate = 3'600;
constexpr std::uint32_t kIssuingEku =
    crypto::kEkuClientAuth | crypto::kEkuServerAuth | crypto::kEkuOcspSigning;

crypto::CertSpec ca_spec(const NetworkId& network, const std::string& name, std::int64_t now_s,
                         int years) {
  crypto::CertSpec s;
  s.organization = network.str().substr(0, 64);
  s.common_name = name;
  s.not_before_s = now_s - kBackdate;
  s.not_after_s = now_s + years * 365 * kDay;
  s.ca = true;
  return s;
}

crypto::Role role_of(Profile profile) {
  switch (profile) {
    case Profile::kDevice:
      return crypto::Role::kDevice;
    case Profile::kRouter:
      return crypto::Role::kRouter;
    case Profile::kController:
      return crypto::Role::kController;
    case Profile::kAdmin:
      return crypto::Role::kAdmin;
    case Profile::kSigner:
      return crypto::Role::kSigner;
  }
  return crypto::Role::kDevice;
}

}  // namespace

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kTokenUnknown:
      return "pki.token_unknown";
    case Errc::kTokenUsed:
      return "pki.token_used";
    case Errc::kTokenExpired:
      return "pki.token_expired";
    case Errc::kTokenRevoked:
      return "pki.token_revoked";
    case Errc::kTokenAltered:
      return "pki.token_altered";
    case Errc::kTokenForeign:
      return "pki.token_foreign";
    case Errc::kIdentityInactive:
      return "pki.identity_inactive";
    case Errc::kNoAuthority:
      return "pki.no_authority";
    case Errc::kKeyFile:
      return "pki.key_file";
    case Errc::kExists:
      return "pki.exists";
    case Errc::kBadSubject:
      return "pki.bad_subject";
    case Errc::kCertificateUnknown:
      return "pki.certificate_unknown";
    case Errc::kCertificateRevoked:
      return "pki.certificate_revoked";
    case Errc::kCertificateExpired:
      return "pki.certificate_expired";
    case Errc::kBeyondGrace:
      return "pki.beyond_grace";
    case Errc::kKeyNotCurrent:
      return "pki.key_not_current";
    case Errc::kRequestForeign:
      return "pki.request_foreign";
    case Errc::kNotYours:
      return "pki.not_yours";
    case Errc::kRequestTime:
      return "pki.request_time";
    case Errc::kRequestReplayed:
      return "pki.request_replayed";
    case Errc::kTooOften:
      return "pki.too_often";
    case Errc::kNameAsked:
      return "pki.name_asked";
    case Errc::kCaAsked:
      return "pki.ca_asked";
  }
  return "pki.unknown";
}

std::string_view profile_name(Profile profile) {
  return crypto::role_name(role_of(profile));
}

Profile profile_of(store::Kind kind) {
  switch (kind) {
    case store::Kind::kDevice:
      return Profile::kDevice;
    case store::Kind::kRouter:
      return Profile::kRouter;
    case store::Kind::kController:
      return Profile::kController;
    case store::Kind::kAdmin:
      return Profile::kAdmin;
    case store::Kind::kSigner:
      return Profile::kSigner;
  }
  return Profile::kDevice;
}

int lifetime_days(Profile profile) {
  return profile == Profile::kAdmin || profile == Profile::kSigner ? 90 : 365;
}

Result<AuthorityPtr> Authority::create(store::Transaction& tx, const NetworkId& network,
                                       const KeyDir& keys, std::int64_t now_ms, Random& random) {
  const std::int64_t now_s = now_ms / 1000;
  TRY_ASSIGN(const auto existing, tx.authorities());
  if (!existing.empty())
    return fail(Errc::kExists, "the network has its authorities", Source::kConfig);

  TRY_ASSIGN(const auto root_key, keys.create("root", crypto::KeyType::kP384));
  TRY_ASSIGN(auto root,
             crypto::sign_certificate(ca_spec(network, "Sallyport Root 1", now_s, 20),
                                      root_key->public_key(), nullptr, *root_key, random));
  const auto issuing = [&](const std::string& name, const std::string& cn,
                           std::uint32_t eku) -> Result<Issuer> {
    TRY_ASSIGN(auto key, keys.create(name, crypto::KeyType::kP256));
    auto spec = ca_spec(network, cn, now_s, 5);
    spec.path_length = 0;
    spec.eku = eku;
    TRY_ASSIGN(auto cert,
               crypto::sign_certificate(spec, key->public_key(), &root, *root_key, random));
    return Issuer{std::move(cert), std::move(key)};
  };
  TRY_ASSIGN(auto devices, issuing("devices-1", "Sallyport Devices 1", kIssuingEku));
  TRY_ASSIGN(auto infrastructure, issuing("infrastructure-1", "Sallyport Infrastructure 1",
                                          kIssuingEku | crypto::kEkuSigner));

  const auto row = [&](const std::string& name, const std::string& purpose,
                       const crypto::Certificate& cert) {
    return store::Authority{name, purpose, 1, cert.der(), name, now_ms};
  };
  TRY(tx.put_authority(row("root", "root", root)));
  TRY(tx.put_authority(row("devices-1", "devices", devices.certificate)));
  TRY(tx.put_authority(row("infrastructure-1", "infrastructure", infrastructure.certificate)));
  TRY(tx.audit("system", "ca.create", "root", "{\"root\":\"" + root.sha256_hex() + "\"}"));
  return AuthorityPtr(
      new Authority(network, std::move(root), std::move(devices), std::move(infrastructure)));
}

Result<AuthorityPtr> Authority::load(const store::Transaction& tx, const NetworkId& network,
                                     const KeyDir& keys) {
  TRY_ASSIGN(const auto rows, tx.authorities());
  // The newest generation of a purpose issues.
  const auto find = [&](std::string_view purpose) -> Result<store::Authority> {
    const store::Authority* best = nullptr;
    for (const auto& r : rows)
      if (r.purpose == purpose && (best == nullptr || r.generation > best->generation)) best = &r;
    if (best == nullptr) return fail(Errc::kNoAuthority, std::string(purpose), Source::kConfig);
    return *best;
  };
  const auto issuer = [&](std::string_view purpose) -> Result<Issuer> {
    TRY_ASSIGN(const auto row, find(purpose));
    TRY_ASSIGN(auto cert, crypto::Certificate::from_der(row.certificate));
    TRY_ASSIGN(auto key, keys.load(row.key_ref));
    if (!(key->public_key() == cert.public_key()))
      return fail(crypto::Errc::kKeyMismatch, "CA " + row.name + " and its key file",
                  Source::kConfig);
    return Issuer{std::move(cert), std::move(key)};
  };
  TRY_ASSIGN(const auto root_row, find("root"));
  TRY_ASSIGN(auto root, crypto::Certificate::from_der(root_row.certificate));
  TRY_ASSIGN(auto devices, issuer("devices"));
  TRY_ASSIGN(auto infrastructure, issuer("infrastructure"));
  return AuthorityPtr(
      new Authority(network, std::move(root), std::move(devices), std::move(infrastructure)));
}

Result<Issued> Authority::issue(store::Transaction& tx, const Subject& subject,
                                const crypto::PublicKey& key, Profile profile, std::int64_t now_ms,
                                Random& random, std::int64_t life_s) const {
  const std::int64_t now_s = now_ms / 1000;
  const std::int64_t life = life_s > 0 ? life_s : lifetime_days(profile) * kDay;
  const Issuer& issuer = profile == Profile::kDevice ? devices_ : infrastructure_;
  const bool server = profile == Profile::kRouter || profile == Profile::kController;
  if (!server && (!subject.dns.empty() || !subject.ips.empty()))
    return fail(Errc::kBadSubject, "only servers have DNS and IP names", Source::kInternal);
  crypto::CertSpec s;
  s.common_name = subject.id;
  // A short life is not mostly the past.
  s.not_before_s =
      std::max(now_s - std::min(kBackdate, life / 10), issuer.certificate.not_before());
  s.not_after_s = std::min(now_s + life, issuer.certificate.not_after());
  s.uris = {crypto::IdentityName{network_.str(), role_of(profile), subject.id}.uri()};
  s.dns = subject.dns;
  s.ips = subject.ips;
  switch (profile) {
    case Profile::kSigner:
      s.eku = crypto::kEkuSigner;
      break;
    case Profile::kAdmin:
      s.eku = crypto::kEkuClientAuth;
      break;
    default:
      s.eku = crypto::kEkuClientAuth | crypto::kEkuServerAuth;
  }
  // What we sign must be what we would believe.
  if (auto name = crypto::parse_identity_uri(s.uris.front()); !name)
    return fail(Errc::kBadSubject, "id " + subject.id, Source::kInternal);
  TRY_ASSIGN(auto leaf, crypto::sign_certificate(s, key, &issuer.certificate, *issuer.key, random));
  store::CertificateRow row;
  row.serial = leaf.serial_hex();
  row.identity = subject.id;
  row.profile = profile_name(profile);
  row.key_hash = key.hash_hex();
  row.not_before_s = leaf.not_before();
  row.not_after_s = leaf.not_after();
  row.issued_ms = now_ms;
  row.der = leaf.der();
  TRY(tx.put_certificate(row));
  return Issued{std::move(leaf), issuer.certificate};
}

crypto::PathPolicy Authority::policy(crypto::Purpose purpose, std::int64_t now_s) const {
  crypto::PathPolicy p;
  p.anchors = {root_};
  p.known_issuing = {devices(), infrastructure()};
  p.purpose = purpose;
  p.now_s = now_s;
  p.network = network_.str();
  return p;
}

}  // namespace sally::pki
