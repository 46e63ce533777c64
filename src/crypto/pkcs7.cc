// SPDX-License-Identifier: Apache-2.0
#include "crypto/pkcs7.h"

#include <openssl/pkcs7.h>

#include "crypto/ossl.h"

namespace sally::crypto {

Result<std::vector<Certificate>> from_pkcs7(ByteView der, std::size_t max) {
  if (der.size() > 64 * 1024) return fail(Errc::kTooLarge, "PKCS#7 past 64 KiB");
  const unsigned char* at = der.data();
  const Ossl<PKCS7, PKCS7_free> p7(d2i_PKCS7(nullptr, &at, static_cast<long>(der.size())));
  ERR_clear_error();
  if (!p7 || at != der.data() + der.size() || !PKCS7_type_is_signed(p7.get()) ||
      p7->d.sign == nullptr)
    return fail(Errc::kMalformed, "not a certificates-only PKCS#7");
  std::vector<Certificate> out;
  const STACK_OF(X509)* list = p7->d.sign->cert;
  const int n = list == nullptr ? 0 : sk_X509_num(list);
  if (static_cast<std::size_t>(n) > max) return fail(Errc::kTooLarge, "too many certificates");
  for (int i = 0; i < n; ++i) {
    TRY_ASSIGN(auto next, Certificate::from_native(sk_X509_value(list, i)));
    out.push_back(std::move(next));
  }
  return out;
}

}  // namespace sally::crypto
