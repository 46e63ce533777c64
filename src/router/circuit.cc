// SPDX-License-Identifier: Apache-2.0
#include "router/circuit.h"

#include <algorithm>
#include <utility>

#include "router/opening.h"

namespace sally::router {

// ---- either kind of side
// ---------------------------------------------------------------------

// Usage is counted once per circuit: where the dialer's connection is.
UsageCell* Side::counted() const {
  return this == circuit_.dialing_.get() ? circuit_.usage_ : nullptr;
}

void Side::set_quantum(std::uint32_t bytes) {
  if (circuit_.crossing_ != nullptr) circuit_.crossing_->set_quantum(circuit_.end_, bytes);
}

bool Side::pass_on(wire::Class cls, ByteView payload, ChunkPtr* whole) {
  if (UsageCell* cell = counted(); cell != nullptr) cell->sent += payload.size();
  CircuitOwner& owner = circuit_.owner();
  if (Side* other = circuit_.other(*this); other != nullptr) {
    if (!other->attached()) return false;
    other->set_class(cls);
    other->out_.push(payload, whole, owner.pool());
    other->wake();
  } else if (circuit_.crossing_ != nullptr) {
    const auto to = Crossing::other(circuit_.end_);
    if (circuit_.crossing_->send_data(to, cls, payload, whole, owner.pool()))
      owner.on_crossing_held(circuit_.crossing_, to);
  }
  if (owner.budget().scarce()) owner.on_memory_scarce();
  return true;
}

std::optional<fabric::HopOutlet::Piece> Side::next_piece() {
  auto piece = out_.next();
  if (!piece) return piece;
  if (UsageCell* cell = counted(); cell != nullptr && !piece->fin)
    cell->received += piece->chunk->size();
  tell_forwarded();
  return piece;
}

void Side::tell_forwarded() {
  if (Side* upstream = circuit_.other(*this); upstream != nullptr)
    return upstream->grant(out_.forwarded());
  if (circuit_.crossing_ == nullptr) return;
  const auto to = Crossing::other(circuit_.end_);
  const auto forwarded = out_.take_forwarded(circuit_.crossing_->quantum(to));
  if (!forwarded) return;
  ChunkPool& pool = circuit_.owner().pool();
  circuit_.crossing_->send(to, [&](Crossing::Mail& m) {
    m.forwarded = forwarded;
    for (; circuit_.borrowed_ > 0; --circuit_.borrowed_) {
      ChunkPtr spare = pool.give();
      if (spare == nullptr) break;
      m.spares.push_back(std::move(spare));
    }
  });
  circuit_.borrowed_ = 0;
}

// ---- on a lane
// -------------------------------------------------------------------------------

void HopSide::wake() {
  if (lane() != nullptr) lane()->ready(*this);
}

// The other side has passed on what came from here: the lane here may send as much more.
void HopSide::grant(std::uint64_t forwarded) {
  if (lane() == nullptr || remote_label() == 0 || !in_.grant_due(forwarded)) return;
  const auto limit = in_.grant(forwarded, circuit_.owner().window_conditions(*lane()));
  if (!limit) return;
  lane()->send_credit(*this, *limit);
  set_quantum(in_.quantum());
}

void HopSide::pass_ack(std::uint64_t offset) {
  if (lane() != nullptr && remote_label() != 0) lane()->send_ack(*this, offset);
}

void HopSide::end(wire::ResetCode code, const std::string& text) {
  if (lane() != nullptr) lane()->reset(*this, code, text);
}

Status HopSide::on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) {
  TRY(in_.on_data(offset, payload.size()));
  (void)pass_on(heard_class(), payload, whole);
  return {};
}

Status HopSide::on_fin(std::uint64_t offset) {
  TRY(in_.on_fin(offset));
  if (Side* other = circuit_.other(*this); other != nullptr) {
    other->outlet().push_fin();
    other->wake();
  } else if (circuit_.crossing_ != nullptr) {
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
  if (Side* other = circuit_.other(*this); other != nullptr) {
    other->pass_ack(offset);
  } else if (circuit_.crossing_ != nullptr) {
    circuit_.crossing_->send(Crossing::other(circuit_.end_), [&](Crossing::Mail& m) {
      m.ack = std::max(offset, m.ack.value_or(0));
    });
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
  auto piece = next_piece();
  if (!piece) return false;
  out.fin = piece->fin;
  out.offset = piece->offset;
  out.chunk = std::move(piece->chunk);
  return true;
}

// ---- circuits
// --------------------------------------------------------------------------------

Circuit::Circuit(CircuitOwner& owner, CircuitId id, Share dialer)
    : owner_(owner), id_(id), dialer_(std::move(dialer)) {}

Circuit::~Circuit() {
  leave_crossing();
}

HopSide& Circuit::make_dialing() {
  if (dialing_ == nullptr) dialing_ = std::make_unique<HopSide>(*this);
  return *dialing_->on_lane();
}

HopSide& Circuit::make_hosting() {
  if (hosting_ == nullptr) hosting_ = std::make_unique<HopSide>(*this);
  return *hosting_->on_lane();
}

void Circuit::opened() {
  open_ = true;
  for (Side* side : {hosting_.get(), dialing_.get()}) {
    if (side != nullptr) side->grant(0);
  }
}

void Circuit::leave_crossing() {
  if (crossing_ != nullptr && crossing_->half(end_) == this) crossing_->set_half(end_, nullptr);
}

void Circuit::set_crossing(CrossingPtr crossing, Crossing::End end) {
  leave_crossing();
  crossing_ = std::move(crossing);
  end_ = end;
  told_end_ = false;
  if (crossing_ == nullptr) return;
  crossing_->set_half(end_, this);
  (end_ == Crossing::End::kDialing ? hosting_ : dialing_).reset();
}

void Circuit::end_beyond(wire::ResetCode code, const std::string& text) {
  if (crossing_ == nullptr || std::exchange(told_end_, true)) return;
  crossing_->send(Crossing::other(end_),
                  [&](Crossing::Mail& m) { m.reset = wire::Reset{.code = code, .text = text}; });
}

void Circuit::tell_gone() {
  if (crossing_ == nullptr) return;
  crossing_->send(Crossing::other(end_), [](Crossing::Mail& m) { m.gone = true; });
}

void Circuit::deliver(Crossing::Mail& mail) {
  gone_beyond_ |= mail.gone;
  Side* side = end_ == Crossing::End::kDialing ? dialing_.get() : hosting_.get();
  if (side == nullptr) return;
  if (mail.forwarded) side->grant(*mail.forwarded);
  if (!side->attached()) return;
  ChunkPool& pool = owner_.pool();
  if (mail.ack) side->pass_ack(*mail.ack);
  for (ChunkPtr& chunk : mail.spares) pool.keep(std::move(chunk));
  mail.spares.clear();
  side->set_class(mail.cls);
  const bool more = mail.fin || !mail.chunks.empty();
  for (ChunkPtr& chunk : mail.chunks) {
    pool.adopt(*chunk);
    side->out_.push(chunk->view(), &chunk, pool);
    chunk.reset();  // small ones were merged
    ++borrowed_;
  }
  mail.chunks.clear();
  if (mail.fin) side->out_.push_fin();
  if (more) side->wake();
}

}  // namespace sally::router
