// SPDX-License-Identifier: Apache-2.0
#include "crypto/status.h"

#include <openssl/ocsp.h>

#include <algorithm>

#include "base/text.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

using CrlPtr = Ossl<X509_CRL, X509_CRL_free>;
using RevokedPtr = Ossl<X509_REVOKED, X509_REVOKED_free>;
using IntegerPtr = Ossl<ASN1_INTEGER, ASN1_INTEGER_free>;
using TimePtr = Ossl<ASN1_TIME, ASN1_TIME_free>;
using BasicPtr = Ossl<OCSP_BASICRESP, OCSP_BASICRESP_free>;
using BnPtr = Ossl<BIGNUM, BN_free>;

const EVP_MD* digest_of(const PublicKey& key) {
  return key.type() == KeyType::kEd25519 ? nullptr
         : key.type() == KeyType::kP384  ? EVP_sha384()
                                         : EVP_sha256();
}

TimePtr time_of(std::int64_t s) {
  return TimePtr(ASN1_TIME_set(nullptr, static_cast<time_t>(s)));
}

IntegerPtr integer(const BIGNUM* bn) {
  return IntegerPtr(bn != nullptr ? BN_to_ASN1_INTEGER(bn, nullptr) : nullptr);
}

bool add_revoked(X509_CRL* crl, const RevokedSerial& row) {
  BIGNUM* raw = nullptr;
  const bool read = BN_hex2bn(&raw, row.serial_hex.c_str()) > 0;
  const BnPtr bn(raw);
  const auto serial = integer(read ? bn.get() : nullptr);
  const auto at = time_of(row.at_s);
  RevokedPtr revoked(X509_REVOKED_new());
  if (!serial || !at || !revoked ||
      X509_REVOKED_set_serialNumber(revoked.get(), serial.get()) != 1 ||
      X509_REVOKED_set_revocationDate(revoked.get(), at.get()) != 1)
    return false;
  if (row.reason != 0) {
    const Ossl<ASN1_ENUMERATED, ASN1_ENUMERATED_free> reason(ASN1_ENUMERATED_new());
    if (!reason || ASN1_ENUMERATED_set(reason.get(), row.reason) != 1 ||
        X509_REVOKED_add1_ext_i2d(revoked.get(), NID_crl_reason, reason.get(), 0,
                                  X509V3_ADD_DEFAULT) != 1)
      return false;
  }
  if (X509_CRL_add0_revoked(crl, revoked.get()) != 1) return false;
  (void)revoked.release();
  return true;
}

bool add_extensions(X509_CRL* crl, const CrlSpec& spec, const Certificate& issuer) {
  const ASN1_OCTET_STRING* theirs = X509_get0_subject_key_id(issuer.native());
  const Ossl<AUTHORITY_KEYID, AUTHORITY_KEYID_free> aki(AUTHORITY_KEYID_new());
  const IntegerPtr number(ASN1_INTEGER_new());
  if (theirs == nullptr || !aki || !number ||
      ASN1_INTEGER_set_uint64(number.get(), spec.number) != 1)
    return false;
  ASN1_OCTET_STRING_free(aki->keyid);
  aki->keyid = ASN1_OCTET_STRING_dup(theirs);
  return aki->keyid != nullptr &&
         X509_CRL_add1_ext_i2d(crl, NID_authority_key_identifier, aki.get(), 0,
                               X509V3_ADD_DEFAULT) == 1 &&
         X509_CRL_add1_ext_i2d(crl, NID_crl_number, number.get(), 0, X509V3_ADD_DEFAULT) == 1;
}

}  // namespace

Result<Bytes> sign_crl(const CrlSpec& spec, const Certificate& issuer, const Signer& key) {
  if (!(issuer.public_key() == key.public_key()))
    return fail(Errc::kKeyMismatch, "issuing certificate and key", Source::kInternal);
  const CrlPtr crl(X509_CRL_new());
  const auto from = time_of(spec.this_s);
  const auto next = time_of(spec.next_s);
  if (!crl || !from || !next || X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) != 1 ||
      X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(issuer.native())) != 1 ||
      X509_CRL_set1_lastUpdate(crl.get(), from.get()) != 1 ||
      X509_CRL_set1_nextUpdate(crl.get(), next.get()) != 1 ||
      !add_extensions(crl.get(), spec, issuer) ||
      !std::ranges::all_of(spec.revoked,
                           [&](const auto& row) { return add_revoked(crl.get(), row); }))
    return fail(Errc::kBadSpec, "revocation list: " + ossl_error(), Source::kInternal);
  if (X509_CRL_sign(crl.get(), key.native(), digest_of(key.public_key())) <= 0)
    return fail(Errc::kKeyOperation, "signing: " + ossl_error(), Source::kLocal);
  return to_der(i2d_X509_CRL, crl.get());
}

// ---- status requests

struct OcspRequest::Impl {
  Ossl<OCSP_REQUEST, OCSP_REQUEST_free> request;
  std::vector<OCSP_CERTID*> ids;  // of the request
};

