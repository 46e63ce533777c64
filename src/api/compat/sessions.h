// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/errc.h"
#include "api/http.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/random.h"
#include "base/source_rates.h"
#include "base/token_bucket.h"
#include "crypto/key.h"
#include "store/store.h"

namespace sally::api {

/// API sessions of foreign ends: who is logged in and since when it said nothing. A request is a
/// change in memory; flush() writes the times of all at once. A restart loses what was not written,
/// so a session really ends kSlackMs later than its owner was told.
/// Owned by the network object; any thread. Fails with api codes, or what store and trust say.
class Sessions {
 public:
  static constexpr std::int64_t kLifeS = 30LL * 60;
  static constexpr std::int64_t kLeastLifeS = 60;  ///< for tests: C SDKs want more than 120 (H8)
  /// However busy, it ends then, because its token does; the SDK logs in again.
  static constexpr std::int64_t kMaxAgeMs = 24LL * 3'600'000;
  /// Nobody is told of an end nearer than this: a C SDK would divide by what is left (H8).
  static constexpr std::int64_t kLeastLeftMs = 150'000;
  static constexpr std::int64_t kSlackMs = 60'000;
  /// Of one identity; one more ends the oldest.
  static constexpr std::size_t kPerIdentity = 64;

  /// `mac_key` (32 bytes) turns tokens into what is stored; `life_s` from kLeastLifeS.
  Sessions(NetworkId network, Bytes mac_key, std::int64_t life_s = kLifeS);
  ~Sessions() { wipe(mac_key_); }
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  struct Proven {
    store::Identity identity;
    store::CertificateRow certificate;
    /// It followed another one, which is valid still: the caller of this notes the first use.
    bool first_use = false;
  };
  /// Of an identity that proved itself: kTooMany beyond its own rate of logins, or everybody's.
  [[nodiscard]] Status admit(std::string_view identity, std::int64_t now_us);
  /// The same for any request.
  [[nodiscard]] Status admit_request(std::string_view identity, std::int64_t now_us);
  struct Opened {
    store::ApiSession row;
    std::string token;
  };
  /// Audits; the caller commits.
  [[nodiscard]] Result<Opened> open(store::Transaction& tx, const Proven& who,
                                    std::vector<std::string> config_types, std::string address,
                                    const crypto::Signer& signer, const Clock& clock,
                                    Random& random);
  struct Found : Proven {
    store::ApiSession row;
  };
  /// Whose token that is, if the proven leaf is the same identity's and neither has died.
  /// kNoSession for every reason but the end of its time: kSessionExpired. Counts as use.
  [[nodiscard]] Result<Found> find(const store::Transaction& tx, std::string_view token,
                                   const Caller* caller, std::int64_t now_ms);
  /// The identity of a proven leaf that may log in: an active device of this network whose
  /// certificate is not revoked. kNoSession.
  [[nodiscard]] Result<Proven> prove(const store::Transaction& tx, const Caller* caller,
                                     std::int64_t now_ms) const;
  /// Ends it; audits; the caller commits.
  [[nodiscard]] Status close(store::Transaction& tx, const store::ApiSession& row,
                             std::string_view actor);
  /// What its owner is told.
  [[nodiscard]] std::int64_t expires_ms(const store::ApiSession& row) const;
  [[nodiscard]] std::int64_t token_ends_ms(const store::ApiSession& row) const {
    return row.created_ms + kMaxAgeMs;
  }
  /// As far as is known now, its last use not being written yet.
  [[nodiscard]] store::ApiSession current(store::ApiSession row) const;
  /// Writes what was used since the last time and forgets what ended; one transaction.
  Status flush(store::Store& store, std::int64_t now_ms);

 private:
  static constexpr double kLoginsPerSecond = 200;
  static constexpr double kLoginBurst = 1'000;
  static constexpr double kOwnPerSecond = 1;
  static constexpr double kOwnBurst = 20;
  static constexpr double kRequestsPerSecond = 50;
  static constexpr double kRequestBurst = 500;
  static constexpr std::size_t kMostRemembered = 8'192;
  [[nodiscard]] Bytes mac(std::string_view token) const;
  NetworkId network_;
  Bytes mac_key_;
  std::int64_t life_ms_;
  mutable std::mutex mutex_;                    // all below
  std::map<std::string, std::int64_t> active_;  ///< by id, later than what is stored
  TokenBucket logins_{kLoginsPerSecond, kLoginBurst};
  // By a hash of the identity.
  SourceRates own_{kOwnPerSecond, kOwnBurst, kMostRemembered};
  SourceRates requests_{kRequestsPerSecond, kRequestBurst, kMostRemembered};
};

}  // namespace sally::api
