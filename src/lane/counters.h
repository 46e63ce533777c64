// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/metrics.h"

namespace sally::lane {

/// What lanes count together. Owner: who owns the lanes, all of one thread, which adds; any thread
/// reads. Outlives them. Never fails.
struct Counters {
  metrics::Counter bytes_in;  ///< inside TLS
  metrics::Counter bytes_out;
  metrics::Counter frames_in;
  metrics::Counter frames_out;  ///< of circuits
};

}  // namespace sally::lane
