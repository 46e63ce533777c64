// SPDX-License-Identifier: Apache-2.0
#include "crypto/certificate.h"

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/pkcs7.h>

#include <array>

#include "base/text.h"
#include "crypto/hash.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

constexpr std::size_t kMaxSans = 64;
constexpr std::size_t kMaxSanText = 512;

std::string first_cn(const X509_NAME* name) {
  const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  if (at < 0) return {};
  const ASN1_STRING* s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
  unsigned char* utf8 = nullptr;
  const int n = ASN1_STRING_to_UTF8(&utf8, s);
  if (n < 0) {
    ERR_clear_error();
    return {};
  }
  const OsslBytes owned(utf8);
  std::string out(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(n));
  return out.size() <= kMaxSanText && printable_utf8(out) ? out : std::string();
}

Result<std::int64_t> unix_time(const ASN1_TIME* t) {
  std::tm tm{};
  if (t == nullptr || ASN1_TIME_to_tm(t, &tm) != 1) {
    ERR_clear_error();
    return fail(Errc::kMalformed, "time");
  }
  return static_cast<std::int64_t>(timegm(&tm));
}

// Visible ASCII only: whatever else stands in a DNS or URI name cannot be one.
bool plain(std::string_view s) {
  if (s.empty() || s.size() > kMaxSanText) return false;
  for (const char c : s)
    if (c <= ' ' || c > '~') return false;
  return true;
}

std::string_view ia5(const ASN1_STRING* s) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(s)),
          static_cast<std::size_t>(ASN1_STRING_length(s))};
}

std::string ip_text(ByteView raw) {
  char text[INET6_ADDRSTRLEN] = "";
  if (raw.size() == 4) return inet_ntop(AF_INET, raw.data(), text, sizeof text) ? text : "";
  if (raw.size() == 16) return inet_ntop(AF_INET6, raw.data(), text, sizeof text) ? text : "";
  return {};
}

// Extension or nullptr; `bad` where it is there twice or does not parse.
template <typename T>
T* extension(const X509* x, int nid, bool& bad) {
  int critical = 0;
  auto* e = static_cast<T*>(X509_get_ext_d2i(x, nid, &critical, nullptr));
  if (e == nullptr && critical != -1) bad = true;
  ERR_clear_error();
  return e;
}

std::string serial_text(ByteView digits) {
  while (digits.size() > 1 && digits.front() == 0) digits = digits.subspan(1);
  return to_hex(digits);
}

// Empty: there is none.
Result<std::string> session_parent_of(const X509* x) {
  const Ossl<ASN1_OBJECT, ASN1_OBJECT_free> oid(OBJ_txt2obj(kSessionParentOid, 1));
  if (!oid) return fail(Errc::kMalformed, "session extension", Source::kInternal);
  const int at = X509_get_ext_by_OBJ(x, oid.get(), -1);
  if (at < 0) return std::string();
  const ASN1_OCTET_STRING* value = X509_EXTENSION_get_data(X509_get_ext(x, at));
  const ByteView der(ASN1_STRING_get0_data(value),
                     static_cast<std::size_t>(ASN1_STRING_length(value)));
  if (X509_get_ext_by_OBJ(x, oid.get(), at) >= 0 || der.size() < 3 || der.size() > 34 ||
      der[0] != V_ASN1_OCTET_STRING || der[1] != der.size() - 2)
    return fail(Errc::kMalformed, "session extension");
  return serial_text(der.subspan(2));
}

}  // namespace

