// SPDX-License-Identifier: Apache-2.0
#include "fabric/windows.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sally::fabric {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kBeyondCredit:
      return "fabric.beyond_credit";
    case Errc::kGap:
      return "fabric.gap";
    case Errc::kBadAck:
      return "fabric.bad_ack";
    case Errc::kAfterFin:
      return "fabric.after_fin";
    case Errc::kBadFin:
      return "fabric.bad_fin";
    case Errc::kBadLabel:
      return "fabric.bad_label";
    case Errc::kLabelsFull:
      return "fabric.labels_full";
  }
  return "fabric.unknown";
}

void SendWindow::push(Bytes record) {
  take({.offset = end_, .bytes = std::move(record), .chunk = nullptr});
}

void SendWindow::push(ChunkPtr record) {
  take({.offset = end_, .bytes = {}, .chunk = std::move(record)});
}

void SendWindow::take(Record record) {
  const std::size_t size = record.view().size();
  SALLY_CHECK(size > 0 && size <= kMaxPayload && !fin_);
  end_ += size;
  records_.push_back(std::move(record));
}

std::optional<std::uint64_t> WindowSize::grant(std::uint64_t taken, std::uint64_t granted,
                                               const WindowConditions& now) {
  // Below this a fast sender on a near lane would be told more often than is worth it.
  constexpr std::int64_t kShortestUs = 500;
  const auto most = static_cast<std::uint32_t>(now.most);
  const bool first = bytes_ == 0;
  const std::uint32_t bytes =
      first ? std::min(static_cast<std::uint32_t>(now.first), most) : bytes_;
  if (taken + bytes < granted + bytes / 2) return std::nullopt;
  const auto now_us = static_cast<std::uint32_t>(now.now_us);
  const std::uint32_t since_us = now_us - last_us_;
  last_us_ = now_us;
  bytes_ = bytes;
  if (!first && since_us < 2 * std::max(now.rtt_us, kShortestUs)) bytes_ = 2 * bytes;
  if (bytes_ > most) bytes_ = std::max(most, bytes / 2);
  const std::uint64_t limit = taken + bytes_;
  return limit > granted ? std::optional(limit) : std::nullopt;
}

bool SendWindow::sendable() const {
  if (sent_ == end_) return fin_ && !fin_sent_;
  if (limit_ <= sent_) return false;
  const Record& r = records_[cursor_];
  return r.end() <= limit_ || limit_ - sent_ >= kSplitFrom;
}

std::optional<SendWindow::Piece> SendWindow::next() {
  if (!sendable()) return std::nullopt;
  if (sent_ == end_) {
    fin_sent_ = true;
    return Piece{.fin = true, .offset = end_, .payload = {}};
  }
  const Record& r = records_[cursor_];
  const std::uint64_t from = sent_;
  sent_ = std::min(r.end(), limit_);
  const ByteView payload = r.view().subspan(from - r.offset, sent_ - from);
  if (sent_ == r.end()) ++cursor_;
  const bool whole = payload.size() == r.view().size();
  return Piece{
      .fin = false, .offset = from, .payload = payload, .whole = whole ? r.chunk.get() : nullptr};
}

void SendWindow::on_credit(std::uint64_t limit) {
  limit_ = std::max(limit_, limit);
}

Status SendWindow::on_ack(std::uint64_t offset) {
  if (fin_sent_ && sent_ == end_ && offset == end_ + 1) {
    fin_acked_ = true;
    offset = end_;
  }
  if (offset > sent_) return fail(Errc::kBadAck);
  acked_ = std::max(acked_, offset);
  while (!records_.empty() && records_.front().end() <= acked_) {
    records_.pop_front();
    if (cursor_ > 0) --cursor_;
  }
  return {};
}

Status SendWindow::restart(std::uint64_t next_expected) {
  if (next_expected < acked_ || next_expected > end_) return fail(Errc::kBadAck);
  sent_ = next_expected;
  cursor_ = 0;
  while (cursor_ < records_.size() && records_[cursor_].end() <= sent_) ++cursor_;
  limit_ = next_expected + kInitialCredit;
  fin_sent_ = fin_acked_;
  return {};
}

Result<ByteView> RecvWindow::on_data(std::uint64_t offset, ByteView payload) {
  const std::uint64_t end = offset + payload.size();
  if (end > granted_) return fail(Errc::kBeyondCredit);
  if (offset > expected_) return fail(Errc::kGap);
  if (end <= expected_) return ByteView{};
  if (fin_) return fail(Errc::kAfterFin);
  const ByteView fresh = payload.subspan(expected_ - offset);
  expected_ = end;
  return fresh;
}

Status RecvWindow::on_fin(std::uint64_t offset) {
  if (offset != expected_) return fail(Errc::kBadFin);
  fin_ = true;
  return {};
}

std::optional<std::uint64_t> RecvWindow::take_credit(const WindowConditions& now) {
  if (fin_) return std::nullopt;
  const auto limit = window_.grant(consumed_, granted_, now);
  if (limit) granted_ = *limit;
  return limit;
}

std::optional<std::uint64_t> RecvWindow::take_ack(bool flush) {
  const std::uint64_t at = position();
  if (at == ack_sent_ || (!flush && !fin_ && at - ack_sent_ < kAckEvery)) return std::nullopt;
  ack_sent_ = at;
  return at;
}

void RecvWindow::restart() {
  granted_ = expected_ + kInitialCredit;
}

}  // namespace sally::fabric
