// SPDX-License-Identifier: Apache-2.0
#include "fabric/hop.h"

#include <algorithm>
#include <utility>

namespace sally::fabric {

Status HopInlet::on_data(std::uint64_t offset, std::size_t size) {
  if (fin_ != 0) return fail(Errc::kAfterFin);
  if (offset != received_) return fail(Errc::kGap);
  if (offset + size > granted_) return fail(Errc::kBeyondCredit);
  received_ += size;
  return {};
}

Status HopInlet::on_fin(std::uint64_t offset) {
  if (fin_ != 0 || offset != received_) return fail(Errc::kBadFin);
  fin_ = 1;
  return {};
}

std::optional<std::uint64_t> HopInlet::grant(std::uint64_t drained, const WindowConditions& now) {
  if (fin_ != 0) return std::nullopt;
  const auto limit = window_.grant(drained, granted_, now);
  if (limit) granted_ = *limit;
  return limit;
}

bool HopOutlet::sendable() const {
  if (queue_.empty()) return fin_ != 0 && fin_sent_ == 0;
  if (limit_ <= forwarded_) return false;
  // What upstream sent as one frame leaves as one, unless much of it could go.
  return limit_ - forwarded_ >= std::min<std::uint64_t>(queued_, kSplitFrom);
}

std::optional<HopOutlet::Piece> HopOutlet::next() {
  if (!sendable()) return std::nullopt;
  if (queue_.empty()) {
    fin_sent_ = 1;
    return Piece{.fin = true, .offset = forwarded_, .chunk = nullptr};
  }
  Piece piece{.fin = false, .offset = forwarded_, .chunk = nullptr};
  Chunk& front = queue_.front();
  const auto size =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(front.size(), limit_ - forwarded_));
  if (size == front.size()) {
    piece.chunk = queue_.pop_front();
  } else {
    // Credit ends inside it: the part that it covers.
    piece.chunk = front.home->copy_of(front.view().first(size));
    front.begin += size;
  }
  forwarded_ += size;
  queued_ -= size;
  untold_ += size;
  return piece;
}

std::optional<std::uint64_t> HopOutlet::take_forwarded(std::uint32_t quantum) {
  if (fin_ != 0 || untold_ < quantum) return std::nullopt;
  untold_ = 0;
  return forwarded();
}

}  // namespace sally::fabric
