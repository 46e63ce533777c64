// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>

#include "base/token_bucket.h"

namespace sally {

/// A token bucket for each source, so that one that floods takes from nobody else. At most `most`
/// are remembered; the one that was quiet longest is forgotten for a new one.
/// Owner: whoever limits. Thread: the owner's. Failure: none.
class SourceRates {
 public:
  /// An IPv4 address or an IPv6 /64 (loop::Address::source_key).
  using Source = std::array<std::uint8_t, 16>;
  SourceRates(double per_second, double burst, std::size_t most)
      : fresh_(per_second, burst), most_(most) {}

  /// False when this source exceeds its rate.
  [[nodiscard]] bool take(const Source& source, std::int64_t now_us) {
    auto found = table_.find(source);
    if (found == table_.end()) {
      if (table_.size() >= most_) {
        table_.erase(order_.front().source);
        order_.pop_front();
      }
      order_.push_back({source, fresh_});
      found = table_.emplace(source, std::prev(order_.end())).first;
    } else {
      order_.splice(order_.end(), order_, found->second);
    }
    return found->second->bucket.take(now_us);
  }
  [[nodiscard]] std::size_t size() const { return table_.size(); }

 private:
  struct Entry {
    Source source;
    TokenBucket bucket;
  };
  using Order = std::list<Entry>;  ///< quiet longest first
  TokenBucket fresh_;
  std::size_t most_;
  Order order_;
  std::map<Source, Order::iterator> table_;
};

}  // namespace sally
