// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "crypto/errc.h"

struct evp_pkey_st;  // EVP_PKEY

namespace sally::crypto {

enum class KeyType : std::uint8_t { kP256, kP384, kEd25519, kRsa };

/// First 8 bytes of SHA-256 of the SubjectPublicKeyInfo; names a key in envelopes.
using KeyId = std::array<std::uint8_t, 8>;

/// A public key we accept: P-256, P-384, Ed25519, RSA of 2048 to 8192 bits.
/// Value type, shares an immutable native key; any thread.
/// Fails at construction only; an existing object is a usable key.
class PublicKey {
 public:
  /// DER SubjectPublicKeyInfo without trailing bytes. kBadKey, kUnsupportedKey, kWeakKey.
  static Result<PublicKey> from_spki(ByteView der);
  /// Takes a reference of `key`.
  static Result<PublicKey> from_native(evp_pkey_st* key);
  /// A point of P-256 or P-384, uncompressed (04 x y). kBadKey.
  static Result<PublicKey> from_point(KeyType type, ByteView point);

  /// DER SubjectPublicKeyInfo.
  [[nodiscard]] const Bytes& spki() const { return impl_->spki; }
  [[nodiscard]] const KeyId& key_id() const { return impl_->id; }
  /// Lower-case hex of SHA-256 of the SubjectPublicKeyInfo.
  [[nodiscard]] std::string hash_hex() const;
  [[nodiscard]] KeyType type() const { return impl_->type; }
  /// The algorithm is fixed by the key: ECDSA with the curve's SHA-2 (DER signature), Ed25519,
  /// RSA-PSS with SHA-256 and a salt of 32. kBadSignature for everything that does not verify.
  [[nodiscard]] Status verify(ByteView message, ByteView signature) const;
  /// Borrowed EVP_PKEY*.
  [[nodiscard]] evp_pkey_st* native() const { return impl_->key.get(); }
  friend bool operator==(const PublicKey& a, const PublicKey& b) { return a.spki() == b.spki(); }

 private:
  struct Impl {
    std::shared_ptr<evp_pkey_st> key;
    Bytes spki;
    KeyId id{};
    KeyType type{};
  };
  explicit PublicKey(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

/// Something that holds a private key: a file, a token, a TPM. Passed as shared_ptr<const Signer>.
/// Immutable after construction; sign() from any thread, and it may take a second (a TPM).
/// Fails with kKeyOperation.
class Signer {
 public:
  virtual ~Signer() = default;
  Signer() = default;
  Signer(const Signer&) = delete;
  Signer& operator=(const Signer&) = delete;
  /// Signature as PublicKey::verify wants it.
  [[nodiscard]] virtual Result<Bytes> sign(ByteView message) const = 0;
  [[nodiscard]] virtual const PublicKey& public_key() const = 0;
  /// Borrowed EVP_PKEY* with the private half (or a provider's handle to it), for TLS.
  [[nodiscard]] virtual evp_pkey_st* native() const = 0;
  /// A signature may take longer than a loop can wait: see elsewhere.h.
  [[nodiscard]] virtual bool slow() const { return false; }
  /// What a file of mode 0600 keeps of it: PKCS#8 PEM of a key in memory, the name (key_name.h) of
  /// one in hardware. The caller wipes it.
  [[nodiscard]] virtual Result<std::string> stored() const = 0;
};
using SignerPtr = std::shared_ptr<const Signer>;

/// A private key in memory, read from or written to a PKCS#8 file of mode 0600.
/// Owned by whoever holds the pointer; any thread; see Signer.
class FileKey final : public Signer {
 public:
  static Result<std::shared_ptr<const FileKey>> generate(KeyType type, int rsa_bits = 2048);
  /// Unencrypted PKCS#8 (also the older SEC1 and PKCS#1 forms); kBadKey, kUnsupportedKey, kWeakKey.
  static Result<std::shared_ptr<const FileKey>> from_pem(std::string_view text);
  /// PKCS#8 PEM; the caller wipes it.
  [[nodiscard]] Result<std::string> to_pem() const;
  [[nodiscard]] Result<std::string> stored() const override { return to_pem(); }

  [[nodiscard]] Result<Bytes> sign(ByteView message) const override;
  [[nodiscard]] const PublicKey& public_key() const override { return public_; }
  [[nodiscard]] evp_pkey_st* native() const override { return key_.get(); }

  FileKey(std::shared_ptr<evp_pkey_st> key, PublicKey pub)
      : key_(std::move(key)), public_(std::move(pub)) {}

 private:
  std::shared_ptr<evp_pkey_st> key_;
  PublicKey public_;
};
using FileKeyPtr = std::shared_ptr<const FileKey>;

}  // namespace sally::crypto
