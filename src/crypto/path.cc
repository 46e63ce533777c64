// SPDX-License-Identifier: Apache-2.0
#include "crypto/path.h"

#include <openssl/x509_vfy.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <mutex>
#include <optional>
#include <set>

#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

constexpr std::size_t kMaxPresented = 8;

using StorePtr = Ossl<X509_STORE, X509_STORE_free>;
using StoreCtxPtr = Ossl<X509_STORE_CTX, X509_STORE_CTX_free>;
using StackPtr = Ossl<STACK_OF(X509), [](STACK_OF(X509) * s) { sk_X509_free(s); }>;

/// Signatures of CA certificates that were found good, so that a root's P-384 signature is computed
/// once and not in every handshake and dial. Only the signature: times, usages and names are
/// checked each time. Owner: the process. Thread: any. Failure: a full memo forgets everything and
/// computes again.
class SignatureMemo {
 public:
  /// True when `issuer`'s key signed `subject`.
  bool verify(X509* subject, X509* issuer) {
    Key key{};
    unsigned n = 0;
    if (X509_digest(subject, EVP_sha256(), key.data(), &n) != 1 ||
        X509_digest(issuer, EVP_sha256(), key.data() + kDigest, &n) != 1)
      return false;
    {
      const std::lock_guard lock(mutex_);
      if (good_.contains(key)) return true;
    }
    EVP_PKEY* public_key = X509_get0_pubkey(issuer);
    if (public_key == nullptr || X509_verify(subject, public_key) != 1) return false;
    const std::lock_guard lock(mutex_);
    if (good_.size() >= kMax) good_.clear();
    good_.insert(key);
    return true;
  }

 private:
  static constexpr std::size_t kDigest = 32;
  static constexpr std::size_t kMax = 64;
  using Key = std::array<std::uint8_t, 2 * kDigest>;
  std::mutex mutex_;
  std::set<Key> good_;
};

/// In place of the library's own last step of a verification (signatures and times of the chain it
/// has built and checked). The root at the end is one of our anchors: its signature over itself
/// says nothing.
int verify_chain(X509_STORE_CTX* ctx) {
  static SignatureMemo memo;
  STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(ctx);
  const auto refuse = [&](int depth, int code) {
    X509_STORE_CTX_set_error_depth(ctx, depth);
    X509_STORE_CTX_set_current_cert(ctx, sk_X509_value(chain, depth));
    X509_STORE_CTX_set_error(ctx, code);
    return 0;
  };
  const int n = sk_X509_num(chain);
  time_t now = X509_VERIFY_PARAM_get_time(X509_STORE_CTX_get0_param(ctx));
  if (static_cast<const PathPolicy*>(X509_STORE_CTX_get_app_data(ctx))->clock_may_lag) {
    for (int i = 0; i < n; ++i) {
      std::tm start = {};
      if (ASN1_TIME_to_tm(X509_get0_notBefore(sk_X509_value(chain, i)), &start) == 1)
        now = std::max(now, ::timegm(&start));
    }
  }
  for (int i = n - 1; i >= 0; --i) {
    X509* cert = sk_X509_value(chain, i);
    X509* issuer = sk_X509_value(chain, std::min(i + 1, n - 1));
    if (i == n - 1) {
      if (X509_self_signed(cert, 0) != 1)
        return refuse(i, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
    } else if (i > 0 ? !memo.verify(cert, issuer)
                     : X509_verify(cert, X509_get0_pubkey(issuer)) != 1) {
      return refuse(i, X509_V_ERR_CERT_SIGNATURE_FAILURE);
    }
    const int before = X509_cmp_time(X509_get0_notBefore(cert), &now);
    const int after = X509_cmp_time(X509_get0_notAfter(cert), &now);
    if (before == 0) return refuse(i, X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD);
    if (before > 0) return refuse(i, X509_V_ERR_CERT_NOT_YET_VALID);
    if (after == 0) return refuse(i, X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD);
    if (after < 0) return refuse(i, X509_V_ERR_CERT_HAS_EXPIRED);
  }
  X509_STORE_CTX_set_error(ctx, X509_V_OK);
  return 1;
}

Error translate(int code, int depth) {
  const std::string where =
      std::string(X509_verify_cert_error_string(code)) + " at depth " + std::to_string(depth);
  const auto make = [&](Errc e) { return Error(e, where); };
  switch (code) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED:
      return make(Errc::kUnknownCa);
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return make(depth == 0 ? Errc::kExpired : Errc::kCaExpired);
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return make(depth == 0 ? Errc::kNotYetValid : Errc::kCaExpired);
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE:
    case X509_V_ERR_SIGNATURE_ALGORITHM_MISMATCH:
    case X509_V_ERR_SIGNATURE_ALGORITHM_INCONSISTENCY:
      return make(Errc::kBadSignature);
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
      return make(Errc::kPathLength);
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_INVALID_NON_CA:
      return make(Errc::kNotCa);
    case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
    case X509_V_ERR_KEYUSAGE_NO_DIGITAL_SIGNATURE:
    case X509_V_ERR_KU_KEY_CERT_SIGN_INVALID_FOR_NON_CA:
    case X509_V_ERR_CA_CERT_MISSING_KEY_USAGE:
      return make(Errc::kBadKeyUsage);
    case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION:
      return make(Errc::kUnknownCritical);
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK:
      return make(Errc::kWeakKey);
    default:
      return make(Errc::kInvalidPath);
  }
}

