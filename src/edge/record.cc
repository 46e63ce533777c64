// SPDX-License-Identifier: Apache-2.0
#include "edge/record.h"

#include <algorithm>

namespace sally::edge {
namespace {

constexpr std::size_t kShortHead = 4;

}  // namespace

std::size_t encode(const Record& r, std::span<std::uint8_t, kMaxRecordHead> out) {
  put_little(out.data(), r.length, 3);
  out[3] = static_cast<std::uint8_t>(r.flags | (r.uuid ? kHasUuid : 0));
  if (!r.uuid) return kShortHead;
  std::ranges::copy(*r.uuid, out.begin() + kShortHead);
  return kMaxRecordHead;
}

std::optional<Record> RecordAssembler::next() {
  while (!head_done_) {
    const bool long_head = head_size_ >= kShortHead && (head_[3] & kHasUuid) != 0;
    const std::size_t size = long_head ? kMaxRecordHead : kShortHead;
    if (head_size_ == size) {
      head_done_ = true;
      break;
    }
    if (held_.empty()) return std::nullopt;
    Chunk& front = held_.front();
    const std::size_t n = std::min(size - head_size_, front.size());
    std::copy_n(front.data + front.begin, n, head_.begin() + head_size_);
    head_size_ += static_cast<std::uint8_t>(n);
    front.begin += static_cast<std::uint32_t>(n);
    held_bytes_ -= n;
    if (front.size() == 0) held_.pop_front();
  }
  Record r{.length = static_cast<std::uint32_t>(get_little(head_.data(), 3)),
           .flags = static_cast<std::uint8_t>(head_[3] & ~unsigned{kHasUuid}),
           .uuid = std::nullopt};
  if (held_bytes_ < r.length) return std::nullopt;
  if (head_size_ == kMaxRecordHead)
    std::copy_n(head_.begin() + kShortHead, kUuidSize, r.uuid.emplace().begin());
  return r;
}

void RecordAssembler::take_body(ChunkQueue& out, ChunkPool& pool) {
  std::size_t left = get_little(head_.data(), 3);
  held_bytes_ -= left;
  while (left > 0) {
    Chunk& front = held_.front();
    const bool all = front.size() <= left;
    const std::size_t n = all ? front.size() : std::min(left, kMaxPiece);
    left -= n;
    if (all) {
      ChunkPtr whole = held_.pop_front();
      fabric::merge_into(out, whole->view(), &whole, pool);
    } else {
      fabric::merge_into(out, front.view().first(n), nullptr, pool);
      front.begin += static_cast<std::uint32_t>(n);
    }
  }
  head_size_ = 0;
  head_done_ = false;
}

}  // namespace sally::edge
