// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "crypto/csr.h"
#include "crypto/jws.h"
#include "crypto/ossl.h"
#include "crypto/test_pki.h"

namespace sally::crypto {
namespace {

TEST(Jws, SignsAndRefuses) {
  for (const KeyType type : {KeyType::kP256, KeyType::kP384, KeyType::kRsa}) {
    const auto key = must(FileKey::generate(type));
    const auto& pub = key->public_key();
    const std::string alg(jws_algorithm(pub));
    const std::string token = must(sign_jws(R"({"alg":")" + alg + R"("})", R"({"jti":"1"})", *key));
    const Jws jws = must(split_jws(token));
    EXPECT_EQ(jws.payload, R"({"jti":"1"})");
    EXPECT_TRUE(verify_jws(jws, alg, pub));
    for (const char* wrong : {"none", "", "HS256", "PS256", "es256", "ES512"})
      EXPECT_TRUE(verify_jws(jws, wrong, pub).error().is(Errc::kAlgorithm)) << wrong;
    EXPECT_TRUE(
        verify_jws(jws, alg == "RS256" ? "ES256" : "RS256", pub).error().is(Errc::kAlgorithm));
    Jws bad = jws;
    bad.signature[3] ^= 1;
    EXPECT_TRUE(verify_jws(bad, alg, pub).error().is(Errc::kBadSignature));
    bad = jws;
    bad.signing_input.back() ^= 1;
    EXPECT_TRUE(verify_jws(bad, alg, pub).error().is(Errc::kBadSignature));
    bad = jws;
    bad.signature.clear();
    EXPECT_TRUE(verify_jws(bad, alg, pub).error().is(Errc::kBadSignature));
    const auto other = must(FileKey::generate(type));
    EXPECT_TRUE(verify_jws(jws, alg, other->public_key()).error().is(Errc::kBadSignature));
  }
  const auto ed = must(FileKey::generate(KeyType::kEd25519));
  EXPECT_TRUE(sign_jws("{}", "{}", *ed).error().is(Errc::kAlgorithm));
}

TEST(Jws, SplitIsStrict) {
  for (const char* bad : {"", "a", "a.b", "..", ".YQ.YQ", "YQ.YQ.YQ.YQ", "YQ==.YQ.YQ", "Y Q.YQ.YQ",
                          "YQ.Y+.YQ", "YQ.YQ.YQ\n"})
    EXPECT_FALSE(split_jws(bad)) << bad;
  EXPECT_TRUE(split_jws(std::string(kMaxJws + 1, 'a')).error().is(Errc::kTooLarge));
}

TEST(Csr, RoundTripAndRefusals) {
  for (const KeyType type : {KeyType::kP256, KeyType::kP384, KeyType::kEd25519, KeyType::kRsa}) {
    const auto key = must(FileKey::generate(type));
    const std::string pem = must(make_csr(*key, "pump-17"));
    const Csr csr = must(parse_csr(pem));
    EXPECT_EQ(csr.key, key->public_key());
    EXPECT_EQ(csr.subject_cn, "pump-17");
    const std::string b64 = pem.substr(pem.find('\n'), pem.find("-----END") - pem.find('\n'));
    Bytes der = *from_base64(b64);
    EXPECT_TRUE(parse_csr(der));
    der.back() ^= 1;
    EXPECT_TRUE(parse_csr(der).error().is(Errc::kBadSignature));
    der.back() ^= 1;
    der.push_back(0);
    EXPECT_TRUE(parse_csr(der).error().is(Errc::kMalformed));
  }
  EXPECT_TRUE(parse_csr(std::string_view("")).error().is(Errc::kMalformed));
  EXPECT_TRUE(parse_csr(std::string(kMaxCsr + 1, 'a')).error().is(Errc::kTooLarge));
}

// A request made by hand, so that it can be wrong in one place.
Bytes request(EVP_PKEY* key, const char* critical_oid, EVP_PKEY* signed_by = nullptr) {
  X509_REQ* r = X509_REQ_new();
  X509_REQ_set_pubkey(r, key);
  if (critical_oid != nullptr) {
    STACK_OF(X509_EXTENSION)* exts = sk_X509_EXTENSION_new_null();
    ASN1_OBJECT* o = OBJ_txt2obj(critical_oid, 1);
    ASN1_OCTET_STRING* v = ASN1_OCTET_STRING_new();
    ASN1_OCTET_STRING_set(v, reinterpret_cast<const unsigned char*>("\x05\x00"), 2);
    sk_X509_EXTENSION_push(exts, X509_EXTENSION_create_by_OBJ(nullptr, o, 1, v));
    X509_REQ_add_extensions(r, exts);
    ASN1_OBJECT_free(o);
    ASN1_OCTET_STRING_free(v);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
  }
  X509_REQ_sign(r, signed_by != nullptr ? signed_by : key, EVP_sha256());
  Bytes der = to_der(i2d_X509_REQ, r);
  X509_REQ_free(r);
  return der;
}

TEST(Csr, NegativeTable) {
  PkeyPtr good(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  PkeyPtr thief(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  PkeyPtr weak(EVP_RSA_gen(1024u));
  PkeyPtr curve(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "secp256k1"));
  EXPECT_TRUE(parse_csr(request(good.get(), nullptr)));
  EXPECT_TRUE(parse_csr(request(good.get(), "1.2.3.4")).error().is(Errc::kUnknownCritical));
  EXPECT_TRUE(parse_csr(request(good.get(), nullptr, thief.get())).error().is(Errc::kBadSignature));
  EXPECT_TRUE(parse_csr(request(weak.get(), nullptr)).error().is(Errc::kWeakKey));
  EXPECT_TRUE(parse_csr(request(curve.get(), nullptr)).error().is(Errc::kUnsupportedKey));
}

// ecdsa-with-SHA256 with a NULL parameter, as C SDK 0.29.3 on mbedTLS sends it: lengths around it
// are corrected by hand.
TEST(Csr, ReadsTheUncleanForm) {
  PkeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  const Bytes clean = request(key.get(), nullptr);
  const Bytes oid{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
  auto at = std::search(clean.begin(), clean.end(), oid.begin(), oid.end());
  ASSERT_NE(at, clean.end());
  Bytes unclean(clean.begin(), at);
  append(unclean,
         Bytes{0x30, 0x0c, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02, 0x05, 0x00});
  unclean.insert(unclean.end(), at + static_cast<long>(oid.size()), clean.end());
  // Outer SEQUENCE: 0x30 0x81 len.
  ASSERT_EQ(unclean[1], 0x81);
  unclean[2] = static_cast<std::uint8_t>(unclean[2] + 2);
  const auto csr = parse_csr(unclean);
  EXPECT_TRUE(csr) << csr.error().text();
}

}  // namespace
}  // namespace sally::crypto
