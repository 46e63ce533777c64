// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "router/device.h"
#include "router/foreign.h"

namespace sally::router {
namespace {

constexpr std::int64_t kLingerMs = 30'000;
// So much less must wait before the channel is read again, and the other worker tells so often.
constexpr std::uint64_t kStep = std::uint64_t{128} << 10U;

std::string text_of(wire::ResetCode code, const std::string& text) {
  if (!text.empty()) return text;
  switch (code) {
    case wire::ResetCode::kPolicy:
      return "dial access lost";
    case wire::ResetCode::kLaneLost:
      return "the other end's connection is gone";
    default:
      return "closed: " + std::string(wire::reset_code_name(code));
  }
}

}  // namespace

ForeignSide::ForeignSide(Circuit& circuit, loop::Loop& loop, const Device& device)
    : Side(circuit), loop_(loop), device_(device.id), serial_(device.peer().serial()) {
  // Its channel decides what leaves, not credit of a next hop.
  out_.on_credit(wire::kMaxOffset);
}

void ForeignSide::wake() {
  if (channel() != nullptr) channel()->ready(*this);
}

void ForeignSide::grant(std::uint64_t forwarded) {
  forwarded_ = std::max(forwarded, forwarded_);
  if (!blocks_ || sent_ - forwarded_ > circuit_.owner().most_waiting() - kStep) return;
  blocks_ = false;
  if (channel() != nullptr) channel()->block(*this, false, loop_.now_ms());
}

void ForeignSide::end(wire::ResetCode code, const std::string& text) {
  if (channel() != nullptr) channel()->close(*this, text_of(code, text));
}

void ForeignSide::on_stream(ByteView bytes, ChunkPtr* whole) {
  if (sent_ == 0) set_quantum(kStep);
  sent_ += bytes.size();
  if (!pass_on(wire::Class::kNormal, bytes, whole)) {
    forwarded_ = sent_;  // the other end has gone
    return;
  }
  if (blocks_ || sent_ - forwarded_ <= circuit_.owner().most_waiting()) return;
  blocks_ = true;
  if (channel() != nullptr) channel()->block(*this, true, loop_.now_ms());
}

void ForeignSide::on_closed(bool whole) {
  if (!circuit_.open()) return circuit_.owner().on_dialer_gone(circuit_);
  if (!whole)
    return circuit_.owner().on_circuit_over(circuit_,
                                            {.code = wire::ResetCode::kClosed, .text = "cut off"});
  // Behind what it sent.
  constexpr std::string_view kWhy = "close called";
  std::uint8_t record[edge::kMaxRecordHead + kWhy.size()];
  const std::size_t head =
      edge::encode({.length = kWhy.size(), .flags = edge::kClose, .uuid = std::nullopt},
                   std::span(record).first<edge::kMaxRecordHead>());
  std::ranges::copy(kWhy, record + head);
  sent_ += head + kWhy.size();
  if (!pass_on(wire::Class::kNormal, ByteView(record, head + kWhy.size()), nullptr))
    return on_ended();
  if (circuit_.gone_beyond()) return on_ended();
  circuit_.tell_gone();
  linger();
}

void ForeignSide::linger() {
  lingered_at_ = forwarded_;
  linger_ = std::make_unique<loop::Timer>(loop_.timers(), [this] {
    if (forwarded_ == lingered_at_) return on_stalled();
    lingered_at_ = forwarded_;
    linger_->arm(kLingerMs);
  });
  linger_->arm(kLingerMs);
}

void ForeignSide::on_ended() {
  circuit_.owner().on_circuit_over(circuit_, {.code = wire::ResetCode::kClosed, .text = {}});
}

void ForeignSide::on_stalled() {
  circuit_.owner().on_circuit_over(
      circuit_, {.code = wire::ResetCode::kTimeout,
                 .text = "the other end takes nothing, or a message has no end"});
}

void ForeignSide::on_dialed(Bytes key) {
  circuit_.owner().on_foreign_answer(circuit_, std::move(key));
}

void ForeignSide::on_dial_failed(const std::string& why) {
  circuit_.owner().on_circuit_refused(
      circuit_, {.circuit = circuit_.id(), .code = wire::SetupCode::kRefused, .text = why});
}

bool ForeignSide::next_piece(ChunkPtr& piece) {
  auto next = Side::next_piece();
  if (!next || next->fin) return false;
  piece = std::move(next->chunk);
  return true;
}

}  // namespace sally::router
