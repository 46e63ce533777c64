// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/ids.h"
#include "crypto/certificate.h"
#include "crypto/jws.h"
#include "crypto/path.h"
#include "identity/errc.h"

namespace sally::identity {

/// A one-time enrolment token (docs/compatible-enrolment.md), taken apart. Nothing in it is
/// believed before `verify_token`.
struct Token {
  std::string text;    ///< the JWT as given, trimmed
  std::string issuer;  ///< controller URL, without a trailing slash
  std::string host;    ///< of that URL
  std::string subject;
  std::string id;  ///< jti
  std::int64_t expires_s = 0;
  /// Of our own controllers: trust domain, SHA-256 of the root (hex), what the token makes.
  NetworkId network;
  std::string root_sha256;
  std::optional<crypto::Role> role;
  crypto::Jws jws;
  std::string algorithm;
};

/// Total. kBadToken; kMethod for kinds other than "ott".
Result<Token> parse_token(std::string_view text);
/// Signature by the key of the controller's TLS leaf (H6), then `exp`. kTokenAltered,
/// kTokenExpired.
Status verify_token(const Token& token, const crypto::Certificate& leaf, std::int64_t now_s);

}  // namespace sally::identity