Result<OcspRequest> OcspRequest::parse(ByteView der) {
  if (der.size() > kMaxSize) return fail(Errc::kTooLarge, "status request");
  auto impl = std::make_shared<Impl>();
  const unsigned char* at = der.data();
  impl->request.reset(d2i_OCSP_REQUEST(nullptr, &at, static_cast<long>(der.size())));
  ERR_clear_error();
  if (!impl->request || at != der.data() + der.size())
    return fail(Errc::kMalformed, "not a status request");
  const int n = OCSP_request_onereq_count(impl->request.get());
  if (n < 1 || static_cast<std::size_t>(n) > kMaxCertificates)
    return fail(Errc::kMalformed, "asks for " + std::to_string(n) + " certificates");
  for (int i = 0; i < n; ++i) {
    OCSP_CERTID* id = OCSP_onereq_get0_id(OCSP_request_onereq_get0(impl->request.get(), i));
    if (id == nullptr) return fail(Errc::kMalformed, "no certificate");
    impl->ids.push_back(id);
  }
  return OcspRequest(std::move(impl));
}

std::size_t OcspRequest::size() const {
  return impl_->ids.size();
}

std::string OcspRequest::serial_hex(std::size_t at) const {
  ASN1_INTEGER* serial = nullptr;
  if (OCSP_id_get0_info(nullptr, nullptr, nullptr, &serial, impl_->ids[at]) != 1) return {};
  const BnPtr bn(ASN1_INTEGER_to_BN(serial, nullptr));
  if (!bn || BN_is_negative(bn.get()) != 0 || BN_is_zero(bn.get()) != 0 ||
      BN_num_bytes(bn.get()) > 20)
    return {};
  Bytes raw(static_cast<std::size_t>(BN_num_bytes(bn.get())));
  BN_bn2bin(bn.get(), raw.data());
  return to_hex(raw);
}

bool OcspRequest::is_of(std::size_t at, const Certificate& issuer) const {
  ASN1_OBJECT* digest = nullptr;
  ASN1_INTEGER* serial = nullptr;
  if (OCSP_id_get0_info(nullptr, &digest, nullptr, &serial, impl_->ids[at]) != 1) return false;
  const int nid = OBJ_obj2nid(digest);
  if (nid != NID_sha1 && nid != NID_sha256 && nid != NID_sha384 && nid != NID_sha512) return false;
  const Ossl<OCSP_CERTID, OCSP_CERTID_free> own(
      OCSP_cert_id_new(EVP_get_digestbynid(nid), X509_get_subject_name(issuer.native()),
                       X509_get0_pubkey_bitstr(issuer.native()), serial));
  ERR_clear_error();
  return own && OCSP_id_issuer_cmp(own.get(), impl_->ids[at]) == 0;
}

Result<Bytes> sign_ocsp(const OcspRequest& request, const std::vector<OcspAnswer>& answers,
                        const Certificate& responder, const Signer& key, std::int64_t now_s,
                        std::int64_t next_s) {
  if (answers.size() != request.size()) return fail(Errc::kBadSpec, "answers", Source::kInternal);
  if (!(responder.public_key() == key.public_key()))
    return fail(Errc::kKeyMismatch, "responder and key", Source::kInternal);
  const auto& ids = request.impl_->ids;
  const BasicPtr basic(OCSP_BASICRESP_new());
  const auto now = time_of(now_s);
  const auto next = time_of(next_s);
  if (!basic || !now || !next) return fail(Errc::kKeyOperation, "out of memory", Source::kLocal);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const OcspAnswer& a = answers[i];
    const bool revoked = a.status == OcspStatus::kRevoked;
    const auto at = revoked ? time_of(a.revoked_s) : TimePtr();
    const int status = revoked                         ? V_OCSP_CERTSTATUS_REVOKED
                       : a.status == OcspStatus::kGood ? V_OCSP_CERTSTATUS_GOOD
                                                       : V_OCSP_CERTSTATUS_UNKNOWN;
    const int reason = revoked && a.reason != 0 ? a.reason : OCSP_REVOKED_STATUS_NOSTATUS;
    if (OCSP_basic_add1_status(basic.get(), ids[i], status, reason, at.get(), now.get(),
                               next.get()) == nullptr)
      return fail(Errc::kKeyOperation, "answer: " + ossl_error(), Source::kLocal);
  }
  // 0: the nonce could not be copied; 1 and 2: it was, or there was none.
  if (OCSP_copy_nonce(basic.get(), request.impl_->request.get()) == 0 ||
      OCSP_basic_sign(basic.get(), responder.native(), key.native(), digest_of(key.public_key()),
                      nullptr, 0) != 1)
    return fail(Errc::kKeyOperation, "signing: " + ossl_error(), Source::kLocal);
  const Ossl<OCSP_RESPONSE, OCSP_RESPONSE_free> response(
      OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic.get()));
  if (!response) return fail(Errc::kKeyOperation, "answer: " + ossl_error(), Source::kLocal);
  return to_der(i2d_OCSP_RESPONSE, response.get());
}

Bytes ocsp_failure(OcspFailure failure) {
  // OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED }
  return {0x30, 0x03, 0x0a, 0x01, static_cast<std::uint8_t>(failure)};
}

}  // namespace sally::crypto
