// SPDX-License-Identifier: Apache-2.0
#include "router/main.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "base/fs.h"
#include "base/log.h"
#include "http/message.h"
#include "http/plain_server.h"
#include "identity/identity.h"
#include "loop/process.h"
#include "router/router.h"

namespace sally::router {
namespace {

constexpr char kUsage[] =
    "usage: sally-router --dir DIR [--listen ADDRESS:PORT] [--controller HOST:PORT]\n"
    "                    [--workers N] [--memory MIB] [--device-lanes N] [--device-dials N]\n"
    "                    [--service-dials N] [--offline-grace SECONDS] [--log "
    "debug|info|warn|error|json]\n"
    "                    [--metrics 127.0.0.1:PORT|unix:PATH]\n"
    "  DIR holds identity.json, the router's identity. Default: listen on *:3022, the controller "
    "of the identity,\n"
    "  as many workers as the process may use cores (64 at most), and a quarter of the memory it\n"
    "  may use for data that waits in the router. A device may have 32 connections and dial 100 "
    "times\n"
    "  a second, a service be dialed 1000 times a second (four times as many at once). Without "
    "word "
    "of\n"
    "  the controller nothing new begins after the offline grace: 86400 s, 20 at least.\n";

unsigned default_workers() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::clamp(static_cast<unsigned>(CPU_COUNT(&cores)), 1U, kMaxWorkers);
}

constexpr std::uint64_t kMinMemoryMib = 16;
constexpr std::uint64_t kMaxLimit = 100'000;
constexpr std::uint64_t kMinGraceS = 20;  // heads come every 10 s
constexpr std::uint64_t kMaxGraceS = 30ULL * 86'400;

// A quarter of what the machine has and the control groups of version 2 and 1 let us use.
std::size_t default_memory() {
  auto bytes = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
               static_cast<std::uint64_t>(::sysconf(_SC_PAGE_SIZE));
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const auto text = fs::read_file(path);
    if (!text) continue;
    if (const auto limit = parse_u64(trim(as_text(*text)))) bytes = std::min(bytes, *limit);
  }
  return std::max(bytes / 4, kMinMemoryMib << 20U);
}

int usage(const std::string& what) {
  std::fprintf(stderr, "sally-router: %s\n%s", what.c_str(), kUsage);
  return 2;
}

Status take_identity(const std::string& dir, const std::optional<HostPort>& controller,
                     RouterOptions& o) {
  TRY_ASSIGN(const auto identity, identity::load(dir + "/identity.json"));
  if (identity.role != crypto::Role::kRouter) {
    return fail(Errc::kConfig,
                dir + "/identity.json is an identity of role " +
                    std::string(crypto::role_name(identity.role)) + ", not of a router",
                Source::kConfig);
  }
  TRY_ASSIGN(const auto url, http::parse_url(identity.controller));
  o.state_path = dir + "/state";
  o.controller = controller.value_or(HostPort{url.host, url.port});
  o.controller_url = identity.controller;
  o.network = identity.network.str();
  o.id = identity.id;
  o.chain = identity.chain;
  o.keep = [path = dir + "/identity.json"](const identity::Credential& fresh) {
    return identity::keep_in_file(path, fresh);
  };
  o.key = identity.key;
  o.anchors = {.network = o.network, .roots = identity.anchors, .issuing = identity.issuing};
  return {};
}

}  // namespace

int router_main(int argc, char** argv) {
  std::string dir;
  std::optional<HostPort> controller;
  std::optional<http::PlainAddress> metrics;
  RouterOptions options;
  options.listen = {"*", 3022};
  options.workers = default_workers();
  options.memory_bytes = default_memory();
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const bool more = i + 1 < argc;
    if (arg == "--dir" && more) {
      dir = argv[++i];
    } else if (arg == "--listen" && more) {
      const auto address = parse_listen(argv[++i]);
      if (!address) return usage("--listen is ADDRESS:PORT");
      options.listen = *address;
    } else if (arg == "--controller" && more) {
      controller = parse_host_port(argv[++i]);
      if (!controller) return usage("--controller is HOST:PORT");
    } else if (arg == "--metrics" && more) {
      const auto at = http::parse_plain_address(argv[++i]);
      if (!at) return usage("--metrics: " + at.error().context());
      metrics = *at;
    } else if (arg == "--workers" && more) {
      const auto n = parse_u64(argv[++i]);
      if (!n || *n < 1 || *n > kMaxWorkers) return usage("--workers is a number from 1 to 64");
      options.workers = static_cast<unsigned>(*n);
    } else if (arg == "--memory" && more) {
      const auto mib = parse_u64(argv[++i]);
      if (!mib || *mib < kMinMemoryMib || *mib > (std::uint64_t{1} << 24U))
        return usage("--memory is a number of MiB, 16 or more");
      options.memory_bytes = *mib << 20U;
    } else if (arg == "--offline-grace" && more) {
      const auto n = parse_u64(argv[++i]);
      if (!n || *n < kMinGraceS || *n > kMaxGraceS)
        return usage("--offline-grace is a number of seconds from 20 to 2592000");
      options.grace_ms = static_cast<std::int64_t>(*n) * 1000;
    } else if (arg == "--device-lanes" && more) {
      const auto n = parse_u64(argv[++i]);
      if (!n || *n < 1 || *n > kMaxLimit)
        return usage("--device-lanes is a number from 1 to 100000");
      options.per_device.lanes = *n;
    } else if ((arg == "--device-dials" || arg == "--service-dials") && more) {
      const auto n = parse_u64(argv[++i]);
      if (!n || *n < 1 || *n > kMaxLimit)
        return usage(std::string(arg) + " is a number from 1 to 100000");
      AccountLimits& limits = arg == "--device-dials" ? options.per_device : options.per_service;
      limits.dials_per_s = static_cast<double>(*n);
      limits.dial_burst = 4 * limits.dials_per_s;
    } else if (arg == "--log" && more && log::set_option(std::string_view(argv[i + 1]))) {
      ++i;
    } else if (arg == "--log-json") {
      log::set_json(true);
    } else if (arg == "--version") {
      std::puts("sally-router " SALLY_VERSION);
      return 0;
    } else if (arg == "--help") {
      std::fputs(kUsage, stdout);
      return 0;
    } else {
      return usage("unknown or incomplete option " + std::string(arg));
    }
  }
  if (dir.empty()) return usage("--dir is missing");

  loop::die_with_supervisor();
  if (const Status s = take_identity(dir, controller, options); !s) {
    std::fprintf(stderr, "sally-router: %s\n", s.error().text().c_str());
    return 2;
  }
  log::set_origin("router", options.network);
  FlooredClock clock(system_clock());
  options.time = &clock;
  loop::Loop loop(clock);
  Router router(loop, system_random(), std::move(options));
  loop::Signals signals(loop, {SIGINT, SIGTERM}, [&](int) { loop.stop(); });
  if (const Status s = router.start(); !s) {
    std::fprintf(stderr, "sally-router: %s\n", s.error().text().c_str());
    return 1;
  }
  std::unique_ptr<http::PlainServer> plain;
  if (metrics) {
    auto made = http::serve_metrics(loop, *metrics,
                                    [&router](std::move_only_function<void(std::string)> done) {
                                      router.collect_metrics(std::move(done));
                                    });
    if (!made) {
      std::fprintf(stderr, "sally-router: %s\n", made.error().text().c_str());
      return 1;
    }
    plain = std::move(*made);
  }
  std::printf("ready %u\n", static_cast<unsigned>(router.port()));
  std::fflush(stdout);
  loop.run();
  return 0;
}

}  // namespace sally::router
