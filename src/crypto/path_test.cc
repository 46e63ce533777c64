// SPDX-License-Identifier: Apache-2.0
#include "crypto/path.h"

#include <gtest/gtest.h>

#include <openssl/err.h>
#include <openssl/pkcs7.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <array>
#include <functional>

#include "base/random.h"
#include "crypto/ossl.h"
#include "crypto/test_pki.h"

namespace sally::crypto {
namespace {

const TestPki& pki() {
  static const TestPki p;
  return p;
}
const TestPki& other() {
  static const TestPki p("net-b.sally");
  return p;
}

TEST(Path, AcceptsWhatPkiIssues) {
  for (const Role role : {Role::kDevice, Role::kRouter, Role::kController}) {
    const auto leaf = pki().leaf(role, "x-1");
    for (const Purpose p : {Purpose::kTlsClient, Purpose::kTlsServer}) {
      const auto path = must(validate_path(leaf.cert, {}, pki().policy(p)));
      EXPECT_EQ(path.role, role);
      EXPECT_EQ(path.id, "x-1");
      EXPECT_EQ(path.network, "net-a.sally");
      EXPECT_EQ(path.root, pki().root);
      EXPECT_EQ(path.issuing, pki().issuing(role));
    }
  }
  EXPECT_TRUE(
      validate_path(pki().leaf(Role::kAdmin, "root").cert, {}, pki().policy(Purpose::kTlsClient)));
  EXPECT_TRUE(
      validate_path(pki().leaf(Role::kSigner, "1").cert, {}, pki().policy(Purpose::kSigner)));
  // The issuing certificate may come from the peer.
  auto p = pki().policy(Purpose::kTlsClient);
  p.known_issuing.clear();
  const auto leaf = pki().leaf(Role::kDevice, "d");
  EXPECT_TRUE(validate_path(leaf.cert, {pki().devices}, p));
  EXPECT_TRUE(validate_path(leaf.cert, {}, p).error().is(Errc::kUnknownCa));
  for (const KeyType t : {KeyType::kP384, KeyType::kEd25519, KeyType::kRsa})
    EXPECT_TRUE(validate_path(pki().leaf(Role::kDevice, "d", t).cert, {},
                              pki().policy(Purpose::kTlsClient)));
}

struct Refusal {
  const char* what;
  Errc code;
  std::function<Certificate()> leaf;
  std::function<void(PathPolicy&)> change = [](PathPolicy&) {};
  std::vector<Certificate> presented;
};

Certificate changed(Role role, const std::function<void(CertSpec&)>& f,
                    std::optional<bool> by_devices = {}) {
  CertSpec s = pki().leaf_spec(role, "d-1");
  f(s);
  return pki().leaf(s, by_devices.value_or(role == Role::kDevice)).cert;
}

TEST(Path, NamesEveryRefusal) {
  const auto device = [] { return pki().leaf(Role::kDevice, "d-1").cert; };
  constexpr std::int64_t kDay = 86400;
  // A CA below the devices CA, which has path length 0.
  const auto deep_key = must(FileKey::generate(KeyType::kP256));
  const auto deep = must(sign_certificate(pki().ca_spec("Deep", 1, {}, 0), deep_key->public_key(),
                                          &pki().devices, *pki().devices_key, system_random()));
  // A CA directly under the root, without usages: allowed as CA, but issues nothing for devices? It
  // does (no EKU), see below.
  const auto forged_key = must(FileKey::generate(KeyType::kP256));
  const auto forged =
      must(sign_certificate(pki().ca_spec("Test Devices", 5, 0, 0), forged_key->public_key(),
                            nullptr, *forged_key, system_random()));
  const auto leaf_as_ca = [&] {
    // A device signs a certificate with its own key, naming itself as issuer.
    const auto d = pki().leaf(Role::kDevice, "d-1");
    X509* x = X509_dup(d.cert.native());
    const auto k = must(FileKey::generate(KeyType::kP256));
    X509_set_pubkey(x, k->native());
    X509_set_issuer_name(x, X509_get_subject_name(d.cert.native()));
    X509_sign(x, d.key->native(), EVP_sha256());
    auto c = must(Certificate::from_native(x));
    X509_free(x);
    return std::pair(c, d.cert);
  }();
  const auto flipped = [&] {
    Bytes der = device().der();
    der.back() ^= 1;
    auto c = Certificate::from_der(der);
    return must(std::move(c));
  };

  const std::vector<Refusal> table = {
      {"unknown CA", Errc::kUnknownCa, [] { return other().leaf(Role::kDevice, "d-1").cert; }},
      {"unknown CA with its chain",
       Errc::kUnknownCa,
       [] { return other().leaf(Role::kDevice, "d-1").cert; },
       [](PathPolicy&) {},
       {other().devices, other().root}},
      {"self-made CA of the same name",
       Errc::kUnknownCa,
       [&] {
         CertSpec s = pki().leaf_spec(Role::kDevice, "d-1");
         const auto k = must(FileKey::generate(KeyType::kP256));
         return must(sign_certificate(s, k->public_key(), &forged, *forged_key, system_random()));
       },
       [](PathPolicy&) {},
       {forged}},
      {"expired", Errc::kExpired, device, [](PathPolicy& p) { p.now_s += 91 * kDay; }},
      {"not yet valid", Errc::kNotYetValid,
       [&] {
         return changed(Role::kDevice, [](CertSpec& s) { s.not_before_s = TestPki::kNow + 60; });
       }},
      {"issuing CA expired", Errc::kCaExpired,
       [] {
         return changed(Role::kDevice,
                        [](CertSpec& s) { s.not_after_s = TestPki::kNow + 5 * 365 * kDay; });
       },
       [](PathPolicy& p) { p.now_s += 5 * 365 * kDay + 1; }},
      {"other trust domain", Errc::kWrongTrustDomain,
       [&] {
         return changed(Role::kDevice,
                        [](CertSpec& s) { s.uris = {"spiffe://net-b.sally/device/d-1"}; });
       }},
      {"verifier of another network", Errc::kWrongTrustDomain, device,
       [](PathPolicy& p) { p.network = "net-b.sally"; }},
      {"intermediate as leaf", Errc::kIntermediateAsLeaf, [] { return pki().devices; }},
      {"root as leaf", Errc::kIntermediateAsLeaf, [] { return pki().root; }},
      {"path length",
       Errc::kPathLength,
       [&] {
         const auto k = must(FileKey::generate(KeyType::kP256));
         CertSpec s = pki().leaf_spec(Role::kDevice, "d-1");
         return must(sign_certificate(s, k->public_key(), &deep, *deep_key, system_random()));
       },
       [](PathPolicy&) {},
       {deep}},
      {"leaf directly under the root", Errc::kPathLength,
       [] {
         const auto k = must(FileKey::generate(KeyType::kP256));
         return must(sign_certificate(pki().leaf_spec(Role::kDevice, "d-1"), k->public_key(),
                                      &pki().root, *pki().root_key, system_random()));
       }},
      {"issued by a device",
       Errc::kUnknownCa,
       [&] { return leaf_as_ca.first; },
       [](PathPolicy&) {},
       {leaf_as_ca.second}},
      {"flipped signature", Errc::kBadSignature, flipped},
      {"admin as TLS server", Errc::kWrongEku, [] { return pki().leaf(Role::kAdmin, "a").cert; },
       [](PathPolicy& p) { p.purpose = Purpose::kTlsServer; }},
      {"device as signer", Errc::kWrongEku, device,
       [](PathPolicy& p) { p.purpose = Purpose::kSigner; }},
      {"signer as TLS client", Errc::kWrongEku, [] { return pki().leaf(Role::kSigner, "1").cert; }},
      {"no EKU", Errc::kWrongEku,
       [&] { return changed(Role::kDevice, [](CertSpec& s) { s.eku = 0; }); }},
      {"signer EKU by the devices CA", Errc::kWrongEku,
       [&] { return changed(Role::kSigner, [](CertSpec&) {}, true); },
       [](PathPolicy& p) { p.purpose = Purpose::kSigner; }},
      {"a router with the signer EKU", Errc::kWrongRole,
       [&] { return changed(Role::kRouter, [](CertSpec& s) { s.eku |= kEkuSigner; }); }},
      {"signer URI on a TLS leaf", Errc::kWrongRole,
       [&] { return changed(Role::kSigner, [](CertSpec& s) { s.eku = kEkuClientAuth; }); }},
      {"role not wanted here", Errc::kWrongRole, device,
       [](PathPolicy& p) { p.roles = {Role::kAdmin}; }},
      {"router by the devices CA", Errc::kWrongIssuer,
       [&] { return changed(Role::kRouter, [](CertSpec&) {}, true); }},
      {"admin by the devices CA", Errc::kWrongIssuer,
       [&] { return changed(Role::kAdmin, [](CertSpec&) {}, true); }},
      {"device by the infrastructure CA", Errc::kWrongIssuer,
       [&] { return changed(Role::kDevice, [](CertSpec&) {}, false); }},
      {"no URI", Errc::kMalformedUri,
       [&] {
         return changed(Role::kDevice, [](CertSpec& s) {
           s.uris.clear();
           s.dns = {"a"};
         });
       }},
      {"two URIs", Errc::kMalformedUri,
       [&] {
         return changed(Role::kDevice,
                        [](CertSpec& s) { s.uris.push_back("spiffe://net-a.sally/device/d-2"); });
       }},
      {"foreign scheme", Errc::kMalformedUri,
       [&] {
         return changed(Role::kDevice,
                        [](CertSpec& s) { s.uris = {"https://net-a.sally/device/d-1"}; });
       }},
      {"no anchors", Errc::kUnknownCa, device, [](PathPolicy& p) { p.anchors.clear(); }},
      {"no network", Errc::kUnknownCa, device, [](PathPolicy& p) { p.network.clear(); }},
  };
  for (const auto& row : table) {
    PathPolicy policy = pki().policy(Purpose::kTlsClient);
    row.change(policy);
    const auto r = validate_path(row.leaf(), row.presented, policy);
    ASSERT_FALSE(r) << row.what;
    EXPECT_TRUE(r.error().is(row.code)) << row.what << ": " << r.error().text();
  }
}

TEST(Path, ARememberedSignatureVouchesForNothingElse) {
  const auto leaf = pki().leaf(Role::kDevice, "d-1");
  const auto policy = pki().policy(Purpose::kTlsClient);
  ASSERT_TRUE(validate_path(leaf.cert, {}, policy));
  ASSERT_TRUE(validate_path(leaf.cert, {}, policy));  // from memory
  // The same issuing certificate, its signature damaged.
  Bytes der = to_bytes(pki().devices.der());
  der.back() ^= 1;
  auto p = policy;
  p.known_issuing = {must(Certificate::from_der(der))};
  EXPECT_TRUE(validate_path(leaf.cert, {}, p).error().is(Errc::kBadSignature));
  EXPECT_TRUE(validate_path(leaf.cert, {}, p).error().is(Errc::kBadSignature));
  // Its times still count: it is over after five years.
  p = policy;
  p.now_s += 6 * 365LL * 86400;
  EXPECT_TRUE(validate_path(leaf.cert, {}, p).error().is(Errc::kCaExpired));
  // Another root of the same name and with another key did not sign it, though it claims the key's
  // identifier as well, by which issuers are found.
  const TestPki impostor("net-a.sally");
  const auto identifier = [](const TestPki& of) {
    const ASN1_OCTET_STRING* id = X509_get0_subject_key_id(of.root.native());
    return ByteView(ASN1_STRING_get0_data(id), static_cast<std::size_t>(ASN1_STRING_length(id)));
  };
  Bytes claims = to_bytes(impostor.root.der());
  for (auto at = claims.begin();;) {
    const auto found =
        std::ranges::search(std::ranges::subrange(at, claims.end()), identifier(impostor));
    if (found.empty()) break;
    at = std::ranges::copy(identifier(pki()), found.begin()).out;
  }
  for (const Certificate& anchor : {impostor.root, must(Certificate::from_der(claims))}) {
    p = policy;
    p.anchors = {anchor};
    EXPECT_FALSE(validate_path(leaf.cert, {}, p));
  }
}

// The library's own judgement, without our last step. What an anchor signed over itself counts for
// neither.
bool library_accepts(const Certificate& leaf, const std::vector<Certificate>& untrusted,
                     const PathPolicy& policy) {
  using Store = Ossl<X509_STORE, X509_STORE_free>;
  using Context = Ossl<X509_STORE_CTX, X509_STORE_CTX_free>;
  using Stack = Ossl<STACK_OF(X509), [](STACK_OF(X509) * s) { sk_X509_free(s); }>;
  const Store store(X509_STORE_new());
  const Context ctx(X509_STORE_CTX_new());
  const Stack stack(sk_X509_new_null());
  for (const auto& a : policy.anchors) X509_STORE_add_cert(store.get(), a.native());
  for (const auto& c : untrusted) sk_X509_push(stack.get(), c.native());
  X509_STORE_CTX_init(ctx.get(), store.get(), leaf.native(), stack.get());
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(ctx.get());
  X509_VERIFY_PARAM_set_time(param, static_cast<time_t>(policy.now_s));
  X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
  const bool ok = X509_verify_cert(ctx.get()) == 1;
  ERR_clear_error();
  return ok;
}

TEST(Path, NothingPassesThatTheLibraryRefuses) {
  SeededRandom dice(11);
  const TestPki impostor("net-a.sally");
  const std::array sources{
      pki().leaf(Role::kDevice, "d-1").cert,    pki().devices,    pki().root,
      impostor.leaf(Role::kDevice, "d-1").cert, impostor.devices, other().devices};
  // Whole, or with one bit of it changed.
  const auto some = [&](std::size_t of) {
    Bytes der = to_bytes(sources[of].der());
    if (dice.below(2) == 0)
      der[dice.below(der.size())] ^= static_cast<std::uint8_t>(1U << dice.below(8));
    return Certificate::from_der(der);
  };
  int accepted = 0;
  int judged = 0;
  for (int i = 0; i < 4'000; ++i) {
    const auto leaf = some(dice.below(4) == 0 ? 3 : 0);
    const auto issuing = some(1 + dice.below(5));
    const auto anchor = some(dice.below(8) == 0 ? 1 + dice.below(5) : 2);
    if (!leaf || !issuing || !anchor) continue;
    auto policy = pki().policy(Purpose::kTlsClient);
    policy.known_issuing.clear();
    policy.anchors = {*anchor};
    if (dice.below(4) == 0)
      policy.now_s += static_cast<std::int64_t>(dice.below(40)) * 365 * 86'400;
    ++judged;
    if (!validate_path(*leaf, {*issuing}, policy)) continue;
    ++accepted;
    EXPECT_TRUE(library_accepts(*leaf, {*issuing}, policy)) << i;
  }
  EXPECT_GT(judged, 1'000);
  EXPECT_GT(accepted, 20);
}

TEST(Path, KeyUsageOfTheLeaf) {
  // Re-signed by hand: our own issuing function cannot make these.
  const auto d = pki().leaf(Role::kDevice, "d-1");
  const auto with_usage = [&](std::optional<int> bit) {
    X509* x = X509_dup(d.cert.native());
    X509_EXTENSION_free(X509_delete_ext(x, X509_get_ext_by_NID(x, NID_key_usage, -1)));
    if (bit) {
      ASN1_BIT_STRING* ku = ASN1_BIT_STRING_new();
      ASN1_BIT_STRING_set_bit(ku, *bit, 1);
      X509_add1_ext_i2d(x, NID_key_usage, ku, 1, X509V3_ADD_DEFAULT);
      ASN1_BIT_STRING_free(ku);
    }
    X509_sign(x, pki().devices_key->native(), EVP_sha256());
    auto c = must(Certificate::from_native(x));
    X509_free(x);
    return c;
  };
  const auto policy = pki().policy(Purpose::kTlsClient);
  EXPECT_TRUE(validate_path(with_usage(0), {}, policy));
  EXPECT_TRUE(validate_path(with_usage({}), {}, policy).error().is(Errc::kBadKeyUsage));
  EXPECT_TRUE(validate_path(with_usage(2), {}, policy).error().is(Errc::kBadKeyUsage));
  EXPECT_TRUE(validate_path(with_usage(5), {}, policy).error().is(Errc::kBadKeyUsage));
}

TEST(Path, IdentityUri) {
  const auto ok = must(parse_identity_uri("spiffe://net-a.sally/device/Pump_17.x-1"));
  EXPECT_EQ(ok, (IdentityName{"net-a.sally", Role::kDevice, "Pump_17.x-1"}));
  EXPECT_EQ(ok.uri(), "spiffe://net-a.sally/device/Pump_17.x-1");
  for (const char* bad : {"", "spiffe://", "spiffe://n", "spiffe://n/device", "spiffe://n/device/",
                          "spiffe:///device/a", "spiffe://n//a", "spiffe://n/Device/a",
                          "spiffe://N/device/a", "spiffe://n/device/a/b", "spiffe://n/device/..",
                          "spiffe://n/device/a?x", "spiffe://n/device/a%20",
                          "spiffe://n/device/a b", "spiffe://n:1/device/a", "SPIFFE://n/device/a",
                          "spiffe://n/identity/a", "spiffe://../device/a", "spiffe://u@n/device/a"})
    EXPECT_TRUE(!parse_identity_uri(bad)) << bad;
  EXPECT_FALSE(parse_identity_uri("spiffe://n/device/" + std::string(65, 'a')));
}

TEST(Issue, RefusesWhatItMustNotSign) {
  const auto k = must(FileKey::generate(KeyType::kP256));
  CertSpec s = pki().leaf_spec(Role::kDevice, "d");
  EXPECT_TRUE(sign_certificate(s, k->public_key(), nullptr, *k, system_random())
                  .error()
                  .is(Errc::kBadSpec));
  EXPECT_TRUE(sign_certificate(s, k->public_key(), &pki().devices, *k, system_random())
                  .error()
                  .is(Errc::kKeyMismatch));
  const auto d = pki().leaf(Role::kDevice, "d");
  EXPECT_TRUE(sign_certificate(s, k->public_key(), &d.cert, *d.key, system_random())
                  .error()
                  .is(Errc::kNotCa));
  s.not_after_s = pki().devices.not_after() + 1;
  EXPECT_TRUE(
      sign_certificate(s, k->public_key(), &pki().devices, *pki().devices_key, system_random())
          .error()
          .is(Errc::kOutlivesIssuer));
  s = pki().leaf_spec(Role::kDevice, "d");
  s.dns = {"a b"};
  EXPECT_TRUE(
      sign_certificate(s, k->public_key(), &pki().devices, *pki().devices_key, system_random())
          .error()
          .is(Errc::kBadSpec));
}

TEST(Certificate, ReadsWhatWasWritten) {
  const auto c = pki().leaf(Role::kController, "c-1").cert;
  EXPECT_EQ(must(Certificate::from_pem(c.pem())), c);
  EXPECT_EQ(c.subject_cn(), "c-1");
  EXPECT_EQ(c.issuer_cn(), "Test Infrastructure");
  EXPECT_EQ(c.dns_sans(), std::vector<std::string>{"localhost"});
  EXPECT_EQ(c.ip_sans(), std::vector<std::string>{"127.0.0.1"});
  EXPECT_TRUE(c.matches_host("localhost"));
  EXPECT_TRUE(c.matches_host("127.0.0.1"));
  EXPECT_FALSE(c.matches_host("c-1"));
  EXPECT_FALSE(c.matches_host("10.0.0.1"));
  EXPECT_EQ(c.serial_hex().size(), 32u);
  EXPECT_GE(c.serial_hex()[0], '4');
  EXPECT_LE(c.serial_hex()[0], '7');
  EXPECT_EQ(pki().devices.path_length(), 0);
  EXPECT_EQ(must(Certificate::list_from_pem("x\n" + c.pem() + pki().root.pem())).size(), 2u);
  EXPECT_TRUE(Certificate::list_from_pem(c.pem() + c.pem(), 1).error().is(Errc::kTooLarge));
  Bytes trailing = c.der();
  trailing.push_back(0);
  EXPECT_TRUE(Certificate::from_der(trailing).error().is(Errc::kMalformed));
  EXPECT_TRUE(Certificate::from_der(Bytes(kMaxCertificateDer + 1)).error().is(Errc::kTooLarge));
  EXPECT_TRUE(Certificate::from_pem("").error().is(Errc::kMalformed));
}

TEST(Certificate, Pkcs7IsReadByTheLibrary) {
  const Bytes p7 = to_pkcs7({pki().root, pki().devices, pki().infrastructure});
  const unsigned char* p = p7.data();
  PKCS7* parsed = d2i_PKCS7(nullptr, &p, static_cast<long>(p7.size()));
  ASSERT_NE(parsed, nullptr);
  EXPECT_EQ(sk_X509_num(parsed->d.sign->cert), 3);
  PKCS7_free(parsed);
}

}  // namespace
}  // namespace sally::crypto