bool id_text(std::string_view s, std::size_t max, bool upper) {
  if (s.empty() || s.size() > max || s == "." || s == "..") return false;
  return std::all_of(s.begin(), s.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           (upper && ((c >= 'A' && c <= 'Z') || c == '_'));
  });
}

std::optional<Role> parse_role(std::string_view s) {
  for (const Role r :
       {Role::kDevice, Role::kRouter, Role::kController, Role::kAdmin, Role::kSigner})
    if (role_name(r) == s) return r;
  return std::nullopt;
}

Status check_usage(const Certificate& leaf, const Certificate& issuing, Purpose purpose,
                   Role role) {
  const auto ku = leaf.key_usage();
  if (!ku || (*ku & kKuDigitalSignature) == 0 || (*ku & (kKuKeyCertSign | kKuCrlSign)) != 0)
    return fail(Errc::kBadKeyUsage, "leaf needs digitalSignature and no CA usage");
  const Eku needed = purpose == Purpose::kTlsClient   ? kEkuClientAuth
                     : purpose == Purpose::kTlsServer ? kEkuServerAuth
                                                      : kEkuSigner;
  if (!leaf.has_eku(needed)) return fail(Errc::kWrongEku, "leaf is not for this purpose");
  // A CA whose certificate names usages may issue only those.
  if (issuing.eku() && !issuing.has_eku(needed))
    return fail(Errc::kWrongEku, "issuing CA may not issue this usage");
  // The signer is never TLS, and nothing else is a signer.
  if (leaf.has_eku(kEkuSigner) != (role == Role::kSigner) ||
      (purpose == Purpose::kSigner) != (role == Role::kSigner))
    return fail(Errc::kWrongRole, "signer usage and role do not agree");
  return {};
}

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kDevice:
      return "device";
    case Role::kRouter:
      return "router";
    case Role::kController:
      return "controller";
    case Role::kAdmin:
      return "admin";
    case Role::kSigner:
      return "signer";
  }
  return {};
}

std::string IdentityName::uri() const {
  return "spiffe://" + network + "/" + std::string(role_name(role)) + "/" + id;
}

Result<IdentityName> parse_identity_uri(std::string_view uri) {
  static constexpr std::string_view kScheme = "spiffe://";
  if (!uri.starts_with(kScheme)) return fail(Errc::kMalformedUri, "not a spiffe URI");
  uri.remove_prefix(kScheme.size());
  const std::size_t a = uri.find('/');
  const std::size_t b = a == std::string_view::npos ? a : uri.find('/', a + 1);
  if (b == std::string_view::npos)
    return fail(Errc::kMalformedUri, "want spiffe://network/role/id");
  const std::string_view network = uri.substr(0, a);
  const auto role = parse_role(uri.substr(a + 1, b - a - 1));
  const std::string_view id = uri.substr(b + 1);
  if (!id_text(network, 255, false) || !role || !id_text(id, 64, true))
    return fail(Errc::kMalformedUri, "want spiffe://network/role/id");
  return IdentityName{std::string(network), *role, std::string(id)};
}

