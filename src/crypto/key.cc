// SPDX-License-Identifier: Apache-2.0
#include "crypto/key.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "crypto/hash.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

constexpr std::size_t kMaxSpki = 4096;
constexpr std::size_t kMaxKeyPem = 64 * 1024;

Result<KeyType> classify(EVP_PKEY* key) {
  switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC: {
      char group[32] = "";
      if (EVP_PKEY_get_group_name(key, group, sizeof group, nullptr) != 1) break;
      const std::string_view g = group;
      if (g == "prime256v1" || g == "P-256") return KeyType::kP256;
      if (g == "secp384r1" || g == "P-384") return KeyType::kP384;
      return fail(Errc::kUnsupportedKey, "curve " + std::string(g) + "; use P-256 or P-384");
    }
    case EVP_PKEY_ED25519:
      return KeyType::kEd25519;
    case EVP_PKEY_RSA: {
      const int bits = EVP_PKEY_get_bits(key);
      if (bits < 2048) return fail(Errc::kWeakKey, "RSA below 2048 bits");
      // Verification time grows with the size and the exponent; both come from a peer.
      if (bits > 8192) return fail(Errc::kUnsupportedKey, "RSA above 8192 bits");
      BIGNUM* e = nullptr;
      if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) != 1) break;
      const bool sane = BN_num_bits(e) <= 33 && BN_num_bits(e) > 1 && BN_is_odd(e) == 1;
      BN_free(e);
      if (!sane) return fail(Errc::kUnsupportedKey, "RSA exponent");
      return KeyType::kRsa;
    }
    default:
      break;
  }
  ERR_clear_error();
  return fail(Errc::kUnsupportedKey, "key algorithm; use P-256, P-384, Ed25519 or RSA");
}

const EVP_MD* digest_of(KeyType type) {
  if (type == KeyType::kEd25519) return nullptr;
  return type == KeyType::kP384 ? EVP_sha384() : EVP_sha256();
}

bool set_padding(KeyType type, EVP_PKEY_CTX* ctx) {
  if (type != KeyType::kRsa) return true;
  return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
         EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
}

std::shared_ptr<EVP_PKEY> share(EVP_PKEY* key) {
  return {key, EVP_PKEY_free};
}

}  // namespace

Result<PublicKey> PublicKey::from_spki(ByteView der) {
  if (der.empty() || der.size() > kMaxSpki) return fail(Errc::kBadKey, "public key size");
  ERR_clear_error();
  const unsigned char* p = der.data();
  PkeyPtr key(d2i_PUBKEY(nullptr, &p, static_cast<long>(der.size())));
  ERR_clear_error();
  if (!key || p != der.data() + der.size()) return fail(Errc::kBadKey, "not a public key");
  return from_native(key.get());
}

Result<PublicKey> PublicKey::from_native(evp_pkey_st* key) {
  if (key == nullptr) return fail(Errc::kBadKey, "no public key");
  TRY_ASSIGN(const KeyType type, classify(key));
  auto impl = std::make_shared<Impl>();
  impl->spki = to_der(i2d_PUBKEY, key);
  if (impl->spki.empty()) return fail(Errc::kBadKey, "public key does not encode");
  if (type == KeyType::kP256 || type == KeyType::kP384) {
    // A point off the curve must not reach ECDSA.
    PkeyCtxPtr ctx(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr));
    const bool on_curve = ctx && EVP_PKEY_public_check_quick(ctx.get()) == 1;
    ERR_clear_error();
    if (!on_curve) return fail(Errc::kBadKey, "point is not on the curve");
  }
  EVP_PKEY_up_ref(key);
  impl->key = share(key);
  impl->type = type;
  const Sha256 h = sha256(impl->spki);
  std::copy_n(h.begin(), impl->id.size(), impl->id.begin());
  return PublicKey(std::move(impl));
}

Result<PublicKey> PublicKey::from_point(KeyType type, ByteView point) {
  std::string group = type == KeyType::kP384 ? "P-384" : "P-256";
  Bytes copy = to_bytes(point);
  OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, copy.data(), copy.size()),
      OSSL_PARAM_construct_end()};
  PkeyCtxPtr ctx(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  EVP_PKEY* raw = nullptr;
  const bool ok = ctx && EVP_PKEY_fromdata_init(ctx.get()) == 1 &&
                  EVP_PKEY_fromdata(ctx.get(), &raw, EVP_PKEY_PUBLIC_KEY, params) == 1;
  ERR_clear_error();
  const PkeyPtr key(raw);
  if (!ok) return fail(Errc::kBadKey, "not a point of the curve");
  return from_native(key.get());
}

