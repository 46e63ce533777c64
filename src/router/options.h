// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/text.h"
#include "crypto/certificate.h"
#include "crypto/key.h"
#include "identity/renew.h"
#include "router/accounts.h"
#include "trust/trust.h"

namespace sally::router {

inline constexpr unsigned kMaxWorkers = 64;

/// All numbers are of the whole router, however many workers it has.
struct RouterOptions {
  std::string state_path;  ///< where the replicated state is kept
  HostPort listen;         ///< lanes; port 0 = any
  HostPort controller;
  /// Its URL, for a router whose certificate it does not take any more; may be empty.
  std::string controller_url{};
  std::string network;
  std::string id;
  std::vector<crypto::Certificate> chain;  ///< leaf, issuing
  crypto::SignerPtr key;
  trust::Anchors anchors;
  /// Keeps a renewed certificate; none: it is used until the process ends.
  std::function<Status(const identity::Credential&)> keep;
  std::int64_t grace_ms = 24LL * 3600 * 1000;  ///< offline grace (docs/wire-protocol.md)
  /// The loop's clock, where it is one: signed heads hold it up.
  FlooredClock* time = nullptr;
  /// For stream data that waits here. At three quarters windows stop growing, beyond it the largest
  /// stalled circuits are reset.
  std::size_t memory_bytes = std::size_t{1} << 30U;
  std::size_t max_circuits = 100'000;
  std::size_t max_openings = 4'096;  ///< circuits between SETUP and the answer
  AccountLimits per_device;
  /// So long one conn of a foreign end may hold up the others of its channel.
  std::int64_t foreign_stall_ms = 30'000;
  /// Of a service only the rate of dials counts.
  AccountLimits per_service{.dials_per_s = 1'000, .dial_burst = 4'000};
  /// 1: everything on the caller's loop. More (at most kMaxWorkers): the first one there, each
  /// other one on a thread of its own. The loop's clock and the Random are then used by all.
  unsigned workers = 1;
  /// For tests that choose the worker of a device: a port for each worker (0 = any), none shared.
  std::vector<std::uint16_t> own_ports;
};

}  // namespace sally::router
