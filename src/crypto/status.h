// SPDX-License-Identifier: Apache-2.0
// What a CA tells outsiders of its certificates: revocation lists (RFC 5280 section 5) and answers
// to status requests (RFC 6960).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "crypto/certificate.h"
#include "crypto/key.h"

namespace sally::crypto {

/// One that died early; `reason` as RFC 5280 section 5.3.1 numbers them, 0 = not said.
struct RevokedSerial {
  std::string serial_hex;
  std::int64_t at_s = 0;
  int reason = 0;
};

struct CrlSpec {
  std::uint64_t number = 0;  ///< higher than that of the list before
  std::int64_t this_s = 0;
  std::int64_t next_s = 0;
  std::vector<RevokedSerial> revoked;
};
/// The list of `issuer` in DER. kKeyMismatch, kBadSpec, kKeyOperation.
Result<Bytes> sign_crl(const CrlSpec& spec, const Certificate& issuer, const Signer& key);

enum class OcspStatus : std::uint8_t { kGood, kRevoked, kUnknown };
struct OcspAnswer {
  OcspStatus status = OcspStatus::kUnknown;
  std::int64_t revoked_s = 0;
  int reason = 0;
};

/// A status request: which certificates somebody asks about, named by hashes of their issuer and
/// their serials. Value, immutable, any thread. The request's own signature, if there is one, is
/// not looked at: the answer is the same for everybody.
class OcspRequest {
 public:
  static constexpr std::size_t kMaxSize = 4'096;
  static constexpr std::size_t kMaxCertificates = 16;
  /// Total: kTooLarge, kMalformed (trailing bytes, nothing asked, too much asked).
  static Result<OcspRequest> parse(ByteView der);
  [[nodiscard]] std::size_t size() const;
  /// As Certificate::serial_hex(); empty for what no certificate of ours can have.
  [[nodiscard]] std::string serial_hex(std::size_t at) const;
  /// Hashes of `issuer`'s name and key.
  [[nodiscard]] bool is_of(std::size_t at, const Certificate& issuer) const;

 private:
  friend Result<Bytes> sign_ocsp(const OcspRequest&, const std::vector<OcspAnswer>&,
                                 const Certificate&, const Signer&, std::int64_t, std::int64_t);
  struct Impl;
  explicit OcspRequest(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

/// The answer to each certificate of the request, with its nonce, signed by a delegated responder.
/// kBadSpec where the counts differ, kKeyMismatch, kKeyOperation.
Result<Bytes> sign_ocsp(const OcspRequest& request, const std::vector<OcspAnswer>& answers,
                        const Certificate& responder, const Signer& key, std::int64_t now_s,
                        std::int64_t next_s);

/// Answers without a signature, by their numbers in RFC 6960.
enum class OcspFailure : std::uint8_t { kMalformed = 1, kInternal = 2, kUnauthorized = 6 };
Bytes ocsp_failure(OcspFailure failure);

}  // namespace sally::crypto
