// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests of every folder above crypto/: revocation lists and status requests as a stock client
// makes and reads them, with the library's own functions.
#include <openssl/ocsp.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "crypto/certificate.h"
#include "crypto/ossl.h"

namespace sally::crypto {

using CertAndIssuer = std::pair<Certificate, Certificate>;

inline Bytes ocsp_request(const std::vector<CertAndIssuer>& asked,
                          const EVP_MD* digest = EVP_sha1()) {
  const Ossl<OCSP_REQUEST, OCSP_REQUEST_free> r(OCSP_REQUEST_new());
  for (const auto& [leaf, issuer] : asked)
    OCSP_request_add0_id(r.get(), OCSP_cert_to_id(digest, leaf.native(), issuer.native()));
  OCSP_request_add1_nonce(r.get(), nullptr, 16);
  return to_der(i2d_OCSP_REQUEST, r.get());
}

/// What an answer to ocsp_request says of one certificate: "good", "revoked 1", "unknown", "failure
/// 6"; or why it is not believed by who knows the root alone.
inline std::string ocsp_says(ByteView answer, ByteView request, const CertAndIssuer& asked,
                             const Certificate& root, std::int64_t now_s,
                             const EVP_MD* digest = EVP_sha1()) {
  const unsigned char* at = answer.data();
  const Ossl<OCSP_RESPONSE, OCSP_RESPONSE_free> response(
      d2i_OCSP_RESPONSE(nullptr, &at, static_cast<long>(answer.size())));
  if (!response) return "no answer";
  if (OCSP_response_status(response.get()) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
    return "failure " + std::to_string(OCSP_response_status(response.get()));
  const Ossl<OCSP_BASICRESP, OCSP_BASICRESP_free> basic(OCSP_response_get1_basic(response.get()));
  at = request.data();
  const Ossl<OCSP_REQUEST, OCSP_REQUEST_free> sent(
      d2i_OCSP_REQUEST(nullptr, &at, static_cast<long>(request.size())));
  if (OCSP_check_nonce(sent.get(), basic.get()) != 1) return "another nonce";
  const Ossl<X509_STORE, X509_STORE_free> store(X509_STORE_new());
  X509_STORE_add_cert(store.get(), root.native());
  X509_VERIFY_PARAM_set_time(X509_STORE_get0_param(store.get()), static_cast<time_t>(now_s));
  const Ossl<STACK_OF(X509), [](STACK_OF(X509) * s) { sk_X509_free(s); }> chain(sk_X509_new_null());
  sk_X509_push(chain.get(), asked.second.native());
  if (OCSP_basic_verify(basic.get(), chain.get(), store.get(), 0) != 1)
    return "not believed: " + ossl_error();
  const Ossl<OCSP_CERTID, OCSP_CERTID_free> id(
      OCSP_cert_to_id(digest, asked.first.native(), asked.second.native()));
  int status = -1;
  int reason = -1;
  if (OCSP_resp_find_status(basic.get(), id.get(), &status, &reason, nullptr, nullptr, nullptr) !=
      1)
    return "nothing of it";
  return status == V_OCSP_CERTSTATUS_GOOD      ? "good"
         : status == V_OCSP_CERTSTATUS_REVOKED ? "revoked " + std::to_string(reason)
                                               : "unknown";
}

struct CrlRows {
  std::map<std::string, int> reasons;  ///< by serial; -1 = not said
  std::int64_t number = 0;
  bool believed = false;  ///< signed by `issuer`
};
inline CrlRows crl_rows(ByteView der, const Certificate& issuer) {
  CrlRows out;
  const unsigned char* at = der.data();
  const Ossl<X509_CRL, X509_CRL_free> crl(
      d2i_X509_CRL(nullptr, &at, static_cast<long>(der.size())));
  if (!crl) return out;
  out.believed = X509_CRL_verify(crl.get(), X509_get0_pubkey(issuer.native())) == 1;
  const Ossl<ASN1_INTEGER, ASN1_INTEGER_free> number(static_cast<ASN1_INTEGER*>(
      X509_CRL_get_ext_d2i(crl.get(), NID_crl_number, nullptr, nullptr)));
  out.number = number ? ASN1_INTEGER_get(number.get()) : -1;
  STACK_OF(X509_REVOKED)* rows = X509_CRL_get_REVOKED(crl.get());
  for (int i = 0; i < sk_X509_REVOKED_num(rows); ++i) {
    const X509_REVOKED* row = sk_X509_REVOKED_value(rows, i);
    const Ossl<BIGNUM, BN_free> bn(
        ASN1_INTEGER_to_BN(X509_REVOKED_get0_serialNumber(row), nullptr));
    Bytes raw(static_cast<std::size_t>(BN_num_bytes(bn.get())));
    BN_bn2bin(bn.get(), raw.data());
    const Ossl<ASN1_ENUMERATED, ASN1_ENUMERATED_free> reason(static_cast<ASN1_ENUMERATED*>(
        X509_REVOKED_get_ext_d2i(row, NID_crl_reason, nullptr, nullptr)));
    out.reasons[to_hex(raw)] = reason ? static_cast<int>(ASN1_ENUMERATED_get(reason.get())) : -1;
  }
  return out;
}

}  // namespace sally::crypto