Result<VerifiedPath> validate_path(const Certificate& leaf,
                                   const std::vector<Certificate>& presented,
                                   const PathPolicy& policy) {
  if (policy.network.empty() || policy.anchors.empty())
    return fail(Errc::kUnknownCa, "no network or no anchors to verify against", Source::kInternal);
  if (leaf.is_ca()) return fail(Errc::kIntermediateAsLeaf, "a CA certificate was used as leaf");
  if (presented.size() > kMaxPresented) return fail(Errc::kTooLarge, "too many certificates");

  StorePtr store(X509_STORE_new());
  StoreCtxPtr ctx(X509_STORE_CTX_new());
  StackPtr untrusted(sk_X509_new_null());
  if (!store || !ctx || !untrusted)
    return fail(Errc::kInvalidPath, "out of memory", Source::kInternal);
  X509_STORE_set_verify(store.get(), verify_chain);
  for (const auto& a : policy.anchors)
    if (X509_STORE_add_cert(store.get(), a.native()) != 1)
      return fail(Errc::kInvalidPath, "anchor", Source::kInternal);
  // Our own issuing certificates first: a peer's copies are candidates after them.
  for (const auto* list : {&policy.known_issuing, &presented})
    for (const auto& c : *list)
      if (sk_X509_push(untrusted.get(), c.native()) <= 0)
        return fail(Errc::kInvalidPath, "out of memory", Source::kInternal);
  if (X509_STORE_CTX_init(ctx.get(), store.get(), leaf.native(), untrusted.get()) != 1)
    return fail(Errc::kInvalidPath, "verification", Source::kInternal);
  X509_STORE_CTX_set_app_data(ctx.get(), const_cast<PathPolicy*>(&policy));
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(ctx.get());
  X509_VERIFY_PARAM_set_time(param, static_cast<time_t>(policy.now_s));
  X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
  X509_VERIFY_PARAM_set_depth(param, 4);
  const int ok = X509_verify_cert(ctx.get());
  const int code = X509_STORE_CTX_get_error(ctx.get());
  const int depth = X509_STORE_CTX_get_error_depth(ctx.get());
  ERR_clear_error();
  if (ok != 1 || code != X509_V_OK) {
    // An issuer that is no CA is not found as issuer at all; name it when the peer offered one.
    return fail(translate(code, depth));
  }

  const STACK_OF(X509)* chain = X509_STORE_CTX_get0_chain(ctx.get());
  const int n = sk_X509_num(chain);
  if (n != 3) return fail(Errc::kPathLength, "a path is leaf, issuing CA and root");
  TRY_ASSIGN(auto issuing, Certificate::from_native(sk_X509_value(chain, 1)));
  TRY_ASSIGN(auto root, Certificate::from_native(sk_X509_value(chain, 2)));

  if (leaf.uri_sans().size() != 1)
    return fail(Errc::kMalformedUri, "leaf needs exactly one identity URI");
  TRY_ASSIGN(auto name, parse_identity_uri(leaf.uri_sans().front()));
  if (name.network != policy.network)
    return fail(Errc::kWrongTrustDomain, "identity belongs to another network");
  TRY(check_usage(leaf, issuing, policy.purpose, name.role));
  if (!leaf.session_parent().empty() && name.role != Role::kDevice)
    return fail(Errc::kWrongRole, "only a device has session certificates");
  if (!policy.roles.empty() &&
      std::find(policy.roles.begin(), policy.roles.end(), name.role) == policy.roles.end())
    return fail(Errc::kWrongRole, std::string(role_name(name.role)) + " is not allowed here");
  // The CA of the devices can never make a router, a controller or an admin, and the other way
  // round.
  if (issuing.has_eku(kEkuSigner) == (name.role == Role::kDevice))
    return fail(Errc::kWrongIssuer, "this CA may not issue " + std::string(role_name(name.role)));
  return VerifiedPath{leaf,      std::move(issuing), std::move(root), std::move(name.network),
                      name.role, std::move(name.id)};
}

}  // namespace sally::crypto
