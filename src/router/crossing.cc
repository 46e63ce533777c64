// SPDX-License-Identifier: Apache-2.0
#include "router/crossing.h"

#include "fabric/hop.h"

namespace sally::router {
namespace {

constexpr std::size_t kHoldFrom = 4096;  // smaller payloads are in a hurry
constexpr std::size_t kHoldChunks = 8;

}  // namespace

Crossing::~Crossing() {
  for (const Slot& slot : slots_) {
    if (slot.mail != nullptr) budget_.add(-static_cast<std::int64_t>(slot.mail->chunks.size()));
  }
}

bool Crossing::send_data(End to, wire::Class cls, ByteView payload, ChunkPtr* whole,
                         ChunkPool& pool) {
  Slot& slot = slots_[index(to)];
  const bool bulk = payload.size() >= kHoldFrom;
  {
    const std::lock_guard lock(slot.mutex);
    Mail& mail = slot.open();
    auto& chunks = mail.chunks;
    mail.cls = cls;
    if (fabric::merge_into(chunks, payload, whole, pool)) pool.let_go(*chunks.back());
    if (slot.told) return false;
    if (bulk && chunks.size() < kHoldChunks) return !std::exchange(slot.held, true);
    slot.told = true;
  }
  slot.inbox.send(shared_from_this());
  return false;
}

bool Crossing::still_held(End to, Held& held) {
  Slot& slot = slots_[index(to)];
  {
    const std::lock_guard lock(slot.mutex);
    const std::size_t chunks = slot.mail == nullptr ? 0 : slot.mail->chunks.size();
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

Crossing::MailPtr Crossing::take(End at) {
  Slot& slot = slots_[index(at)];
  const std::lock_guard lock(slot.mutex);
  slot.told = false;
  return std::move(slot.mail);
}

}  // namespace sally::router
