// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "store/errc.h"
#include "store/model.h"

namespace sally::store {

/// Work on one network's rows: const calls read, the others change, nothing is visible before
/// commit(). Owned by the caller, on one thread, for as short as possible: it holds the network's
/// lock. Destruction without commit undoes everything. Fails with store codes; after a failed
/// change only destruction makes sense.
class Transaction {
 public:
  virtual ~Transaction() = default;

  // ---- reads; nullopt where there is no such row in this network
  [[nodiscard]] virtual Result<Network> network() const = 0;
  [[nodiscard]] virtual Result<std::vector<Authority>> authorities() const = 0;
  [[nodiscard]] virtual Result<std::optional<Identity>> identity(std::string_view id) const = 0;
  /// By name among those not removed.
  [[nodiscard]] virtual Result<std::optional<Identity>> identity_named(
      Kind kind, std::string_view name) const = 0;
  /// Not removed, by name.
  [[nodiscard]] virtual Result<std::vector<Identity>> identities(Kind kind, Page page) const = 0;
  [[nodiscard]] virtual Result<std::uint64_t> count_identities(Kind kind) const = 0;
  /// Those of a batch that are not removed, by name.
  [[nodiscard]] virtual Result<std::vector<Identity>> batch(std::string_view name) const = 0;
  /// All that routers must know of: not simply active at credential epoch 0 (tombstones included).
  [[nodiscard]] virtual Result<std::vector<Identity>> special_identities() const = 0;
  [[nodiscard]] virtual Result<std::optional<CertificateRow>> certificate(
      std::string_view serial) const = 0;
  /// Newest first.
  [[nodiscard]] virtual Result<std::vector<CertificateRow>> certificates_of(
      std::string_view identity) const = 0;
  /// Those that end first, first.
  [[nodiscard]] virtual Result<std::vector<CertificateRow>> certificates(
      const CertificateQuery& query, Page page) const = 0;
  /// Renewed ones issued before `before_ms` whose use nobody has told, while an older one of their
  /// identity is still good at `now_s`.
  [[nodiscard]] virtual Result<std::vector<CertificateRow>> unproven(std::int64_t before_ms,
                                                                     std::int64_t now_s) const = 0;
  /// The last certificate of every active identity, where that ends before `before_s` and, of those
  /// that live 100 days or less, where less than a fifth of the life is left at `now_s`: they
  /// should have renewed themselves. Soonest first, at most `limit`.
  [[nodiscard]] virtual Result<std::vector<Expiry>> expiring(std::int64_t now_s,
                                                             std::int64_t before_s,
                                                             std::uint64_t limit) const = 0;
  /// Revoked and not yet past their end.
  [[nodiscard]] virtual Result<std::vector<CertificateRow>> revoked_certificates(
      std::int64_t now_s) const = 0;
  /// Of an authority by its name, not past their end: revoked, or of a suspended identity.
  [[nodiscard]] virtual Result<std::vector<RevokedRow>> revoked_by(std::string_view issuer,
                                                                   std::int64_t now_s) const = 0;
  [[nodiscard]] virtual Result<std::optional<Enrollment>> enrollment(std::string_view id) const = 0;
  [[nodiscard]] virtual Result<std::optional<Enrollment>> enrollment_by_mac(ByteView mac) const = 0;
  /// Newest first.
  [[nodiscard]] virtual Result<std::vector<Enrollment>> enrollments(Page page) const = 0;
  [[nodiscard]] virtual Result<std::optional<ApiSession>> api_session_by_mac(
      ByteView mac) const = 0;
  [[nodiscard]] virtual Result<std::optional<ApiSession>> api_session(
      std::string_view id) const = 0;
  /// Oldest first.
  [[nodiscard]] virtual Result<std::vector<ApiSession>> api_sessions_of(
      std::string_view identity) const = 0;
  [[nodiscard]] virtual Result<std::vector<ApiSession>> api_sessions(Page page) const = 0;
  /// Oldest first, at most `limit` of an API session.
  [[nodiscard]] virtual Result<std::vector<ServiceSession>> service_sessions(
      std::string_view api_session, std::uint64_t limit) const = 0;
  [[nodiscard]] virtual Result<std::optional<Service>> service(std::string_view id) const = 0;
  [[nodiscard]] virtual Result<std::optional<Service>> service_named(
      std::string_view name) const = 0;
  [[nodiscard]] virtual Result<std::vector<Service>> services(Page page) const = 0;
  /// Of one service, or of all where `service` is empty.
  [[nodiscard]] virtual Result<std::vector<Grant>> grants(std::string_view service) const = 0;
  [[nodiscard]] virtual Result<std::optional<Grant>> grant(std::string_view id) const = 0;
  [[nodiscard]] virtual Result<std::optional<RouterInfo>> router_info(
      std::string_view id) const = 0;
  [[nodiscard]] virtual Result<LogHead> log_head() const = 0;
  /// Entries after `version`, in order, at most `limit`.
  [[nodiscard]] virtual Result<std::vector<LogRow>> log_after(std::uint64_t version,
                                                              std::size_t limit) const = 0;
  /// Newest first; `before` 0 = from the end.
  [[nodiscard]] virtual Result<std::vector<AuditRow>> audit_rows(std::uint64_t before,
                                                                 std::size_t limit) const = 0;
  /// Oldest first, those after `seq`.
  [[nodiscard]] virtual Result<std::vector<AuditRow>> audit_after(std::uint64_t seq,
                                                                  std::size_t limit) const = 0;
  [[nodiscard]] virtual Result<AuditBase> audit_base() const = 0;
  /// Walks both chains from where they begin; kAuditTampered or kLogTampered names the first wrong
  /// row. Rows checked.
  [[nodiscard]] virtual Result<std::uint64_t> verify_chains() const = 0;

