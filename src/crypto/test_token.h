// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests of the folders above crypto/: a token that is a key in memory, as slow as it is told.
#include <openssl/evp.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "crypto/hardware.h"
#include "crypto/ossl.h"
#include "crypto/test_pki.h"

// Paused calls run on stacks of their own, which ThreadSanitizer does not follow.
#if defined(__SANITIZE_THREAD__)
#define SALLY_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SALLY_THREAD_SANITIZER 1
#endif
#endif

namespace sally::crypto {

class TestToken final : public Token {
 public:
  struct Controls {
    std::atomic<int> sign_ms = 0;
    std::atomic<bool> gone = false;
    std::atomic<int> signatures = 0;
  };
  TestToken(FileKeyPtr key, std::shared_ptr<Controls> controls)
      : key_(std::move(key)), controls_(std::move(controls)) {}
  [[nodiscard]] Result<Bytes> sign_digest(ByteView digest) const override {
    const auto time = std::chrono::milliseconds(controls_->sign_ms);
    std::this_thread::sleep_for(time);  // NOLINT(sally-sleep): a chip that takes this long
    if (controls_->gone)
      return fail(Errc::kTokenMissing, "the token was pulled out", Source::kLocal, true);
    PkeyCtxPtr ctx(EVP_PKEY_CTX_new(key_->native(), nullptr));
    Bytes out(128);
    std::size_t n = out.size();
    if (!ctx || EVP_PKEY_sign_init(ctx.get()) != 1 ||
        EVP_PKEY_sign(ctx.get(), out.data(), &n, digest.data(), digest.size()) != 1)
      return fail(Errc::kKeyOperation, ossl_error());
    out.resize(n);
    ++controls_->signatures;
    return out;
  }
  [[nodiscard]] const PublicKey& public_key() const override { return key_->public_key(); }

 private:
  FileKeyPtr key_;
  std::shared_ptr<Controls> controls_;
};

struct TokenKey {
  std::shared_ptr<TestToken::Controls> controls = std::make_shared<TestToken::Controls>();
  SignerPtr key;
  /// The leaf's key, in a token from now on.
  explicit TokenKey(FileKeyPtr of)
      : key(must(HardwareKey::create(std::make_unique<TestToken>(std::move(of), controls),
                                     "pkcs11:token=test;object=test"))) {}
};

}  // namespace sally::crypto
