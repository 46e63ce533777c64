// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "replica/sharded_map.h"
#include "trust/records.h"
#include "wire/messages.h"

namespace sally::replica {

/// A service as replicated. `verified` is false where no signer we know vouches for the envelope:
/// then it is as if absent.
struct ServiceView {
  Bytes envelope;
  wire::ServiceRecord record;
  bool verified = false;
};

/// The replicated rows, the same at the writer and at every reader after the same ops.
/// A value; copies share the tables that did not change. Immutable where shared between threads.
/// apply() refuses an op whose service envelope is not of the network.
class Tables {
 public:
  template <typename T>
  using Map = std::map<std::string, T, std::less<>>;

  Status apply(const wire::StateOp& op, std::string_view network);
  /// Forgets revoked certificates that have ended: in a snapshot of that time there are none. The
  /// writer and its readers do it at the same heads.
  void forget_ended(std::int64_t now_ms);
  /// The ops that make these tables from nothing, in one canonical order.
  [[nodiscard]] Bytes snapshot() const;

  [[nodiscard]] const Map<wire::RouterEntry>& routers() const { return *routers_; }
  [[nodiscard]] const Map<ServiceView>& services() const { return *services_; }
  [[nodiscard]] const ShardedMap<wire::IdentityState>& identities() const { return identities_; }
  [[nodiscard]] const ShardedMap<wire::RevokedCertificate>& revoked() const { return revoked_; }
  /// Of all tables.
  [[nodiscard]] std::size_t rows() const {
    return routers_->size() + services_->size() + identities_.size() + revoked_.size();
  }
  /// Checks every service not yet verified against the context's signers; how many are still not.
  std::size_t verify_services(const trust::Context& ctx);

 private:
  /// One table, shared between copies until one of them changes it.
  template <typename T>
  class Shared {
   public:
    Shared() = default;
    Shared(const Shared& o) : rows_(o.rows_), mine_(false) { o.mine_ = false; }
    Shared& operator=(const Shared& o) {
      if (this != &o) {
        rows_ = o.rows_;
        o.mine_ = mine_ = false;
      }
      return *this;
    }
    ~Shared() = default;
    const Map<T>& operator*() const { return *rows_; }
    const Map<T>* operator->() const { return rows_.get(); }
    Map<T>& change() {
      if (!mine_) rows_ = std::make_shared<Map<T>>(*rows_);
      mine_ = true;
      return *rows_;
    }

   private:
    std::shared_ptr<Map<T>> rows_ = std::make_shared<Map<T>>();
    mutable bool mine_ =
        true;  ///< no copy shares rows_; copies are made by the owner's thread only
  };

  Shared<wire::RouterEntry> routers_;
  Shared<ServiceView> services_;
  ShardedMap<wire::IdentityState> identities_;
  ShardedMap<wire::RevokedCertificate> revoked_;
};

/// hash(n) = SHA-256(hash(n-1) || LogEntry bytes).
wire::Hash chain_hash(const wire::Hash& before, ByteView entry);

}  // namespace sally::replica
