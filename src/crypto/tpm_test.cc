// SPDX-License-Identifier: Apache-2.0
// A TPM that answers after it was given up: what it says then is nobody's answer.
#include "crypto/tpm.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/fs.h"
#include "crypto/hash.h"
#include "crypto/test_tpm.h"

namespace sally::crypto {
namespace {

class LateAnswers : public testing::Test {
 protected:
  // Long for what answers, and waited for once in each test.
  static constexpr int kAnswerMs = 1'500;

  LateAnswers() {
    char name[] = "/tmp/sally_tpm_XXXXXX";
    dir = ::mkdtemp(name);
    chip = std::make_unique<tpm::LateTpm>(inside, dir + "/tpm.sock");
    const std::string pem = tpm::to_pem({.parent = tpm::kOwner,
                                         .pub = tpm::public_area(inside->public_key()),
                                         .priv = Bytes(158, 0x5a)});
    EXPECT_TRUE(fs::write_file_atomic(dir + "/key.tpm", as_bytes(pem), 0600));
  }
  ~LateAnswers() override {
    token.reset();
    chip.reset();
    std::filesystem::remove_all(dir);
  }
  void open() {
    token = must(open_tpm(
        must(parse_key_name("tpm:" + dir + "/key.tpm?device=" + dir + "/tpm.sock")), kAnswerMs));
  }
  /// Whether it is this message that gets signed.
  bool signs(std::string_view message) const {
    const auto signature = token->sign_digest(sha256(as_bytes(message)));
    return signature && inside->public_key().verify(as_bytes(message), *signature);
  }

  std::string dir;
  FileKeyPtr inside = must(FileKey::generate(KeyType::kP256));
  std::unique_ptr<tpm::LateTpm> chip;
  std::unique_ptr<Token> token;
};

TEST_F(LateAnswers, OfAFlushIsNoSignature) {
  chip->late_with = tpm::LateTpm::kFlushContext;  // of the parent, when the key is loaded
  open();
  EXPECT_TRUE(signs("one"));
  EXPECT_TRUE(signs("two"));
  EXPECT_EQ(chip->connections, 2);
}

TEST_F(LateAnswers, OfASignatureIsNotTheNextOne) {
  open();
  EXPECT_TRUE(signs("one"));
  chip->late_with = tpm::LateTpm::kSignDigest;
  EXPECT_TRUE(signs("two")) << "asked again on another connection";
  EXPECT_TRUE(signs("three"));
  EXPECT_EQ(chip->connections, 2);
}

}  // namespace
}  // namespace sally::crypto
