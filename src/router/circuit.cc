// SPDX-License-Identifier: Apache-2.0
#include "router/circuit.h"

#include <algorithm>
#include <utility>

namespace sally::router {

void HopSide::wake() {
  if (lane() != nullptr) lane()->ready(*this);
}

// Usage is counted once per circuit: where the dialer's lane is.
UsageCell* HopSide::counted() const {
  return this == &circuit_.dialing_ ? circuit_.usage_ : nullptr;
}

// What left on this lane frees room: the lane on the other side may send as much more.
void HopSide::grant_upstream() {
  if (other_ != nullptr && (other_->lane() == nullptr || other_->remote_label() == 0)) return;
  const auto limit = out_.take_credit();
  if (!limit) return;
  if (other_ != nullptr) {
    other_->granted(*limit);
  } else {
    ChunkPool& pool = lane()->pool();
    circuit_.crossing_->send(Crossing::other(circuit_.end_), [&](Crossing::Mail& m) {
      m.credit = limit;
      for (; borrowed_ > 0; --borrowed_) {
        ChunkPtr spare = pool.give();
        if (spare == nullptr) break;
        m.spares.push_back(std::move(spare));
      }
    });
    borrowed_ = 0;
  }
}

void HopSide::granted(std::uint64_t limit) {
  if (lane() == nullptr || remote_label() == 0) return;
  in_.granted(limit);
  lane()->send_credit(*this, limit);
}

Status HopSide::on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) {
  TRY(in_.on_data(offset, payload.size()));
  if (UsageCell* cell = counted(); cell != nullptr) cell->sent += payload.size();
  if (other_ != nullptr) {
    other_->out_.push(payload, whole, lane()->pool());
    other_->wake();
  } else {
    const auto to = Crossing::other(circuit_.end_);
    if (circuit_.crossing_->send_data(to, payload, whole, lane()->pool()))
      circuit_.owner_.on_crossing_held(circuit_.crossing_, to);
  }
  return {};
}

Status HopSide::on_fin(std::uint64_t offset) {
  TRY(in_.on_fin(offset));
  if (other_ != nullptr) {
    other_->out_.push_fin();
    other_->wake();
  } else {
    circuit_.crossing_->send(Crossing::other(circuit_.end_),
                             [](Crossing::Mail& m) { m.fin = true; });
  }
  return {};
}

void HopSide::on_credit(std::uint64_t limit) {
  out_.on_credit(limit);
  wake();
}

Status HopSide::on_ack(std::uint64_t offset) {
  // Acknowledgements are between the ends; this hop keeps nothing for them.
  if (other_ == nullptr) {
    circuit_.crossing_->send(Crossing::other(circuit_.end_), [&](Crossing::Mail& m) {
      m.ack = std::max(offset, m.ack.value_or(0));
    });
  } else if (other_->lane() != nullptr && other_->remote_label() != 0) {
    other_->lane()->send_ack(*other_, offset);
  }
  return {};
}

Status HopSide::on_setup_ok(ByteView payload) {
  return circuit_.owner().on_circuit_answer(circuit_, payload);
}
void HopSide::on_setup_err(const wire::SetupErr& err) {
  circuit_.owner().on_circuit_refused(circuit_, err);
}
void HopSide::on_reset(const wire::Reset& reset) {
  circuit_.owner().on_circuit_over(circuit_, reset);
}

bool HopSide::next_frame(Out& out) {
  auto piece = out_.next();
  if (!piece) return false;
  out.fin = piece->fin;
  out.offset = piece->offset;
  out.chunk = std::move(piece->chunk);
  if (UsageCell* cell = counted(); cell != nullptr && !out.fin) cell->received += out.chunk->size();
  grant_upstream();
  return true;
}

void Circuit::opened() {
  open_ = true;
  if (crossing_ != nullptr) {
    here().grant_upstream();
  } else {
    hosting_.grant_upstream();
    dialing_.grant_upstream();
  }
}

void Circuit::set_crossing(CrossingPtr crossing, Crossing::End end) {
  crossing_ = std::move(crossing);
  end_ = end;
  told_end_ = false;
  dialing_.other_ = crossing_ == nullptr ? &hosting_ : nullptr;
  hosting_.other_ = crossing_ == nullptr ? &dialing_ : nullptr;
}

void Circuit::end_beyond(wire::ResetCode code, const std::string& text) {
  if (crossing_ == nullptr || std::exchange(told_end_, true)) return;
  crossing_->send(Crossing::other(end_),
                  [&](Crossing::Mail& m) { m.reset = wire::Reset{.code = code, .text = text}; });
}

void Circuit::deliver(Crossing::Mail& mail) {
  HopSide& side = here();
  lane::Lane* lane = side.lane();
  if (lane == nullptr) return;
  if (mail.ack && side.remote_label() != 0) lane->send_ack(side, *mail.ack);
  if (mail.credit) side.granted(*mail.credit);
  for (ChunkPtr& chunk : mail.spares) {
    lane->pool().adopt(*chunk);
    chunk.reset();
  }
  for (ChunkPtr& chunk : mail.chunks) {
    lane->pool().adopt(*chunk);
    side.out_.push(chunk->view(), &chunk, lane->pool());
    chunk.reset();  // small ones were merged
    ++side.borrowed_;
  }
  if (mail.fin) side.out_.push_fin();
  if (mail.fin || !mail.chunks.empty()) lane->ready(side);
}

}  // namespace sally::router
