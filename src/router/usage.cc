// SPDX-License-Identifier: Apache-2.0
#include "router/usage.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "router/errors.h"

namespace sally::router {
namespace {

constexpr std::int64_t kLeastIntervalMs = 500;

}  // namespace

UsageCell* UsageTable::opened(const std::string& device, const std::string& service,
                              std::int64_t mono_ms) {
  const std::string key = device + '\n' + service;
  UsageCell* cell = &other_.cell;
  if (const auto it = cells_.find(key); it != cells_.end()) {
    cell = &it->second->cell;
  } else if (cells_.size() < max_) {
    auto named = std::make_unique<Named>();
    named->device = device;
    named->service = service;
    cell = &cells_.emplace(key, std::move(named)).first->second->cell;
  }
  cell->pass(mono_ms);
  ++cell->open;
  ++cell->circuits;
  return cell;
}

void UsageTable::closed(UsageCell& cell, std::int64_t mono_ms) {
  cell.pass(mono_ms);
  --cell.open;
}

std::vector<wire::UsageEntry> UsageTable::take(std::uint32_t day, std::int64_t mono_ms) {
  std::vector<wire::UsageEntry> out;
  const auto take_one = [&](Named& n) {
    UsageCell& c = n.cell;
    c.pass(mono_ms);
    // Time alone is told with the next bytes, or when the last circuit is closed: an idle circuit
    // makes no traffic.
    if (c.sent == 0 && c.received == 0 && c.circuits == 0 && (c.open != 0 || c.open_ms == 0))
      return;
    out.push_back({.day = day,
                   .device = n.device,
                   .service = n.service,
                   .sent = std::exchange(c.sent, 0),
                   .received = std::exchange(c.received, 0),
                   .circuits = std::exchange(c.circuits, 0),
                   .open_ms = std::exchange(c.open_ms, 0)});
  };
  for (auto it = cells_.begin(); it != cells_.end();) {
    take_one(*it->second);
    it = it->second->cell.open == 0 ? cells_.erase(it) : std::next(it);
  }
  take_one(other_);
  return out;
}

void UsageLedger::add(const std::vector<wire::UsageEntry>& entries) {
  for (const auto& e : entries) {
    Key key{e.day, e.device, e.service};
    auto it = waiting_.find(key);
    if (it == waiting_.end()) {
      if (waiting_.size() >= max_) key = {e.day, "", ""};
      it = waiting_.try_emplace(key).first;
      std::tie(it->second.day, it->second.device, it->second.service) = key;
    }
    it->second.sent += e.sent;
    it->second.received += e.received;
    it->second.circuits += e.circuits;
    it->second.open_ms += e.open_ms;
  }
}

wire::Usage UsageLedger::sealed(std::uint64_t sequence, std::size_t most) const {
  wire::Usage batch;
  batch.epoch = epoch_;
  batch.sequence = sequence;
  for (const auto& [key, entry] : waiting_) {
    if (batch.entries.size() == most) break;
    batch.entries.push_back(entry);
  }
  return batch;
}

const wire::Usage& UsageLedger::next(std::int64_t mono_ms, const wire::RouterLive& live) {
  if (!old_.empty()) return old_.front();
  if (!under_way_) {
    under_way_ = sealed(++sequence_, kBatch);
    // Batches that follow each other at once share what was counted in one interval.
    if (mono_ms - since_ms_ >= kLeastIntervalMs) {
      interval_ms_ = mono_ms - since_ms_;
      since_ms_ = mono_ms;
    }
    under_way_->interval_ms = static_cast<std::uint64_t>(interval_ms_);
    waiting_.erase(
        waiting_.begin(),
        std::next(waiting_.begin(), static_cast<std::ptrdiff_t>(under_way_->entries.size())));
  }
  under_way_->live = live;  // the figures of now, also with a batch that is sent again
  return *under_way_;
}

bool UsageLedger::acknowledged(const wire::UsageAck& ack) {
  const auto is = [&](const wire::Usage& u) {
    return u.epoch == ack.epoch && u.sequence == ack.sequence;
  };
  if (!old_.empty()) {
    if (!is(old_.front())) return false;
    old_.pop_front();
    return true;
  }
  if (!under_way_ || !is(*under_way_)) return false;
  under_way_.reset();
  return true;
}

bool UsageLedger::empty() const {
  return old_.empty() && waiting_.empty() && (!under_way_ || under_way_->entries.empty());
}

Bytes UsageLedger::save() const {
  Bytes out;
  const auto put = [&](wire::Usage batch) {
    if (batch.entries.empty()) return;
    batch.live = {};
    const Bytes one = wire::encode(wire::Control{std::move(batch)});
    put_big(out, one.size(), 4);
    append(out, one);
  };
  for (const auto& batch : old_) put(batch);
  if (under_way_) put(*under_way_);
  UsageLedger rest(epoch_, max_);
  rest.waiting_ = waiting_;
  for (std::uint64_t sequence = sequence_; !rest.waiting_.empty();) {
    wire::Usage batch = rest.sealed(++sequence, kBatch);
    rest.waiting_.erase(
        rest.waiting_.begin(),
        std::next(rest.waiting_.begin(), static_cast<std::ptrdiff_t>(batch.entries.size())));
    put(std::move(batch));
  }
  return out;
}

Status UsageLedger::load(ByteView saved) {
  std::deque<wire::Usage> all;
  Reader in(saved);
  while (in.left() != 0) {
    const ByteView one = in.take(static_cast<std::size_t>(in.big(4)));
    if (!in.ok()) return fail(Errc::kConfig, "cut off", Source::kLocal);
    auto message = wire::decode_control(one);
    if (!message) return fail(message.error());
    auto* batch = std::get_if<wire::Usage>(&message->member);
    if (batch == nullptr) return fail(Errc::kConfig, "no usage", Source::kLocal);
    all.push_back(std::move(*batch));
  }
  old_ = std::move(all);
  return {};
}

}  // namespace sally::router
