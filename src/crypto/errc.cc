// SPDX-License-Identifier: Apache-2.0
#include "crypto/errc.h"

namespace sally::crypto {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kBadKey:
      return "crypto.bad_key";
    case Errc::kUnsupportedKey:
      return "crypto.unsupported_key";
    case Errc::kWeakKey:
      return "crypto.weak_key";
    case Errc::kBadSignature:
      return "crypto.bad_signature";
    case Errc::kKeyOperation:
      return "crypto.key_operation";
    case Errc::kKeyMismatch:
      return "crypto.key_mismatch";
    case Errc::kBadKeyName:
      return "crypto.bad_key_name";
    case Errc::kModuleMissing:
      return "crypto.module_missing";
    case Errc::kTokenMissing:
      return "crypto.token_missing";
    case Errc::kKeyMissing:
      return "crypto.key_missing";
    case Errc::kPinNeeded:
      return "crypto.pin_needed";
    case Errc::kPinRefused:
      return "crypto.pin_refused";
    case Errc::kKeyMayLeave:
      return "crypto.key_may_leave";
    case Errc::kMalformed:
      return "crypto.malformed";
    case Errc::kTooLarge:
      return "crypto.too_large";
    case Errc::kUnknownCritical:
      return "crypto.unknown_critical";
    case Errc::kBadSpec:
      return "crypto.bad_spec";
    case Errc::kOutlivesIssuer:
      return "crypto.outlives_issuer";
    case Errc::kUnknownCa:
      return "crypto.unknown_ca";
    case Errc::kExpired:
      return "crypto.expired";
    case Errc::kNotYetValid:
      return "crypto.not_yet_valid";
    case Errc::kCaExpired:
      return "crypto.ca_expired";
    case Errc::kIntermediateAsLeaf:
      return "crypto.intermediate_as_leaf";
    case Errc::kNotCa:
      return "crypto.not_ca";
    case Errc::kPathLength:
      return "crypto.path_length";
    case Errc::kBadKeyUsage:
      return "crypto.bad_key_usage";
    case Errc::kWrongEku:
      return "crypto.wrong_eku";
    case Errc::kWrongIssuer:
      return "crypto.wrong_issuer";
    case Errc::kMalformedUri:
      return "crypto.malformed_uri";
    case Errc::kWrongTrustDomain:
      return "crypto.wrong_trust_domain";
    case Errc::kWrongRole:
      return "crypto.wrong_role";
    case Errc::kInvalidPath:
      return "crypto.invalid_path";
    case Errc::kBadToken:
      return "crypto.bad_token";
    case Errc::kAlgorithm:
      return "crypto.algorithm";
  }
  return "crypto.unknown";
}

}  // namespace sally::crypto
