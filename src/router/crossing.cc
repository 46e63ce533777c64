// SPDX-License-Identifier: Apache-2.0
#include "router/crossing.h"

#include "fabric/hop.h"

namespace sally::router {

void Crossing::Mail::clear() {
  order.reset();
  answer.reset();
  refusal.reset();
  chunks.clear();
  fin = false;
  credit.reset();
  ack.reset();
  reset.reset();
}

void Crossing::send_data(End to, ByteView payload, ChunkPtr* whole, ChunkPool& pool) {
  send(to, [&](Mail& mail) {
    if (fabric::merge_into(mail.chunks, payload, whole, pool)) pool.let_go(*mail.chunks.back());
  });
}

void Crossing::take(End at, Mail& mail) {
  Slot& slot = slots_[static_cast<std::size_t>(at)];
  const std::lock_guard lock(slot.mutex);
  std::swap(slot.mail, mail);
  slot.told = false;
}

}  // namespace sally::router
