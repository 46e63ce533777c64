// SPDX-License-Identifier: Apache-2.0
// key-scan CERTIFICATE.pem FILE...: looks in files (a disk, a memory, a capture) for the private
// key of a certificate on P-256: every window of 32 bytes at every fourth byte, and at every eighth
// in the other byte order (a big number's), that is the logarithm of the public point. Prints what
// it looked at; exit 0: not there, 1: there.
#include <openssl/ec.h>

#include <array>
#include <cstdio>
#include <cstring>

#include "base/fs.h"
#include "crypto/certificate.h"
#include "crypto/ossl.h"

using namespace sally;

namespace {

constexpr std::size_t kSize = 32;
constexpr std::size_t kMostFile = std::size_t{1} << 31U;
// A random key has fewer different bytes once in 100,000 keys; text and pointers nearly always.
constexpr int kLeastDifferent = 22;

bool may_be_key(const std::uint8_t* window) {
  std::array<bool, 256> seen{};
  int different = 0;
  for (std::size_t i = 0; i < kSize; ++i) {
    different += seen[window[i]] ? 0 : 1;
    seen[window[i]] = true;
  }
  return different >= kLeastDifferent;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: key-scan CERTIFICATE.pem FILE...\n", stderr);
    return 2;
  }
  const auto text = fs::read_text(argv[1]);
  const auto chain =
      text ? crypto::Certificate::list_from_pem(*text) : Result<std::vector<crypto::Certificate>>();
  if (!chain || chain->empty()) {
    std::fputs("key-scan: no certificate\n", stderr);
    return 2;
  }
  crypto::Ossl<EC_GROUP, EC_GROUP_free> group(EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1));
  crypto::Ossl<EC_POINT, EC_POINT_free> wanted(EC_POINT_new(group.get()));
  crypto::Ossl<EC_POINT, EC_POINT_free> point(EC_POINT_new(group.get()));
  crypto::Ossl<BN_CTX, BN_CTX_free> ctx(BN_CTX_new());
  crypto::Ossl<BIGNUM, BN_free> d(BN_new());
  std::array<std::uint8_t, 65> encoded{};
  std::size_t n = 0;
  if (EVP_PKEY_get_octet_string_param(chain->front().public_key().native(), "pub", encoded.data(),
                                      encoded.size(), &n) != 1 ||
      EC_POINT_oct2point(group.get(), wanted.get(), encoded.data(), n, ctx.get()) != 1) {
    std::fputs("key-scan: not a key on P-256\n", stderr);
    return 2;
  }
  std::size_t windows = 0;
  std::size_t tried = 0;
  int found = 0;
  for (int i = 2; i < argc; ++i) {
    const auto data = fs::read_file(argv[i], kMostFile);
    if (!data) {
      std::fprintf(stderr, "key-scan: %s\n", data.error().text().c_str());
      return 2;
    }
    for (std::size_t at = 0; at + kSize <= data->size(); at += 4) {
      ++windows;
      const std::uint8_t* window = data->data() + at;
      if (!may_be_key(window)) continue;
      ++tried;
      for (const bool big : {true, false}) {
        if (!big && at % 8 != 0) continue;
        (big ? BN_bin2bn : BN_lebin2bn)(window, kSize, d.get());
        if (EC_POINT_mul(group.get(), point.get(), d.get(), nullptr, nullptr, ctx.get()) != 1 ||
            EC_POINT_cmp(group.get(), point.get(), wanted.get(), ctx.get()) != 0)
          continue;
        std::printf("found in %s at %zu\n", argv[i], at);
        ++found;
      }
    }
  }
  std::printf("%zu windows, %zu tried, %d found\n", windows, tried, found);
  return found == 0 ? 0 : 1;
}
