// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::crypto {

/// Every way a key, a certificate, a request, a path or a token can be refused. `error_name` is
/// stable text.
enum class Errc : std::uint8_t {
  // keys and signatures
  kBadKey,          ///< not a key, or an encoding we do not read
  kUnsupportedKey,  ///< another algorithm or curve
  kWeakKey,         ///< RSA below 2048 bits
  kBadSignature,    ///< does not verify
  kKeyOperation,    ///< the signer failed
  kKeyMismatch,     ///< certificate and key do not belong together
  // keys in tokens and chips
  kBadKeyName,     ///< a name of a key that does not read (docs/hardware-keys.md)
  kModuleMissing,  ///< the PKCS#11 library is not there, or is none
  kTokenMissing,   ///< no such token, or no TPM
  kKeyMissing,     ///< no such key in it
  kPinNeeded,      ///< the token wants a PIN and the name says no file of it
  kPinRefused,     ///< the token did not take the PIN; it is not tried again
  kKeyMayLeave,    ///< the token would give the key away
  // certificates and requests
  kMalformed,        ///< not DER, not PEM, trailing bytes
  kTooLarge,         ///< past a size or count limit
  kUnknownCritical,  ///< a critical extension we do not know
  kBadSpec,          ///< a certificate we would not issue
  kOutlivesIssuer,   ///< would be valid longer than its issuer
  // paths
  kUnknownCa,           ///< no way to an anchor
  kExpired,             ///< leaf past its end
  kNotYetValid,         ///< leaf before its start
  kCaExpired,           ///< a certificate above the leaf is outside its time
  kIntermediateAsLeaf,  ///< the leaf is a CA certificate
  kNotCa,               ///< an issuer that is no CA
  kPathLength,          ///< chain longer than allowed
  kBadKeyUsage,         ///< key usage missing or wrong
  kWrongEku,            ///< extended key usage missing or wrong for the purpose
  kWrongIssuer,         ///< the issuing CA may not issue this role
  kMalformedUri,        ///< not exactly one identity URI, or not of our form
  kWrongTrustDomain,    ///< another network's identity
  kWrongRole,           ///< role not allowed here
  kInvalidPath,         ///< any other refusal of RFC 5280 validation
  // tokens
  kBadToken,   ///< not a compact JWS
  kAlgorithm,  ///< "alg" is not the one of the key ("none" included)
};

std::string_view error_name(Errc e);

}  // namespace sally::crypto
