// SPDX-License-Identifier: Apache-2.0
#include "replica/cards.h"

namespace sally::replica {

void CardCache::put(trust::VerifiedCard card, Bytes envelope) {
  const std::lock_guard lock(mutex_);
  const auto it = by_id_.find(card->id);
  if (it != by_id_.end()) {
    const auto& held = *it->second->card;
    if (card->credential_epoch < held.credential_epoch || card->attr_epoch < held.attr_epoch)
      return;
    order_.erase(it->second);
    by_id_.erase(it);
  }
  if (order_.size() >= max_ && !order_.empty()) {
    by_id_.erase(order_.back().card->id);
    order_.pop_back();
  }
  order_.push_front({std::move(card), std::move(envelope)});
  by_id_[order_.front().card->id] = order_.begin();
}

std::optional<Bytes> CardCache::find(std::string_view id, std::int64_t now_ms,
                                     const trust::Revocation& revocation) {
  const std::lock_guard lock(mutex_);
  const auto it = by_id_.find(std::string(id));
  if (it == by_id_.end()) return std::nullopt;
  const auto& card = *it->second->card;
  if (card.not_after_ms <= now_ms || !revocation.identity_alive(card.id, card.credential_epoch)) {
    order_.erase(it->second);
    by_id_.erase(it);
    return std::nullopt;
  }
  order_.splice(order_.begin(), order_, it->second);
  return order_.front().envelope;
}

std::size_t CardCache::size() const {
  const std::lock_guard lock(mutex_);
  return order_.size();
}

}  // namespace sally::replica
