// SPDX-License-Identifier: Apache-2.0
// The writer's half: what the controller appends to and sends from.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "crypto/key.h"
#include "replica/errc.h"
#include "replica/tables.h"

namespace sally::replica {

/// The head of one network's log, its tables, and the newest entries.
/// Owned by the controller's network object; under its lock, one thread at a time.
/// Stored entries that do not continue the chain are refused with kChain.
class LogWriter {
 public:
  /// `chains`: certificates of the signer (and of a previous one whose signatures still stand).
  LogWriter(std::string network, crypto::SignerPtr signer, std::vector<wire::SignerChain> chains);

  /// Encoded LogEntry for the next version, to be stored; append() it afterwards.
  static Bytes make_entry(std::uint64_t version, const wire::StateOp& op);
  /// An entry that is durable, in order: version = version() + 1. `stored_hash` is what the store
  /// computed.
  Status append(ByteView entry, const std::optional<wire::Hash>& stored_hash = {});
  /// For tests and tools: make_entry and append in one.
  Status append(const wire::StateOp& op) { return append(make_entry(version_ + 1, op)); }

  [[nodiscard]] const std::string& network() const { return network_; }
  [[nodiscard]] std::uint64_t version() const { return version_; }
  [[nodiscard]] const wire::Hash& hash() const { return hash_; }
  [[nodiscard]] const Tables& tables() const { return tables_; }

  /// What brings a reader at (version, hash) up to date, with a fresh signed head: nothing but the
  /// head, entries, or a snapshot. Also right for the regular heads every 10 s. kAhead for a reader
  /// that holds more than the writer: the controller was restored from an old copy; a human must
  /// look.
  Result<wire::StateUpdate> update_for(std::uint64_t version, const wire::Hash& hash,
                                       std::int64_t now_ms);
  /// For a reader that acknowledged `version`.
  Result<wire::StateUpdate> update_since(std::uint64_t version, std::int64_t now_ms);

 private:
  struct Entry {
    std::uint64_t version;
    wire::Hash hash;  ///< after it
    Bytes bytes;
  };
  [[nodiscard]] std::optional<wire::Hash> hash_at(std::uint64_t version) const;
  [[nodiscard]] std::uint64_t compact_every() const;
  Status refresh_snapshot_head(std::int64_t now_ms);

  std::string network_;
  crypto::SignerPtr signer_;
  std::vector<wire::SignerChain> chains_;
  Tables tables_;
  std::uint64_t version_ = 0;
  wire::Hash hash_{};
  std::deque<Entry> recent_;
  std::size_t recent_bytes_ = 0;
  Bytes snapshot_;       ///< of snapshot_version_
  Bytes snapshot_head_;  ///< Envelope
  std::uint64_t snapshot_version_ = 0;
};

}  // namespace sally::replica
