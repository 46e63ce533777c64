// SPDX-License-Identifier: Apache-2.0
#include "crypto/issue.h"

#include <arpa/inet.h>

#include <array>

#include "crypto/elsewhere.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

using SanStack = Ossl<GENERAL_NAMES, GENERAL_NAMES_free>;

bool add_name_entry(X509_NAME* name, int nid, const std::string& text) {
  if (text.empty()) return true;
  return X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, as_bytes(text).data(),
                                    static_cast<int>(text.size()), -1, 0) == 1;
}

bool set_time(ASN1_TIME* t, std::int64_t s) {
  return ASN1_TIME_set(t, static_cast<time_t>(s)) != nullptr;
}

bool add_ia5(GENERAL_NAMES* list, int type, const std::string& text) {
  for (const char c : text)
    if (c <= ' ' || c > '~') return false;
  if (text.empty()) return false;
  Ossl<GENERAL_NAME, GENERAL_NAME_free> g(GENERAL_NAME_new());
  ASN1_IA5STRING* s = ASN1_IA5STRING_new();
  if (!g || s == nullptr || ASN1_STRING_set(s, text.data(), static_cast<int>(text.size())) != 1) {
    ASN1_IA5STRING_free(s);
    return false;
  }
  GENERAL_NAME_set0_value(g.get(), type, s);
  if (sk_GENERAL_NAME_push(list, g.get()) <= 0) return false;
  (void)g.release();
  return true;
}

bool add_ip(GENERAL_NAMES* list, const std::string& text) {
  std::array<std::uint8_t, 16> raw{};
  int n = 0;
  if (inet_pton(AF_INET, text.c_str(), raw.data()) == 1)
    n = 4;
  else if (inet_pton(AF_INET6, text.c_str(), raw.data()) == 1)
    n = 16;
  if (n == 0) return false;
  Ossl<GENERAL_NAME, GENERAL_NAME_free> g(GENERAL_NAME_new());
  ASN1_OCTET_STRING* s = ASN1_OCTET_STRING_new();
  if (!g || s == nullptr || ASN1_OCTET_STRING_set(s, raw.data(), n) != 1) {
    ASN1_OCTET_STRING_free(s);
    return false;
  }
  GENERAL_NAME_set0_value(g.get(), GEN_IPADD, s);
  if (sk_GENERAL_NAME_push(list, g.get()) <= 0) return false;
  (void)g.release();
  return true;
}

bool add_ext(X509* x, int nid, void* value, bool critical) {
  return X509_add1_ext_i2d(x, nid, value, critical ? 1 : 0, X509V3_ADD_DEFAULT) == 1;
}

bool add_session_parent(X509* x, const std::string& serial_hex) {
  const auto serial = from_hex(serial_hex);
  if (!serial || serial->empty() || serial->size() > 32) return false;
  Bytes der{V_ASN1_OCTET_STRING, static_cast<std::uint8_t>(serial->size())};
  append(der, *serial);
  const Ossl<ASN1_OBJECT, ASN1_OBJECT_free> oid(OBJ_txt2obj(kSessionParentOid, 1));
  const Ossl<ASN1_OCTET_STRING, ASN1_OCTET_STRING_free> value(ASN1_OCTET_STRING_new());
  if (!oid || !value ||
      ASN1_OCTET_STRING_set(value.get(), der.data(), static_cast<int>(der.size())) != 1)
    return false;
  const Ossl<X509_EXTENSION, X509_EXTENSION_free> extension(
      X509_EXTENSION_create_by_OBJ(nullptr, oid.get(), 0, value.get()));
  return extension && X509_add_ext(x, extension.get(), -1) == 1;
}

