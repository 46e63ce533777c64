// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/fleet.h"
#include "cli/supervisor.h"
#include "identity/enroll.h"
#include "loop/net.h"
#include "loop/process.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr std::int64_t kReadyMs = 20'000;
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
      {"name", o.name}, {"port", o.port}, {"router_port", o.router_port}, {"listen", o.listen}};
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
  const UpOptions given =
      std::exchange(o, {.dir = o.dir,
                        .name = cell(*s, "name"),
                        .port = port("port"),
                        .router_port = port("router_port"),
                        .listen = cell(*s, "listen") == "-" ? "" : cell(*s, "listen"),
                        .detach = o.detach});
  const auto other = [&](const char* option, const std::string& asked, const std::string& has) {
    return fail(Errc::kConflict,
                "the network in " + o.dir + " was made with " + option + " " + has + ", not " +
                    asked + ": its devices know it by that\nleave " + option +
                    " out, or make another network with --dir",
                Source::kConfig);
  };
  if (!given.name.empty() && given.name != o.name) return other("--name", given.name, o.name);
  if (given.port != 0 && given.port != o.port)
    return other("--port", std::to_string(given.port), std::to_string(o.port));
  if (given.router_port != 0 && given.router_port != o.router_port)
    return other("--router-port", std::to_string(given.router_port), std::to_string(o.router_port));
  if (!given.listen.empty() && given.listen != o.listen) {
    o.listen = given.listen;  // nobody outside knows it
    return save_settings(o);
  }
  return {};
}

// Runs a program to its end; its standard output is thrown away, its errors are ours.
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
  return run_to_end(sibling("sally-controller"), args);
}

// True once the controller answers and the router is connected to it.
bool ready(const std::string& dir) {
  const auto fleet = Fleet::open(dir);
  if (!fleet) return false;
  const auto routers = fleet->list("/fleet/v1/routers");
  if (!routers || routers->empty()) return false;
  return cell(routers->front().get_object(), "online") == "yes";
}

