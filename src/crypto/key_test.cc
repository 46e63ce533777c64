// SPDX-License-Identifier: Apache-2.0
#include "crypto/key.h"

#include <gtest/gtest.h>
#include <openssl/rsa.h>

#include "base/text.h"
#include "crypto/hash.h"
#include "crypto/ossl.h"
#include "crypto/test_pki.h"

namespace sally::crypto {
namespace {

TEST(Key, EveryTypeSignsVerifiesAndSurvivesPem) {
  for (const KeyType type : {KeyType::kP256, KeyType::kP384, KeyType::kEd25519, KeyType::kRsa}) {
    const auto key = must(FileKey::generate(type));
    const auto again = must(FileKey::from_pem(must(key->to_pem())));
    EXPECT_EQ(again->public_key(), key->public_key());
    const auto pub = must(PublicKey::from_spki(key->public_key().spki()));
    EXPECT_EQ(pub.type(), type);
    const Bytes sig = must(again->sign(as_bytes("message")));
    EXPECT_TRUE(pub.verify(as_bytes("message"), sig));
    EXPECT_FALSE(pub.verify(as_bytes("messagf"), sig));
    for (std::size_t i = 0; i < sig.size(); i += 7) {
      Bytes bad = sig;
      bad[i] ^= 1;
      EXPECT_FALSE(pub.verify(as_bytes("message"), bad)) << i;
    }
    EXPECT_FALSE(pub.verify(as_bytes("message"), {}));
  }
}

TEST(Key, IdIsTheStartOfTheHash) {
  const auto key = must(FileKey::generate(KeyType::kP256));
  EXPECT_EQ(to_hex(key->public_key().key_id()), key->public_key().hash_hex().substr(0, 16));
}

TEST(Key, RefusesWeakAndForeignKeys) {
  const auto spki = [](EVP_PKEY* k) {
    Bytes der = to_der(i2d_PUBKEY, k);
    EVP_PKEY_free(k);
    return der;
  };
  EXPECT_TRUE(PublicKey::from_spki(spki(EVP_RSA_gen(1024u))).error().is(Errc::kWeakKey));
  EXPECT_TRUE(PublicKey::from_spki(spki(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "secp256k1")))
                  .error()
                  .is(Errc::kUnsupportedKey));
  EXPECT_TRUE(PublicKey::from_spki(spki(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-521")))
                  .error()
                  .is(Errc::kUnsupportedKey));
  EXPECT_TRUE(PublicKey::from_spki(spki(EVP_PKEY_Q_keygen(nullptr, nullptr, "X25519")))
                  .error()
                  .is(Errc::kUnsupportedKey));
  Bytes trailing = must(FileKey::generate(KeyType::kP256))->public_key().spki();
  Bytes off_curve = trailing;
  trailing.push_back(0);
  EXPECT_TRUE(PublicKey::from_spki(trailing).error().is(Errc::kBadKey));
  off_curve.back() ^= 1;
  EXPECT_FALSE(PublicKey::from_spki(off_curve));
  EXPECT_TRUE(PublicKey::from_spki({}).error().is(Errc::kBadKey));
  EXPECT_TRUE(FileKey::from_pem("no key").error().is(Errc::kBadKey));
}

TEST(Hash, KnownAnswers) {
  EXPECT_EQ(to_hex(sha256(as_bytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(as_bytes("a"), as_bytes("bc")), sha256(as_bytes("abc")));
  EXPECT_EQ(to_hex(sha1(as_bytes("abc"))), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(
      to_hex(hmac_sha256(as_bytes("key"), as_bytes("The quick brown fox jumps over the lazy dog"))),
      "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8");
}

}  // namespace
}  // namespace sally::crypto
