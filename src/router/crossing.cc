// SPDX-License-Identifier: Apache-2.0
#include "router/crossing.h"

#include "fabric/hop.h"

namespace sally::router {
namespace {

constexpr std::size_t kHoldFrom = 4096;  // smaller payloads are in a hurry
constexpr std::size_t kHoldChunks = 8;

}  // namespace

void Crossing::Mail::clear() {
  order.reset();
  answer.reset();
  refusal.reset();
  chunks.clear();
  fin = false;
  credit.reset();
  spares.clear();
  ack.reset();
  reset.reset();
}

bool Crossing::send_data(End to, ByteView payload, ChunkPtr* whole, ChunkPool& pool) {
  Slot& slot = slots_[static_cast<std::size_t>(to)];
  const bool bulk = payload.size() >= kHoldFrom;
  {
    const std::lock_guard lock(slot.mutex);
    auto& chunks = slot.mail.chunks;
    if (fabric::merge_into(chunks, payload, whole, pool)) pool.let_go(*chunks.back());
    if (slot.told) return false;
    if (bulk && chunks.size() < kHoldChunks) return !std::exchange(slot.held, true);
    slot.told = true;
  }
  slot.inbox.send(shared_from_this());
  return false;
}

bool Crossing::still_held(End to, Held& held) {
  Slot& slot = slots_[static_cast<std::size_t>(to)];
  {
    const std::lock_guard lock(slot.mutex);
    const std::size_t chunks = slot.mail.chunks.size();
    if (!slot.told) {
      held.unchanged = chunks == held.chunks ? held.unchanged + 1 : 0;
      held.chunks = chunks;
      if (held.unchanged < 2) return true;
    }
    slot.held = false;
    if (std::exchange(slot.told, true)) return false;
  }
  slot.inbox.send(shared_from_this());
  return false;
}

void Crossing::take(End at, Mail& mail) {
  Slot& slot = slots_[static_cast<std::size_t>(at)];
  const std::lock_guard lock(slot.mutex);
  std::swap(slot.mail, mail);
  slot.told = false;
}

}  // namespace sally::router
