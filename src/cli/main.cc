// SPDX-License-Identifier: Apache-2.0
// The one file that knows CLI11: the tree of commands and what their options mean.
#include "cli/main.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <functional>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/demo/demo.h"

namespace sally::cli {
namespace {

constexpr char kAbout[] =
    "Sallyport: mutual TLS for devices over a dark overlay.\n\n"
    "First network, on a machine that devices can reach:\n"
    "  sally up --detach --name iot.example.com\n"
    "  sally expose 127.0.0.1:1883 --as plant-mqtt --allow '#sensors'\n"
    "  sally device add pump-17 --tag sensors\n"
    "On the device:\n"
    "  sally join TOKEN\n"
    "  sally forward plant-mqtt 1883\n";
constexpr char kExits[] =
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 denied, 4 not found, 5 conflict, 6 unreachable (try "
    "again), 7 verification failed, 130 interrupted.";

constexpr char kSerialHelp[] = "Its serial number, in hex: sally cert list";
constexpr char kTokenHelp[] =
    "The token, a file that holds it, or '-' for standard input: those two keep it out of the list "
    "of processes";
constexpr char kAgentDirHelp[] =
    "Folder of this machine's device (default: the context where it holds one, else agent/ in it)";

/// What the command line asked for, filled while it is parsed.
struct Asked {
  std::string context;
  std::string format = "table";
  bool verbose = false;
  std::string name;
  std::string selector;
  std::string token;
  std::string listen;
  std::vector<std::string> tags;
  std::string batch;
  bool yes = false;
  bool remove = false;
  bool qr = false;
  AuditOptions audit;
  UpOptions up;
  JoinOptions join;
  ServiceOptions service;
  demo::Options demo;
  TopOptions top;
  UsageOptions usage;
  RevokeOptions revoke;
  CertOptions cert;
  std::uint64_t days = 30;
  std::string dir;
  std::function<Status(const Common&)> run;
};

class Tree {
 public:
  Tree(CLI::App& app, Asked& asked) : app_(app), a_(asked) {
    network();
    certificates();
    sessions();
    fleet();
    device();
    others();
    hidden();
  }

 private:
  /// `example`: what somebody types, shown under the options.
  CLI::App* command(CLI::App& under, const std::string& name, const std::string& help,
                    const std::string& example, std::function<Status(const Common&)> run) {
    CLI::App* c = under.add_subcommand(name, help);
    c->footer("Example:\n  sally " + example +
              "\n\nOptions of every command: --context DIR, -o FORMAT, -v; sally --help.");
    c->callback([this, run = std::move(run)] { a_.run = run; });
    return c;
  }
  CLI::App* noun(const std::string& name, const std::string& help) {
    CLI::App* c = app_.add_subcommand(name, help);
    c->require_subcommand(1);
    c->footer("sally " + name + " COMMAND --help says more.");
    return c;
  }
  void dir(CLI::App* c, const std::string& help) {
    c->add_option("--dir", a_.dir, help)->type_name("DIR");
  }
  void name(CLI::App* c, const std::string& what, const std::string& help) {
    c->add_option(what, a_.name, help)->required();
  }
  void qr(CLI::App* c) { c->add_flag("--qr", a_.qr, "Also show the token as a QR code"); }
  void yes(CLI::App* c) { c->add_flag("--yes", a_.yes, "Do not ask"); }

  void network() {
    auto* up = command(app_, "up",
                       "Make a network here, or start the one that is there, and keep it running",
                       "up --detach --name iot.example.com", [this](const Common& c) {
                         a_.up.dir = a_.dir;
                         return cli::up(c, a_.up);
                       });
    dir(up, "Where everything is kept (default: the context)");
    up->add_option("--name", a_.up.name,
                   "Host name or IP address that devices reach this machine by (default: its own)")
        ->type_name("HOST|IP");
    up->add_option("--port", a_.up.port, "Port of the controller (default 1280)")
        ->check(CLI::Range(1, 65535));
    up->add_option("--router-port", a_.up.router_port, "Port of the router (default 3022)")
        ->check(CLI::Range(1, 65535));
    up->add_option("--listen", a_.up.listen, "Address to listen on (default: all)")
        ->type_name("IP");
    up->add_flag("--detach", a_.up.detach, "Return when it is ready");
    up->add_flag("--service", a_.up.service,
                 "Let systemd keep it running, now and after a boot; returns when it is ready");
    up->add_flag("--metrics,!--no-metrics", a_.up.metrics,
                 "Figures for Prometheus on Unix sockets in the folder: controller.metrics, ...");
    up->add_option("--log", a_.up.log, "Of the programs: json, text, debug, info, warn, error")
        ->check(CLI::IsMember({"json", "text", "debug", "info", "warn", "error"}));
    up->add_option("--ca-key", a_.up.ca_key,
                   "Make the CA keys of a new network in a token: pkcs11:token=...");
    up->add_option("--router-key", a_.up.router_key,
                   "Make the key of a new network's router in hardware: tpm or pkcs11:...");
    auto* down = command(app_, "down", "End what `up` or `join` keeps running",
                         "down --dir /var/lib/sallyport",
                         [this](const Common& c) { return cli::down(c, a_.dir); });
    dir(down, "The folder given to `up` or `join` (default: the context)");
    auto* status = command(
        app_, "status",
        "What is true now: network, routers, this machine's agent, every expiry that comes near",
        "status -o json", [this](const Common& c) { return network_status(c, a_.dir); });
    dir(status, "A folder of `up` or `join` (default: the context)");
    auto* top = command(app_, "top", "What flows now, every second: routers, devices, services",
                        "top --once", [this](const Common& c) { return cli::top(c, a_.top); });
    top->add_flag("--once", a_.top.once, "One look, then end");
    top->add_flag("--json", a_.top.json, "One JSON object per look");
    auto* usage = command(app_, "usage", "Bytes that circuits carried, by device and service",
                          "usage --since 7d --device pump-17",
                          [this](const Common& c) { return cli::usage(c, a_.usage); });
    usage->add_option("--device", a_.usage.device, "Only this device");
    usage->add_option("--service", a_.usage.service, "Only this service");
    usage->add_option("--since", a_.usage.since, "First day: 2026-01-31, or 7d (default: 30d)");
    usage->add_option("--until", a_.usage.until, "Last day");
    usage->add_flag("--by-day", a_.usage.by_day, "A row for each day");
    auto* admin = noun("admin", "People who manage the network");
    auto* add =
        command(*admin, "add", "A token with which somebody becomes an admin on another machine",
                "admin add alice", [this](const Common& c) { return admin_add(c, a_.name); });
    name(add, "NAME", "Name of the admin");
    command(*admin, "list", "All admins and the ends of their certificates", "admin list",
            [](const Common& c) { return admin_list(c); });
    auto* again = command(
        *admin, "token", "A new token for an admin; logging in with it ends the older certificate",
        "admin token alice", [this](const Common& c) { return admin_token(c, a_.name); });
    name(again, "NAME", "The admin");
    auto* rm = command(*admin, "rm", "Remove an admin: certificates are revoked", "admin rm alice",
                       [this](const Common& c) { return admin_remove(c, a_.name, a_.yes); });
    name(rm, "NAME", "The admin");
    yes(rm);
    auto* login =
        command(app_, "login", "Become an admin on this machine, with a token of `sally admin add`",
                "login TOKEN", [this](const Common& c) { return cli::login(c, a_.token, a_.dir); });
    login->add_option("TOKEN", a_.token, kTokenHelp)->required();
    dir(login, "Folder of the new context (default: the context)");
    auto* audit = noun("audit", "What happened, in a hash chain");
    auto* list = command(*audit, "list", "Newest first", "audit list --limit 20",
                         [this](const Common& c) { return audit_list(c, a_.audit); });
    list->add_option("--limit", a_.audit.limit, "How many (default 50)")
        ->check(CLI::Range(1, 1000));
    list->add_option("--before", a_.audit.before,
                     "Only rows before this number (-o wide has them)");
    auto* verify = command(
        *audit, "verify",
        "Walk the chain; exit 7 where a row was altered or taken out. Rows cut off its end show "
        "only against a HEAD that was noted elsewhere",
        "audit verify audit.jsonl",
        [this](const Common& c) { return audit_verify(c, a_.audit.file); });
    verify->add_option(
        "FILE", a_.audit.file,
        "An export, or '-': checked here, nobody is asked (default: the controller)");
    auto* out = command(*audit, "export", "All rows as JSON lines, oldest first",
                        "audit export audit.jsonl",
                        [this](const Common& c) { return audit_export(c, a_.audit); });
    out->add_option("FILE", a_.audit.file, "Where to (default: standard output)");
    out->add_option("--after", a_.audit.after, "Only rows after this number");
    auto* prune = command(*audit, "prune",
                          "Forget old rows; a row says so, and the chain goes on from there. "
                          "Export them first",
                          "audit prune --keep-days 400 --yes",
                          [this](const Common& c) { return audit_prune(c, a_.audit, a_.yes); });
    prune->add_option("--keep-days", a_.audit.keep_days, "Younger ones stay (default 400)")
        ->check(CLI::Range(1, 36'500));
    yes(prune);
  }

  void certificates() {
    auto* cert = noun("cert", "Certificates of this network");
    auto* list = command(*cert, "list", "Those that end first, first", "cert list pump-17 --all",
                         [this](const Common& c) { return cert_list(c, a_.cert); });
    list->add_option("NAME", a_.cert.of, "Whose, by name or id (default: everybody's)");
    list->add_flag("--all", a_.cert.all, "Also those that are over, superseded or revoked");
    auto* ending = command(*cert, "expiring", "Those that end within 30 days",
                           "cert expiring --days 7", [this](const Common& c) {
                             a_.cert.within_s = static_cast<std::int64_t>(a_.days) * 86'400;
                             return cert_list(c, a_.cert);
                           });
    ending->add_option("--days", a_.days, "Within so many days (default 30)")
        ->check(CLI::Range(1, 36'500));
    auto* show = command(*cert, "show", "One certificate", "cert show pump-17",
                         [this](const Common& c) { return cert_show(c, a_.name); });
    name(show, "SERIAL|NAME", "Its serial number in hex, or whose newest");
    const auto renew = [this](CLI::App& under, const std::string& example) {
      auto* c = command(under, "renew", "Have a device or router renew its certificate now",
                        example, [this](const Common& co) { return cert_renew(co, a_.name); });
      name(c, "NAME", "The device or router, by name or id");
    };
    renew(*cert, "cert renew pump-17");
    revoke(*cert, {RevokeOptions::What::kCertificate, "revoke",
                   "One certificate, at once: the same as sally revoke cert",
                   "cert revoke 4f6e...b2", "SERIAL", kSerialHelp});
    renew(app_, "renew pump-17");
  }

  void sessions() {
    auto* session = noun("session", "Ziti SDKs that are logged in");
    auto* list = command(*session, "list", "All, or those of a device", "session list pump-17",
                         [this](const Common& c) { return session_list(c, a_.name); });
    list->add_option("NAME", a_.name, "The device, by name or id");
    auto* end =
        command(*session, "end", "End one; the SDK logs in again, if it still may",
                "session end 4f0c2a", [this](const Common& c) { return session_end(c, a_.name); });
    name(end, "ID", "Its id: sally session list");
  }

  void fleet() {
    auto* device = noun("device", "Anything with an identity: sensors, servers, gateways, laptops");
    auto* add = command(
        *device, "add", "New device; prints its one-time token", "device add pump-17 --tag sensors",
        [this](const Common& c) { return device_add(c, a_.name, a_.tags, a_.batch, a_.qr); });
    name(add, "NAME", "Letters, digits, '.', '_', '-'; one per device");
    add->add_option("--tag", a_.tags, "Tags, for grants like '#sensors'");
    add->add_option("--batch", a_.batch, "Made together with others: sally revoke batch BATCH");
    qr(add);
    auto* token =
        command(*device, "token",
                "A new one-time token for a device; joining with it ends the older certificate",
                "device token pump-17",
                [this](const Common& c) { return device_token(c, a_.name, a_.qr); });
    name(token, "NAME", "The device");
    qr(token);
    auto* tag = command(*device, "tag",
                        "Its tags are these from now on; flows that lose their grant "
                        "are cut",
                        "device tag pump-17 sensors hall-2",
                        [this](const Common& c) { return device_tag(c, a_.name, a_.tags); });
    name(tag, "NAME", "The device");
    tag->add_option("TAG", a_.tags, "The tags; none takes all away");
    auto* list = command(*device, "list", "All, or those of a selector", "device list '#sensors'",
                         [this](const Common& c) { return device_list(c, a_.selector); });
    list->add_option("SELECTOR", a_.selector, "'#tag', a name or '*'");
    auto* show =
        command(*device, "show", "One device and its certificates", "device show pump-17 -o json",
                [this](const Common& c) { return device_show(c, a_.name); });
    name(show, "NAME", "The device, by name or id");
    auto* rm = command(
        *device, "rm", "Remove a device: its certificates are revoked, its connections cut",
        "device rm pump-17", [this](const Common& c) { return device_remove(c, a_.name, a_.yes); });
    name(rm, "NAME", "The device, by name or id");
    yes(rm);

    revocation();

    auto* router = noun("router", "What carries the traffic");
    command(*router, "list", "All routers", "router list -o wide",
            [](const Common& c) { return router_list(c); });

    auto* service = noun("service", "What devices reach by name");
    command(*service, "list", "All services: who may dial, who hosts", "service list",
            [](const Common& c) { return service_list(c); });
    auto* sshow = command(*service, "show", "One service and where it is hosted now",
                          "service show plant-mqtt",
                          [this](const Common& c) { return service_show(c, a_.name); });
    name(sshow, "NAME", "The service, by name or id");
    auto* sadd = command(*service, "add", "A service that a program hosts through the SDK",
                         "service add echo --host server-1 --allow '#sensors'",
                         [this](const Common& c) { return service_add(c, a_.service); });
    sadd->add_option("NAME", a_.service.name, "Name by which devices dial it")->required();
    sadd->add_option("--host", a_.service.host, "Who may host it: '#tag' or names, with commas")
        ->required();
    sadd->add_option("--allow", a_.service.allow, "Who may dial it");
    sadd->add_option("--e2e", a_.service.e2e,
                     "End-to-end encryption: tls (default), compatible, none");
    auto* srm =
        command(*service, "rm", "Remove a service and cut its flows", "service rm plant-mqtt",
                [this](const Common& c) { return service_remove(c, a_.name, a_.yes); });
    name(srm, "NAME", "The service, by name or id");
    yes(srm);

    auto* expose = command(
        app_, "expose",
        "Offer what listens at ADDR as a service: service, configs, grants and hosting in one step",
        "expose 127.0.0.1:1883 --as plant-mqtt --allow '#sensors'", [this](const Common& c) {
          a_.service.dir = a_.dir;
          return cli::expose(c, a_.service);
        });
    expose->add_option("ADDR", a_.service.address, "HOST:PORT that the hosting agent connects to")
        ->required();
    expose->add_option("--as", a_.service.name, "Name of the service")->required();
    expose->add_option("--allow", a_.service.allow,
                       "Who may dial it: '#tag' or names, with commas");
    expose->add_option(
        "--host", a_.service.host,
        "The device whose agent hosts it (default: this machine, joined on the fly)");
    dir(expose, kAgentDirHelp);
    auto* allow =
        command(app_, "allow", "Let devices dial a service", "allow '#sensors' plant-mqtt",
                [this](const Common& c) { return cli::allow(c, a_.selector, a_.name); });
    allow->add_option("SELECTOR", a_.selector, "'#tag', a device name or '*'")->required();
    name(allow, "SERVICE", "The service");
    auto* deny = command(app_, "deny", "Take that back and cut the flows it allowed",
                         "deny '#sensors' plant-mqtt",
                         [this](const Common& c) { return cli::deny(c, a_.selector, a_.name); });
    deny->add_option("SELECTOR", a_.selector, "As given to `allow`")->required();
    name(deny, "SERVICE", "The service");
  }

  struct RevokeRow {
    RevokeOptions::What what;
    const char* name;
    const char* help;
    const char* example;
    const char* argument;
    const char* argument_help;
  };
  void revoke(CLI::App& under, const RevokeRow& r) {
    auto* c =
        command(under, r.name, r.help, r.example, [this, what = r.what](const Common& common) {
          a_.revoke.what = what;
          a_.revoke.name = a_.name;
          a_.revoke.yes = a_.yes;
          return cli::revoke(common, a_.revoke);
        });
    name(c, r.argument, r.argument_help);
    yes(c);
    if (r.what == RevokeOptions::What::kCa) return;  // it can have one reason only
    c->add_option("--reason", a_.revoke.reason, "As certificates have it (default: unspecified)")
        ->check(CLI::IsMember({"unspecified", "key-compromise", "affiliation-changed", "superseded",
                               "cessation-of-operation", "privilege-withdrawn"}));
  }
  void revocation() {
    auto* noun_revoke = noun("revoke", "End something early, on every router at once");
    using What = RevokeOptions::What;
    for (const RevokeRow& r :
         {RevokeRow{What::kDevice, "device",
                    "A device: certificates, cards and tokens die, its connections are cut",
                    "revoke device pump-17 --reason key-compromise", "NAME",
                    "The device, by name or id"},
          RevokeRow{What::kCertificate, "cert",
                    "One certificate; for key-compromise every one with the same key",
                    "revoke cert 4f6e...b2", "SERIAL", kSerialHelp},
          RevokeRow{What::kBatch, "batch", "All devices that were added with --batch BATCH",
                    "revoke batch line-7", "BATCH", "As it was given to sally device add"},
          RevokeRow{What::kCa, "ca", "A CA of devices and all it issued; a new one takes over",
                    "revoke ca devices-1", "CA", "Its name with its generation: devices-1"}})
      revoke(*noun_revoke, r);
    auto* suspend =
        command(app_, "suspend", "Cut a device off until `sally resume`", "suspend pump-17",
                [this](const Common& c) { return cli::suspend(c, a_.name); });
    name(suspend, "NAME", "The device, by name or id");
    auto* resume =
        command(app_, "resume",
                "Put a device back into service; what was revoked stays dead and needs a new token",
                "resume pump-17", [this](const Common& c) { return cli::resume(c, a_.name); });
    name(resume, "NAME", "The device, by name or id");
  }

  void device() {
    auto* join = command(
        app_, "join",
        "Make this machine a device, with a token of `sally device add`, and start its agent",
        "join TOKEN", [this](const Common& c) {
          a_.join.dir = a_.dir;
          return cli::join(c, a_.join);
        });
    join->add_option("TOKEN", a_.join.token, kTokenHelp)->required();
    dir(join, kAgentDirHelp);
    join->add_option(
        "--key", a_.join.key,
        "Where the private key lives: file (default), tpm or pkcs11:token=...;object=...");
    join->add_flag("!--no-run", a_.join.run, "Do not start the agent");
    auto* start = command(app_, "start",
                          "Start the agent of a device that has joined: after `down`, a reboot",
                          "start --dir /var/lib/sallyport/agent",
                          [this](const Common& c) { return cli::start(c, a_.dir); });
    dir(start, kAgentDirHelp);
    auto* forward = command(
        app_, "forward", "A local port that is the service, kept by this machine's agent",
        "forward plant-mqtt 1883",
        [this](const Common& c) { return cli::forward(c, a_.dir, a_.name, a_.listen, a_.remove); });
    name(forward, "SERVICE", "The service, by name");
    forward->add_option("PORT", a_.listen, "PORT on 127.0.0.1, or ADDRESS:PORT");
    forward->add_flag("--remove", a_.remove,
                      "Take the forward away; without PORT all of the service");
    dir(forward, kAgentDirHelp);
    auto* connect = command(
        app_, "connect", "Standard input and output to a service",
        "connect bastion-ssh\n  ssh -o ProxyCommand='sally connect bastion-ssh' root@bastion",
        [this](const Common& c) { return cli::connect(c, a_.dir, a_.name); });
    name(connect, "SERVICE", "The service, by name");
    dir(connect, kAgentDirHelp);
  }

  void others() {
    auto* demo = command(app_, "demo", "A whole network on this machine, every claim proven",
                         "demo --keep", [this](const Common& c) { return demo::run(c, a_.demo); });
    demo->add_flag("--json", a_.demo.json, "One JSON object with what was measured");
    demo->add_flag("--keep", a_.demo.keep, "Leave it running until Ctrl-C and say what to try");
    auto* broken =
        demo->add_subcommand("break", "Make something wrong and see by what name it is refused");
    broken->footer("Example:\n  sally demo break cert");
    broken->add_option("WHAT", a_.demo.broken, "cert, clock")
        ->required()
        ->check(CLI::IsMember({"cert", "clock"}));
    command(app_, "version", "The version of this program", "version", [](const Common& c) {
      c.out.item({{"name", "sally"}, {"version", SALLY_VERSION}}, {{"sally", "version"}});
      return Status{};
    });
    app_.add_subcommand("help", "What a command does: sally help device add");
  }

  // Helpers of other commands, in processes of their own.
  void hidden() {
    auto* supervise = command(app_, "supervise", "Keep the agent of a folder running", "",
                              [this](const Common&) { return supervise_agent(a_.dir); });
    dir(supervise, "Folder of the agent");
    supervise->group("");
    auto* scan = command(app_, "scan", "Which ports of an address answer", "",
                         [this](const Common&) { return demo::scan(a_.name); });
    name(scan, "ADDRESS", "What to scan");
    scan->group("");
    auto* wiretap =
        command(app_, "wiretap",
                "Look for a text in all packets of this namespace until standard input ends", "",
                [this](const Common&) { return demo::wiretap(a_.name); });
    name(wiretap, "TEXT", "What to look for");
    wiretap->group("");
  }

  CLI::App& app_;
  Asked& a_;
};

// What was wrong with the command line, and which help to read.
Failure misuse(const CLI::App& app, const CLI::ParseError& e) {
  const CLI::App* at = &app;
  std::string path = app.get_name();
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  std::string message = e.what();
  const auto commands =
      at->get_subcommands([](const CLI::App* c) { return !c->get_group().empty(); });
  if (!commands.empty()) {
    const auto rest = app.remaining(true);
    message = rest.empty() ? path + " needs a command:"
                           : "\"" + rest.front() + "\" is no command of " + path + ", which are:";
    for (const auto* c : commands) message += " " + c->get_name();
  }
  return {.exit = kUsage,
          .code = std::string(error_name(Errc::kUsage)),
          .message = std::move(message),
          .fix = path + " --help"};
}

}  // namespace

int cli_main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  log::set_level(log::Level::kError);
  Asked asked;
  CLI::App app{kAbout, "sally"};
  app.footer(kExits);
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", "sally " SALLY_VERSION);
  app.add_option("--context", asked.context, "Folder with the admin identity (also: SALLY_CONTEXT)")
      ->type_name("DIR");
  app.add_option("-o,--output", asked.format, "table, wide, json, jsonl, csv, name");
  app.add_flag("-v,--verbose", asked.verbose, "Say on standard error what happens");
  const Tree tree(app, asked);
  // `sally help device add` is `sally device add --help`, whatever options stand before.
  std::vector<char*> words(argv, argv + argc);
  std::string help_flag = "--help";
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "--context" || word == "-o" || word == "--output") ++i;
    if (word.starts_with('-')) continue;
    if (word == "help") {
      words.erase(words.begin() + static_cast<std::ptrdiff_t>(i));
      words.push_back(help_flag.data());
    }
    break;
  }
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& e) {
    const bool asked_for = e.get_exit_code() == 0;  // --help, --version
    if (asked_for && app.remaining(true).empty()) return app.exit(e);
    const auto format = parse_format(asked.format);
    Output(format.value_or(Format::kTable)).failure(misuse(app, e));
    return kUsage;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "sally: %s\n", e.what());
    return kFailed;
  }
  if (asked.verbose) log::set_level(log::Level::kInfo);
  const auto format = parse_format(asked.format);
  const Common common{.context = asked.context, .out = Output(format.value_or(Format::kTable))};
  const Status s = format ? asked.run(common) : Status(fail(format.error()));
  if (s) return kOk;
  const Failure f = to_failure(s.error());
  common.out.failure(f);
  return f.exit;
}

}  // namespace sally::cli
