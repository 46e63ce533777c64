// SPDX-License-Identifier: Apache-2.0
#include "router/accounts.h"

#include <algorithm>
#include <limits>

namespace sally::router {

bool Account::may_dial_now(std::int64_t now_us) {
  const std::lock_guard lock(mutex_);
  return dials_.take(now_us);
}

bool Account::may_bind_now(std::int64_t now_us) {
  const std::lock_guard lock(mutex_);
  return binds_.take(now_us);
}

bool Account::may_renew_now(std::int64_t now_us) {
  const std::lock_guard lock(mutex_);
  return renewals_.take(now_us);
}

std::size_t Account::cap(Use use) const {
  switch (use) {
    case Use::kNothing:
      break;
    case Use::kLane:
      return limits_.lanes;
    case Use::kOpening:
      return limits_.openings;
    case Use::kAsked:
      return limits_.asked;
    case Use::kCircuit:
      return limits_.circuits;
  }
  return std::numeric_limits<std::uint32_t>::max();
}

Share Share::take(Account& account, Use use) {
  auto& used = account.used_[static_cast<std::size_t>(use)];
  if (used.fetch_add(1, std::memory_order_relaxed) < account.cap(use)) return {account, use};
  used.fetch_sub(1, std::memory_order_relaxed);
  return {};
}

Share::~Share() {
  // Release: whoever sees nothing used may destroy the account.
  if (account_ != nullptr)
    account_->used_[static_cast<std::size_t>(use_)].fetch_sub(1, std::memory_order_release);
}

Share Share::more(Use use) const {
  return take(*account_, use);
}

Share Accounts::open(const std::string& name, Use use) {
  const std::lock_guard lock(mutex_);
  auto& account = by_name_[name];
  if (account == nullptr) account = std::make_unique<Account>(name, limits_);
  account->idle_since_us_ = 0;
  return Share::take(*account, use);
}

void Accounts::tidy(std::int64_t now_us) {
  const double refill_s =
      std::max(limits_.dial_burst / limits_.dials_per_s, limits_.bind_burst / limits_.binds_per_s);
  const std::lock_guard lock(mutex_);
  std::erase_if(by_name_, [&](const auto& entry) {
    Account& account = *entry.second;
    // New uses come from one that is there, or through us.
    if (!std::ranges::all_of(account.used_, [](const std::atomic<std::uint32_t>& used) {
          return used.load(std::memory_order_acquire) == 0;
        })) {
      account.idle_since_us_ = 0;
      return false;
    }
    if (account.idle_since_us_ == 0) account.idle_since_us_ = now_us;
    return static_cast<double>(now_us - account.idle_since_us_) >= refill_s * 1e6;
  });
}

std::size_t Accounts::size() const {
  const std::lock_guard lock(mutex_);
  return by_name_.size();
}

}  // namespace sally::router
