// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/token_bucket.h"

namespace sally::router {

/// What a name may use of a router at a time.
enum class Use : std::uint8_t {
  kNothing,  ///< only the name is kept
  kLane,
  kOpening,  ///< circuits it dials, from SETUP to the answer
  kAsked,    ///< set-ups that wait for its answer as a host
  kCircuit,  ///< circuits it dialed
};

struct AccountLimits {
  std::size_t lanes = 32;
  std::size_t openings = 64;
  std::size_t asked = 256;
  std::size_t circuits = 25'000;
  double dials_per_s = 100;
  double dial_burst = 400;
  double binds_per_s = 50;  ///< binds and unbinds
  double bind_burst = 1'000;
  double renewals_per_s = 1.0 / 10;  ///< requests, and uses that are told
  double renewal_burst = 20;
};

/// What one identity, or one service, uses of a router, over all its connections and workers.
/// Owner: Accounts. Thread: any. Failure: beyond a limit it says no, which costs nothing.
class Account {
 public:
  Account(std::string name, const AccountLimits& limits)
      : name_(std::move(name)),
        limits_(limits),
        dials_(limits.dials_per_s, limits.dial_burst),
        binds_(limits.binds_per_s, limits.bind_burst),
        renewals_(limits.renewals_per_s, limits.renewal_burst) {}

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool may_dial_now(std::int64_t now_us);
  [[nodiscard]] bool may_bind_now(std::int64_t now_us);
  [[nodiscard]] bool may_renew_now(std::int64_t now_us);
  [[nodiscard]] std::size_t used(Use use) const {
    return used_[static_cast<std::size_t>(use)].load(std::memory_order_relaxed);
  }

 private:
  friend class Accounts;
  friend class Share;
  [[nodiscard]] std::size_t cap(Use use) const;

  const std::string name_;
  const AccountLimits& limits_;
  std::array<std::atomic<std::uint32_t>, 5> used_{};  // by Use
  std::mutex mutex_;                                  // all three below
  TokenBucket dials_;
  TokenBucket binds_;
  TokenBucket renewals_;
  std::int64_t idle_since_us_ = 0;  // the Accounts' mutex
};

/// A part of an account in use, given back when it ends; while there is one the account stays.
/// Owner: what uses it. Thread: any, one at a time. Never fails.
class Share {
 public:
  Share() = default;
  Share(Share&& other) noexcept
      : account_(std::exchange(other.account_, nullptr)), use_(other.use_) {}
  Share& operator=(Share&& other) noexcept {
    std::swap(account_, other.account_);
    std::swap(use_, other.use_);
    return *this;
  }
  ~Share();

  /// False when none was free.
  explicit operator bool() const { return account_ != nullptr; }
  [[nodiscard]] Account& account() const { return *account_; }
  /// Another use of the same account.
  [[nodiscard]] Share more(Use use) const;

 private:
  friend class Accounts;
  Share(Account& account, Use use) : account_(&account), use_(use) {}
  static Share take(Account& account, Use use);
  Account* account_ = nullptr;
  Use use_ = Use::kNothing;
};

/// The accounts of a router, by name. One is kept until its rates are full again, so that nobody
/// gets new ones by coming back.
/// Owner: the router. Thread: any; one lock. Failure: none; names are those of authenticated
/// devices and of services in the state, so their number is bounded by them.
class Accounts {
 public:
  explicit Accounts(AccountLimits limits) : limits_(limits) {}

  /// Empty when `use` is at its limit.
  [[nodiscard]] Share open(const std::string& name, Use use);
  /// Drops what nobody uses and could not be told from a new one. To be called every few seconds.
  void tidy(std::int64_t now_us);
  [[nodiscard]] std::size_t size() const;

 private:
  const AccountLimits limits_;
  mutable std::mutex mutex_;  // all below
  std::unordered_map<std::string, std::unique_ptr<Account>> by_name_;
};

}  // namespace sally::router
