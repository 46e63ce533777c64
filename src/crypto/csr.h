// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "crypto/key.h"

namespace sally::crypto {

inline constexpr std::size_t kMaxCsr = 16 * 1024;

/// A certificate request. Of it only the public key ever gets into a certificate; the rest is for
/// the log and for doors that refuse who asks for more.
struct Csr {
  PublicKey key;
  std::string subject_cn;
  bool asks_names = false;  ///< it holds alternative names
  bool asks_ca = false;     ///< it wants to be a CA
};

/// PEM ("CERTIFICATE REQUEST" or "NEW CERTIFICATE REQUEST") or DER, self-signature verified. Reads
/// also the unclean DER of older C SDKs (docs/compatible-enrolment.md). kMalformed, kTooLarge,
/// kWeakKey, kUnsupportedKey, kBadSignature, kUnknownCritical.
Result<Csr> parse_csr(ByteView text_or_der);
inline Result<Csr> parse_csr(std::string_view text) {
  return parse_csr(as_bytes(text));
}

/// A PEM request for the signer's key.
Result<std::string> make_csr(const Signer& signer, std::string_view common_name);

}  // namespace sally::crypto