Result<Certificate> Certificate::build(std::shared_ptr<x509_st> x509, Bytes der) {
  X509* x = x509.get();
  TRY_ASSIGN(auto key, PublicKey::from_native(X509_get0_pubkey(x)));
  auto impl = std::make_shared<Impl>(std::move(key));
  impl->x509 = std::move(x509);
  impl->der = std::move(der);
  impl->subject_cn = first_cn(X509_get_subject_name(x));
  impl->issuer_cn = first_cn(X509_get_issuer_name(x));
  impl->self_issued = X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0;
  TRY_ASSIGN(impl->not_before, unix_time(X509_get0_notBefore(x)));
  TRY_ASSIGN(impl->not_after, unix_time(X509_get0_notAfter(x)));

  const ASN1_INTEGER* serial = X509_get0_serialNumber(x);
  if (ASN1_STRING_length(serial) > 32) return fail(Errc::kMalformed, "serial number");
  impl->serial = serial_text(
      {ASN1_STRING_get0_data(serial), static_cast<std::size_t>(ASN1_STRING_length(serial))});
  TRY_ASSIGN(impl->session_parent, session_parent_of(x));

  bool bad = false;
  Ossl<BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free> bc(
      extension<BASIC_CONSTRAINTS>(x, NID_basic_constraints, bad));
  if (bc) {
    impl->ca = bc->ca != 0;
    if (bc->pathlen != nullptr) {
      const long n = ASN1_INTEGER_get(bc->pathlen);
      if (n < 0 || n > 32) return fail(Errc::kMalformed, "path length");
      impl->path_length = static_cast<int>(n);
    }
  }
  Ossl<ASN1_BIT_STRING, ASN1_BIT_STRING_free> ku(extension<ASN1_BIT_STRING>(x, NID_key_usage, bad));
  if (ku) {
    std::uint32_t bits = 0;
    for (int i = 0; i < 9; ++i) {
      if (ASN1_BIT_STRING_get_bit(ku.get(), i) != 1) continue;
      bits |= i == 0   ? kKuDigitalSignature
              : i == 2 ? kKuKeyEncipherment
              : i == 5 ? kKuKeyCertSign
              : i == 6 ? kKuCrlSign
                       : kKuOther;
    }
    impl->key_usage = bits;
  }
  Ossl<EXTENDED_KEY_USAGE, EXTENDED_KEY_USAGE_free> eku(
      extension<EXTENDED_KEY_USAGE>(x, NID_ext_key_usage, bad));
  if (eku) {
    std::uint32_t bits = 0;
    for (int i = 0; i < sk_ASN1_OBJECT_num(eku.get()); ++i) {
      const ASN1_OBJECT* o = sk_ASN1_OBJECT_value(eku.get(), i);
      char oid[80] = "";
      OBJ_obj2txt(oid, sizeof oid, o, 1);
      const int nid = OBJ_obj2nid(o);
      bits |= nid == NID_client_auth                   ? kEkuClientAuth
              : nid == NID_server_auth                 ? kEkuServerAuth
              : nid == NID_OCSP_sign                   ? kEkuOcspSigning
              : std::string_view(oid) == kSignerEkuOid ? kEkuSigner
                                                       : kEkuOther;
    }
    impl->eku = bits;
  }
  Ossl<GENERAL_NAMES, GENERAL_NAMES_free> names(
      extension<GENERAL_NAMES>(x, NID_subject_alt_name, bad));
  if (names) {
    const int n = sk_GENERAL_NAME_num(names.get());
    if (n < 0 || static_cast<std::size_t>(n) > kMaxSans)
      return fail(Errc::kTooLarge, "subject alternative names");
    for (int i = 0; i < n; ++i) {
      const GENERAL_NAME* g = sk_GENERAL_NAME_value(names.get(), i);
      if (g->type == GEN_URI || g->type == GEN_DNS) {
        const std::string_view text = ia5(g->d.ia5);
        if (!plain(text)) return fail(Errc::kMalformed, "subject alternative name");
        (g->type == GEN_URI ? impl->uris : impl->dns).emplace_back(text);
      } else if (g->type == GEN_IPADD) {
        std::string text = ip_text({ASN1_STRING_get0_data(g->d.iPAddress),
                                    static_cast<std::size_t>(ASN1_STRING_length(g->d.iPAddress))});
        if (text.empty()) return fail(Errc::kMalformed, "IP alternative name");
        impl->ips.push_back(std::move(text));
      }
    }
  }
  if (bad) return fail(Errc::kMalformed, "extension");
  ERR_clear_error();
  return Certificate(std::move(impl));
}

Result<Certificate> Certificate::from_der(ByteView der) {
  if (der.size() > kMaxCertificateDer) return fail(Errc::kTooLarge, "certificate");
  ERR_clear_error();
  const unsigned char* p = der.data();
  X509* x = der.empty() ? nullptr : d2i_X509(nullptr, &p, static_cast<long>(der.size()));
  ERR_clear_error();
  std::shared_ptr<X509> owned(x, X509_free);
  if (x == nullptr || p != der.data() + der.size())
    return fail(Errc::kMalformed, "not a DER certificate");
  return build(std::move(owned), to_bytes(der));
}

