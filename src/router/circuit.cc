// SPDX-License-Identifier: Apache-2.0
#include "router/circuit.h"

#include <utility>

namespace sally::router {

void HopSide::grant() {
  if (lane() == nullptr || remote_label() == 0) return;
  if (const auto limit = in_.take_credit()) lane()->send_credit(*this, *limit);
}

Status HopSide::on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) {
  TRY(in_.on_data(offset, payload, whole, lane()->pool()));
  if (other_->lane() != nullptr) other_->lane()->ready(*other_);
  return {};
}

Status HopSide::on_fin(std::uint64_t offset) {
  TRY(in_.on_fin(offset));
  if (other_->lane() != nullptr) other_->lane()->ready(*other_);
  return {};
}

void HopSide::on_credit(std::uint64_t limit) {
  other_->in_.on_credit(limit);
  lane()->ready(*this);
}

Status HopSide::on_ack(std::uint64_t offset) {
  // Acknowledgements are between the ends; this hop keeps nothing for them.
  if (other_->lane() != nullptr && other_->remote_label() != 0)
    other_->lane()->send_ack(*other_, offset);
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
  auto piece = other_->in_.next();
  if (!piece) return false;
  out.fin = piece->fin;
  out.offset = piece->offset;
  out.chunk = std::move(piece->chunk);
  other_->grant();
  return true;
}

void Circuit::opened() {
  open_ = true;
  dialing_.grant();
  hosting_.grant();
}

}  // namespace sally::router
