// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>

#include "base/metrics.h"
#include "lane/counters.h"
#include "wire/messages.h"

namespace sally::router {

inline constexpr std::size_t kSetupCodes =
    static_cast<std::size_t>(wire::SetupCode::kShuttingDown) + 1;

/// What one worker counts. Owner: the worker, whose thread adds. Any thread reads. Never fails.
struct Counters {
  lane::Counters lanes;
  metrics::Counter devices_up;
  metrics::Counter devices_refused;
  metrics::Counter circuits_opened;
  metrics::Counter circuits_crossing;                       ///< of those, to another worker
  metrics::Counter circuits_shed;                           ///< for their memory
  std::array<metrics::Counter, kSetupCodes> dials_refused;  ///< by SetupCode; refused or failed
  metrics::Counter binds;
  std::array<metrics::Counter, kSetupCodes> binds_refused;
  metrics::Latency dial;  ///< from SETUP to SETUP_OK
};

}  // namespace sally::router
