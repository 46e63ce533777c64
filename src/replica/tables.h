// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

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
  /// The ops that make these tables from nothing, in one canonical order.
  [[nodiscard]] Bytes snapshot() const;

  [[nodiscard]] const Map<wire::RouterEntry>& routers() const { return *routers_; }
  [[nodiscard]] const Map<ServiceView>& services() const { return *services_; }
  [[nodiscard]] const Map<wire::IdentityState>& identities() const { return *identities_; }
  [[nodiscard]] const Map<wire::RevokedCertificate>& revoked() const { return *revoked_; }
  /// Checks every service not yet verified against the context's signers; how many are still not.
  std::size_t verify_services(const trust::Context& ctx);

 private:
  template <typename T>
  static Map<T>& change(std::shared_ptr<const Map<T>>& table);

  std::shared_ptr<const Map<wire::RouterEntry>> routers_ =
      std::make_shared<Map<wire::RouterEntry>>();
  std::shared_ptr<const Map<ServiceView>> services_ = std::make_shared<Map<ServiceView>>();
  std::shared_ptr<const Map<wire::IdentityState>> identities_ =
      std::make_shared<Map<wire::IdentityState>>();
  std::shared_ptr<const Map<wire::RevokedCertificate>> revoked_ =
      std::make_shared<Map<wire::RevokedCertificate>>();
};

/// hash(n) = SHA-256(hash(n-1) || LogEntry bytes).
wire::Hash chain_hash(const wire::Hash& before, ByteView entry);

}  // namespace sally::replica