bool add_extensions(X509* x, const CertSpec& spec, const PublicKey& subject,
                    const Certificate* issuer) {
  Ossl<BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free> bc(BASIC_CONSTRAINTS_new());
  if (!bc) return false;
  bc->ca = spec.ca ? 0xff : 0;
  if (spec.ca && spec.path_length) {
    bc->pathlen = ASN1_INTEGER_new();
    if (bc->pathlen == nullptr || ASN1_INTEGER_set(bc->pathlen, *spec.path_length) != 1)
      return false;
  }
  if (!add_ext(x, NID_basic_constraints, bc.get(), true)) return false;

  Ossl<ASN1_BIT_STRING, ASN1_BIT_STRING_free> ku(ASN1_BIT_STRING_new());
  if (!ku) return false;
  const bool set = spec.ca ? ASN1_BIT_STRING_set_bit(ku.get(), 5, 1) == 1 &&
                                 ASN1_BIT_STRING_set_bit(ku.get(), 6, 1) == 1
                           : ASN1_BIT_STRING_set_bit(ku.get(), 0, 1) == 1;
  if (!set || !add_ext(x, NID_key_usage, ku.get(), true)) return false;

  if (spec.eku != 0) {
    Ossl<EXTENDED_KEY_USAGE, EXTENDED_KEY_USAGE_free> eku(sk_ASN1_OBJECT_new_null());
    static constexpr std::array<std::pair<std::uint32_t, const char*>, 4> kOids{
        {{kEkuServerAuth, "1.3.6.1.5.5.7.3.1"},
         {kEkuClientAuth, "1.3.6.1.5.5.7.3.2"},
         {kEkuOcspSigning, "1.3.6.1.5.5.7.3.9"},
         {kEkuSigner, kSignerEkuOid}}};
    for (const auto& [bit, oid] : kOids) {
      if ((spec.eku & bit) == 0) continue;
      ASN1_OBJECT* o = OBJ_txt2obj(oid, 1);
      if (o == nullptr || sk_ASN1_OBJECT_push(eku.get(), o) <= 0) {
        ASN1_OBJECT_free(o);
        return false;
      }
    }
    if (!add_ext(x, NID_ext_key_usage, eku.get(), false)) return false;
  }

  if (spec.ocsp_no_check) {
    const Ossl<ASN1_NULL, ASN1_NULL_free> nothing(ASN1_NULL_new());
    if (!nothing || !add_ext(x, NID_id_pkix_OCSP_noCheck, nothing.get(), false)) return false;
  }

  if (!spec.session_parent.empty() && !add_session_parent(x, spec.session_parent)) return false;

  if (!spec.uris.empty() || !spec.dns.empty() || !spec.ips.empty()) {
    SanStack san(sk_GENERAL_NAME_new_null());
    if (!san) return false;
    for (const auto& u : spec.uris)
      if (!add_ia5(san.get(), GEN_URI, u)) return false;
    for (const auto& d : spec.dns)
      if (!add_ia5(san.get(), GEN_DNS, d)) return false;
    for (const auto& i : spec.ips)
      if (!add_ip(san.get(), i)) return false;
    if (!add_ext(x, NID_subject_alt_name, san.get(), false)) return false;
  }

  // RFC 7093 method 1: leftmost 160 bits of SHA-256 of the public key bits.
  const auto key_identifier = [](const PublicKey& k) {
    X509_PUBKEY* p = nullptr;
    std::array<unsigned char, 32> h{};
    unsigned int n = 0;
    const unsigned char* bits = nullptr;
    int len = 0;
    if (X509_PUBKEY_set(&p, k.native()) == 1 &&
        X509_PUBKEY_get0_param(nullptr, &bits, &len, nullptr, p) == 1)
      EVP_Digest(bits, static_cast<std::size_t>(len), h.data(), &n, EVP_sha256(), nullptr);
    X509_PUBKEY_free(p);
    return Bytes(h.begin(), h.begin() + 20);
  };
  Ossl<ASN1_OCTET_STRING, ASN1_OCTET_STRING_free> ski(ASN1_OCTET_STRING_new());
  const Bytes own = key_identifier(subject);
  if (!ski || ASN1_OCTET_STRING_set(ski.get(), own.data(), static_cast<int>(own.size())) != 1 ||
      !add_ext(x, NID_subject_key_identifier, ski.get(), false))
    return false;
  Ossl<AUTHORITY_KEYID, AUTHORITY_KEYID_free> aki(AUTHORITY_KEYID_new());
  if (!aki) return false;
  const ASN1_OCTET_STRING* theirs =
      issuer != nullptr ? X509_get0_subject_key_id(issuer->native()) : ski.get();
  if (theirs == nullptr) return false;
  ASN1_OCTET_STRING_free(aki->keyid);
  aki->keyid = ASN1_OCTET_STRING_dup(theirs);
  return aki->keyid != nullptr && add_ext(x, NID_authority_key_identifier, aki.get(), false);
}

}  // namespace

