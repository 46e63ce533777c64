// SPDX-License-Identifier: Apache-2.0
// bench_load: sender and receiver of every run of make bench, in one process; what is measured are
// other processes, named by --watch. One JSON line on standard output. See README.md.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "base/log.h"
#include "runs.h"

namespace {

/// GB/s of copying memory that no cache holds: what the machine could do at this moment.
void run_yardstick(const sally::bench::Options&) {
  constexpr std::size_t kSize = 64U << 20U;
  sally::Bytes from(kSize, 1);
  sally::Bytes to(kSize, 2);
  std::size_t copied = 0;
  double seconds = 0;
  const auto start = std::chrono::steady_clock::now();
  while (seconds < 0.3) {
    std::memcpy(to.data(), from.data(), kSize);
    from[copied % kSize] = to[kSize - 1];  // neither copy may be left out
    copied += kSize;
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  sally::bench::Json json;
  json.add("memcpy_gb_per_s", static_cast<double>(copied) / seconds / 1e9);
  std::puts(json.text().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  using namespace sally::bench;
  std::signal(SIGPIPE, SIG_IGN);
  sally::log::set_level(sally::log::Level::kError);
  if (argc < 2) die("usage: bench_load RUN [--OPTION VALUE]...");
  Options options;
  for (int i = 2; i + 1 < argc; i += 2) options.values[argv[i] + 2] = argv[i + 1];
  static const std::map<std::string, void (*)(const Options&)> runs = {
      {"pki", [](const Options& o) { LegPki::make(o.text("dir")); }},
      {"yardstick", run_yardstick},
      {"flow", run_flow},
      {"lanes", run_lanes},
      {"handshakes", run_handshakes},
      {"circuits", run_circuits},
      {"sessions", run_sessions},
      {"dials", run_dials},
      {"revoke", run_revoke},
      {"revoked", run_revoked},
      {"stalled", run_stalled},
      {"delay", run_delay},
  };
  const auto run = runs.find(argv[1]);
  if (run == runs.end()) die(std::string("no such run: ") + argv[1]);
  run->second(options);
  std::fflush(stdout);
  std::_Exit(0);  // threads and streams end with the process
}
