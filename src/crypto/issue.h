// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "crypto/certificate.h"
#include "crypto/key.h"

namespace sally::crypto {

/// Everything a certificate of ours contains besides keys; the profiles of docs/pki.md fill it.
struct CertSpec {
  std::string organization;  ///< empty = no O
  std::string common_name;
  std::int64_t not_before_s = 0;
  std::int64_t not_after_s = 0;
  bool ca = false;                 ///< keyCertSign + cRLSign instead of digitalSignature
  std::optional<int> path_length;  ///< CA only
  std::uint32_t eku = 0;           ///< bit set of Eku; 0 = no extension
  bool ocsp_no_check = false;      ///< nobody asks whether a responder's own is revoked (RFC 6960)
  std::string session_parent;      ///< serial in hex: kSessionParentOid; empty = no extension
  std::vector<std::string> uris;
  std::vector<std::string> dns;
  std::vector<std::string> ips;  ///< text form
};

/// Signs `spec` for `subject`. `issuer` null = self-signed by `issuer_key`. Serial: 16 random
/// bytes, top bits 01. Basic constraints and key usage critical, SKI and AKI always. kBadSpec,
/// kOutlivesIssuer, kKeyMismatch (issuer and key), kKeyOperation.
Result<Certificate> sign_certificate(const CertSpec& spec, const PublicKey& subject,
                                     const Certificate* issuer, const Signer& issuer_key,
                                     Random& random);

}  // namespace sally::crypto
