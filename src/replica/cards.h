// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "trust/records.h"

namespace sally::replica {

/// Cards seen or fetched, newest use first, bounded. Owned by a router, for all its workers: a
/// device that comes back meets another one, and the controller may be away. Thread: any; one lock.
/// A card past its end, or dead by the state, is not found.
class CardCache {
 public:
  explicit CardCache(std::size_t max = 100'000) : max_(max) {}
  /// Replaces an older card of the id; a card with a lower epoch than the one held is dropped.
  void put(trust::VerifiedCard card, Bytes envelope);
  /// The envelope; none: ask the controller.
  std::optional<Bytes> find(std::string_view id, std::int64_t now_ms,
                            const trust::Revocation& revocation);
  [[nodiscard]] std::size_t size() const;

 private:
  struct Entry {
    trust::VerifiedCard card;
    Bytes envelope;
  };
  const std::size_t max_;
  mutable std::mutex mutex_;  // both below
  std::list<Entry> order_;
  std::unordered_map<std::string, std::list<Entry>::iterator> by_id_;
};

}  // namespace sally::replica
