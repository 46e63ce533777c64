// SPDX-License-Identifier: Apache-2.0
#include "cli/demo/stage.h"

#include <signal.h>
#include <sys/stat.h>

#include <boost/json/parse.hpp>
#include <cstdlib>
#include <filesystem>

#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"

namespace sally::cli::demo {
namespace {

namespace json = boost::json;

constexpr char kFirewall[] =
    "table inet dark {\n"
    "  counter dropped {}\n"
    "  chain input {\n"
    "    type filter hook input priority 0; policy drop;\n"
    "    iif lo accept\n"
    "    ct state established,related accept\n"
    "    counter name dropped drop\n"
    "  }\n"
    "}\n";

volatile sig_atomic_t stopped = 0;
void on_signal(int) {
  stopped = 1;
}

int online_routers(const json::object& network) {
  const auto* routers = network.if_contains("routers");
  int n = 0;
  if (routers == nullptr || !routers->is_array()) return 0;
  for (const auto& r : routers->get_array())
    n += r.is_object() && cell(r.get_object(), "online") == "yes" ? 1 : 0;
  return n;
}
bool hosts_well(const json::object& status) {
  const auto* hosts = status.if_contains("hosts");
  if (hosts == nullptr || !hosts->is_array()) return false;
  for (const auto& h : hosts->get_array()) {
    if (cell(h.get_object(), "bound") == "yes" && cell(h.get_object(), "target_ok") == "yes")
      return true;
  }
  return false;
}

}  // namespace

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() {
  return stopped != 0;
}

std::int64_t now_ms() {
  return system_clock().mono_us() / 1000;
}

std::optional<json::object> parse(const std::string& text) {
  boost::system::error_code ec;
  auto v = json::parse(text, ec);
  if (ec || !v.is_object()) return std::nullopt;
  return std::move(v.get_object());
}

Stage::Stage() : sally_(sibling("sally")) {}

Stage::~Stage() {
  children_.clear();
  namespaces_.clear();
  std::error_code ignored;
  if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
}

Status Stage::build() {
  TRY(become_root());
  char name[] = "/tmp/sally-demo-XXXXXX";
  if (::mkdtemp(name) == nullptr) return fail(Errc::kFailed, "no temporary folder", Source::kLocal);
  dir_ = name;
  // mosquitto gives up root for a user of its own, who must reach its configuration.
  ::chmod(dir_.c_str(), 0711);
  TRY(links());
  TRY(network());
  return devices();
}

Status Stage::must(const std::string& where, const std::vector<std::string>& args) const {
  const Ran ran = run_in(ns(where), args);
  if (ran.exit == 0) return {};
  std::string line;
  for (const auto& a : args) line += (line.empty() ? "" : " ") + a;
  return fail(Errc::kFailed, line + ": " + std::string(trim(ran.err.empty() ? ran.out : ran.err)),
              Source::kLocal);
}
Result<json::object> Stage::sally(const std::string& where, std::vector<std::string> args,
                                  std::int64_t timeout_ms) const {
  args.insert(args.begin(), {sally_, "-o", "json"});
  const Ran ran = run_in(ns(where), args, timeout_ms);
  if (ran.exit != 0)
    return fail(Errc::kFailed, "sally " + args[3] + ": " + std::string(trim(ran.err)),
                Source::kLocal);
  auto out = parse(ran.out);
  // Lists are arrays; an object of one thing is printed as a list of one.
  if (!out) {
    boost::system::error_code ec;
    auto v = json::parse(ran.out, ec);
    if (ec || !v.is_array() || v.get_array().empty() || !v.get_array().front().is_object())
      return fail(Errc::kFailed, "sally " + args[3] + ": no JSON", Source::kLocal);
    if (v.get_array().size() > 1) return json::object{{"items", std::move(v)}};
    return std::move(v.get_array().front().get_object());
  }
  return std::move(*out);
}
Result<json::object> Stage::admin(std::vector<std::string> args, std::int64_t timeout_ms) const {
  args.insert(args.begin(), {"--context", dir_ + "/net"});
  return sally("hub", std::move(args), timeout_ms);
}

Status Stage::start(const std::string& where, const std::string& name,
                    const std::vector<std::string>& args) {
  TRY_ASSIGN(auto child, Child::start(ns(where), args, dir_ + "/" + name + ".log"));
  children_.push_back(std::move(child));
  return {};
}
bool Stage::until(const std::function<bool()>& done, std::int64_t timeout_ms) {
  return wait_until([&] { return interrupted() || done(); }, timeout_ms) && !interrupted();
}

Status Stage::links() {
  for (const char* name : {"hub", "server", "device", "control"}) {
    TRY_ASSIGN(namespaces_[name], Namespace::create(name));
    TRY(must(name, {"ip", "link", "set", "lo", "up"}));
  }
  TRY(must("hub", {"ip", "address", "add", std::string(kHub) + "/32", "dev", "lo"}));
  int net = 0;
  for (const char* name : {"server", "device", "control"}) {
    const std::string prefix = "10.91." + std::to_string(++net) + ".";
    const std::string here = "to-" + std::string(name);
    TRY(must("hub", {"ip", "link", "add", here, "type", "veth", "peer", "name", "uplink", "netns",
                     std::to_string(ns(name).holder())}));
    TRY(must("hub", {"ip", "address", "add", prefix + "1/24", "dev", here}));
    TRY(must("hub", {"ip", "link", "set", here, "up"}));
    TRY(must(name, {"ip", "address", "add", prefix + "2/24", "dev", "uplink"}));
    TRY(must(name, {"ip", "link", "set", "uplink", "up"}));
    TRY(must(name, {"ip", "route", "add", "default", "via", prefix + "1"}));
  }
  TRY(fs::write_file_atomic(dir_ + "/dark.nft", as_bytes(kFirewall)));
  for (const char* name : {"server", "device"}) TRY(must(name, {"nft", "-f", dir_ + "/dark.nft"}));
  return {};
}

Status Stage::network() {
  TRY(start("hub", "up", {sally_, "up", "--dir", dir_ + "/net", "--name", kHub}));
  const bool up = until(
      [&] {
        const auto status = admin({"status"}, 3'000);
        if (!status) return false;
        const auto* network = status->if_contains("network");
        return network != nullptr && network->is_object() &&
               cell(network->get_object(), "routers") != "-" &&
               online_routers(network->get_object()) > 0;
      },
      20'000);
  if (!up)
    return fail(Errc::kFailed, "the network did not get ready: " + tail("up"), Source::kLocal);
  return {};
}

std::string Stage::tail(const std::string& name) const {
  const auto text = fs::read_text(dir_ + "/" + name + ".log", 4 << 20);
  if (!text) return "";
  return text->size() > 400 ? text->substr(text->size() - 400) : *text;
}

Status Stage::devices() {
  TRY(fs::write_file_atomic(
      dir_ + "/mosquitto.conf",
      as_bytes("listener 1883 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"),
      0644));
  TRY(start("server", "mosquitto", {"mosquitto", "-c", dir_ + "/mosquitto.conf"}));
  TRY(fs::write_file_atomic(
      dir_ + "/open.conf",
      as_bytes("listener 1883 0.0.0.0\nallow_anonymous true\npersistence false\nuser root\n"),
      0644));
  TRY(start("control", "mosquitto-open", {"mosquitto", "-c", dir_ + "/open.conf"}));

  struct New {
    const char* device;
    const char* where;
    std::vector<std::string> tags;
  };
  const New all[] = {{"broker-1", "server", {}},
                     {"pump-17", "device", {"--tag", "sensors"}},
                     {"pump-18", "device", {"--tag", "sensors"}},
                     {"stranger", "device", {}}};
  for (const auto& d : all) {
    std::vector<std::string> add{"device", "add", d.device};
    add.insert(add.end(), d.tags.begin(), d.tags.end());
    TRY_ASSIGN(const auto made, admin(add));
    TRY(sally(d.where, {"join", cell(made, "token"), "--dir", dir_ + "/" + d.device, "--no-run"}));
    TRY(start(d.where, d.device, {sally_, "supervise", "--dir", dir_ + "/" + d.device}));
  }
  TRY(admin({"expose", "127.0.0.1:1883", "--as", "plant-mqtt", "--host", "broker-1", "--allow",
             "#sensors"}));
  if (!until(
          [&] {
            return agent("broker-1", "server", [](const json::object& s) { return hosts_well(s); });
          },
          10'000)) {
    return fail(Errc::kFailed, "the broker is not hosted: " + tail("broker-1/agent"),
                Source::kLocal);
  }
  if (!until(
          [&] {
            return sally("device", {"forward", "plant-mqtt", "1883", "--dir", dir_ + "/pump-17"},
                         5'000)
                .has_value();
          },
          10'000)) {
    return fail(Errc::kFailed, "the device's agent does not answer: " + tail("pump-17/agent"),
                Source::kLocal);
  }
  return {};
}

bool Stage::agent(const std::string& device, const std::string& where,
                  const std::function<bool(const json::object&)>& is) const {
  const auto status = sally(where, {"status", "--dir", dir_ + "/" + device}, 5'000);
  if (!status) return false;
  const auto* a = status->if_contains("agent");
  return a != nullptr && a->is_object() && is(a->get_object());
}

std::string Stage::field(const std::string& log, const std::string& message,
                         const std::string& name) const {
  const auto text = fs::read_text(dir_ + "/" + log + ".log", 16 << 20);
  if (!text) return "-";
  const auto line = text->rfind(" " + message + " ");
  if (line == std::string::npos) return "-";
  const std::string_view rest = std::string_view(*text).substr(line, text->find('\n', line) - line);
  const auto at = rest.find(" " + name + "=");
  if (at == std::string_view::npos) return "-";
  const auto value = rest.substr(at + name.size() + 2);
  return std::string(value.substr(0, value.find(' ')));
}

}  // namespace sally::cli::demo
