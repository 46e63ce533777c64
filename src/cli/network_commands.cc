// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/fleet.h"
#include "cli/supervisor.h"
#include "cli/units.h"
#include "loop/net.h"
#include "loop/process.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr std::int64_t kReadyMs = 20'000;
constexpr std::int64_t kAgentMs = 5'000;
constexpr std::uint16_t kPort = 1280;
constexpr std::uint16_t kRouterPort = 3022;

std::string this_host() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return *name == 0 ? "localhost" : name;
}

std::string bracket(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

// What `up` needs to know again at the next start, kept in the folder.
Status save_settings(const UpOptions& o) {
  const json::object settings{
      {"name", o.name},     {"port", o.port}, {"router_port", o.router_port},
      {"listen", o.listen}, {"log", o.log},   {"metrics", o.metrics.value_or(false)}};
  return fs::write_file_atomic(o.dir + "/up.json", as_bytes(json::serialize(settings) + "\n"));
}

Status load_settings(UpOptions& o) {
  TRY_ASSIGN(const auto text, fs::read_text(o.dir + "/up.json"));
  boost::system::error_code ec;
  const auto parsed = json::parse(text, ec);
  const auto* s = ec ? nullptr : parsed.if_object();
  const auto port = [&](const char* name) -> std::uint16_t {
    const auto* v = s->if_contains(name);
    return v != nullptr && v->is_int64() && v->get_int64() > 0 && v->get_int64() < 65'536
               ? static_cast<std::uint16_t>(v->get_int64())
               : 0;
  };
  if (s == nullptr || port("port") == 0 || port("router_port") == 0)
    return fail(Errc::kFailed, o.dir + "/up.json is damaged", Source::kLocal);
  const UpOptions given = std::exchange(o, {.dir = o.dir,
                                            .name = text_of(*s, "name"),
                                            .port = port("port"),
                                            .router_port = port("router_port"),
                                            .listen = text_of(*s, "listen"),
                                            .metrics = is_true(*s, "metrics"),
                                            .log = text_of(*s, "log"),
                                            .detach = o.detach,
                                            .service = o.service});
  const auto other = [&](const char* option, const std::string& asked, const std::string& has) {
    return fail(Errc::kConflict,
                "the network in " + o.dir + " was made with " + option + " " + has + ", not " +
                    asked + ": its devices know it by that\nleave " + option +
                    " out, or make another network with --dir; if no device knows it yet, remove " +
                    o.dir,
                Source::kConfig);
  };
  if (!given.name.empty() && given.name != o.name) return other("--name", given.name, o.name);
  if (given.port != 0 && given.port != o.port)
    return other("--port", std::to_string(given.port), std::to_string(o.port));
  if (given.router_port != 0 && given.router_port != o.router_port)
    return other("--router-port", std::to_string(given.router_port), std::to_string(o.router_port));
  if (!given.listen.empty() && given.listen != o.listen) {
    o.listen = given.listen;  // nobody outside knows it
  }
  if (given.metrics) o.metrics = given.metrics;
  if (!given.log.empty()) o.log = given.log;
  return {};
}

// Said at once, not found in a log later. (Between this look and the daemons' own bind somebody may
// still be faster; then the supervisor tries again.)
Status check_ports(const UpOptions& o) {
  if (o.port == o.router_port) {
    return fail(Errc::kUsage, "--port and --router-port are both " + std::to_string(o.port),
                Source::kConfig);
  }
  loop::Loop loop;
  for (const auto& [port, option] :
       {std::pair{o.port, "--port"}, std::pair{o.router_port, "--router-port"}}) {
    const auto free =
        loop::Listener::tcp(loop, o.listen, port, [](loop::Fd, const loop::Address&) {});
    if (!free) {
      return fail(Errc::kConflict,
                  "cannot listen on port " + std::to_string(port) + ": " + free.error().context() +
                      "\nchoose another one with " + option + ", or another address with --listen",
                  Source::kConfig);
    }
  }
  return {};
}

Status make_network(const UpOptions& o) {
  TRY(fs::make_dirs(o.dir));
  TRY(fs::make_dirs(o.dir + "/router"));
  std::vector<std::string> args{
      "init",   "--dir", o.dir + "/controller", "--name", valid_name(o.name) ? o.name : "network",
      "--host", o.name};
  for (const char* local : {"localhost", "127.0.0.1"}) {
    if (o.name != local) args.insert(args.end(), {"--host", local});
  }
  args.insert(args.end(),
              {"--port", std::to_string(o.port), "--router",
               bracket(o.name) + ":" + std::to_string(o.router_port), "--router-identity",
               o.dir + "/router/identity.json", "--admin-identity", o.dir + "/admin.json"});
  if (!o.ca_key.empty()) args.insert(args.end(), {"--ca-key", o.ca_key});
  if (!o.router_key.empty()) args.insert(args.end(), {"--router-key", o.router_key});
  return run_to_end(sibling("sally-controller"), args);
}

// The owner is not locked out: who can start the network is its admin, whatever became of the file.
Status ensure_admin(const std::string& dir) {
  return run_to_end(sibling("sally-controller"), {"admin", "--dir", dir + "/controller",
                                                  "--admin-identity", dir + "/admin.json"});
}

constexpr std::array kLogs{"/controller.log", "/router.log"};

std::array<std::uintmax_t, kLogs.size()> log_sizes(const std::string& dir) {
  std::array<std::uintmax_t, kLogs.size()> sizes{};
  for (std::size_t i = 0; i < kLogs.size(); ++i) {
    struct stat st{};
    if (::stat((dir + kLogs[i]).c_str(), &st) == 0)
      sizes[i] = static_cast<std::uintmax_t>(st.st_size);
  }
  return sizes;
}

// The last words of the programs that did not come up, said since the logs had these sizes.
std::string last_words(const std::string& dir,
                       const std::array<std::uintmax_t, kLogs.size()>& before) {
  std::string all;
  for (std::size_t i = 0; i < kLogs.size(); ++i) {
    const auto text = fs::read_text(dir + kLogs[i], std::size_t{64} << 20U);
    if (!text || text->size() <= before[i]) continue;
    std::string last;
    for (const auto line : split(std::string_view(*text).substr(before[i]), '\n')) {
      if (line.find(" error ") != std::string_view::npos || line.starts_with("sally-")) last = line;
    }
    if (!last.empty()) all += "; " + last;
  }
  return all;
}

// Keys do not go where somebody else may move them.
Status ours(const std::string& dir) {
  struct stat st{};
  if (::stat(dir.c_str(), &st) == 0 && st.st_uid == ::geteuid()) return {};
  return fail(Errc::kDenied, dir + " belongs to another user\nname a folder of your own with --dir",
              Source::kConfig);
}

// A machine need not know its own public name, but its own agent and most mistakes do.
void warn_of_name(const std::string& name) {
  addrinfo* found = nullptr;
  if (::getaddrinfo(name.c_str(), nullptr, nullptr, &found) == 0) return ::freeaddrinfo(found);
  std::fprintf(
      stderr,
      "sally: warning: this machine finds no address for %s; devices will look for it there, "
      "this machine's own agent too\n",
      name.c_str());
}

// True once the controller answers and the router is connected to it.
bool ready(const std::string& dir) {
  const auto fleet = Fleet::open(dir);
  if (!fleet) return false;
  const auto routers = fleet->list("/fleet/v1/routers");
  if (!routers || routers->empty()) return false;
  return is_true(routers->front().get_object(), "online");
}

// This machine's own agent hosts again what it hosted: not a condition, but worth a moment.
void wait_for_agent(const std::string& dir) {
  if (!fs::exists(dir + "/agent/identity.json")) return;
  (void)wait_until(
      [&] {
        const auto status = ask_agent(dir + "/agent", {{"request", "status"}});
        if (!status || !is_true(*status, "online")) return false;
        const auto* hosts = status->if_contains("hosts");
        return hosts == nullptr || !hosts->is_array() ||
               std::ranges::all_of(hosts->get_array(), [](const json::value& h) {
                 return is_true(h.get_object(), "bound");
               });
      },
      kAgentMs);
}

void say_ready(const Common& c, const UpOptions& o) {
  const auto fleet = Fleet::open(o.dir);
  if (!fleet) return;
  const std::string url = "https://" + HostPort{o.name, o.port}.str();
  warn_of_name(o.name);
  wait_for_agent(o.dir);
  if (!c.out.for_people()) {
    c.out.item(json::object{{"url", url},
                            {"network", fleet->identity().network.str()},
                            {"dir", o.dir},
                            {"ports", json::array{o.port, o.router_port}}},
               {});
    return;
  }
  c.out.say("network " + fleet->identity().network.str() + " is up: " + url);
  c.out.say("open to devices: TCP " + std::to_string(o.port) + " (enrolment) and TCP " +
            std::to_string(o.router_port) + " (everything else)");
  const std::string context = o.dir == default_dir() ? "" : " --context " + o.dir;
  c.out.say("next:");
  c.out.say("  sally" + context + " expose 127.0.0.1:1883 --as plant-mqtt --allow '#sensors'");
  c.out.say("  sally" + context + " device add pump-17 --tag sensors");
}

Status run_supervisor(const std::string& lock_path, std::vector<Program> programs,
                      const std::function<void()>& when_started) {
  // Kept until the kernel takes it back with the process: `down` waits for just that. A destructor
  // would give it back while the process still runs.
  TRY_ASSIGN(auto taken, FolderLock::take(lock_path));
  static const auto* held = new FolderLock(std::move(taken));
  (void)held;
  loop::mark_supervisor();
  loop::Loop loop;
  Supervisor supervisor(loop, std::move(programs));
  loop::Signals signals(loop, {SIGINT, SIGTERM, SIGHUP},
                        [&](int) { supervisor.stop([&] { loop.stop(); }); });
  supervisor.start();
  when_started();
  loop.run();
  return {};
}

// As OPTIONS in /etc/default/sally-controller and sally-router does for the units.
void options_of(const char* variable, Program& program) {
  const char* more = std::getenv(variable);
  for (const std::string_view word : split(more == nullptr ? "" : more, ' ')) {
    if (!word.empty()) program.args.emplace_back(word);
  }
}

}  // namespace

