// SPDX-License-Identifier: Apache-2.0
#include "crypto/csr.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/text.h"
#include "crypto/elsewhere.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

using ExtStack = Ossl<STACK_OF(X509_EXTENSION), [](STACK_OF(X509_EXTENSION) * s) {
  sk_X509_EXTENSION_pop_free(s, X509_EXTENSION_free);
}>;

// What a request may mark critical without being refused: it is ignored all the same.
bool known(int nid) {
  switch (nid) {
    case NID_key_usage:
    case NID_ext_key_usage:
    case NID_basic_constraints:
    case NID_subject_alt_name:
    case NID_subject_key_identifier:
    case NID_netscape_cert_type:
      return true;
    default:
      return false;
  }
}

std::string subject_cn(const X509_REQ* req) {
  const X509_NAME* name = X509_REQ_get_subject_name(req);
  const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  if (at < 0) return {};
  unsigned char* utf8 = nullptr;
  const int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
  if (n < 0) return {};
  const OsslBytes owned(utf8);
  std::string out(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(n));
  return out.size() <= 256 && printable_utf8(out) ? out : std::string();
}

Result<Bytes> unwrap(ByteView in) {
  const std::string_view text = as_text(in);
  for (const std::string_view label : {"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"}) {
    const std::string begin = "-----BEGIN " + std::string(label) + "-----";
    const std::string end = "-----END " + std::string(label) + "-----";
    const std::size_t b = text.find(begin);
    if (b == std::string_view::npos) continue;
    const std::size_t from = b + begin.size();
    const std::size_t e = text.find(end, from);
    if (e == std::string_view::npos) return fail(Errc::kMalformed, "PEM block has no end");
    auto der = from_base64(text.substr(from, e - from));
    if (!der) return fail(Errc::kMalformed, "PEM block is not base64");
    return std::move(*der);
  }
  return to_bytes(in);
}

}  // namespace

Result<Csr> parse_csr(ByteView in) {
  if (in.size() > kMaxCsr) return fail(Errc::kTooLarge, "certificate request");
  TRY_ASSIGN(const Bytes der, unwrap(in));
  ERR_clear_error();
  const unsigned char* p = der.data();
  X509ReqPtr req(der.empty() ? nullptr : d2i_X509_REQ(nullptr, &p, static_cast<long>(der.size())));
  ERR_clear_error();
  if (!req || p != der.data() + der.size())
    return fail(Errc::kMalformed, "not a certificate request");
  TRY_ASSIGN(auto key, PublicKey::from_native(X509_REQ_get0_pubkey(req.get())));
  // Proof of possession. The signature algorithm inside may be any the library knows: it covers
  // only this request.
  const bool proven = X509_REQ_verify(req.get(), key.native()) == 1;
  ERR_clear_error();
  if (!proven) return fail(Errc::kBadSignature, "the request is not signed by its own key");
  ExtStack exts(X509_REQ_get_extensions(req.get()));
  ERR_clear_error();
  for (int i = 0; exts && i < sk_X509_EXTENSION_num(exts.get()); ++i) {
    X509_EXTENSION* e = sk_X509_EXTENSION_value(exts.get(), i);
    if (X509_EXTENSION_get_critical(e) != 0 && !known(OBJ_obj2nid(X509_EXTENSION_get_object(e))))
      return fail(Errc::kUnknownCritical, "critical extension in the request");
  }
  Csr out{std::move(key), subject_cn(req.get())};
  for (int i = 0; exts && i < sk_X509_EXTENSION_num(exts.get()); ++i) {
    X509_EXTENSION* e = sk_X509_EXTENSION_value(exts.get(), i);
    const int nid = OBJ_obj2nid(X509_EXTENSION_get_object(e));
    out.asks_names = out.asks_names || nid == NID_subject_alt_name;
    if (nid != NID_basic_constraints) continue;
    const Ossl<BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free> bc(
        static_cast<BASIC_CONSTRAINTS*>(X509V3_EXT_d2i(e)));
    out.asks_ca = out.asks_ca || !bc || bc->ca != 0;
  }
  ERR_clear_error();
  return out;
}

Result<std::string> make_csr(const Signer& signer, std::string_view common_name) {
  X509ReqPtr req(X509_REQ_new());
  X509NamePtr name(X509_NAME_new());
  const EVP_MD* md = signer.public_key().type() == KeyType::kEd25519 ? nullptr
                     : signer.public_key().type() == KeyType::kP384  ? EVP_sha384()
                                                                     : EVP_sha256();
  BioPtr bio(BIO_new(BIO_s_mem()));
  if (!req || !name || !bio ||
      X509_NAME_add_entry_by_NID(name.get(), NID_commonName, MBSTRING_UTF8,
                                 as_bytes(common_name).data(), static_cast<int>(common_name.size()),
                                 -1, 0) != 1 ||
      X509_REQ_set_version(req.get(), X509_REQ_VERSION_1) != 1 ||
      X509_REQ_set_subject_name(req.get(), name.get()) != 1 ||
      X509_REQ_set_pubkey(req.get(), signer.public_key().native()) != 1)
    return fail(Errc::kKeyOperation, "certificate request: " + ossl_error(), Source::kLocal);
  TRY(signing("certificate request", [&] {
    return X509_REQ_sign(req.get(), signer.native(), md) > 0 &&
           PEM_write_bio_X509_REQ(bio.get(), req.get()) == 1;
  }));
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<std::size_t>(n));
}

}  // namespace sally::crypto
