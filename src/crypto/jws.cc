// SPDX-License-Identifier: Apache-2.0
#include "crypto/jws.h"

#include <openssl/ecdsa.h>
#include <openssl/rsa.h>

#include "base/text.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

std::size_t half_size(KeyType type) {
  return type == KeyType::kP384 ? 48 : 32;
}

// JOSE r||s <-> DER.
Bytes jose_to_der(ByteView raw, std::size_t half) {
  if (raw.size() != 2 * half) return {};
  Ossl<ECDSA_SIG, ECDSA_SIG_free> sig(ECDSA_SIG_new());
  BIGNUM* r = BN_bin2bn(raw.data(), static_cast<int>(half), nullptr);
  BIGNUM* s = BN_bin2bn(raw.data() + half, static_cast<int>(half), nullptr);
  if (!sig || r == nullptr || s == nullptr || ECDSA_SIG_set0(sig.get(), r, s) != 1) {
    BN_free(r);
    BN_free(s);
    return {};
  }
  return to_der(i2d_ECDSA_SIG, sig.get());
}

Bytes der_to_jose(ByteView der, std::size_t half) {
  const unsigned char* p = der.data();
  Ossl<ECDSA_SIG, ECDSA_SIG_free> sig(d2i_ECDSA_SIG(nullptr, &p, static_cast<long>(der.size())));
  if (!sig) return {};
  Bytes out(2 * half);
  const int n = static_cast<int>(half);
  if (BN_bn2binpad(ECDSA_SIG_get0_r(sig.get()), out.data(), n) != n ||
      BN_bn2binpad(ECDSA_SIG_get0_s(sig.get()), out.data() + half, n) != n)
    return {};
  return out;
}

}  // namespace

Result<Jws> split_jws(std::string_view compact, std::size_t max) {
  if (compact.size() > max) return fail(Errc::kTooLarge, "token");
  const auto parts = split(compact, '.');
  if (parts.size() != 3) return fail(Errc::kBadToken, "a token has three parts");
  auto header = from_base64url(parts[0]);
  auto payload = from_base64url(parts[1]);
  auto signature = from_base64url(parts[2]);
  if (!header || !payload || !signature || header->empty())
    return fail(Errc::kBadToken, "token is not base64url");
  Jws out;
  out.header = to_text(*header);
  out.payload = to_text(*payload);
  out.signature = std::move(*signature);
  out.signing_input = std::string(compact.substr(0, parts[0].size() + 1 + parts[1].size()));
  return out;
}

std::string_view jws_algorithm(const PublicKey& key) {
  switch (key.type()) {
    case KeyType::kP256:
      return "ES256";
    case KeyType::kP384:
      return "ES384";
    case KeyType::kRsa:
      return "RS256";
    case KeyType::kEd25519:
      return {};
  }
  return {};
}

Status verify_jws(const Jws& jws, std::string_view alg, const PublicKey& key) {
  const std::string_view expected = jws_algorithm(key);
  if (expected.empty() || alg != expected)
    return fail(Errc::kAlgorithm, "token algorithm is not the key's");
  if (key.type() != KeyType::kRsa) {
    const Bytes der = jose_to_der(jws.signature, half_size(key.type()));
    ERR_clear_error();
    if (der.empty()) return fail(Errc::kBadSignature, "token signature has the wrong length");
    return key.verify(as_bytes(jws.signing_input), der);
  }
  // RS256 is PKCS#1 v1.5, fixed by the compatible clients; our own envelopes use PSS.
  MdCtxPtr md(EVP_MD_CTX_new());
  const ByteView in = as_bytes(jws.signing_input);
  const bool ok =
      md && EVP_DigestVerifyInit(md.get(), nullptr, EVP_sha256(), nullptr, key.native()) == 1 &&
      EVP_DigestVerify(md.get(), jws.signature.data(), jws.signature.size(), in.data(),
                       in.size()) == 1;
  ERR_clear_error();
  if (!ok) return fail(Errc::kBadSignature, "token signature does not verify");
  return {};
}

Result<std::string> sign_jws(std::string_view header_json, std::string_view payload_json,
                             const Signer& signer) {
  const KeyType type = signer.public_key().type();
  if (jws_algorithm(signer.public_key()).empty())
    return fail(Errc::kAlgorithm, "this key signs no tokens", Source::kInternal);
  std::string input =
      to_base64url(as_bytes(header_json)) + "." + to_base64url(as_bytes(payload_json));
  Bytes signature;
  if (type == KeyType::kRsa) {
    MdCtxPtr md(EVP_MD_CTX_new());
    const ByteView in = as_bytes(input);
    std::size_t n = 0;
    if (!md || EVP_DigestSignInit(md.get(), nullptr, EVP_sha256(), nullptr, signer.native()) != 1 ||
        EVP_DigestSign(md.get(), nullptr, &n, in.data(), in.size()) != 1)
      return fail(Errc::kKeyOperation, "signing: " + ossl_error(), Source::kLocal);
    signature.resize(n);
    if (EVP_DigestSign(md.get(), signature.data(), &n, in.data(), in.size()) != 1)
      return fail(Errc::kKeyOperation, "signing: " + ossl_error(), Source::kLocal);
    signature.resize(n);
  } else {
    TRY_ASSIGN(const Bytes der, signer.sign(as_bytes(input)));
    signature = der_to_jose(der, half_size(type));
    ERR_clear_error();
    if (signature.empty())
      return fail(Errc::kKeyOperation, "signature does not encode", Source::kInternal);
  }
  return input + "." + to_base64url(signature);
}

}  // namespace sally::crypto