std::string sibling(const std::string& program) {
  char path[4096] = {};
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path - 1);
  const std::string self(path, n > 0 ? static_cast<std::size_t>(n) : 0);
  const auto slash = self.rfind('/');
  const std::string beside =
      slash == std::string::npos ? program : self.substr(0, slash + 1) + program;
  return fs::exists(beside) ? beside : program;
}

bool wait_until(const std::function<bool()>& done, std::int64_t timeout_ms) {
  const std::int64_t until = system_clock().mono_us() + timeout_ms * 1000;
  while (!done()) {
    if (system_clock().mono_us() > until) return false;
    ::usleep(50'000);
  }
  return true;
}

Status run_to_end(const std::string& program, const std::vector<std::string>& args) {
  loop::Loop loop;
  std::optional<loop::Process::Exit> exit;
  loop::ProcessOptions options;
  options.program = program;
  options.args = args;
  options.stdout_fd = loop::ProcessOptions::kNull;
  TRY_ASSIGN(const auto process,
             loop::Process::spawn(loop, options, [&](loop::Process::Exit e) { exit = e; }));
  loop.run_until([&] { return exit.has_value(); }, 60'000);
  if (!exit || exit->code != 0) return fail(Errc::kFailed, program + " failed", Source::kLocal);
  return {};
}

Status spawn_detached(const std::vector<std::string>& args, const std::string& log_path) {
  loop::Loop loop;
  const loop::Fd log(
      ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  loop::ProcessOptions options;
  options.program = args.front();
  options.args.assign(args.begin() + 1, args.end());
  options.stdout_fd = options.stderr_fd = log.valid() ? log.get() : loop::ProcessOptions::kNull;
  options.detached = true;
  TRY_ASSIGN(const auto process, loop::Process::spawn(loop, options, [](loop::Process::Exit) {}));
  return {};
}

Status up(const Common& c, const UpOptions& given) {
  UpOptions o = given;
  if (o.dir.empty()) o.dir = context_dir(c.context);
  if (o.service) TRY(units_usable(o.dir));
  if (fs::exists(o.dir + "/identity.json"))
    return fail(Errc::kConflict,
                o.dir + " is the folder of a device\nname another one for the network with --dir",
                Source::kConfig);
  TRY_ASSIGN(const int running, FolderLock::holder(o.dir + "/up.lock"));
  if (running != 0 || units_active(o.dir, Units::kNetwork))
    return fail(Errc::kRunning,
                "the network in " + o.dir + " is up already\nsally status, or sally down",
                Source::kConfig);
  const bool there = fs::exists(o.dir + "/controller");
  if (there && (!o.ca_key.empty() || !o.router_key.empty()))
    return fail(
        Errc::kConflict,
        "the network in " + o.dir +
            " has its keys\nleave --ca-key and --router-key out, or make another network with "
            "--dir",
        Source::kConfig);
  if (there && fs::exists(o.dir + "/up.json")) {
    TRY(load_settings(o));
  } else {
    if (there && o.name.empty())
      return fail(Errc::kConflict,
                  o.dir +
                      "/up.json is lost\ngive --name, --port and --router-port again as the "
                      "network was made with",
                  Source::kLocal);
    if (o.name.empty()) o.name = this_host();
    if (o.port == 0) o.port = kPort;
    if (o.router_port == 0) o.router_port = kRouterPort;
  }
  if (!valid_host(o.name))
    return fail(Errc::kUsage, "\"" + o.name + "\" is neither a host name nor an IP address",
                Source::kConfig);
  if (!o.listen.empty() && !valid_address(o.listen))
    return fail(Errc::kUsage, "--listen \"" + o.listen + "\" is no IP address", Source::kConfig);
  if (o.service && (given.metrics || !given.log.empty()))
    return fail(Errc::kUsage,
                "with --service the programs' options go into /etc/default/sally-controller, "
                "-router, -agent: OPTIONS=--log json",
                Source::kConfig);
  TRY(check_ports(o));
  TRY(fs::make_dirs(o.dir));
  TRY(fs::not_shared(o.dir));
  TRY(ours(o.dir));
  {
    TRY_ASSIGN(const auto making, FolderLock::take(o.dir + "/make.lock"));
    TRY(save_settings(o));  // first: a network without them could not be started again
    if (!there) TRY(make_network(o));
    TRY(ensure_admin(o.dir));
  }
  if (o.service) {
    TRY(units_start(o));
    if (!wait_until([&] { return ready(o.dir); }, kReadyMs)) {
      (void)units_stop();
      return fail(Errc::kFailed,
                  "the network did not get ready and was ended again\nread journalctl -u "
                  "sally-controller -u sally-router",
                  Source::kLocal);
    }
    say_ready(c, o);
    return {};
  }
  if (o.detach) {
    const auto logs = log_sizes(o.dir);
    TRY(spawn_detached({sibling("sally"), "up", "--dir", o.dir}, o.dir + "/up.log"));
    if (!wait_until([&] { return ready(o.dir); }, kReadyMs)) {
      (void)down(Common{.context = {}, .out = Output(Format::kName)}, o.dir);
      return fail(Errc::kFailed,
                  "the network did not get ready and was ended again" + last_words(o.dir, logs) +
                      "\nread " + o.dir + "/*.log",
                  Source::kLocal);
    }
    say_ready(c, o);
    return {};
  }
  const std::string any = o.listen.empty() ? "*" : bracket(o.listen);
  const std::string local = o.listen.empty() ? "127.0.0.1" : bracket(o.listen);
  std::vector<Program> programs{
      {.name = "controller",
       .path = sibling("sally-controller"),
       .args = {"--dir", o.dir + "/controller", "--listen", any + ":" + std::to_string(o.port)},
       .log_path = o.dir + "/controller.log",
       .only_if_exists = {}},
      {.name = "router",
       .path = sibling("sally-router"),
       .args = {"--dir", o.dir + "/router", "--listen", any + ":" + std::to_string(o.router_port),
                "--controller", local + ":" + std::to_string(o.port)},
       .log_path = o.dir + "/router.log",
       .only_if_exists = {}},
      {.name = "agent",
       .path = sibling("sally-agent"),
       .args = {"--dir", o.dir + "/agent"},
       .log_path = o.dir + "/agent.log",
       .only_if_exists = o.dir + "/agent/identity.json"}};
  for (auto& p : programs) {
    if (o.metrics.value_or(false))
      p.args.insert(p.args.end(), {"--metrics", "unix:" + o.dir + "/" + p.name + ".metrics"});
    if (!o.log.empty()) p.args.insert(p.args.end(), {"--log", o.log});
  }
  options_of("SALLY_CONTROLLER_OPTIONS", programs[0]);
  options_of("SALLY_ROUTER_OPTIONS", programs[1]);
  options_of("SALLY_AGENT_OPTIONS", programs[2]);
  // Asked from a thread of its own: the supervisor's loop does not wait for anybody.
  std::atomic<bool> over = false;
  std::thread watcher;
  const Status ended = run_supervisor(o.dir + "/up.lock", std::move(programs), [&] {
    c.out.say("starting the network in " + o.dir + "; Ctrl-C ends it");
    watcher = std::thread([&] {
      const bool up = wait_until([&] { return over || ready(o.dir); }, kReadyMs);
      if (over) return;
      if (up) return say_ready(c, o);
      std::fprintf(stderr, "sally: not ready yet; going on. See %s/*.log\n", o.dir.c_str());
    });
  });
  over = true;
  if (watcher.joinable()) watcher.join();
  return ended;
}

Status supervise_agent(const std::string& dir) {
  Program agent{.name = "agent",
                .path = sibling("sally-agent"),
                .args = {"--dir", dir},
                .log_path = dir + "/agent.log",
                .only_if_exists = {}};
  options_of("SALLY_AGENT_OPTIONS", agent);
  return run_supervisor(dir + "/supervisor.lock", {std::move(agent)}, [] {});
}

Status down(const Common& c, const std::string& dir_option) {
  const std::string dir = dir_option.empty() ? context_dir(c.context) : dir_option;
  bool any = units_active(dir, Units::kAll);
  if (any) TRY(units_stop());
  for (const char* name : {"/up.lock", "/supervisor.lock", "/agent/supervisor.lock"}) {
    const std::string lock = dir + name;
    TRY_ASSIGN(const int pid, FolderLock::holder(lock));
    if (pid == 0) continue;
    any = true;
    ::kill(pid, SIGTERM);
    if (!wait_until([&] { return FolderLock::holder(lock).value_or(0) == 0; }, 10'000))
      return fail(Errc::kFailed, "process " + std::to_string(pid) + " does not end",
                  Source::kLocal);
  }
  if (!any) return fail(Errc::kNotFound, "nothing runs in " + dir, Source::kConfig);
  c.out.done("down", {{"down", true}, {"dir", dir}});
  return {};
}

}  // namespace sally::cli
