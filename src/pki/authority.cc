// SPDX-License-Identifier: Apache-2.0
#include "pki/authority.h"

#include <algorithm>

#include "crypto/key_name.h"

namespace sally::pki {
namespace {

constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kBackdate = 3'600;
// Purposes; with the generation they are names.
constexpr std::string_view kDevices = "devices";
constexpr std::string_view kInfrastructure = "infrastructure";
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

// The keys of a network's authorities lie together: in the folder, or in a token, where they are
// called after network and purpose.
std::string key_reference(const std::string& token, const NetworkId& network,
                          const std::string& name) {
  if (token.empty()) return name;
  const auto query = std::min(token.find('?'), token.size());
  return token.substr(0, query) + ";object=" + network.str() + "-" + name + token.substr(query);
}
// The token of a reference that is made so; empty for one in the folder.
std::string token_of(std::string reference, const NetworkId& network, const std::string& name) {
  const std::string object = ";object=" + network.str() + "-" + name;
  const auto at = reference.find(object);
  return at == std::string::npos ? std::string() : reference.erase(at, object.size());
}

store::Authority row_of(const std::string& name, std::string_view purpose, std::uint32_t generation,
                        const crypto::Certificate& certificate, std::string key_ref,
                        std::int64_t now_ms) {
  return {.name = name,
          .purpose = std::string(purpose),
          .generation = generation,
          .certificate = certificate.der(),
          .key_ref = std::move(key_ref),
          .created_ms = now_ms};
}

bool is_ocsp(Profile profile) {
  return profile == Profile::kOcspDevices || profile == Profile::kOcspInfrastructure;
}

crypto::Role role_of(Profile profile) {
  switch (profile) {
    case Profile::kDevice:
    case Profile::kSession:
      return crypto::Role::kDevice;
    case Profile::kRouter:
      return crypto::Role::kRouter;
    case Profile::kController:
      return crypto::Role::kController;
    case Profile::kAdmin:
      return crypto::Role::kAdmin;
    case Profile::kSigner:
      return crypto::Role::kSigner;
    case Profile::kOcspDevices:
    case Profile::kOcspInfrastructure:
      break;
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
    case Errc::kNoSuccessor:
      return "pki.no_successor";
    case Errc::kKeyFile:
      return "pki.key_file";
    case Errc::kExists:
      return "pki.exists";
    case Errc::kInfrastructure:
      return "pki.infrastructure";
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
    case Errc::kSessionNotHere:
      return "pki.session_not_here";
    case Errc::kSessionKey:
      return "pki.session_key";
    case Errc::kDeviceKeyOnly:
      return "pki.device_key_only";
  }
  return "pki.unknown";
}

std::string_view profile_name(Profile profile) {
  if (profile == Profile::kSession) return "session";
  return is_ocsp(profile) ? "ocsp" : crypto::role_name(role_of(profile));
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
  if (is_ocsp(profile)) return 7;
  return profile == Profile::kAdmin || profile == Profile::kSigner ? 90 : 365;
}

Result<AuthorityPtr> Authority::create(store::Transaction& tx, const NetworkId& network,
                                       const KeyDir& keys, std::int64_t now_ms, Random& random,
                                       const std::string& token) {
  const std::int64_t now_s = now_ms / 1000;
  TRY_ASSIGN(const auto existing, tx.authorities());
  if (!existing.empty())
    return fail(Errc::kExists, "the network has its authorities", Source::kConfig);

  const std::string root_reference = key_reference(token, network, "root");
  if (!token.empty()) {
    TRY_ASSIGN(const auto one, crypto::parse_key_name(root_reference));
    if (one.kind != crypto::KeyName::Kind::kPkcs11 || !one.id.empty())
      return fail(crypto::Errc::kBadKeyName, "CA keys go into a PKCS#11 token: pkcs11:token=NAME",
                  Source::kConfig);
  }
  TRY_ASSIGN(const auto root_key, keys.create(root_reference, crypto::KeyType::kP384));
  TRY_ASSIGN(auto root,
             crypto::sign_certificate(ca_spec(network, "Sallyport Root 1", now_s, 20),
                                      root_key->public_key(), nullptr, *root_key, random));
  TRY_ASSIGN(auto devices,
             make_issuing(network, keys, token, root, *root_key, true, 1, now_ms, random));
  TRY_ASSIGN(auto infrastructure,
             make_issuing(network, keys, token, root, *root_key, false, 1, now_ms, random));
  const auto row = [&](const std::string& name, std::string_view purpose,
                       const crypto::Certificate& certificate) {
    return row_of(name, purpose, 1, certificate, key_reference(token, network, name), now_ms);
  };
  TRY(tx.put_authority(row("root", "root", root)));
  TRY(tx.put_authority(row(devices->name, kDevices, devices->certificate)));
  TRY(tx.put_authority(row(infrastructure->name, kInfrastructure, infrastructure->certificate)));
  TRY(tx.audit("system", "ca.create", "root", "{\"root\":\"" + root.sha256_hex() + "\"}"));
  return AuthorityPtr(
      new Authority(network, keys, std::move(root), std::move(devices), std::move(infrastructure)));
}

Result<AuthorityPtr> Authority::load(const store::Transaction& tx, const NetworkId& network,
                                     const KeyDir& keys) {
  TRY_ASSIGN(const auto rows, tx.authorities());
  // The newest generation of a purpose issues; issue() refuses where that is revoked and has no
  // successor yet.
  const auto find = [&](std::string_view purpose) -> Result<store::Authority> {
    const store::Authority* best = nullptr;
    for (const auto& r : rows)
      if (r.purpose == purpose && (best == nullptr || r.generation > best->generation)) best = &r;
    if (best == nullptr) return fail(Errc::kNoAuthority, std::string(purpose), Source::kConfig);
    return *best;
  };
  const auto issuer = [&](std::string_view purpose) -> Result<IssuerPtr> {
    TRY_ASSIGN(const auto row, find(purpose));
    TRY_ASSIGN(auto cert, crypto::Certificate::from_der(row.certificate));
    TRY_ASSIGN(auto key, keys.load(row.key_ref));
    if (!(key->public_key() == cert.public_key()))
      return fail(crypto::Errc::kKeyMismatch, "CA " + row.name + " and its key file",
                  Source::kConfig);
    return std::make_shared<const Issuer>(row.name, std::move(cert), std::move(key));
  };
  TRY_ASSIGN(const auto root_row, find("root"));
  TRY_ASSIGN(auto root, crypto::Certificate::from_der(root_row.certificate));
  TRY_ASSIGN(auto devices, issuer(kDevices));
  TRY_ASSIGN(auto infrastructure, issuer(kInfrastructure));
  return AuthorityPtr(
      new Authority(network, keys, std::move(root), std::move(devices), std::move(infrastructure)));
}

Result<Authority::Successor> Authority::prepare_successor(store::Transaction& tx,
                                                          std::string_view actor,
                                                          std::int64_t now_ms,
                                                          Random& random) const {
  TRY_ASSIGN(const auto rows, tx.authorities());
  std::uint32_t generation = 0;
  std::string root_reference;
  for (const auto& r : rows) {
    if (r.purpose == kDevices) generation = std::max(generation, r.generation);
    if (r.purpose == "root") root_reference = r.key_ref;
  }
  ++generation;
  const std::string token = token_of(root_reference, network_, "root");
  TRY_ASSIGN(const auto root_key, keys_.load(root_reference));
  Successor next;
  TRY_ASSIGN(next.issuer_, make_issuing(network_, keys_, token, root_, *root_key, true, generation,
                                        now_ms, random));
  TRY(tx.put_authority(row_of(next.issuer_->name, kDevices, generation, next.issuer_->certificate,
                              key_reference(token, network_, next.issuer_->name), now_ms)));
  TRY(tx.audit(actor, "ca.successor", next.issuer_->name,
               "{\"serial\":\"" + next.issuer_->certificate.serial_hex() + "\"}"));
  return next;
}

void Authority::succeed(Successor next) const {
  const std::scoped_lock lock(mutex_);
  devices_ = std::move(next.issuer_);
}

Result<Authority::IssuerPtr> Authority::make_issuing(const NetworkId& network, const KeyDir& keys,
                                                     const std::string& token,
                                                     const crypto::Certificate& root,
                                                     const crypto::Signer& root_key,
                                                     bool of_devices, std::uint32_t generation,
                                                     std::int64_t now_ms, Random& random) {
  const std::string number = std::to_string(generation);
  const std::string name = std::string(of_devices ? kDevices : kInfrastructure) + "-" + number;
  const std::string reference = key_reference(token, network, name);
  Result<crypto::SignerPtr> key = fail(Errc::kKeyFile);
  // Left by one that was never committed: nothing was ever signed with it.
  if (generation > 1) key = keys.load(reference);
  if (!key) key = keys.create(reference, crypto::KeyType::kP256);
  if (!key) return fail(std::move(key).error());
  auto spec = ca_spec(
      network, std::string("Sallyport ") + (of_devices ? "Devices " : "Infrastructure ") + number,
      now_ms / 1000, 5);
  spec.path_length = 0;
  spec.eku = of_devices ? kIssuingEku : kIssuingEku | crypto::kEkuSigner;
  // An issuer's end is the root's at the latest.
  spec.not_after_s = std::min(spec.not_after_s, root.not_after());
  TRY_ASSIGN(auto certificate,
             crypto::sign_certificate(spec, (*key)->public_key(), &root, root_key, random));
  return std::make_shared<const Issuer>(name, std::move(certificate), std::move(*key));
}

Result<Issued> Authority::issue(store::Transaction& tx, const Subject& subject,
                                const crypto::PublicKey& key, Profile profile, std::int64_t now_ms,
                                Random& random, std::int64_t life_s) const {
  const std::int64_t now_s = now_ms / 1000;
  const bool session = profile == Profile::kSession;
  std::int64_t life = life_s > 0 ? life_s : lifetime_days(profile) * kDay;
  if (session) life = std::min(life, kSessionLifeS);
  if (session != subject.parent.has_value())
    return fail(Errc::kBadSubject, "a session certificate has a parent, and nothing else has",
                Source::kInternal);
  const IssuerPtr from =
      this->issuer(profile == Profile::kDevice || session || profile == Profile::kOcspDevices);
  const Issuer& issuer = *from;
  // Its revocation may have been committed a moment ago, and its successor not be in place yet.
  TRY_ASSIGN(const auto authorities, tx.authorities());
  if (std::ranges::any_of(authorities, [&](const store::Authority& a) {
        return a.name == issuer.name && a.revoked_ms != 0;
      }))
    return fail(Errc::kNoSuccessor, issuer.name + " is revoked", Source::kLocal, true);
  const bool server = profile == Profile::kRouter || profile == Profile::kController;
  if (!server && (!subject.dns.empty() || !subject.ips.empty()))
    return fail(Errc::kBadSubject, "only servers have DNS and IP names", Source::kInternal);
  crypto::CertSpec s;
  s.common_name = subject.id;
  // A short life is not mostly the past.
  s.not_before_s =
      std::max(now_s - std::min(kBackdate, life / 10), issuer.certificate.not_before());
  s.not_after_s = std::min(now_s + life, issuer.certificate.not_after());
  if (session) {
    s.not_before_s = std::max(s.not_before_s, subject.parent->not_before());
    s.not_after_s = std::min(s.not_after_s, subject.parent->not_after());
    s.session_parent = subject.parent->serial_hex();
  }
  if (!is_ocsp(profile))
    s.uris = {crypto::IdentityName{network_.str(), role_of(profile), subject.id}.uri()};
  s.ocsp_no_check = is_ocsp(profile);
  s.dns = subject.dns;
  s.ips = subject.ips;
  switch (profile) {
    case Profile::kSigner:
      s.eku = crypto::kEkuSigner;
      break;
    case Profile::kAdmin:
      s.eku = crypto::kEkuClientAuth;
      break;
    case Profile::kOcspDevices:
    case Profile::kOcspInfrastructure:
      s.eku = crypto::kEkuOcspSigning;
      break;
    default:
      s.eku = crypto::kEkuClientAuth | crypto::kEkuServerAuth;
  }
  // What we sign must be what we would believe.
  if (!is_ocsp(profile) && !crypto::parse_identity_uri(s.uris.front()))
    return fail(Errc::kBadSubject, "id " + subject.id, Source::kInternal);
  TRY_ASSIGN(auto leaf, crypto::sign_certificate(s, key, &issuer.certificate, *issuer.key, random));
  // It falls with its parent everywhere, so nothing asks for a row of its own.
  if (session) return Issued{std::move(leaf), issuer.certificate};
  store::CertificateRow row;
  row.serial = leaf.serial_hex();
  row.identity = subject.id;
  row.profile = profile_name(profile);
  row.issuer = issuer.name;
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
