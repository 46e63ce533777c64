// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/backoff.h"
#include "base/random.h"
#include "crypto/certificate.h"
#include "crypto/key.h"
#include "crypto/path.h"
#include "identity/signing.h"
#include "loop/loop.h"
#include "trust/trust.h"
#include "wire/messages.h"

namespace sally::identity {

/// When a certificate is to be renewed, in Unix ms: at two thirds of its life, shifted by a hash of
/// the id by up to a tenth of its life either way, so that those enrolled together do not come
/// together.
std::int64_t renew_at_ms(std::string_view id, std::int64_t not_before_s, std::int64_t not_after_s);

/// What an identity proves itself with.
struct Credential {
  std::vector<crypto::Certificate> chain;  ///< leaf, issuing
  crypto::SignerPtr key;
};

/// The certificate in an answer to `id`, its path valid at `now_s`, for that key. kMismatch, or
/// what crypto says of it.
Result<Credential> answered_credential(const wire::Renewed& answer, const trust::Anchors& anchors,
                                       crypto::Role role, std::string_view id,
                                       const crypto::SignerPtr& key, std::int64_t now_s);

/// Puts a renewed certificate of the same key into the identity file, atomically; one that lives
/// longer stays. kMismatch where the file holds another key by now.
Status keep_in_file(const std::string& path, const Credential& fresh);
/// The network has signed that it is at least `ms`: a later start knows. An earlier one stays.
Status keep_time_in_file(const std::string& path, std::int64_t ms);
/// What is there now.
Result<Credential> kept_in_file(const std::string& path);

/// Renews one identity's certificate over its lane: waits until it is due, asks, checks what comes
/// back, has it kept, puts it to use, tells of the use. Owner: an SDK engine or a router. Thread:
/// its loop's. Failure: asks again, later and later; until then the older certificate serves.
class Renewer {
 public:
  struct Hooks {
    /// False: no lane.
    std::function<bool(wire::Renew message)> send;
    /// Time of the lane.
    std::function<std::int64_t()> time_ms;
    /// Makes it durable before it is used: after a crash one of the two is there.
    std::function<Status(const Credential& fresh)> keep;
    /// From now on.
    std::function<Status(const Credential& fresh)> use;
    /// What another process of the identity may have kept meanwhile; none: there is no other.
    std::function<Result<Credential>()> kept{};
    /// The controller's own door, for whom no lane comes up since the certificate is not taken; the
    /// answer comes to on_renewed. False: not now. None: there is no such way.
    std::function<bool(wire::Renew message)> recover{};
    /// The certificate has ended, as far as can be known; none: by time_ms.
    std::function<bool()> ended{};
  };
  Renewer(loop::Loop& loop, Random& random, std::string id, crypto::Role role,
          const trust::Anchors& anchors, Credential current, Hooks hooks);
  void start();
  /// The lane is there again.
  void on_up();
  void on_renewed(const wire::Renewed& answer);
  /// No lane, since the certificate is not taken. Where it has ended, or when this comes twenty
  /// times in a row, the next one is asked for at the recovery door.
  void on_refused();
  /// Takes over what another process has renewed; true where there was something newer. To be
  /// called where the certificate is refused, too.
  bool look();
  /// Sooner than the certificate's age says, at a moment of its own within `ms`; a minute after the
  /// renewal before at the soonest.
  void renew_within(std::uint64_t ms);
  [[nodiscard]] const Credential& current() const { return current_; }
  [[nodiscard]] std::int64_t due_ms() const;
  /// Renewals since the start.
  [[nodiscard]] std::uint64_t count() const { return count_; }

 private:
  void plan();
  void tick();
  void ask(bool use);
  void asked(bool use, Result<Bytes> envelope);
  [[nodiscard]] bool may_recover() const;
  void again(std::int64_t at_least_ms);
  [[nodiscard]] Result<Credential> check(const wire::Renewed& answer) const;
  void told_no(const wire::Renewed& answer);
  [[nodiscard]] std::int64_t life_ms() const;

  loop::Loop& loop_;
  Random& random_;
  const std::string id_;
  const crypto::Role role_;
  const trust::Anchors& anchors_;
  Credential current_;
  Hooks hooks_;
  loop::Timer timer_;
  Backoff backoff_;
  Signings signings_;
  std::uint64_t signing_ = 0;  ///< the newest request that is being signed
  std::uint64_t request_ = 0;  ///< that we wait for; 0 = none
  bool tells_use_ = false;     ///< it is for a use
  bool use_untold_ = false;
  int refusals_ = 0;  ///< since the last lane
  std::int64_t wished_ms_ = 0;
  std::optional<std::int64_t> renewed_at_ms_;  ///< by the loop's time
  std::uint64_t apart_ = 0;                    ///< from other processes of the identity, in steps
  std::uint64_t count_ = 0;
};

}  // namespace sally::identity
