// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pki/authority.h"
#include "store/store.h"
#include "wire/messages.h"

namespace sally::pki {

/// Who brought a request: the leaf that a router says was proven on the lane.
struct Presenter {
  std::string_view id;
  std::string_view serial;
};

/// How long after its end a certificate still gets the next one at the recovery door.
inline constexpr std::int64_t kRecoveryGraceS = 400LL * 86'400;
/// How long a renewed certificate may go unused before the one that it follows ends all the same.
inline constexpr std::int64_t kUnprovenMs = 24LL * 3'600'000;
/// Ends what older certificates there are beside such ones; how many. Audits; the caller commits.
Result<std::size_t> supersede_unproven(store::Transaction& tx, std::int64_t now_ms);

/// A certificate that follows others was used: they end, what is up with them lives on; how many.
/// Audits; the caller commits.
Result<std::size_t> prove_use(store::Transaction& tx, const store::Identity& identity,
                              store::CertificateRow row, std::int64_t now_ms);

/// How a request came in; for the audit.
enum class Door : std::uint8_t { kLane, kRecovery, kExtension };

/// Door 6: the next certificate for who holds the current one. The request is believed, not its
/// carrier: it is signed by the current key over network, identity, serial, CSR and time. Owned by
/// the network object; immutable, any thread. Each refusal has its own code (pki, trust, crypto).
class RenewalDoor {
 public:
  explicit RenewalDoor(AuthorityPtr authority, std::int64_t life_s = kRenewingLifeS,
                       std::int64_t grace_s = kRecoveryGraceS)
      : authority_(std::move(authority)), life_s_(life_s), grace_s_(grace_s) {}

  struct Outcome {
    std::optional<Issued> issued;  ///< none: a use was noted
    std::size_t superseded = 0;    ///< certificates that ended by it
    bool changed = false;          ///< there is something to commit
    bool session = false;          ///< what was issued is a session certificate
  };
  /// With a CSR: issues for the same identity; one that was issued before and never used ends, so
  /// that two are valid at most. The current one lives on until the new one's first proven use: a
  /// request without CSR signed by the new key. With a session CSR: a session certificate beside
  /// the current one, of which no row is kept and nothing ends. Audits; the caller commits.
  [[nodiscard]] Result<Outcome> take(store::Transaction& tx, ByteView envelope,
                                     const Presenter& presenter, std::int64_t now_ms,
                                     Random& random) const;
  struct Request {
    ByteView envelope;
    Presenter presenter;
  };
  /// take() for many in one transaction, so that one commit makes all of them durable: each is
  /// undone alone where it is refused. The caller commits where one of them changed something.
  [[nodiscard]] std::vector<Result<Outcome>> take_all(store::Transaction& tx,
                                                      const std::vector<Request>& requests,
                                                      std::int64_t now_ms, Random& random) const;
  /// A request whose signature was made with the key of the certificate that it names.
  struct Signed {
    wire::RenewalRequest request;
    store::CertificateRow row;  ///< as it was when it was read
  };
  using Find = std::function<Result<std::optional<store::CertificateRow>>(std::string_view serial)>;
  /// Before any transaction, so that who signs nothing holds up nobody: `find` is asked once, for
  /// the certificate of a serial; the signature is checked after it returned.
  [[nodiscard]] Result<Signed> open(ByteView envelope, const Find& find) const;
  [[nodiscard]] Result<Signed> open(const store::Transaction& tx, ByteView envelope) const;
  /// The same for whom no router lets in: nobody vouches for a lane, and the certificate may have
  /// ended within the grace, or be superseded by one that never arrived. Only while the identity is
  /// active, and with the key that it has now.
  [[nodiscard]] Result<Outcome> recover(store::Transaction& tx, Signed from, std::int64_t now_ms,
                                        Random& random) const;
  /// For foreign clients, who bring a CSR over TLS with the certificate `current` of an active
  /// `identity` and know no recovery door: issues for the CSR's key, as long as `current` was, and
  /// ends what was issued before and not used. `current` lives on, even where the answer never
  /// arrives: only received() lets the new one count as a renewal. kCaAsked, kTooOften, or what
  /// crypto says of the CSR. Audits; the caller commits.
  [[nodiscard]] Result<Issued> extend(store::Transaction& tx, const store::Identity& identity,
                                      const store::CertificateRow& current, ByteView csr,
                                      std::int64_t now_ms, Random& random) const;
  /// Its owner has what extend() gave, and shows it: from now on kUnprovenMs counts, and the first
  /// proven use ends `current`. Again is the same. kCertificateUnknown for any other certificate.
  /// Audits; the caller commits.
  [[nodiscard]] Status received(store::Transaction& tx, const store::Identity& identity,
                                const store::CertificateRow& current,
                                const crypto::Certificate& shown, std::int64_t now_ms) const;
  /// Forgets certificates that ended longer ago than the grace, at most `limit`; how many. Audits;
  /// the caller commits.
  [[nodiscard]] Result<std::uint64_t> prune(store::Transaction& tx, std::int64_t now_ms,
                                            std::uint64_t limit) const;
  /// The refusal as an audit row of whom the request names, who may be nobody. The caller limits
  /// how many, and commits.
  [[nodiscard]] Status audit_refusal(store::Transaction& tx, ByteView envelope, Door door,
                                     const Error& why) const;

 private:
  struct Checked : Signed {
    store::Identity identity;
  };
  /// No `presenter`: the recovery door.
  [[nodiscard]] Result<Checked> check(const store::Transaction& tx, Signed from,
                                      const Presenter* presenter, std::int64_t now_ms) const;
  [[nodiscard]] Status check_recovery(const store::Transaction& tx, const Checked& c,
                                      std::int64_t now_ms) const;
  [[nodiscard]] Result<Outcome> issue(store::Transaction& tx, const Checked& c, Door door,
                                      std::int64_t now_ms, Random& random) const;
  [[nodiscard]] Result<Outcome> issue_session(store::Transaction& tx, const Checked& c,
                                              std::int64_t now_ms, Random& random) const;
  [[nodiscard]] static Result<Outcome> note_use(store::Transaction& tx, Checked c,
                                                std::int64_t now_ms);
  AuthorityPtr authority_;
  std::int64_t life_s_;
  std::int64_t grace_s_;
};

}  // namespace sally::pki
