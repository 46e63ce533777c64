// SPDX-License-Identifier: Apache-2.0
// The runs of bench_load.
#pragma once

#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "legs.h"
#include "measure.h"
#include "sdk/engine.h"

namespace sally::bench {

/// What the command line said. Value; a missing option without a default ends the program.
struct Options {
  std::map<std::string, std::string> values;
  [[nodiscard]] std::string text(const std::string& name) const {
    const auto at = values.find(name);
    if (at == values.end()) die("--" + name + " is missing");
    return at->second;
  }
  [[nodiscard]] std::string text(const std::string& name, const std::string& fallback) const {
    const auto at = values.find(name);
    return at == values.end() ? fallback : at->second;
  }
  [[nodiscard]] int number(const std::string& name, int fallback) const {
    return std::atoi(text(name, std::to_string(fallback)).c_str());
  }
  [[nodiscard]] double seconds(const std::string& name, double fallback) const {
    return std::atof(text(name, std::to_string(fallback)).c_str());
  }
  [[nodiscard]] std::vector<pid_t> watch() const { return pid_list(text("watch", "")); }
};

inline void sleep_s(double s) {
  const std::chrono::duration<double> time(s);
  std::this_thread::sleep_for(time);  // NOLINT(sally-sleep): a measurement lasts
}

/// A line of /proc/PID/status ("VmRSS", "VmHWM") in KiB; no such process ends the program.
double status_kb(pid_t pid, const std::string& key);

/// A device on the loop, whose router is at `router` (HOST:PORT).
std::unique_ptr<sdk::Engine> start_engine(loop::Loop& loop, const std::string& identity,
                                          const std::string& router);

/// Streams through --via tls|tcp|sdk: --kind bulk|messages|ping, --streams N, --seconds S.
void run_flow(const Options& options);
/// Idle lanes: what each holds in the router (--watch).
void run_lanes(const Options& options);
/// Lanes opened and closed: CPU of the router.
void run_handshakes(const Options& options);
/// Idle circuits: what each holds in the router and at its ends.
void run_circuits(const Options& options);
/// Bare TLS sessions on memory, the measure of an end: memory and CPU of their handshakes.
void run_sessions(const Options& options);
/// --count dials over --lanes connections, one in flight on each, within --limit seconds.
void run_dials(const Options& options);
/// --count circuits whose receiver does not read, --bytes into each; then one that flows.
void run_stalled(const Options& options);
/// --devices with --flows each over all --routers, until their flows are over: when, for each. Says
/// {"ready":true} first.
void run_revoke(const Options& options);
/// CPU of one more revocation, controller's half and router, where --known are known.
void run_revoked(const Options& options);
/// A TCP proxy that delays every byte by --us, both ways; runs until it is killed.
void run_delay(const Options& options);

}  // namespace sally::bench
