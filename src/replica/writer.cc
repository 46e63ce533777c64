// SPDX-License-Identifier: Apache-2.0
#include "replica/writer.h"

#include <algorithm>

#include "crypto/hash.h"
#include "wire/frame.h"

namespace sally::replica {

namespace {

constexpr std::size_t kKeepEntries = 8'192;
constexpr std::size_t kKeepBytes = std::size_t{4} << 20U;
constexpr std::uint64_t kCompactEvery = 256;
constexpr std::size_t kMaxSnapshot = wire::kMaxControlMessage - (std::size_t{64} << 10U);

}  // namespace

LogWriter::LogWriter(std::string network, crypto::SignerPtr signer,
                     std::vector<wire::SignerChain> chains)
    : network_(std::move(network)), signer_(std::move(signer)), chains_(std::move(chains)) {}

Bytes LogWriter::make_entry(std::uint64_t version, const wire::StateOp& op) {
  return wire::encode(wire::LogEntry{version, wire::encode(op)});
}

Status LogWriter::append(ByteView entry, const std::optional<wire::Hash>& stored_hash) {
  TRY_ASSIGN(const auto decoded, wire::decode_log_entry(entry));
  const auto wrong = [&](const char* what) {
    return fail(Errc::kChain, "version " + std::to_string(decoded.version) + ": " + what,
                Source::kInternal);
  };
  if (decoded.version != version_ + 1) return wrong("does not follow");
  const auto hash = chain_hash(hash_, entry);
  if (stored_hash && *stored_hash != hash) return wrong("hash");
  TRY_ASSIGN(const auto op, wire::decode_state_op(decoded.op));
  TRY(tables_.apply(op, network_));
  version_ = decoded.version;
  hash_ = hash;
  recent_.push_back({version_, hash_, to_bytes(entry)});
  recent_bytes_ += entry.size();
  while (recent_.size() > kKeepEntries || recent_bytes_ > kKeepBytes) {
    recent_bytes_ -= recent_.front().bytes.size();
    recent_.pop_front();
  }
  return {};
}

std::optional<wire::Hash> LogWriter::hash_at(std::uint64_t version) const {
  if (version == version_) return hash_;
  if (version == 0) return wire::Hash{};
  if (recent_.empty() || version < recent_.front().version || version > version_)
    return std::nullopt;
  return recent_[version - recent_.front().version].hash;
}

// A snapshot costs its writer and its readers time with every row: the more rows, the rarer.
std::uint64_t LogWriter::compact_every() const {
  return std::clamp<std::uint64_t>(tables_.rows() / 16, kCompactEvery, kKeepEntries / 2);
}

Status LogWriter::refresh_snapshot_head(std::int64_t now_ms) {
  snapshot_head_.clear();
  snapshot_version_ = version_;  // a failure is not tried again at once
  // Of a copy, whose parts are shared: a clock that was ahead for a while must not make us forget
  // for good.
  Tables left = tables_;
  left.forget_ended(now_ms);
  snapshot_ = left.snapshot();
  if (snapshot_.size() > kMaxSnapshot)
    return fail(Errc::kTooLarge, std::to_string(snapshot_.size()), Source::kLocal);
  const wire::SnapshotHead head{network_, version_, hash_, crypto::sha256(snapshot_), now_ms};
  TRY_ASSIGN(snapshot_head_, trust::make_snapshot_head(head, *signer_));
  return {};
}

Result<wire::StateUpdate> LogWriter::update_for(std::uint64_t version, const wire::Hash& hash,
                                                std::int64_t now_ms) {
  if (version > version_) {
    return fail(Errc::kAhead, "reader has version " + std::to_string(version) + ", writer " +
                                  std::to_string(version_));
  }
  wire::StateUpdate out;
  out.signers = chains_;
  TRY_ASSIGN(out.head, trust::make_state_head({network_, version_, hash_, now_ms}, *signer_));
  const auto known = hash_at(version);
  if (known && *known == hash) {
    if (version == version_) {
      // Forgetting is optional: a network too large for one message goes on without.
      if (version_ - snapshot_version_ >= compact_every()) (void)refresh_snapshot_head(now_ms);
      if (version_ != 0 && snapshot_version_ == version_) out.snapshot_head = snapshot_head_;
      return out;
    }
    if (!recent_.empty() && recent_.front().version <= version + 1) {
      for (auto i = static_cast<std::size_t>(version + 1 - recent_.front().version);
           i < recent_.size(); ++i) {
        out.entries.push_back(recent_[i].bytes);
      }
      return out;
    }
  }
  // Too far back, or another history: everything. A reader that sits on another history of the same
  // version refuses (fork) until it is reset.
  if (snapshot_version_ != version_ || snapshot_head_.empty()) TRY(refresh_snapshot_head(now_ms));
  out.snapshot_head = snapshot_head_;
  out.snapshot = snapshot_;
  return out;
}

Result<wire::StateUpdate> LogWriter::update_since(std::uint64_t version, std::int64_t now_ms) {
  const auto hash = hash_at(version);
  return update_for(version, hash.value_or(wire::Hash{}), now_ms);
}

}  // namespace sally::replica