std::string PublicKey::hash_hex() const {
  return to_hex(sha256(impl_->spki));
}

Status PublicKey::verify(ByteView message, ByteView signature) const {
  MdCtxPtr md(EVP_MD_CTX_new());
  EVP_PKEY_CTX* ctx = nullptr;
  const bool ok =
      md &&
      EVP_DigestVerifyInit(md.get(), &ctx, digest_of(type()), nullptr, impl_->key.get()) == 1 &&
      set_padding(type(), ctx) &&
      EVP_DigestVerify(md.get(), signature.data(), signature.size(), message.data(),
                       message.size()) == 1;
  ERR_clear_error();
  if (!ok) return fail(Errc::kBadSignature, "signature does not verify");
  return {};
}

Result<FileKeyPtr> FileKey::generate(KeyType type, int rsa_bits) {
  EVP_PKEY* raw = nullptr;
  switch (type) {
    case KeyType::kP256:
      raw = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256");
      break;
    case KeyType::kP384:
      raw = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-384");
      break;
    case KeyType::kEd25519:
      raw = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
      break;
    case KeyType::kRsa:
      if (rsa_bits < 2048) return fail(Errc::kWeakKey, "RSA below 2048 bits", Source::kLocal);
      raw = EVP_RSA_gen(static_cast<unsigned>(rsa_bits));
      break;
  }
  if (raw == nullptr)
    return fail(Errc::kKeyOperation, "key generation: " + ossl_error(), Source::kLocal);
  auto key = share(raw);
  TRY_ASSIGN(auto pub, PublicKey::from_native(raw));
  return std::make_shared<const FileKey>(std::move(key), std::move(pub));
}

Result<FileKeyPtr> FileKey::from_pem(std::string_view text) {
  if (text.size() > kMaxKeyPem) return fail(Errc::kTooLarge, "key file", Source::kConfig);
  ERR_clear_error();
  BioPtr bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  // A callback that refuses: an encrypted key must fail instead of asking the terminal.
  EVP_PKEY* raw = bio ? PEM_read_bio_PrivateKey(
                            bio.get(), nullptr, [](char*, int, int, void*) { return -1; }, nullptr)
                      : nullptr;
  ERR_clear_error();
  if (raw == nullptr)
    return fail(Errc::kBadKey, "not an unencrypted PEM private key", Source::kConfig);
  auto key = share(raw);
  TRY_ASSIGN(auto pub, PublicKey::from_native(raw));
  return std::make_shared<const FileKey>(std::move(key), std::move(pub));
}

Result<std::string> FileKey::to_pem() const {
  BioPtr bio(BIO_new(BIO_s_secmem()));
  if (!bio || PEM_write_bio_PKCS8PrivateKey(bio.get(), key_.get(), nullptr, nullptr, 0, nullptr,
                                            nullptr) != 1)
    return fail(Errc::kKeyOperation, "key does not encode: " + ossl_error(), Source::kLocal);
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio.get(), &data);
  std::string out(data, static_cast<std::size_t>(n));
  wipe(MutableBytes(reinterpret_cast<std::uint8_t*>(data), static_cast<std::size_t>(n)));
  return out;
}

Result<Bytes> FileKey::sign(ByteView message) const {
  MdCtxPtr md(EVP_MD_CTX_new());
  EVP_PKEY_CTX* ctx = nullptr;
  const KeyType type = public_.type();
  std::size_t n = 0;
  if (!md || EVP_DigestSignInit(md.get(), &ctx, digest_of(type), nullptr, key_.get()) != 1 ||
      !set_padding(type, ctx) ||
      EVP_DigestSign(md.get(), nullptr, &n, message.data(), message.size()) != 1)
    return fail(Errc::kKeyOperation, "signing: " + ossl_error(), Source::kLocal);
  Bytes out(n);
  if (EVP_DigestSign(md.get(), out.data(), &n, message.data(), message.size()) != 1)
    return fail(Errc::kKeyOperation, "signing: " + ossl_error(), Source::kLocal);
  out.resize(n);
  return out;
}

}  // namespace sally::crypto
