// SPDX-License-Identifier: Apache-2.0
#include "crypto/hardware.h"

#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/pem.h>

#include "crypto/csr.h"
#include "crypto/test_token.h"

namespace sally::crypto {
namespace {

class Hardware : public testing::TestWithParam<KeyType> {
 protected:
  FileKeyPtr inside = must(FileKey::generate(GetParam()));
  TokenKey token{inside};
};
INSTANTIATE_TEST_SUITE_P(Curves, Hardware, testing::Values(KeyType::kP256, KeyType::kP384));

TEST_P(Hardware, SignsMessagesRequestsAndCertificates) {
  const auto message = as_bytes("hello");
  EXPECT_TRUE(inside->public_key().verify(message, must(token.key->sign(message))));
  EXPECT_FALSE(inside->public_key().verify(as_bytes("hullo"), must(token.key->sign(message))));
  const auto csr = must(parse_csr(as_bytes(must(make_csr(*token.key, "pump-17")))));
  EXPECT_TRUE(csr.key == inside->public_key());
  const TestPki pki;
  const auto root =
      must(sign_certificate(pki.ca_spec("In a token", 5, {}, 0), token.key->public_key(), nullptr,
                            *token.key, system_random()));
  EXPECT_EQ(X509_verify(root.native(), inside->native()), 1);
  EXPECT_EQ(token.controls->signatures, 4);
}

TEST_P(Hardware, ItsPrivateHalfIsNotToBeHad) {
  BIGNUM* d = nullptr;
  EXPECT_NE(EVP_PKEY_get_bn_param(token.key->native(), OSSL_PKEY_PARAM_PRIV_KEY, &d), 1);
  EXPECT_EQ(d, nullptr);
  const BioPtr bio(BIO_new(BIO_s_mem()));
  EXPECT_NE(PEM_write_bio_PKCS8PrivateKey(bio.get(), token.key->native(), nullptr, nullptr, 0,
                                          nullptr, nullptr),
            1);
  ERR_clear_error();
  EXPECT_EQ(must(token.key->stored()), "pkcs11:token=test;object=test");
  EXPECT_TRUE(token.key->slow());
  EXPECT_FALSE(inside->slow());
}

TEST_P(Hardware, APulledTokenSignsNothingAndSaysSo) {
  token.controls->gone = true;
  const auto refused = token.key->sign(as_bytes("hello"));
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(Errc::kTokenMissing));
  const auto request = make_csr(*token.key, "pump-17");
  ASSERT_FALSE(request);
  EXPECT_TRUE(request.error().is(Errc::kTokenMissing)) << request.error().text();
  token.controls->gone = false;
  EXPECT_TRUE(token.key->sign(as_bytes("hello")));
}

TEST(HardwareTypes, OnlyTheCurvesThatTokensHave) {
  const auto controls = std::make_shared<TestToken::Controls>();
  const auto made = HardwareKey::create(
      std::make_unique<TestToken>(must(FileKey::generate(KeyType::kRsa)), controls), "x");
  ASSERT_FALSE(made);
  EXPECT_TRUE(made.error().is(Errc::kUnsupportedKey));
}

}  // namespace
}  // namespace sally::crypto
