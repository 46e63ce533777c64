// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "pki/authority.h"
#include "store/store.h"

namespace sally::pki {

/// How long a list is good, and an answer.
inline constexpr std::int64_t kListLifeMs = 24LL * 3600 * 1000;
inline constexpr std::int64_t kAnswerLifeMs = 10LL * 60 * 1000;

/// What outsiders are told of the network's certificates: revocation lists of its CAs and answers
/// to status requests, signed by a responder of each issuing CA. Routers and devices never ask
/// here, they have the replicated state. Owned by the network object; any thread (two locks, never
/// both). Fails with codes of store, pki and crypto; answer() always has one.
class StatusDesk {
 public:
  /// The responders' key is "ocsp" in `keys`; made on first use.
  StatusDesk(AuthorityPtr authority, KeyDir keys)
      : authority_(std::move(authority)), keys_(std::move(keys)) {}

  /// Responder certificates for the issuing CAs of now, where they are missing or half over. True:
  /// rows were written; the caller audits and commits, and calls use() once that is done.
  [[nodiscard]] Result<bool> renew(store::Transaction& tx, std::int64_t now_ms, Random& random);
  /// Takes the newest ones from the rows.
  Status use(const store::Transaction& tx);

  /// Makes all lists anew: of the issuing CAs, and of the root where its key is here. `tx` ends
  /// before anything is signed: a token may take its time, or hang.
  Status refresh(std::unique_ptr<const store::Transaction> tx, std::int64_t now_ms);
  /// "devices-1", "root": its list in DER.
  [[nodiscard]] std::optional<Bytes> list(std::string_view ca) const;

  /// RFC 6960: to a request in DER, in DER. Certificates of one issuing CA per request. `tx` ends
  /// before anything is signed: anybody may ask, and nobody else waits for that.
  [[nodiscard]] Bytes answer(std::unique_ptr<const store::Transaction> tx, ByteView request,
                             std::int64_t now_ms) const;

 private:
  struct Responder {
    Authority::IssuerPtr issuer;
    crypto::Certificate certificate;
  };
  [[nodiscard]] Result<crypto::SignerPtr> key() const;

  AuthorityPtr authority_;
  KeyDir keys_;
  mutable std::mutex responders_mutex_;  // both below
  crypto::SignerPtr key_;
  std::map<std::string, Responder, std::less<>> responders_;
  mutable std::mutex lists_mutex_;  // all below
  std::map<std::string, Bytes, std::less<>> lists_;
  std::uint64_t number_ = 0;      ///< of the newest list, made or in the making
  std::uint64_t listed_ = 0;      ///< of lists_
  std::size_t root_revoked_ = 0;  ///< rows of the root's list
  std::int64_t root_at_ms_ = 0;   ///< when it was made
};

}  // namespace sally::pki
