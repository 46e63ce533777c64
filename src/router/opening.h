// SPDX-License-Identifier: Apache-2.0
// What a worker knows of a circuit before it is open.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "edge/channel.h"
#include "loop/loop.h"
#include "router/accounts.h"
#include "router/device.h"
#include "router/terminators.h"
#include "wire/messages.h"

namespace sally::router {

/// From SETUP to SETUP_OK, at the dialer's worker.
struct Opening {
  Bytes setup_bytes;
  wire::Setup setup;
  Device* dialer = nullptr;
  Share share;
  std::uint32_t label = 0;  ///< the dialer's return label
  /// Of a foreign dialer, whose circuit has no set-up and no label; of `setup` service and circuit
  /// are set.
  std::unique_ptr<edge::Connect> call;
  std::uint32_t attempt = 0;
  std::vector<CandidatePtr> candidates;  ///< best last
  wire::SetupErr last;                   ///< what the dialer hears when no candidate is left
  std::unique_ptr<loop::Timer> timer;
  std::int64_t started_us = 0;
};

/// A host that has not answered yet, at its worker.
struct Asked {
  std::uint32_t epoch = 0;
  std::uint32_t attempt = 0;
  Share share;
};

}  // namespace sally::router
