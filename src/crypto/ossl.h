// SPDX-License-Identifier: Apache-2.0
#pragma once

// For .cc files of crypto/ and tls/ only: owners of OpenSSL objects.
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "base/bytes.h"

namespace sally::crypto {

template <auto Free>
struct OsslFree {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};
template <typename T, auto Free>
using Ossl = std::unique_ptr<T, OsslFree<Free>>;

using BioPtr = Ossl<BIO, BIO_free_all>;
using PkeyPtr = Ossl<EVP_PKEY, EVP_PKEY_free>;
using PkeyCtxPtr = Ossl<EVP_PKEY_CTX, EVP_PKEY_CTX_free>;
using MdCtxPtr = Ossl<EVP_MD_CTX, EVP_MD_CTX_free>;
using X509Ptr = Ossl<X509, X509_free>;
using X509ReqPtr = Ossl<X509_REQ, X509_REQ_free>;
using X509NamePtr = Ossl<X509_NAME, X509_NAME_free>;

struct OsslBytesFree {
  void operator()(unsigned char* p) const { OPENSSL_free(p); }
};
/// Bytes that the library allocated.
using OsslBytes = std::unique_ptr<unsigned char, OsslBytesFree>;

/// First text of this thread's error queue; empties the queue. For logs of our own failures.
inline std::string ossl_error() {
  const unsigned long e = ERR_get_error();
  ERR_clear_error();
  char text[160] = "";
  if (e != 0) ERR_error_string_n(e, text, sizeof text);
  return text;
}

/// Serialises with an i2d function.
template <typename T, typename F>
Bytes to_der(F i2d, const T* object) {
  unsigned char* raw = nullptr;
  const int n = i2d(object, &raw);
  if (n <= 0) {
    ERR_clear_error();
    return {};
  }
  const OsslBytes owned(raw);
  return {raw, raw + n};
}

}  // namespace sally::crypto
