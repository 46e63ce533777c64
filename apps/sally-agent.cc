// SPDX-License-Identifier: Apache-2.0
// sally-agent --dir DIR [--log LEVEL|json]: the daemon on a device.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "agent/agent.h"
#include "base/log.h"
#include "loop/process.h"

int main(int argc, char** argv) {
  std::string dir;
  std::optional<sally::http::PlainAddress> metrics;
  int flags = 0;
  const auto read_session_key = [&flags](std::string_view text) {
    flags = text == "always"  ? SALLY_SESSION_KEY_ALWAYS
            : text == "never" ? SALLY_SESSION_KEY_NEVER
                              : 0;
    return flags != 0 || text == "auto";
  };
  for (int i = 1; i < argc; ++i) {
    const bool more = i + 1 < argc;
    if (std::strcmp(argv[i], "--dir") == 0 && more) {
      dir = argv[++i];
    } else if (std::strcmp(argv[i], "--log") == 0 && more &&
               sally::log::set_option(std::string_view(argv[i + 1]))) {
      ++i;
    } else if (std::strcmp(argv[i], "--session-key") == 0 && more) {
      if (!read_session_key(argv[++i])) {
        std::fprintf(stderr, "sally-agent: --session-key: auto, always or never, not \"%s\"\n",
                     argv[i]);
        return 2;
      }
    } else if (std::strcmp(argv[i], "--metrics") == 0 && more) {
      const auto at = sally::http::parse_plain_address(argv[++i]);
      if (!at) {
        std::fprintf(stderr, "sally-agent: --metrics: %s\n", at.error().context().c_str());
        return 2;
      }
      metrics = *at;
    } else if (std::strcmp(argv[i], "--log-json") == 0) {
      sally::log::set_json(true);
    } else if (std::strcmp(argv[i], "--version") == 0) {
      std::puts("sally-agent " SALLY_VERSION);
      return 0;
    } else {
      const bool asked = std::strcmp(argv[i], "--help") == 0;
      std::fputs(
          "usage: sally-agent --dir DIR [--log debug|info|warn|error|json]\n"
          "                   [--metrics 127.0.0.1:PORT|unix:PATH]\n"
          "                   [--session-key auto|always|never]\n  DIR is the "
          "folder that `sally join` made.\n",
          asked ? stdout : stderr);
      return asked ? 0 : 2;
    }
  }
  if (dir.empty()) {
    std::fputs("sally-agent: --dir is missing: the folder that `sally join` made\n", stderr);
    return 2;
  }
  sally::loop::die_with_supervisor();
  std::signal(SIGPIPE, SIG_IGN);
  sally::loop::Loop loop;
  sally::agent::Agent agent(loop, dir, flags);
  agent.on_stop = [&] { loop.stop(); };
  sally::loop::Signals signals(loop, {SIGINT, SIGTERM}, [&](int) { loop.stop(); });
  if (const auto s = agent.start(); !s) {
    std::fprintf(stderr, "sally-agent: %s\n", s.error().text().c_str());
    return s.error().source() == sally::Source::kConfig ? 2 : 1;
  }
  if (metrics) {
    if (const auto s = agent.serve_metrics(*metrics); !s) {
      std::fprintf(stderr, "sally-agent: %s\n", s.error().text().c_str());
      return 1;
    }
  }
  loop.run();
  return 0;
}
