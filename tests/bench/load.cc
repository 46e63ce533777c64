// SPDX-License-Identifier: Apache-2.0
// bench_load: sender and receiver of every run of make bench, in one process; what is measured are
// other processes, named by --watch. One JSON line on standard output. See README.md.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "base/log.h"
#include "runs.h"

int main(int argc, char** argv) {
  using namespace sally::bench;
  std::signal(SIGPIPE, SIG_IGN);
  sally::log::set_level(sally::log::Level::kError);
  if (argc < 2) die("usage: bench_load RUN [--OPTION VALUE]...");
  Options options;
  for (int i = 2; i + 1 < argc; i += 2) options.values[argv[i] + 2] = argv[i + 1];
  static const std::map<std::string, void (*)(const Options&)> runs = {
      {"pki", [](const Options& o) { LegPki::make(o.text("dir")); }},
      {"flow", run_flow},
      {"lanes", run_lanes},
      {"handshakes", run_handshakes},
      {"circuits", run_circuits},
      {"sessions", run_sessions},
      {"dials", run_dials},
      {"delay", run_delay},
  };
  const auto run = runs.find(argv[1]);
  if (run == runs.end()) die(std::string("no such run: ") + argv[1]);
  run->second(options);
  std::fflush(stdout);
  std::_Exit(0);  // threads and streams end with the process
}
