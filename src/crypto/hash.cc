// SPDX-License-Identifier: Apache-2.0
#include "crypto/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstdlib>

namespace sally::crypto {
namespace {

// A digest of memory can fail only for want of memory or of the provider: nothing sensible goes on
// without it.
void check(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

Sha256 sha256(ByteView data) {
  Sha256 out;
  check(EVP_Digest(data.data(), data.size(), out.data(), nullptr, EVP_sha256(), nullptr) == 1);
  return out;
}

Sha256 sha256(ByteView first, ByteView second) {
  Sha256 out;
  EVP_MD_CTX* ctx = EVP_MD_CTX_new();
  check(ctx != nullptr && EVP_DigestInit_ex(ctx, EVP_sha256(), nullptr) == 1 &&
        EVP_DigestUpdate(ctx, first.data(), first.size()) == 1 &&
        EVP_DigestUpdate(ctx, second.data(), second.size()) == 1 &&
        EVP_DigestFinal_ex(ctx, out.data(), nullptr) == 1);
  EVP_MD_CTX_free(ctx);
  return out;
}

Sha1 sha1(ByteView data) {
  Sha1 out;
  check(EVP_Digest(data.data(), data.size(), out.data(), nullptr, EVP_sha1(), nullptr) == 1);
  return out;
}

Sha256 hmac_sha256(ByteView key, ByteView data) {
  Sha256 out;
  unsigned int n = 0;
  check(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data.data(), data.size(),
             out.data(), &n) != nullptr &&
        n == out.size());
  return out;
}

}  // namespace sally::crypto
