// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "crypto/key.h"

namespace sally::crypto {

/// A compact JWS taken apart (RFC 7515); nothing is verified yet. JSON stays with the caller.
struct Jws {
  std::string header;         ///< JSON text as sent
  std::string payload;        ///< as sent
  Bytes signature;            ///< JOSE form
  std::string signing_input;  ///< what is signed
};

inline constexpr std::size_t kMaxJws = 16 * 1024;

/// Three base64url parts, at most `max` characters; kBadToken.
Result<Jws> split_jws(std::string_view compact, std::size_t max = kMaxJws);
/// "ES256", "ES384" or "RS256"; empty for a key that signs no JWS.
std::string_view jws_algorithm(const PublicKey& key);
/// `alg` is the header's text; it must be the key's own (kAlgorithm), then the signature must
/// verify (kBadSignature).
Status verify_jws(const Jws& jws, std::string_view alg, const PublicKey& key);
/// Signs header and payload JSON; the header's alg must be jws_algorithm(signer.public_key()),
/// which the caller wrote.
Result<std::string> sign_jws(std::string_view header_json, std::string_view payload_json,
                             const Signer& signer);

}  // namespace sally::crypto