Result<Certificate> Certificate::from_native(x509_st* cert) {
  if (cert == nullptr) return fail(Errc::kMalformed, "no certificate");
  Bytes der = to_der(i2d_X509, cert);
  if (der.empty()) return fail(Errc::kMalformed, "certificate does not encode");
  if (der.size() > kMaxCertificateDer) return fail(Errc::kTooLarge, "certificate");
  X509_up_ref(cert);
  return build(std::shared_ptr<X509>(cert, X509_free), std::move(der));
}

Result<std::vector<Certificate>> Certificate::list_from_pem(std::string_view text,
                                                            std::size_t max) {
  static constexpr std::string_view kBegin = "-----BEGIN CERTIFICATE-----";
  static constexpr std::string_view kEnd = "-----END CERTIFICATE-----";
  std::vector<Certificate> out;
  for (std::size_t at = 0; (at = text.find(kBegin, at)) != std::string_view::npos;) {
    at += kBegin.size();
    const std::size_t end = text.find(kEnd, at);
    if (end == std::string_view::npos) return fail(Errc::kMalformed, "PEM block has no end");
    if (out.size() == max) return fail(Errc::kTooLarge, "too many certificates");
    if (end - at > kMaxCertificateDer * 3 / 2) return fail(Errc::kTooLarge, "certificate");
    const auto der = from_base64(text.substr(at, end - at));
    if (!der) return fail(Errc::kMalformed, "PEM block is not base64");
    TRY_ASSIGN(auto cert, from_der(*der));
    out.push_back(std::move(cert));
    at = end + kEnd.size();
  }
  if (out.empty()) return fail(Errc::kMalformed, "no PEM certificate");
  return out;
}

Result<Certificate> Certificate::from_pem(std::string_view text) {
  TRY_ASSIGN(auto list, list_from_pem(text, 1));
  return std::move(list.front());
}

namespace {
std::string pem_block(std::string_view label, ByteView der) {
  const std::string b64 = to_base64(der);
  std::string out = "-----BEGIN " + std::string(label) + "-----\n";
  for (std::size_t i = 0; i < b64.size(); i += 64) {
    out += b64.substr(i, 64);
    out += '\n';
  }
  return out + "-----END " + std::string(label) + "-----\n";
}
}  // namespace

std::string Certificate::pem() const {
  return pem_block("CERTIFICATE", impl_->der);
}
std::string Certificate::sha256_hex() const {
  return to_hex(sha256(impl_->der));
}
std::string Certificate::sha1_hex() const {
  return to_hex(sha1(impl_->der));
}

bool Certificate::matches_host(std::string_view host) const {
  std::array<std::uint8_t, 16> scratch{};
  const std::string name(host);
  if (name.empty() || name.find('\0') != std::string::npos) return false;
  const bool ip = inet_pton(AF_INET, name.c_str(), scratch.data()) == 1 ||
                  inet_pton(AF_INET6, name.c_str(), scratch.data()) == 1;
  const int r =
      ip ? X509_check_ip_asc(native(), name.c_str(), 0)
         : X509_check_host(
               native(), name.data(), name.size(),
               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, nullptr);
  ERR_clear_error();
  return r == 1;
}

std::string to_pem(const std::vector<Certificate>& list) {
  std::string out;
  for (const auto& c : list) out += c.pem();
  return out;
}

Bytes to_pkcs7(const std::vector<Certificate>& list) {
  // Written by hand: a SET OF in DER would be sorted by the encoder, and clients compare the text
  // they store.
  const auto tlv = [](std::uint8_t tag, const Bytes& body) {
    Bytes out{tag};
    if (body.size() < 128) {
      out.push_back(static_cast<std::uint8_t>(body.size()));
    } else {
      Bytes len;
      for (std::size_t n = body.size(); n != 0; n >>= 8)
        len.insert(len.begin(), static_cast<std::uint8_t>(n));
      out.push_back(static_cast<std::uint8_t>(0x80 | len.size()));
      append(out, len);
    }
    append(out, body);
    return out;
  };
  const Bytes oid_data{0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1};
  const Bytes oid_signed{0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2};
  Bytes certs;
  for (const auto& c : list) append(certs, c.der());
  Bytes body{0x02, 1, 1};             // version 1
  append(body, Bytes{0x31, 0});       // digestAlgorithms
  append(body, tlv(0x30, oid_data));  // encapsulated data without octets
  append(body, tlv(0xa0, certs));
  append(body, Bytes{0x31, 0});  // signerInfos
  Bytes content = oid_signed;
  append(content, tlv(0xa0, tlv(0x30, body)));
  return tlv(0x30, content);
}

}  // namespace sally::crypto