Result<Certificate> sign_certificate(const CertSpec& spec, const PublicKey& subject,
                                     const Certificate* issuer, const Signer& issuer_key,
                                     Random& random) {
  if (spec.common_name.empty() || spec.common_name.size() > 64 || spec.organization.size() > 64)
    return fail(Errc::kBadSpec, "names are 1 to 64 bytes", Source::kInternal);
  if (spec.not_after_s <= spec.not_before_s)
    return fail(Errc::kBadSpec, "validity is empty", Source::kInternal);
  if (issuer == nullptr) {
    if (!spec.ca || !(subject == issuer_key.public_key()))
      return fail(Errc::kBadSpec, "only a CA signs itself", Source::kInternal);
  } else {
    if (!issuer->is_ca()) return fail(Errc::kNotCa, "issuer is no CA", Source::kInternal);
    if (!(issuer->public_key() == issuer_key.public_key()))
      return fail(Errc::kKeyMismatch, "issuing certificate and key", Source::kInternal);
    if (spec.not_after_s > issuer->not_after())
      return fail(Errc::kOutlivesIssuer, "certificate would outlive its issuer", Source::kInternal);
  }
  std::array<std::uint8_t, 16> serial{};
  random.fill(serial);
  serial[0] = static_cast<std::uint8_t>((serial[0] & 0x3f) | 0x40);

  const EVP_MD* md = issuer_key.public_key().type() == KeyType::kEd25519 ? nullptr
                     : issuer_key.public_key().type() == KeyType::kP384  ? EVP_sha384()
                                                                         : EVP_sha256();
  X509Ptr x(X509_new());
  X509NamePtr name(X509_NAME_new());
  Ossl<BIGNUM, BN_free> bn(BN_bin2bn(serial.data(), static_cast<int>(serial.size()), nullptr));
  Ossl<ASN1_INTEGER, ASN1_INTEGER_free> number(bn ? BN_to_ASN1_INTEGER(bn.get(), nullptr)
                                                  : nullptr);
  if (!x || !name || !number ||
      !add_name_entry(name.get(), NID_organizationName, spec.organization) ||
      !add_name_entry(name.get(), NID_commonName, spec.common_name))
    return fail(Errc::kBadSpec, "names: " + ossl_error(), Source::kInternal);
  const X509_NAME* issuer_name =
      issuer != nullptr ? X509_get_subject_name(issuer->native()) : name.get();
  if (X509_set_version(x.get(), X509_VERSION_3) != 1 ||
      X509_set_serialNumber(x.get(), number.get()) != 1 ||
      X509_set_subject_name(x.get(), name.get()) != 1 ||
      X509_set_issuer_name(x.get(), issuer_name) != 1 ||
      !set_time(X509_getm_notBefore(x.get()), spec.not_before_s) ||
      !set_time(X509_getm_notAfter(x.get()), spec.not_after_s) ||
      X509_set_pubkey(x.get(), subject.native()) != 1 ||
      !add_extensions(x.get(), spec, subject, issuer))
    return fail(Errc::kBadSpec, "certificate fields: " + ossl_error(), Source::kInternal);
  TRY(signing("certificate", [&] { return X509_sign(x.get(), issuer_key.native(), md) > 0; }));
  // Parsed again from its encoding, so that what we return is what everybody else will read.
  return Certificate::from_der(to_der(i2d_X509, x.get()));
}

}  // namespace sally::crypto
