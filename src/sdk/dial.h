// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "sdk/engine.h"

namespace sally::sdk {

/// One dial from the call to the open circuit.
/// Owner: the Engine. Thread: its loop's. Failure: ends with an error at the latest at its
/// deadline.
struct Engine::Dial {
  Dial(std::uint64_t i, std::string s, Bytes a, DialDone d)
      : id(i), service(std::move(s)), app_data(std::move(a)), done(std::move(d)) {}
  std::uint64_t id;
  std::string service;  // name or id, as asked
  Bytes app_data;
  DialDone done;
  std::unique_ptr<loop::Timer> deadline;
  bool begun = false;                // its proof is signed, or is being signed
  std::unique_ptr<Circuit> circuit;  // from SETUP to the end of the inner handshake
  std::optional<trust::VerifiedRecord> record;
  std::optional<trust::VerifiedCard> host_card;
};

}  // namespace sally::sdk