void say_ready(const Common& c, const UpOptions& o) {
  const auto fleet = Fleet::open(o.dir);
  if (!fleet) return;
  if (!c.out.for_people()) {
    c.out.item(json::object{{"url", fleet->identity().controller},
                            {"network", fleet->identity().network.str()},
                            {"dir", o.dir},
                            {"ports", json::array{o.port, o.router_port}}},
               {});
    return;
  }
  c.out.say("network " + fleet->identity().network.str() +
            " is up: " + fleet->identity().controller);
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

Status spawn_detached(const std::vector<std::string>& args, const std::string& log_path) {
  loop::Loop loop;
  const loop::Fd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  loop::ProcessOptions options;
  options.program = args.front();
  options.args.assign(args.begin() + 1, args.end());
  options.stdout_fd = options.stderr_fd = log.valid() ? log.get() : loop::ProcessOptions::kNull;
  options.detached = true;
  TRY_ASSIGN(const auto process, loop::Process::spawn(loop, options, [](loop::Process::Exit) {}));
  return {};
}

Status up(const Common& c, const UpOptions& given) {
  if (given.service)
    return fail(
        Errc::kNotBuilt,
        "--service: systemd units come with the packages, which do not exist yet\nuse --detach",
        Source::kConfig);
  if (!given.ca_key.empty())
    return fail(Errc::kNotBuilt, "--ca-key: CA keys live in files until hardware keys are built",
                Source::kConfig);
  UpOptions o = given;
  if (o.dir.empty()) o.dir = context_dir(c.context);
  if (FolderLock::holder(o.dir + "/up.lock") != 0)
    return fail(Errc::kRunning, "the network in " + o.dir + " is up already", Source::kConfig);
  if (fs::exists(o.dir + "/controller")) {
    TRY(load_settings(o));
    TRY(check_ports(o));
  } else {
    if (o.name.empty()) o.name = this_host();
    if (o.port == 0) o.port = kPort;
    if (o.router_port == 0) o.router_port = kRouterPort;
    if (!valid_host(o.name)) {
      return fail(Errc::kUsage, "\"" + o.name + "\" is neither a host name nor an IP address",
                  Source::kConfig);
    }
    TRY(check_ports(o));
    // The settings first: a network without them could not be started again.
    TRY(fs::make_dirs(o.dir));
    TRY(save_settings(o));
    TRY(make_network(o));
  }
  if (o.detach) {
    TRY(spawn_detached({sibling("sally"), "up", "--dir", o.dir}, o.dir + "/up.log"));
    if (!wait_until([&] { return ready(o.dir); }, kReadyMs)) {
      (void)down(Common{.context = {}, .out = Output(Format::kName)}, o.dir);
      return fail(Errc::kFailed,
                  "the network did not get ready and was ended again\nread " + o.dir + "/*.log",
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
  return run_supervisor(dir + "/supervisor.lock",
                        {{.name = "agent",
                          .path = sibling("sally-agent"),
                          .args = {"--dir", dir},
                          .log_path = dir + "/agent.log",
                          .only_if_exists = {}}},
                        [] {});
}

Status down(const Common& c, const std::string& dir_option) {
  const std::string dir = dir_option.empty() ? context_dir(c.context) : dir_option;
  bool any = false;
  for (const char* name : {"/up.lock", "/supervisor.lock", "/agent/supervisor.lock"}) {
    const std::string lock = dir + name;
    const int pid = FolderLock::holder(lock);
    if (pid <= 0) continue;
    any = true;
    ::kill(pid, SIGTERM);
    if (!wait_until([&] { return FolderLock::holder(lock) == 0; }, 10'000))
      return fail(Errc::kFailed, "process " + std::to_string(pid) + " does not end",
                  Source::kLocal);
  }
  if (!any) return fail(Errc::kNotFound, "nothing runs in " + dir, Source::kConfig);
  c.out.say("down");
  return {};
}

Status network_status(const Common& c, const std::string& dir_option) {
  const std::string dir = dir_option.empty() ? context_dir(c.context) : dir_option;
  json::object all;
  std::optional<Error> network_error;
  bool asked = false;
  if (fs::exists(dir + "/admin.json")) {
    asked = true;
    const auto fleet = Fleet::open(dir);
    auto status = fleet ? fleet->get("/fleet/v1/status") : Result<json::value>(fail(fleet.error()));
    if (status) {
      all["network"] = std::move(*status);
    } else {
      network_error = status.error();
      all["network"] = json::object{{"error", network_error->text()}};
    }
  }
  for (const std::string& agent : {dir, dir + "/agent"}) {
    if (!fs::exists(agent + "/identity.json")) continue;
    asked = true;
    const auto status = ask_agent(agent, {{"request", "status"}});
    if (status) {
      all["agent"] = *status;
    } else {
      all["agent"] = json::object{{"error", status.error().text()}};
      if (!network_error) network_error = status.error();
    }
    break;
  }
  if (!asked)
    return fail(Errc::kNoContext,
                "neither a network nor a device in " + dir +
                    "\nname another folder with --dir, or start with `sally up` or `sally join "
                    "TOKEN`",
                Source::kConfig);
  if (!c.out.for_people()) {
    c.out.item(all, {});
  } else {
    if (const auto* n = all.if_contains("network"); n != nullptr) {
      c.out.item(n->get_object(), n->get_object().contains("error")
                                      ? std::vector<Column>{{"NETWORK", "error"}}
                                      : std::vector<Column>{{"NETWORK", "network"},
                                                            {"URL", "url"},
                                                            {"DEVICES", "devices"},
                                                            {"SERVICES", "services"},
                                                            {"HOSTED NOW", "hosted"},
                                                            {"STATE", "version"}});
      if (const auto* routers = n->get_object().if_contains("routers");
          routers != nullptr && routers->is_array()) {
        c.out.list(routers->get_array(),
                   {{"ROUTER", "name"}, {"ONLINE", "online"}, {"HOSTED HERE", "terminators"}});
      }
      if (const auto* warnings = n->get_object().if_contains("warnings");
          warnings != nullptr && warnings->is_array()) {
        for (const auto& w : warnings->get_array())
          c.out.say("warning: " + cell(json::object{{"w", w}}, "w"));
      }
    }
    if (const auto* a = all.if_contains("agent"); a != nullptr) {
      const auto& o = a->get_object();
      c.out.item(o, o.contains("error")
                        ? std::vector<Column>{{"AGENT", "error"}}
                        : std::vector<Column>{{"DEVICE", "name"},
                                              {"ONLINE", "online"},
                                              {"ROUTER", "router"},
                                              {"SINCE", "since"},
                                              {"CERTIFICATE UNTIL", "certificate_expires"},
                                              {"STREAMS", "streams"},
                                              {"LAST ERROR", "last_error"}});
      if (const auto* hosts = o.if_contains("hosts");
          hosts != nullptr && !hosts->get_array().empty()) {
        c.out.list(hosts->get_array(), {{"HOSTS", "service"},
                                        {"TARGET", "target"},
                                        {"BOUND", "bound"},
                                        {"TARGET ANSWERS", "target_ok"},
                                        {"WHY NOT", "why"}});
      }
      if (const auto* forwards = o.if_contains("forwards");
          forwards != nullptr && !forwards->get_array().empty()) {
        c.out.list(forwards->get_array(), {{"FORWARD", "listen"},
                                           {"TO", "service"},
                                           {"CONNECTIONS", "connections"},
                                           {"FAILED", "failures"},
                                           {"LAST ERROR", "last_error"}});
      }
      const auto expires = o.contains("certificate_expires")
                               ? parse_time(cell(o, "certificate_expires"))
                               : std::nullopt;
      if (expires) {
        const std::int64_t days = (*expires - system_clock().unix_ms()) / 86'400'000;
        if (days < 90)
          c.out.say("warning: this device's certificate ends in " + std::to_string(days) +
                    " days. Join again with a new token before");
      }
    }
  }
  if (network_error) return fail(std::move(*network_error));
  return {};
}

Status admin_add(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.post("/fleet/v1/admins", json::object{{"name", name}}));
  if (!c.out.for_people()) {
    c.out.item(v.get_object(), {});
    return {};
  }
  c.out.say(cell(v.get_object(), "token"));
  std::fprintf(stderr, "%s may log in once until %s. On the other machine:\n  sally login TOKEN\n",
               name.c_str(), cell(v.get_object(), "expires_at").c_str());
  return {};
}

Status login(const Common& c, const std::string& argument, const std::string& dir_option) {
  const std::string dir = dir_option.empty() ? context_dir(c.context) : dir_option;
  const std::string path = dir + "/admin.json";
  if (fs::exists(path))
    return fail(Errc::kConflict, path + " exists\nname another folder with --dir", Source::kConfig);
  TRY_ASSIGN(const auto token, read_token(argument));
  TRY(expect_token_for(token, crypto::Role::kAdmin));
  TRY(prepare_dir(dir));
  TRY_ASSIGN(const auto identity, identity::blocking_enroll(token));
  if (identity.role != crypto::Role::kAdmin)
    return fail(Errc::kUsage,
                "this token makes a " + std::string(crypto::role_name(identity.role)) +
                    ", not an admin\nfor a device: sally join TOKEN",
                Source::kConfig);
  TRY(identity::save(identity, path));
  c.out.say("logged in to " + identity.network.str() + " as " + identity.name + "; context " + dir);
  return {};
}

Status audit_list(const Common& c, std::uint64_t limit) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get("/fleet/v1/audit?limit=" + std::to_string(limit)));
  c.out.list(v.at("items").get_array(), {{"TIME", "at"},
                                         {"ACTOR", "actor"},
                                         {"ACTION", "action"},
                                         {"SUBJECT", "subject"},
                                         {"DETAIL", "detail"},
                                         {"SEQ", "seq", true}});
  return {};
}

Status audit_verify(const Common& c) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get("/fleet/v1/audit/verify"));
  c.out.item(v.get_object(), {{"OK", "ok"}, {"ROWS", "rows"}, {"WHERE", "where"}});
  if (cell(v.get_object(), "ok") != "yes")
    return fail(Errc::kVerify, "the audit chain is broken at " + cell(v.get_object(), "where"));
  return {};
}

}  // namespace sally::cli
