// SPDX-License-Identifier: Apache-2.0
#include "crypto/key_name.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/fs.h"
#include "crypto/hash.h"

namespace sally::crypto {
namespace {

struct Good {
  const char* text;
  const char* str;
};
class GoodNames : public testing::TestWithParam<Good> {};
INSTANTIATE_TEST_SUITE_P(
    All, GoodNames,
    testing::Values(
        Good{"/etc/x.key", "file:/etc/x.key"}, Good{"file:/etc/x.key", "file:/etc/x.key"},
        Good{"file:///etc/x.key", "file:/etc/x.key"},
        Good{"pkcs11:token=dev;object=pump-17", "pkcs11:token=dev;object=pump-17"},
        Good{"pkcs11:object=a%20b;token=My%20token;type=private;id=%01%ff",
             "pkcs11:token=My%20token;object=a%20b;id=%01%FF"},
        Good{"pkcs11:serial=0815;id=%01?pin-source=file:/run/pin&module-path=/usr/lib/x.so",
             "pkcs11:serial=0815;id=%01?module-path=/usr/lib/x.so&pin-source=/run/pin"},
        Good{"tpm:/var/lib/x/key.tpm", "tpm:/var/lib/x/key.tpm"},
        Good{"tpm:/a%20b?device=/run/swtpm.sock", "tpm:/a%20b?device=/run/swtpm.sock"},
        Good{"tpm:/a?device=/dev/tpmrm0", "tpm:/a"},
        Good{"tpm:handle:0x81008001", "tpm:handle:0x81008001"}));
TEST_P(GoodNames, AreReadAndWritten) {
  const auto name = parse_key_name(GetParam().text);
  ASSERT_TRUE(name) << name.error().text();
  EXPECT_EQ(name->str(), GetParam().str);
  const auto again = parse_key_name(name->str());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->str(), name->str());
  EXPECT_EQ(name->hardware(), names_hardware(GetParam().text));
}

class BadNames : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(
    All, BadNames,
    testing::Values("", "key", "file:", "file:key", "/", "http://x", "PKCS11:token=a;object=b",
                    "pkcs11:", "pkcs11:token=a", "pkcs11:object=a", "pkcs11:token=;object=b",
                    "pkcs11:token=a;token=b;object=c", "pkcs11:token=a;object=b;color=red",
                    "pkcs11:token=a;object=b;type=public", "pkcs11:token=a;object",
                    "pkcs11:token=a;object=%4", "pkcs11:token=a;object=%zz",
                    "pkcs11:token=a;object=b?pin-value=1234",
                    "pkcs11:token=a;object=b?pin-source=|cat", "pkcs11:token=a;object=b?x=/y",
                    "pkcs11:token=a;object=b?module-path=x.so", "tpm:", "tpm:key", "tpm:handle:1",
                    "tpm:handle:0x40000001", "tpm:handle:0x8100800g", "tpm:/a?device=tpm0",
                    "tpm:/a?x=/b", "tpm:/a?device=/b&device=/c"));
TEST_P(BadNames, AreRefused) {
  const auto name = parse_key_name(GetParam());
  ASSERT_FALSE(name) << name->str();
  EXPECT_TRUE(name.error().is(Errc::kBadKeyName));
}

TEST(KeyNames, ARefusalDoesNotRepeatThePin) {
  const auto name = parse_key_name("pkcs11:token=a;object=b?pin-value=73917391");
  ASSERT_FALSE(name);
  EXPECT_EQ(name.error().text().find("7391"), std::string::npos);
}

TEST(KeyNames, TooLong) {
  EXPECT_FALSE(parse_key_name("/" + std::string(kMaxKeyName, 'a')));
}

TEST(Seeds, OfTheFuzzTarget) {
  const char* corpus = std::getenv("SALLY_WRITE_CORPUS");
  if (corpus == nullptr) GTEST_SKIP() << "SALLY_WRITE_CORPUS is not set";
  const std::string dir = std::string(corpus) + "/crypto_key_name_fuzz";
  ASSERT_TRUE(fs::make_dirs(dir, 0755));
  for (const char* text :
       {"file:///etc/x.key", "pkcs11:object=a%20b;token=My%20token;type=private;id=%01%ff",
        "pkcs11:serial=0815;id=%01?pin-source=file:/run/pin&module-path=/usr/lib/x.so",
        "tpm:/a%20b?device=/run/swtpm.sock", "tpm:handle:0x81008001",
        "pkcs11:token=a;object=b?pin-value=1234"})
    ASSERT_TRUE(fs::write_file_atomic(dir + "/" + to_hex(sha256(as_bytes(text))).substr(0, 16),
                                      as_bytes(text), 0644));
}

}  // namespace
}  // namespace sally::crypto
