// SPDX-License-Identifier: Apache-2.0
#include "router/main.h"

#include <sched.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

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
    "                    [--workers N] [--log debug|info|warn|error|json]\n"
    "                    [--metrics 127.0.0.1:PORT|unix:PATH]\n"
    "  DIR holds identity.json, the router's identity. Default: listen on *:3022, the controller "
    "of the identity,\n"
    "  as many workers as the process may use cores (64 at most).\n";

unsigned default_workers() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::clamp(static_cast<unsigned>(CPU_COUNT(&cores)), 1U, kMaxWorkers);
}

int usage(const std::string& what) {
  std::fprintf(stderr, "sally-router: %s\n%s", what.c_str(), kUsage);
  return 2;
}

Result<RouterOptions> options_from(const std::string& dir, const HostPort& listen,
                                   const std::optional<HostPort>& controller) {
  TRY_ASSIGN(const auto identity, identity::load(dir + "/identity.json"));
  if (identity.role != crypto::Role::kRouter) {
    return fail(Errc::kConfig,
                dir + "/identity.json is an identity of role " +
                    std::string(crypto::role_name(identity.role)) + ", not of a router",
                Source::kConfig);
  }
  TRY_ASSIGN(const auto url, http::parse_url(identity.controller));
  RouterOptions o;
  o.state_path = dir + "/state";
  o.listen = listen;
  o.controller = controller.value_or(HostPort{url.host, url.port});
  o.network = identity.network.str();
  o.id = identity.id;
  o.chain = identity.chain;
  o.key = identity.key;
  o.anchors = {.network = o.network, .roots = identity.anchors, .issuing = identity.issuing};
  return o;
}

}  // namespace

int router_main(int argc, char** argv) {
  std::string dir;
  HostPort listen{"*", 3022};
  std::optional<HostPort> controller;
  std::optional<http::PlainAddress> metrics;
  unsigned workers = default_workers();
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const bool more = i + 1 < argc;
    if (arg == "--dir" && more) {
      dir = argv[++i];
    } else if (arg == "--listen" && more) {
      const auto address = parse_listen(argv[++i]);
      if (!address) return usage("--listen is ADDRESS:PORT");
      listen = *address;
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
      workers = static_cast<unsigned>(*n);
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
  auto options = options_from(dir, listen, controller);
  if (!options) {
    std::fprintf(stderr, "sally-router: %s\n", options.error().text().c_str());
    return 2;
  }
  options->workers = workers;
  log::set_origin("router", options->network);
  loop::Loop loop;
  Router router(loop, system_random(), std::move(*options));
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
