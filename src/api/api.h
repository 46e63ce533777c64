// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/compat/sessions.h"
#include "api/errc.h"
#include "api/http.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/source_rates.h"
#include "base/token_bucket.h"
#include "pki/authority.h"
#include "pki/enroll.h"
#include "pki/renew.h"
#include "pki/status.h"
#include "store/store.h"

namespace sally::api {

/// What the API shows of things that are alive now. Implemented by controller/ over its control
/// lanes; any thread.
class Live {
 public:
  struct Router {
    bool online = false;
    std::uint64_t version = 0;  ///< of the replicated state it confirmed
    std::int64_t seen_ms = 0;
    std::size_t terminators = 0;
  };
  struct Host {  ///< somebody who offers a service now
    std::string service;
    std::string device;
    std::string router;
    std::int64_t since_ms = 0;
  };
  /// What a router said of itself in its last report; rates since the one before.
  struct RouterLoad {
    std::string router;
    std::int64_t at_ms = 0;
    std::uint64_t lanes = 0;
    std::uint64_t circuits = 0;
    double in_per_s = 0;   ///< bytes from its devices
    double out_per_s = 0;  ///< bytes to them
    double cpu = 0;        ///< cores in use
    std::uint64_t rss_bytes = 0;
  };
  struct Flow {  ///< bytes a second that a device's circuits to a service carried
    std::string device;
    std::string service;
    double sent_per_s = 0;
    double received_per_s = 0;
  };
  struct Load {
    std::vector<RouterLoad> routers;
    std::vector<Flow> flows;
  };
  struct Enforced {
    std::size_t routers = 0;  ///< confirmed the version
    std::size_t of = 0;       ///< online
    std::uint64_t flows_cut = 0;
    std::int64_t took_ms = 0;
  };
  virtual ~Live() = default;
  [[nodiscard]] virtual Router router(const std::string& id) const = 0;
  [[nodiscard]] virtual std::vector<Host> hosts() const = 0;
  /// Somebody looks: for the next seconds routers report more often.
  [[nodiscard]] virtual Load traffic() = 0;
  /// New entries are in the change log: push them.
  virtual void changed() = 0;
  /// Blocks until all routers online confirmed `version`, at most `timeout_ms`.
  virtual Enforced await(std::uint64_t version, std::int64_t timeout_ms) = 0;
  /// That identity is to renew its certificate now, wherever it is connected.
  virtual void renew_now(const std::string& id, std::int64_t within_ms) = 0;
};

/// Everything a handler works with. All references outlive the Api.
struct Deps {
  NetworkId network;
  store::Store& store;
  pki::AuthorityPtr authority;
  const pki::TokenDoor& door;
  /// The current ones: both are renewed while the process runs.
  std::function<std::shared_ptr<const pki::RestIdentity>()> rest;
  std::function<crypto::SignerPtr()> signer;
  std::function<std::int64_t()> signer_not_after_s;
  Live& live;
  const Clock& clock;
  Random& random;
  std::string url;       ///< https://host:port, the issuer in tokens
  std::string instance;  ///< constant for one run
  /// All figures of the controller as Prometheus text; from any thread.
  std::function<std::string()> metrics;
  std::int64_t renewing_life_s = pki::kRenewingLifeS;
  /// The recovery door; none: it is not served.
  const pki::RenewalDoor* renewals = nullptr;
  const pki::StatusDesk* status = nullptr;  ///< none: outsiders are told nothing
  Sessions* sessions = nullptr;             ///< none: no foreign end can log in
};

/// REST of one network: the compatible client API and /fleet/v1, plain synchronous handlers without
/// sockets. Owned by the network object; handle() from any thread of the pool; it may wait for the
/// database. Never fails: every refusal is a response with a stable code.
class Api {
 public:
  explicit Api(Deps deps) : deps_(std::move(deps)) {}
  [[nodiscard]] Response handle(const Request& request) const;

  struct RouteInfo {
    std::string method;
    std::string path;  ///< with {name} for parameters
  };
  /// The fleet routes, for the comparison with openapi/fleet.yaml.
  static std::vector<RouteInfo> fleet_routes();
  /// Requests by route and status, their times, enrolments by result.
  void write_metrics(metrics::Text& out) const;

 private:
  /// Each costs a read and a signature check before anybody is known. The sources as at the
  /// listener (tls::AcceptLimits).
  static constexpr double kRecoveriesPerSource = 50;
  static constexpr double kRecoveryBurstPerSource = 200;
  static constexpr std::size_t kRecoverySources = 8192;
  /// Of all whose signature was good: each costs a transaction and a certificate.
  static constexpr double kRecoveriesPerSecond = 500;
  static constexpr double kRecoveryBurst = 2'000;
  /// What was asked, for the counts: a pattern of a table, never what a stranger wrote.
  using RouteName = std::string_view;
  [[nodiscard]] Response answer(const Request& request, RouteName& name) const;
  [[nodiscard]] Response fleet(const Request& request, const std::string& path,
                               RouteName& name) const;
  void note_caller(const Request& request, RouteName route, const Error* refused) const;
  /// Audits that who has a certificate of ours was refused; at a rate.
  void note_denied(const Request& request, RouteName route, std::string_view code) const;
  [[nodiscard]] bool may_audit_denial() const;
  void audit_caller(const Request& request, std::string_view action, RouteName route,
                    std::string_view code) const;
  [[nodiscard]] Response compatible(const Request& request, const std::string& path, bool prefixed,
                                    RouteName& name) const;
  /// compat/client.cc: what needs a proven leaf.
  [[nodiscard]] Response login(const Request& request) const;
  [[nodiscard]] Response client(const Request& request, const std::string& path,
                                RouteName& name) const;
  [[nodiscard]] Response metrics_text(const Request& request) const;
  /// recovery.cc: for whom no router lets in.
  [[nodiscard]] Response recover(const Request& request) const;
  /// Asks a bucket under the lock; counts who gets nothing.
  [[nodiscard]] bool admit_recovery(const std::function<bool(std::int64_t now_us)>& take) const;
  // public.cc
  [[nodiscard]] Response revocation_list(const Request& request, const std::string& path) const;
  [[nodiscard]] Response certificate_status(const Request& request) const;
  Deps deps_;
  mutable std::mutex stats_mutex_;  // both below
  mutable std::map<std::pair<RouteName, int>, std::uint64_t> answered_;
  mutable std::map<std::string_view, std::uint64_t> enrolments_;  ///< by static code
  mutable std::map<std::string_view, std::uint64_t> recoveries_;  ///< by static code
  mutable SourceRates recovery_sources_{kRecoveriesPerSource, kRecoveryBurstPerSource,
                                        kRecoverySources};
  mutable TokenBucket recovery_rate_{kRecoveriesPerSecond, kRecoveryBurst};
  static constexpr std::size_t kMaxLogins = 10'000;
  mutable std::map<std::string, std::int64_t> logins_;  ///< day of the last, by serial
  // Audited: of who holds a key of ours, and of strangers, who must not fill it.
  mutable TokenBucket denial_rate_{1.0, 200};
  mutable TokenBucket stranger_rate_{1.0 / 60, 20};
  mutable std::array<metrics::Latency, 2> latency_;  ///< GET, all others
};

inline constexpr std::size_t kMaxBody = 256 * 1024;

}  // namespace sally::api