  /// Sums by device and service (and day), the largest first.
  [[nodiscard]] virtual Result<std::vector<Usage>> usage(const UsageQuery& query,
                                                         Page page) const = 0;
  [[nodiscard]] virtual Result<Figures> figures(std::int64_t now_s) const = 0;

  // ---- counts, not changes: they need no audit row
  /// Adds one batch of a router. False where this one, or a later one of that epoch, was added
  /// before: nothing is counted twice.
  virtual Result<bool> add_usage(std::string_view router, ByteView epoch, std::uint64_t sequence,
                                 const std::vector<Usage>& rows) = 0;
  /// Forgets days before `day`, and epochs of routers not heard of since `before_ms`.
  virtual Status expire_usage(std::uint32_t day, std::int64_t before_ms) = 0;

  /// Notes a later time of last use; of a session that is gone, nothing.
  virtual Status touch_api_session(std::string_view id, std::int64_t active_ms) = 0;
  /// Forgets those last used at `active_ms` or before, or begun at `created_ms` or before; how
  /// many.
  virtual Result<std::uint64_t> expire_api_sessions(std::int64_t active_ms,
                                                    std::int64_t created_ms) = 0;
  /// What an API session asks for; nobody else's matter.
  virtual Status put_service_session(const ServiceSession& row) = 0;
  virtual Status remove_service_session(std::string_view id) = 0;

  // ---- changes; put_ inserts or replaces the row of that id
  virtual Status put_network(const Network& row) = 0;
  virtual Status put_authority(const Authority& row) = 0;
  /// kConflict where the name is taken by another identity of the kind.
  virtual Status put_identity(const Identity& row) = 0;
  virtual Status put_certificate(const CertificateRow& row) = 0;
  /// Revokes those of an identity, or of an authority by its name, that are not revoked, those that
  /// have ended too: at the recovery door they would still be worth something. How many (of an
  /// identity: that had not ended); routers are not told of each. Of an authority the superseded
  /// ones get the reason as well.
  virtual Result<std::uint64_t> revoke_certificates_of(std::string_view identity,
                                                       Reason reason) = 0;
  virtual Result<std::uint64_t> revoke_certificates_by(std::string_view issuer, Reason reason) = 0;
  /// Forgets at most `limit` that ended before `before_s`; how many. Those stay that still say
  /// something: the last of an identity, one that is newer than one that ended later (whose key is
  /// current would change), one whose revocation bars another one of its key.
  virtual Result<std::uint64_t> prune_certificates(std::int64_t before_s, std::uint64_t limit) = 0;
  /// kNotFound where there is none.
  virtual Status remove_certificate(std::string_view serial) = 0;
  /// Its tokens that nobody has used; how many.
  virtual Result<std::uint64_t> revoke_enrollments_of(std::string_view identity) = 0;
  virtual Status put_enrollment(const Enrollment& row) = 0;
  virtual Status put_api_session(const ApiSession& row) = 0;
  /// Takes its service sessions along.
  virtual Status remove_api_session(std::string_view id) = 0;
  virtual Status put_service(const Service& row) = 0;
  /// Takes its grants along.
  virtual Status remove_service(std::string_view id) = 0;
  /// kConflict where the same grant exists.
  virtual Status put_grant(const Grant& row) = 0;
  virtual Status remove_grant(std::string_view id) = 0;
  virtual Status put_router_info(const RouterInfo& row) = 0;
  virtual Status remove_router_info(std::string_view id) = 0;

  /// Appends to the hash-chained audit; every change needs one.
  virtual Status audit(std::string_view actor, std::string_view action, std::string_view subject,
                       std::string_view detail = {}) = 0;
  /// Forgets the rows before `before_ms`, all of one end: the chain goes on from the hash of the
  /// last of them, which a row of its own keeps. How many.
  virtual Result<std::uint64_t> prune_audit(std::string_view actor, std::int64_t before_ms) = 0;
  /// Appends an encoded StateOp to the change log; its version.
  virtual Result<std::uint64_t> append_op(ByteView op) = 0;

  /// What follows, up to end_part, can be undone without the rest. Not nested.
  virtual Status begin_part() = 0;
  /// Keeps it, or undoes it with what failed in it. kNoAudit, or what failed: it is undone too.
  virtual Status end_part(bool keep) = 0;
  /// Durable when it returns success. kNoAudit where rows changed and nobody said why.
  virtual Status commit() = 0;
};

/// How the layers above compute what this folder only stores.
struct Hooks {
  Hash (*sha256)(ByteView data) = nullptr;
  /// Encoded LogEntry.
  Bytes (*log_entry)(std::uint64_t version, ByteView op) = nullptr;
};

/// The database of a controller: all networks, one writer.
/// Owned by the controller; any thread, transactions exclude each other.
/// A thread must not begin a second transaction while it holds one.
/// Fails with store codes; an open store survives kill -9 at any moment.
class Store {
 public:
  virtual ~Store() = default;
  /// `now_ms` stamps the audit rows and log entries of this transaction.
  [[nodiscard]] virtual Result<std::unique_ptr<Transaction>> begin(const NetworkId& network,
                                                                   std::int64_t now_ms) = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<const Transaction>> read(
      const NetworkId& network) = 0;
  [[nodiscard]] virtual Result<std::vector<NetworkId>> networks() = 0;
};

/// Opens or makes the SQLite database at `path` (mode 0600) and brings its schema up to date.
/// ":memory:" for tests.
Result<std::unique_ptr<Store>> open_sqlite(const std::string& path, const Hooks& hooks);

}  // namespace sally::store
