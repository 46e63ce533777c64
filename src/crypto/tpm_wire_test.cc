// SPDX-License-Identifier: Apache-2.0
#include "crypto/tpm_wire.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "base/fs.h"
#include "crypto/hash.h"
#include "crypto/test_tpm.h"

namespace sally::crypto::tpm {
namespace {

TEST(TpmPublic, IsReadAndEveryOtherKindRefused) {
  const auto key = must(FileKey::generate(KeyType::kP256));
  const Bytes area = public_area(key->public_key());
  const auto pub = must(parse_public(area));
  EXPECT_TRUE(pub.key == key->public_key());
  EXPECT_EQ(pub.attributes, kStaysAttributes);
  struct Case {
    const char* what;
    std::size_t at;
    std::uint8_t value;
  };
  for (const auto& [what, at, value] :
       {Case{"RSA", 1, 0x01}, Case{"name by SHA-384", 3, 0x0C}, Case{"a policy", 9, 32},
        Case{"a storage key", 11, 0x06}, Case{"ECDAA", 13, 0x1A}, Case{"SHA-384", 15, 0x0C},
        Case{"P-384", 17, 0x04}, Case{"a key derivation", 19, 0x20}, Case{"a longer x", 21, 33},
        Case{"a point off the curve", 40, static_cast<std::uint8_t>(area[40] ^ 1)}}) {
    Bytes bad = area;
    bad[at] = value;
    EXPECT_FALSE(parse_public(bad)) << what;
  }
  for (std::size_t n = 0; n < area.size(); ++n)
    EXPECT_FALSE(parse_public(ByteView(area).first(n))) << n;
  Bytes longer = area;
  longer.push_back(0);
  EXPECT_FALSE(parse_public(longer));
}

TEST(TpmAnswers, SaySizeCodeAndParameters) {
  const Bytes parameters = {1, 2, 3};
  const auto good = must(parse_answer(answer(0, parameters), false));
  EXPECT_EQ(good.parameters, parameters);
  EXPECT_EQ(must(parse_answer(answer(0, parameters, false), false)).parameters, parameters);
  EXPECT_EQ(must(parse_answer(answer(0x922, {}, false), true)).code, 0x922u);
  Bytes with_handle;
  put_big(with_handle, 0x80000001, 4);
  EXPECT_EQ(must(parse_answer(answer(0, with_handle, false), true)).handle, 0x80000001u);
  const Bytes whole = answer(0, parameters);
  for (std::size_t n = 0; n < whole.size(); ++n)
    EXPECT_FALSE(parse_answer(ByteView(whole).first(n), false)) << n;
  Bytes lies = whole;
  lies[13] = 200;  // more parameters than there are
  EXPECT_FALSE(parse_answer(lies, false));
  EXPECT_EQ(message_size(whole), whole.size());
  EXPECT_EQ(message_size(Bytes{0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0}), 0u);
  EXPECT_EQ(message_size(Bytes{0x80, 1, 0, 1, 0, 0, 0, 0, 0, 0}), 0u);
}

TEST(TpmSignatures, OnlyEcdsaWithSha256) {
  Bytes raw;
  put_big(raw, 0x18, 2);
  put_big(raw, 0x0B, 2);
  put_big(raw, 2, 2);
  append(raw, Bytes{0x80, 1});
  put_big(raw, 1, 2);
  append(raw, Bytes{7});
  EXPECT_EQ(must(parse_signature(raw)),
            (Bytes{0x30, 0x08, 0x02, 0x03, 0x00, 0x80, 0x01, 0x02, 0x01, 0x07}));
  for (std::size_t n = 0; n < raw.size(); ++n)
    EXPECT_FALSE(parse_signature(ByteView(raw).first(n))) << n;
  Bytes other = raw;
  other[1] = 0x14;  // RSASSA
  EXPECT_FALSE(parse_signature(other));
}

TEST(TpmKeyFiles, AreWrittenAndReadAndOthersRefused) {
  const auto key = must(FileKey::generate(KeyType::kP256));
  for (const std::uint32_t parent : {kOwner, kStorageRoot}) {
    const KeyFile file{
        .parent = parent, .pub = public_area(key->public_key()), .priv = Bytes(158, 0x5a)};
    const std::string pem = to_pem(file);
    const auto again = must(parse_pem(pem));
    EXPECT_EQ(again.parent, parent);
    EXPECT_EQ(again.pub, file.pub);
    EXPECT_EQ(again.priv, file.priv);
    EXPECT_EQ(must(parse_pem("text before\n" + pem + "and after")).pub, file.pub);
  }
  const auto refuse = [](const KeyFile& file) { return !parse_pem(to_pem(file)).has_value(); };
  EXPECT_TRUE(refuse({.parent = 0x40000007, .pub = {1}, .priv = {1}}));
  EXPECT_TRUE(refuse({.parent = 0x80000001, .pub = {1}, .priv = {1}}));
  EXPECT_TRUE(refuse({.parent = kOwner, .pub = {}, .priv = {1}}));
  EXPECT_TRUE(refuse({.parent = kOwner, .pub = {1}, .priv = {}}));
  EXPECT_FALSE(parse_pem(must(key->to_pem())));
  // "No password" as others write it, and a key with one.
  for (const auto& [said, taken] : {std::pair{0x01, true}, std::pair{0x00, false}}) {
    const std::string pem = to_pem({.parent = kOwner, .pub = {1}, .priv = {1}});
    const std::string_view begin = "-----BEGIN TSS2 PRIVATE KEY-----\n";
    Bytes der = *from_base64(pem.substr(begin.size(), pem.rfind("-----END") - begin.size()));
    const Bytes empty_auth = {0xA0, 0x03, 0x01, 0x01, 0xFF};
    const auto at = std::ranges::search(der, empty_auth).begin();
    ASSERT_NE(at, der.end());
    at[4] = static_cast<std::uint8_t>(said);
    EXPECT_EQ(parse_pem(std::string(begin) + to_base64(der) + "\n-----END TSS2 PRIVATE KEY-----")
                  .has_value(),
              taken);
  }
  EXPECT_FALSE(parse_pem("-----BEGIN TSS2 PRIVATE KEY-----\nAA!=\n-----END TSS2 PRIVATE KEY-----"));
}

TEST(Seeds, OfTheFuzzTarget) {
  const char* corpus = std::getenv("SALLY_WRITE_CORPUS");
  if (corpus == nullptr) GTEST_SKIP() << "SALLY_WRITE_CORPUS is not set";
  const std::string dir = std::string(corpus) + "/crypto_tpm_wire_fuzz";
  ASSERT_TRUE(fs::make_dirs(dir, 0755));
  const auto area = public_area(must(FileKey::generate(KeyType::kP256))->public_key());
  Bytes sized;
  put_big(sized, area.size(), 2);
  append(sized, area);
  const std::string pem = to_pem({.parent = kOwner, .pub = area, .priv = Bytes(158, 0x5a)});
  for (const Bytes& seed :
       {area, answer(0, sized), answer(0x922, {}, false), to_bytes(as_bytes(pem))})
    ASSERT_TRUE(fs::write_file_atomic(dir + "/" + to_hex(sha256(seed)).substr(0, 16), seed, 0644));
}

}  // namespace
}  // namespace sally::crypto::tpm
