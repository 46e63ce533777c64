// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "cli/commands.h"

// The units of packaging/systemd: they keep everything in /var/lib/sallyport, each program in a
// folder of its own user.
namespace sally::cli {

/// Whether `up --service` can do what it says: as root, under systemd, with the units, in the
/// folder they serve.
Status units_usable(const std::string& dir);
/// Whether units serve `dir` now: the network's, or (kAll) the agent's alone.
enum class Units : std::uint8_t { kNetwork, kAll };
bool units_active(const std::string& dir, Units which);
/// Writes what the units need to know, enables and starts them; the agent's too where this machine
/// is a device.
Status units_start(const UpOptions& options);
/// Stops the units, now and at the next boot.
Status units_stop();
/// Whether systemd is to keep the agent of `dir`.
bool units_keep_agent(const std::string& dir);
/// Starts it, again where it runs, now and at the next boot.
Status units_start_agent();

}  // namespace sally::cli
