// SPDX-License-Identifier: Apache-2.0
#include "controller/main.h"

#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "controller/init.h"
#include "controller/server.h"
#include "loop/loop.h"
#include "loop/process.h"

namespace sally::controller {
namespace {

constexpr char kUsage[] =
    "usage: sally-controller init --dir D --name NET --host HOST --admin-identity FILE\n"
    "                        [--port 1280] [--rest-key p256|rsa] [--admin-name root]\n"
    "                        [--router HOST:PORT --router-identity FILE [--router-name router-1]\n"
    "                         [--router-key tpm|pkcs11:...]] [--ca-key pkcs11:token=...]\n"
    "       sally-controller admin --dir D --admin-identity FILE [--admin-name root]\n"
    "       sally-controller --dir D [--listen ADDRESS:PORT] [--log debug|info|warn|error|json]\n"
    "                        [--metrics 127.0.0.1:PORT|unix:PATH] [--certificate-life SECONDS]\n"
    "                        [--recovery-grace SECONDS] [--session-life SECONDS]\n"
    "  certificate-life: of devices and routers that renew by themselves; 30 days without it.\n"
    "  recovery-grace: how long after its end a certificate still gets the next one; 400 days.\n"
    "  session-life: how long a Ziti SDK that asks nothing stays logged in; 30 minutes.\n";

int usage(const std::string& why) {
  std::fprintf(stderr, "sally-controller: %s\n%s", why.c_str(), kUsage);
  return 2;
}

int failed(const Error& e) {
  std::fprintf(stderr, "sally-controller: %s\n", e.text().c_str());
  return 1;
}

/// Options of the form --name value; repeats are kept in order.
class Options {
 public:
  Status parse(const std::vector<std::string>& args, const std::vector<std::string_view>& known,
               const std::vector<std::string_view>& flags) {
    for (std::size_t i = 0; i < args.size(); ++i) {
      const std::string& a = args[i];
      const auto in = [&](const std::vector<std::string_view>& list) {
        return std::find(list.begin(), list.end(), a) != list.end();
      };
      if (in(flags)) {
        values_[a].emplace_back("1");
      } else if (in(known) && i + 1 < args.size()) {
        values_[a].push_back(args[++i]);
      } else {
        return fail(Errc::kUsage, in(known) ? a + " needs a value" : "unknown option " + a,
                    Source::kConfig);
      }
    }
    return {};
  }
  [[nodiscard]] std::vector<std::string> all(const std::string& name) const {
    const auto it = values_.find(name);
    return it == values_.end() ? std::vector<std::string>() : it->second;
  }
  [[nodiscard]] std::string one(const std::string& name, const std::string& otherwise = "") const {
    const auto list = all(name);
    return list.empty() ? otherwise : list.back();
  }
  [[nodiscard]] bool has(const std::string& name) const { return values_.contains(name); }

