// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "trust/records.h"

namespace sally::replica {

/// Cards seen or fetched, newest use first, bounded.
/// Owned by one worker of a router; its thread only.
/// A card past its end, or dead by the state, is not found.
class CardCache {
 public:
  explicit CardCache(std::size_t max = 100'000) : max_(max) {}
  struct Entry {
    trust::VerifiedCard card;
    Bytes envelope;
  };
  /// Replaces an older card of the id; a card with a lower epoch than the one held is dropped.
  void put(trust::VerifiedCard card, Bytes envelope);
  /// nullptr: ask the controller. The pointer is good until the next put or erase.
  const Entry* find(std::string_view id, std::int64_t now_ms, const trust::Revocation& revocation);
  void erase(std::string_view id);
  [[nodiscard]] std::size_t size() const { return order_.size(); }

 private:
  std::size_t max_;
  std::list<Entry> order_;
  std::unordered_map<std::string, std::list<Entry>::iterator> by_id_;
};

}  // namespace sally::replica
