// SPDX-License-Identifier: Apache-2.0
// The reader's half: what a router holds, verifies, persists and serves from.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "replica/errc.h"
#include "replica/tables.h"
#include "trust/trust.h"

namespace sally::replica {

/// The state at one version.
/// Held through shared_ptr<const State>; made by Replica only.
/// Immutable: any thread.
/// Lookups return nullptr or false for what is not known: deny.
class State final : public trust::Revocation {
 public:
  [[nodiscard]] const std::string& network() const { return network_; }
  [[nodiscard]] std::uint64_t version() const { return version_; }
  [[nodiscard]] const wire::Hash& hash() const { return hash_; }
  /// Time in the newest signed head; 0 before the first.
  [[nodiscard]] std::int64_t head_time_ms() const { return head_time_ms_; }
  /// The newest head is at most `grace_ms` old. A state without a head is never fresh.
  [[nodiscard]] bool fresh(std::int64_t now_ms, std::int64_t grace_ms) const {
    return head_time_ms_ > 0 && now_ms - head_time_ms_ <= grace_ms;
  }

  /// Verified, and its record not past its end at `now_ms`; otherwise nullptr.
  [[nodiscard]] const ServiceView* service(std::string_view id, std::int64_t now_ms) const;
  [[nodiscard]] const ServiceView* service_named(std::string_view name, std::int64_t now_ms) const;
  [[nodiscard]] const Tables::Map<ServiceView>& services() const { return tables_.services(); }
  [[nodiscard]] const wire::RouterEntry* router(std::string_view id) const;
  [[nodiscard]] const Tables::Map<wire::RouterEntry>& routers() const { return tables_.routers(); }
  /// nullptr: active at credential epoch 0.
  [[nodiscard]] const wire::IdentityState* identity(std::string_view id) const;
  [[nodiscard]] const trust::SignerSet& signers() const { return signers_; }

  [[nodiscard]] bool serial_revoked(std::string_view serial_hex) const override;
  /// Revoked, and not merely because a renewed one is in use: what is up ends too.
  [[nodiscard]] bool serial_cut(std::string_view serial_hex) const;
  [[nodiscard]] bool identity_alive(std::string_view id,
                                    std::uint64_t credential_epoch) const override;
  [[nodiscard]] bool router_known(std::string_view id) const override {
    return router(id) != nullptr;
  }

 private:
  friend class Replica;
  std::string network_;
  std::uint64_t version_ = 0;
  wire::Hash hash_{};
  std::int64_t head_time_ms_ = 0;
  Tables tables_;
  trust::SignerSet signers_;
};
using StatePtr = std::shared_ptr<const State>;

/// What an update changed, for whoever cuts flows and pushes service lists.
struct Diff {
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::set<std::string> services;    ///< put or removed, by id
  std::set<std::string> identities;  ///< standing or epochs changed
  std::set<std::string> routers;
  std::set<std::string> serials;        ///< newly revoked
  std::size_t unverified_services = 0;  ///< in the whole state: worth a warning
  bool whole = false;       ///< everything was replaced: what is absent above may have changed too
  bool older_head = false;  ///< the writer's clock went back; how fresh we are stays as it was
  [[nodiscard]] bool empty() const {
    return services.empty() && identities.empty() && routers.empty() && serials.empty();
  }
};

/// Takes updates, keeps the state and the signed material it came from, writes that to disk: the
/// whole of it now and then, and what came since behind it.
/// Owned by the router; one thread (states are handed to others).
/// An update is taken whole or not at all; after a refusal the old state stands.
class Replica {
 public:
  explicit Replica(trust::Anchors anchors);

  /// Hash chain, signed head, snapshot and its head, network, no step back. `update` may be the
  /// encoded or the decoded form. kGap and kDiverged mean: ask for everything (reset() first on
  /// kDiverged).
  Result<Diff> apply(const wire::StateUpdate& update, std::int64_t now_ms);
  Result<Diff> apply(ByteView update, std::int64_t now_ms);

  /// Never null; empty before the first update.
  [[nodiscard]] const StatePtr& state() const { return state_; }
  /// Back to nothing.
  void reset();
  /// Newer roots; what is held stays.
  void set_anchors(trust::Anchors anchors) { anchors_ = std::move(anchors); }

  /// True where a save is due: at once after a change of version, every 5 minutes for mere heads.
  [[nodiscard]] bool save_due(std::int64_t now_ms) const;
  /// After a crash the file holds what it held before or what is saved; mode 0600.
  Status save(const std::string& path, std::int64_t now_ms);
  /// Verifies everything in the file as if it came from the wire. fs code where there is no file;
  /// otherwise a refusal means a damaged or foreign file: the replica is empty and must say so
  /// loudly. An end that was cut off in the middle of a save is as if it had not been saved.
  Status load(const std::string& path, std::int64_t now_ms);

 private:
  Status take_snapshot(const wire::StateUpdate& update, const trust::Context& ctx,
                       State& next) const;
  Status take_entries(const wire::StateUpdate& update, State& next, Diff& diff) const;
  void keep(const wire::StateUpdate& update, std::uint64_t before);
  Status load_file(ByteView file, const std::string& path, std::int64_t now_ms);

  trust::Anchors anchors_;
  StatePtr state_;
  wire::StateUpdate material_;  ///< leads from nothing to state_
  // What the file lacks, as frames; the last head stands alone until the next change brings its
  // own.
  Bytes unsaved_;
  Bytes unsaved_head_;
  std::string behind_;           ///< the file that these go behind; empty: write all of it
  std::size_t file_whole_ = 0;   ///< bytes of its first part
  std::size_t file_behind_ = 0;  ///< of the rest
  std::uint64_t saved_version_ = 0;
  std::int64_t saved_at_ms_ = 0;
  bool dirty_ = false;
};

}  // namespace sally::replica