 private:
  std::map<std::string, std::vector<std::string>> values_;
};

int run_init(const std::vector<std::string>& args) {
  Options in;
  if (const auto ok = in.parse(
          args,
          {"--dir", "--name", "--host", "--port", "--rest-key", "--router", "--router-name",
           "--router-identity", "--router-key", "--ca-key", "--admin-name", "--admin-identity"},
          {});
      !ok)
    return usage(ok.error().context());
  InitOptions o;
  o.dir = in.one("--dir");
  o.name = in.one("--name", "default");
  o.hosts = in.all("--host");
  const auto port = parse_u64(in.one("--port", "1280"));
  if (!port || *port == 0 || *port > 65'535) return usage("--port is a number from 1 to 65535");
  o.port = static_cast<std::uint16_t>(*port);
  const auto key = in.one("--rest-key", "p256");
  if (key != "p256" && key != "rsa") return usage("--rest-key is p256 or rsa");
  o.rest_key = key == "rsa" ? crypto::KeyType::kRsa : crypto::KeyType::kP256;
  o.router_name = in.one("--router-name", o.router_name);
  o.router_addresses = in.all("--router");
  o.router_identity = in.one("--router-identity");
  o.router_key = in.one("--router-key");
  o.ca_key = in.one("--ca-key");
  o.admin_name = in.one("--admin-name", o.admin_name);
  o.admin_identity = in.one("--admin-identity");
  const auto made = init_network(o, system_clock(), system_random());
  if (!made)
    return made.error().is(Errc::kUsage) ? usage(made.error().context()) : failed(made.error());
  std::printf("{\"network\":%s,\"url\":%s,\"root_sha256\":%s,\"admin_id\":%s,\"router_id\":%s}\n",
              json_quote(made->network).c_str(), json_quote(made->url).c_str(),
              json_quote(made->root_sha256).c_str(), json_quote(made->admin_id).c_str(),
              json_quote(made->router_id).c_str());
  return 0;
}

int run_admin(const std::vector<std::string>& args) {
  Options in;
  if (const auto ok = in.parse(args, {"--dir", "--admin-name", "--admin-identity"}, {}); !ok)
    return usage(ok.error().context());
  if (!in.has("--dir") || !in.has("--admin-identity"))
    return usage("--dir and --admin-identity are needed");
  const std::string path = in.one("--admin-identity");
  const auto made = ensure_admin(in.one("--dir"), in.one("--admin-name", "root"), path,
                                 system_clock(), system_random());
  if (!made) return failed(made.error());
  if (*made) std::fprintf(stderr, "%s was lost or of no more use: made again\n", path.c_str());
  return 0;
}

loop::Loop* running = nullptr;
void on_signal(int) {
  if (running != nullptr) running->stop();  // only sets a flag and writes to a descriptor
}

constexpr std::uint64_t kLeastLifeS = 60;
constexpr std::uint64_t kMostLifeS = 365ULL * 86'400;
constexpr std::uint64_t kMostGraceS = 3'650ULL * 86'400;
constexpr std::uint64_t kMostSessionS = api::Sessions::kMaxAgeMs / 1000;

int run_server(const std::vector<std::string>& args) {
  Options in;
  if (const auto ok = in.parse(args,
                               {"--dir", "--listen", "--log", "--log-level", "--metrics",
                                "--certificate-life", "--recovery-grace", "--session-life"},
                               {"--log-json"});
      !ok)
    return usage(ok.error().context());
  ServerOptions o;
  o.dir = in.one("--dir");
  if (o.dir.empty()) return usage("--dir is missing");
  if (in.has("--listen")) {
    const auto at = parse_listen(in.one("--listen"));
    if (!at) return usage("--listen is ADDRESS:PORT");
    o.host = at->host == "*" ? "" : at->host;
    o.port = at->port;
  }
  if (in.has("--metrics")) {
    const auto at = http::parse_plain_address(in.one("--metrics"));
    if (!at) return usage("--metrics: " + at.error().context());
    o.metrics = *at;
  }
  if (in.has("--certificate-life")) {
    const auto seconds = parse_u64(in.one("--certificate-life"));
    if (!seconds || *seconds < kLeastLifeS || *seconds > kMostLifeS)
      return usage("--certificate-life is a number of seconds from 60 to 31536000");
    o.life_s = static_cast<std::int64_t>(*seconds);
  }
  if (in.has("--recovery-grace")) {
    const auto seconds = parse_u64(in.one("--recovery-grace"));
    if (!seconds || *seconds > kMostGraceS)
      return usage("--recovery-grace is a number of seconds, at most ten years");
    o.grace_s = static_cast<std::int64_t>(*seconds);
  }
  if (in.has("--session-life")) {
    const auto seconds = parse_u64(in.one("--session-life"));
    if (!seconds || *seconds < api::Sessions::kLeastLifeS || *seconds > kMostSessionS)
      return usage("--session-life is a number of seconds from 60 to 86400");
    o.session_life_s = static_cast<std::int64_t>(*seconds);
  }
  if (in.has("--log-level") && !log::set_level(in.one("--log-level")))
    return usage("--log-level is debug, info, warn or error");
  if (in.has("--log-json")) log::set_json(true);
  for (const auto& word : in.all("--log"))
    if (!log::set_option(word)) return usage("--log is debug, info, warn, error, json or text");
  loop::die_with_supervisor();
  loop::Loop loop;
  auto server = Server::create(loop, system_clock(), system_random(), o);
  if (!server) return failed(server.error());
  running = &loop;
  struct sigaction action{};
  action.sa_handler = on_signal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  std::printf("ready %u\n", static_cast<unsigned>((*server)->port()));
  std::fflush(stdout);
  loop.run();
  running = nullptr;
  server->reset();
  return 0;
}

}  // namespace

int controller_main(int argc, char** argv) {
  umask(0077);
  signal(SIGPIPE, SIG_IGN);
  std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty()) return usage("nothing to do");
  if (args.front() == "--help" || args.front() == "-h") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (args.front() == "--version") {
    std::puts("sally-controller " SALLY_VERSION);
    return 0;
  }
  if (args.front() == "init") return run_init({args.begin() + 1, args.end()});
  if (args.front() == "admin") return run_admin({args.begin() + 1, args.end()});
  return run_server(args);
}

}  // namespace sally::controller
