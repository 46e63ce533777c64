// SPDX-License-Identifier: Apache-2.0
#include "fabric/hop.h"

#include <algorithm>
#include <utility>

namespace sally::fabric {

Status HopInlet::on_data(std::uint64_t offset, std::size_t size) {
  if (fin_) return fail(Errc::kAfterFin);
  if (offset != received_) return fail(Errc::kGap);
  if (offset + size > granted_) return fail(Errc::kBeyondCredit);
  received_ += size;
  return {};
}

Status HopInlet::on_fin(std::uint64_t offset) {
  if (fin_ || offset != received_) return fail(Errc::kBadFin);
  fin_ = true;
  return {};
}

void HopOutlet::on_credit(std::uint64_t limit) {
  limit_ = std::max(limit_, limit);
}

bool HopOutlet::sendable() const {
  if (queue_.empty()) return fin_ && !fin_sent_;
  return forwarded_ < limit_;
}

std::optional<HopOutlet::Piece> HopOutlet::next() {
  if (!sendable()) return std::nullopt;
  if (queue_.empty()) {
    fin_sent_ = true;
    return Piece{.fin = true, .offset = forwarded_, .chunk = nullptr};
  }
  Piece piece{.fin = false, .offset = forwarded_, .chunk = nullptr};
  const std::size_t size = queue_.front().size();
  const std::uint64_t allowed = limit_ - forwarded_;
  if (size <= allowed) {
    piece.chunk = queue_.pop_front();
    forwarded_ += size;
  } else {
    // Credit ends inside a merged chunk: send the part it covers.
    Chunk& front = queue_.front();
    piece.chunk = front.home->copy_of(front.view().first(allowed));
    front.begin += static_cast<std::uint32_t>(allowed);
    forwarded_ += allowed;
  }
  return piece;
}

std::optional<std::uint64_t> HopOutlet::take_credit() {
  const std::uint64_t limit = forwarded_ + kWindow;
  if (fin_ || limit < granted_ + kWindow / 2) return std::nullopt;
  granted_ = limit;
  return limit;
}

}  // namespace sally::fabric
