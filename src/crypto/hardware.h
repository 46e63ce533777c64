// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "crypto/key.h"

namespace sally::crypto {

/// A private key that does not come out of where it is: P-256 or P-384. Owner: a HardwareKey.
/// Any thread; what is inside takes one caller at a time and may need a second. Fails with
/// kKeyOperation, kTokenMissing or kPinRefused; a token that was pulled out and is back works
/// again.
class Token {
 public:
  virtual ~Token() = default;
  Token() = default;
  Token(const Token&) = delete;
  Token& operator=(const Token&) = delete;
  /// ECDSA (a DER signature) over a digest of the curve's SHA-2.
  [[nodiscard]] virtual Result<Bytes> sign_digest(ByteView digest) const = 0;
  [[nodiscard]] virtual const PublicKey& public_key() const = 0;
};

/// A Signer over a token. Its native() is a key of an OpenSSL provider of our own, in a library
/// context of its own, that gives signatures and nothing else away; a TLS session that waits for
/// one may let its thread go on (elsewhere.h). Owner: whoever holds the pointer. Any thread; see
/// Signer.
class HardwareKey final : public Signer {
 public:
  /// `name` is what an identity file keeps (key_name.h).
  static Result<SignerPtr> create(std::unique_ptr<Token> token, std::string name);
  ~HardwareKey() override;

  [[nodiscard]] Result<Bytes> sign(ByteView message) const override;
  [[nodiscard]] const PublicKey& public_key() const override;
  [[nodiscard]] evp_pkey_st* native() const override;
  [[nodiscard]] bool slow() const override { return true; }
  [[nodiscard]] Result<std::string> stored() const override { return name_; }

 private:
  HardwareKey(std::shared_ptr<const Token> token, std::shared_ptr<evp_pkey_st> native,
              std::string name)
      : token_(std::move(token)), native_(std::move(native)), name_(std::move(name)) {}
  std::shared_ptr<const Token> token_;
  std::shared_ptr<evp_pkey_st> native_;
  std::string name_;
};

}  // namespace sally::crypto
