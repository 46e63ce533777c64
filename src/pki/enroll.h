// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "pki/authority.h"
#include "store/store.h"

namespace sally::pki {

/// The certificate and key of the REST listener: it signs enrolment tokens
/// (docs/compatible-enrolment.md H6).
struct RestIdentity {
  crypto::Certificate leaf;
  crypto::Certificate issuing;
  crypto::SignerPtr key;
};

struct NewToken {
  std::string jwt;
  std::string enrollment;  ///< public handle, for lists and revocation
  std::int64_t expires_ms = 0;
};

inline constexpr std::int64_t kTokenLifeMs = 24LL * 3600 * 1000;

/// Door 1: one-time tokens. JWT of docs/compatible-enrolment.md (`em` = "ott" for every kind) with
/// one more claim:
/// `"sally":{"network":"<trust domain>","root":"<SHA-256 of the root certificate,
/// hex>","kind":"device|router|admin"}`, so that our own client can pin the root. Owned by the
/// network object; immutable, any thread. Fails with pki codes, each refusal its own.
class TokenDoor {
 public:
  /// `mac_key` (32 bytes) turns token ids into what is stored.
  TokenDoor(AuthorityPtr authority, Bytes mac_key)
      : authority_(std::move(authority)), mac_key_(std::move(mac_key)) {}
  ~TokenDoor() { wipe(mac_key_); }
  TokenDoor(const TokenDoor&) = delete;
  TokenDoor& operator=(const TokenDoor&) = delete;

  /// A token for an existing identity; audited; the caller commits. `life_ms` from 5 minutes to 30
  /// days.
  [[nodiscard]] Result<NewToken> create(store::Transaction& tx, std::string_view actor,
                                        const store::Identity& identity, const RestIdentity& rest,
                                        const std::string& issuer_url, std::int64_t now_ms,
                                        std::int64_t life_ms, Random& random) const;

  /// Whether there is such a token, whatever became of it: so that strangers begin no change.
  [[nodiscard]] Result<bool> knows(const store::Transaction& tx, std::string_view token_id) const;
  struct Enrolled {
    Issued issued;
    store::Identity identity;
  };
  /// Checks the token (kTokenUnknown, kTokenUsed, kTokenExpired, kTokenRevoked, kIdentityInactive)
  /// and the request (crypto codes), issues, marks the token used, audits. A second enrolment
  /// raises the credential epoch and revokes the older certificates. The caller commits.
  /// `life_s`: of a device or router that renews by itself; 0 = as long as its profile says.
  [[nodiscard]] Result<Enrolled> enroll(store::Transaction& tx, std::string_view token_id,
                                        ByteView csr, std::int64_t now_ms, Random& random,
                                        std::int64_t life_s = 0) const;

 private:
  [[nodiscard]] Bytes mac(std::string_view token_id) const;
  AuthorityPtr authority_;
  Bytes mac_key_;
};

}  // namespace sally::pki
