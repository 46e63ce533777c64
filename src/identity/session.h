// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/random.h"
#include "identity/renew.h"
#include "identity/signing.h"
#include "loop/loop.h"

namespace sally::identity {

/// Whether a key in memory with a session certificate stands in for the device's own.
enum class SessionKey : std::uint8_t {
  kAuto,    ///< where the device's key is in hardware and a signature takes more than kSlowSignMs
  kAlways,  ///< as soon as the controller gives one
  kNever,
};
inline constexpr std::int64_t kSlowSignMs = 30;

/// Gets session certificates over a device's lane: a new key in memory each time, the request
/// signed by the device's own key once. Owner: an SDK engine. Thread: its loop's. Failure: a log
/// line, asked again later and later; the device's own key serves meanwhile. The keys are wiped
/// with their last user.
class SessionKeeper {
 public:
  struct Hooks {
    /// False: no lane.
    std::function<bool(wire::Renew message)> send;
    /// Time of the lane.
    std::function<std::int64_t()> time_ms;
    /// From now on; nullopt: the device's own again.
    std::function<void(const std::optional<Credential>& session)> use;
  };
  SessionKeeper(loop::Loop& loop, Random& random, std::string id, const trust::Anchors& anchors,
                SessionKey mode, Hooks hooks);
  /// There is a lane, or another one. `device`: the certificate that a session stands for.
  void on_up(const Credential& device);
  /// False: not an answer to this.
  bool on_renewed(const wire::Renewed& answer);
  /// The device's certificate is another one now: what there is falls with the older one.
  void on_device(const Credential& device);
  /// A router refuses this session certificate: the device's own key serves until the next one.
  void drop();
  /// The device's card says whether it may have any.
  void allow(bool yes);
  [[nodiscard]] bool active() const { return session_.has_value(); }
  /// Certificates since the start.
  [[nodiscard]] std::uint64_t count() const { return count_; }

 private:
  void tick();
  void ask();
  void asked(std::int64_t began_ms, Result<Bytes> envelope);
  void again();
  void forget();
  [[nodiscard]] Result<Credential> check(const wire::Renewed& answer) const;
  [[nodiscard]] bool wanted() const;

  loop::Loop& loop_;
  Random& random_;
  const std::string id_;
  const trust::Anchors& anchors_;
  SessionKey mode_;
  Hooks hooks_;
  loop::Timer timer_;
  Backoff backoff_;
  Signings signings_;
  std::optional<Credential> device_;
  std::optional<Credential> session_;
  crypto::SignerPtr next_key_;  ///< of the request that is under way
  std::uint64_t signing_ = 0;   ///< the newest request that is being signed
  std::uint64_t request_ = 0;   ///< that we wait for; 0 = none
  bool allowed_ = true;
  std::uint64_t count_ = 0;
};

}  // namespace sally::identity
