// SPDX-License-Identifier: Apache-2.0
#include "cli/demo/demo.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>

#include "base/clock.h"
#include "base/fs.h"
#include "base/random.h"
#include "base/text.h"
#include "cli/demo/lab.h"

namespace sally::cli::demo {
namespace {

namespace json = boost::json;

// The hub is "the Internet": it routes, and controller and router live at one address of it.
constexpr char kHub[] = "10.91.0.1";
constexpr char kServer[] = "10.91.1.2";
constexpr char kControl[] = "10.91.3.2";
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

volatile sig_atomic_t interrupted = 0;
void on_signal(int) {
  interrupted = 1;
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

struct Point {
  std::string id;
  std::string claim;
  bool pass = false;
  json::object measured;
};

class Demo {
 public:
  explicit Demo(const Options& options) : options_(options) {}
  ~Demo() {
    children_.clear();
    namespaces_.clear();
    std::error_code ignored;
    if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
  }

  Status run() {
    const std::int64_t start = now_ms();
    TRY(become_root());
    char name[] = "/tmp/sally-demo-XXXXXX";
    if (::mkdtemp(name) == nullptr)
      return fail(Errc::kFailed, "no temporary folder", Source::kLocal);
    dir_ = name;
    // mosquitto gives up root for a user of its own, who must reach its configuration.
    ::chmod(dir_.c_str(), 0711);
    TRY(links());
    TRY(network());
    TRY(devices());
    ready_ms_ = now_ms() - start;
    say("ready in " + std::to_string(ready_ms_) +
        " ms: controller, router, a dark MQTT broker, two devices");
    if (options_.broken == "cert")
      return prove("break-cert", "a certificate that is not right gets nothing",
                   [this](Point& p) { return break_certificate(p); });
    if (options_.broken == "clock")
      return prove("break-clock", "a wrong time switches no check off",
                   [this](Point& p) { return break_clock(p); });
    TRY(prove("mtls", "a real MQTT message arrives; both sides are proven",
              [this](Point& p) { return mtls(p); }));
    TRY(prove("dark", "the server has no reachable port", [this](Point& p) { return dark(p); }));
    TRY(prove("renew", "a certificate is renewed under a running flow; nobody notices",
              [this](Point& p) { return renew(p); }));
    TRY(prove("deny", "a valid certificate without a grant gets nothing",
              [this](Point& p) { return deny(p); }));
    return {};
  }

  [[nodiscard]] bool all_pass() const {
    for (const auto& p : points_) {
      if (!p.pass) return false;
    }
    return points_.size() == (options_.broken.empty() ? 4 : 1);
  }
  [[nodiscard]] std::string as_json() const {
    json::array points;
    for (const auto& p : points_)
      points.push_back(json::object{{"id", p.id}, {"pass", p.pass}, {"measured", p.measured}});
    return json::serialize(
        json::object{{"points", std::move(points)}, {"ready_ms", ready_ms_}, {"pass", all_pass()}});
  }

  void keep() const {
    const auto in = [&](const char* ns) {
      return "nsenter --net=/proc/" + std::to_string(namespaces_.at(ns)->holder()) + "/ns/net ";
    };
    std::printf(
        "\nIt goes on until Ctrl-C. In another terminal, as the same user:\n"
        "  %smosquitto_pub -p 1883 -t hello -m world      # the device publishes through its "
        "forward\n"
        "  %smosquitto_sub -p 1883 -t '#' -v              # at the broker\n"
        "  %s%s --context %s/net status\n"
        "  %s%s --context %s/net deny '#sensors' plant-mqtt\n"
        "  %sss -lntu                                      # nothing but loopback\n",
        in("device").c_str(), in("server").c_str(), in("hub").c_str(), sally_.c_str(), dir_.c_str(),
        in("hub").c_str(), sally_.c_str(), dir_.c_str(), in("server").c_str());
    std::fflush(stdout);
    while (interrupted == 0) ::pause();
  }

 private:
  void say(const std::string& line) const {
    if (options_.json) return;
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

  Status prove(const std::string& id, const std::string& claim,
               const std::function<Status(Point&)>& how) {
    Point p{.id = id, .claim = claim, .pass = false, .measured = {}};
    if (const Status s = how(p); !s) {
      p.pass = false;
      p.measured["error"] = s.error().context();
    }
    // Half a point says nothing about the claim.
    if (interrupted != 0) return fail(Errc::kInterrupted, id, Source::kLocal);
    say((p.pass ? "PASS  " : "FAIL  ") + id + ": " + claim);
    for (const auto& [key, value] : p.measured)
      say("        " + std::string(key) + ": " + cell(json::object{{"v", value}}, "v"));
    points_.push_back(std::move(p));
    return {};
  }

  [[nodiscard]] const Namespace& ns(const std::string& name) const { return *namespaces_.at(name); }

  Status must(const std::string& where, const std::vector<std::string>& args) {
    const Ran ran = run_in(ns(where), args);
    if (ran.exit == 0) return {};
    std::string line;
    for (const auto& a : args) line += (line.empty() ? "" : " ") + a;
    return fail(Errc::kFailed, line + ": " + std::string(trim(ran.err.empty() ? ran.out : ran.err)),
                Source::kLocal);
  }
  /// `sally -o json ARGS` in a namespace; its output.
  Result<json::object> sally(const std::string& where, std::vector<std::string> args,
                             std::int64_t timeout_ms = 30'000) {
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
  std::vector<std::string> with_context(std::vector<std::string> args) const {
    args.insert(args.begin(), {"--context", dir_ + "/net"});
    return args;
  }
  Status start(const std::string& where, const std::string& name,
               const std::vector<std::string>& args) {
    TRY_ASSIGN(auto child, Child::start(ns(where), args, dir_ + "/" + name + ".log"));
    children_.push_back(std::move(child));
    return {};
  }
  static bool until(const std::function<bool()>& done, std::int64_t timeout_ms) {
    return wait_until([&] { return interrupted != 0 || done(); }, timeout_ms) && interrupted == 0;
  }

  Status links() {
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
    for (const char* name : {"server", "device"})
      TRY(must(name, {"nft", "-f", dir_ + "/dark.nft"}));
    return {};
  }

  Status network() {
    TRY(start("hub", "up", {sally_, "up", "--dir", dir_ + "/net", "--name", kHub}));
    const bool up = until(
        [&] {
          const auto status = sally("hub", with_context({"status"}), 3'000);
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
  static int online_routers(const json::object& network) {
    const auto* routers = network.if_contains("routers");
    int n = 0;
    if (routers == nullptr || !routers->is_array()) return 0;
    for (const auto& r : routers->get_array())
      n += r.is_object() && cell(r.get_object(), "online") == "yes" ? 1 : 0;
    return n;
  }
  std::string tail(const std::string& name) const {
    const auto text = fs::read_text(dir_ + "/" + name + ".log", 4 << 20);
    if (!text) return "";
    return text->size() > 400 ? text->substr(text->size() - 400) : *text;
  }

  Status devices() {
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
                       {"stranger", "device", {}}};
    for (const auto& d : all) {
      std::vector<std::string> add{"device", "add", d.device};
      add.insert(add.end(), d.tags.begin(), d.tags.end());
      TRY_ASSIGN(const auto made, sally("hub", with_context(add)));
      TRY(sally(d.where,
                {"join", cell(made, "token"), "--dir", dir_ + "/" + d.device, "--no-run"}));
      TRY(start(d.where, d.device, {sally_, "supervise", "--dir", dir_ + "/" + d.device}));
    }
    TRY(sally("hub", with_context({"expose", "127.0.0.1:1883", "--as", "plant-mqtt", "--host",
                                   "broker-1", "--allow", "#sensors"})));
    if (!until(
            [&] {
              return agent("broker-1", "server",
                           [](const json::object& s) { return hosts_well(s); });
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
  bool agent(const std::string& device, const std::string& where,
             const std::function<bool(const json::object&)>& is) {
    const auto status = sally(where, {"status", "--dir", dir_ + "/" + device}, 5'000);
    if (!status) return false;
    const auto* a = status->if_contains("agent");
    return a != nullptr && a->is_object() && is(a->get_object());
  }
  static bool hosts_well(const json::object& status) {
    const auto* hosts = status.if_contains("hosts");
    if (hosts == nullptr || !hosts->is_array()) return false;
    for (const auto& h : hosts->get_array()) {
      if (cell(h.get_object(), "bound") == "yes" && cell(h.get_object(), "target_ok") == "yes")
        return true;
    }
    return false;
  }

  Status mtls(Point& p) {
    const std::string message = "pressure=4.2 " + system_random().hex(12);
    TRY_ASSIGN(auto tap, Child::start(ns("device"), {sally_, "wiretap", message},
                                      dir_ + "/wiretap.log", true));
    TRY_ASSIGN(auto sub, Child::start(ns("server"),
                                      {"mosquitto_sub", "-h", "127.0.0.1", "-p", "1883", "-t",
                                       "plant/pump-17", "-C", "1", "-W", "15"},
                                      dir_ + "/sub.log"));
    if (!until([&] { return tail("wiretap").find("ready") != std::string::npos; }, 5'000))
      return fail(Errc::kFailed, "no wiretap");
    const std::int64_t start = now_ms();
    // Until the subscription stands a message would be lost: publish until one arrives.
    bool arrived = false;
    int published = 0;
    while (!arrived && now_ms() - start < 15'000 && interrupted == 0) {
      const Ran pub = run_in(ns("device"),
                             {"mosquitto_pub", "-h", "127.0.0.1", "-p", "1883", "-t",
                              "plant/pump-17", "-m", message, "-q", "1"},
                             8'000);
      published += pub.exit == 0 ? 1 : 0;
      arrived = sub->wait(300) == 0;
    }
    // A second connection of the device's lane, so that the tap sees a whole handshake.
    (void)run_in(ns("device"), {sally_, "connect", "plant-mqtt", "--dir", dir_ + "/pump-17"},
                 5'000);
    tap->end_input();
    (void)tap->wait(5'000);
    std::string report = tail("wiretap");
    if (const auto at = report.find('{'); at != std::string::npos) report.erase(0, at);
    const auto wire = parse(report);
    const std::string caller = field("broker-1/agent", "agent.caller", "device");
    const auto device = sally("hub", with_context({"device", "show", "pump-17"}));
    p.measured["message_arrived"] = arrived && tail("sub").find(message) != std::string::npos;
    p.measured["published"] = published;
    p.measured["caller_named_by_certificate"] =
        device && caller == cell(*device, "id") ? "pump-17" : caller;
    p.measured["key_exchange"] = field("net/router", "router.device_up", "group");
    if (wire) {
      p.measured["packets_on_the_wire"] = wire->at("packets");
      p.measured["message_seen_on_the_wire"] = wire->at("seen");
      p.measured["message_seen_on_loopback"] = wire->at("loopback_seen");
      p.measured["tls13_handshakes_on_the_wire"] = wire->at("tls13");
    }
    p.pass = p.measured["message_arrived"].as_bool() && wire && wire->at("seen").as_int64() == 0 &&
             wire->at("loopback_seen").as_int64() > 0 && wire->at("tls13").as_int64() > 0 &&
             p.measured["caller_named_by_certificate"] == "pump-17" &&
             p.measured["key_exchange"] == "X25519MLKEM768";
    return {};
  }

  // The value of a field in the last log line with that message.
  std::string field(const std::string& log, const std::string& message,
                    const std::string& name) const {
    const auto text = fs::read_text(dir_ + "/" + log + ".log", 16 << 20);
    if (!text) return "-";
    const auto line = text->rfind(" " + message + " ");
    if (line == std::string::npos) return "-";
    const std::string_view rest =
        std::string_view(*text).substr(line, text->find('\n', line) - line);
    const auto at = rest.find(" " + name + "=");
    if (at == std::string_view::npos) return "-";
    const auto value = rest.substr(at + name.size() + 2);
    return std::string(value.substr(0, value.find(' ')));
  }

  Status dark(Point& p) {
    const auto scan = [&](const char* address) {
      return parse(run_in(ns("hub"), {sally_, "scan", address}, 60'000).out);
    };
    const auto server = scan(kServer);
    const auto control = scan(kControl);
    if (!server || !control) return fail(Errc::kFailed, "the scanner failed");
    const Ran counters = run_in(ns("server"), {"nft", "-j", "list", "counters"});
    std::int64_t dropped = 0;
    if (const auto parsed = parse(counters.out); parsed) {
      for (const auto& entry : parsed->at("nftables").get_array()) {
        if (const auto* c = entry.get_object().if_contains("counter"); c != nullptr)
          dropped += c->get_object().at("packets").as_int64();
      }
    }
    const auto lines = [](const std::string& text,
                          const std::function<bool(std::string_view)>& keep) {
      std::int64_t n = 0;
      for (const auto line : split(text, '\n')) n += !trim(line).empty() && keep(line) ? 1 : 0;
      return n;
    };
    const Ran listening = run_in(ns("server"), {"ss", "-lntuH"});
    const Ran connected = run_in(ns("server"), {"ss", "-tnH", "state", "established"});
    const std::int64_t off_loopback = lines(listening.out, [](std::string_view l) {
      return l.find("127.0.0.1:") == std::string_view::npos &&
             l.find("[::1]:") == std::string_view::npos;
    });
    // Every connection that leaves the machine goes to the hub's ports: it was dialed from here.
    const std::int64_t inbound = lines(connected.out, [](std::string_view l) {
      return l.find("127.0.0.1:") == std::string_view::npos &&
             l.find(std::string(kHub) + ":1280") == std::string_view::npos &&
             l.find(std::string(kHub) + ":3022") == std::string_view::npos;
    });
    const auto open = [](const json::object& s, const char* what) {
      return static_cast<std::int64_t>(s.at(what).get_array().size());
    };
    p.measured["tcp_scanned"] = server->at("tcp_scanned");
    p.measured["tcp_open"] = open(*server, "tcp_open");
    p.measured["udp_scanned"] = server->at("udp_scanned");
    p.measured["udp_answered"] = open(*server, "udp_answered");
    p.measured["packets_dropped"] = dropped;
    p.measured["listening_off_loopback"] = off_loopback;
    p.measured["connections_not_dialed_by_us"] = inbound;
    p.measured["control_found_broker"] = control->at("tcp_open").get_array().size() == 1 &&
                                         control->at("tcp_open").get_array().front() == 1883;
    p.pass = server->at("tcp_scanned") == 65'535 && open(*server, "tcp_open") == 0 &&
             server->at("udp_scanned") == 200 && open(*server, "udp_answered") == 0 &&
             dropped > 0 && off_loopback == 0 && inbound == 0 &&
             p.measured["control_found_broker"].as_bool();
    return {};
  }

  // One MQTT connection through the forward, before, while and after the device's certificate is
  // replaced.
  Status renew(Point& p) {
    const auto lanes = [&] {
      const auto text = fs::read_text(dir_ + "/pump-17/agent.log", 16 << 20);
      std::int64_t n = 0;
      for (std::size_t at = 0; text && (at = text->find(" sdk.online ", at)) != std::string::npos;
           ++at)
        ++n;
      return n;
    };
    const auto serial = [&] {
      const auto v = sally("hub", with_context({"device", "show", "pump-17"}));
      if (!v) return std::string();
      const auto& certificates = v->at("certificates").get_array();
      return certificates.empty() ? std::string()
                                  : text_of(certificates.front().get_object(), "serial");
    };
    const std::string before = serial();
    const std::int64_t lanes_before = lanes();
    TRY_ASSIGN(auto sub, Child::start(ns("device"),
                                      {"mosquitto_sub", "-h", "127.0.0.1", "-p", "1883", "-t",
                                       "plant/news", "-C", "2", "-W", "40"},
                                      dir_ + "/news.log"));
    const auto publish = [&](const std::string& text) {
      return run_in(ns("server"), {"mosquitto_pub", "-h", "127.0.0.1", "-p", "1883", "-t",
                                   "plant/news", "-r", "-q", "1", "-m", text})
                 .exit == 0;
    };
    const bool first =
        publish("before") &&
        until([&] { return tail("news").find("before") != std::string::npos; }, 10'000);
    const std::int64_t start = now_ms();
    TRY(sally("hub", with_context({"renew", "pump-17"}), 40'000));
    const std::int64_t took = now_ms() - start;
    const bool second = publish("after") && sub->wait(10'000) == 0 &&
                        tail("news").find("after") != std::string::npos;
    p.measured["certificate_before"] = before;
    const std::string fresh = serial();
    p.measured["certificate_after"] = fresh;
    p.measured["renewed_in_ms"] = took;
    p.measured["same_flow_goes_on"] = first && second;
    p.measured["connections_made_for_it"] = lanes() - lanes_before;
    p.pass = first && second && !before.empty() && fresh != before && lanes() == lanes_before;
    return {};
  }

  // ---- sally demo break: what was made wrong is refused, and by what name

  /// A copy of the device's identity, made wrong by `edit`; what dialing with it ends in.
  Result<json::object> dial_with(const std::string& name,
                                 const std::function<void(json::object&)>& edit) {
    TRY_ASSIGN(const auto text, fs::read_text(dir_ + "/pump-17/identity.json", 1 << 20));
    auto file = parse(text);
    if (!file) return fail(Errc::kFailed, "no identity file", Source::kLocal);
    edit(*file);
    TRY(fs::make_dirs(dir_ + "/" + name, 0700));
    TRY(fs::write_file_atomic(dir_ + "/" + name + "/identity.json",
                              as_bytes(json::serialize(*file)), 0600));
    const Ran ran =
        run_in(ns("device"),
               {sally_, "-o", "json", "connect", "plant-mqtt", "--dir", dir_ + "/" + name}, 20'000);
    const auto said = parse(ran.err);
    const auto* error = said ? said->if_contains("error") : nullptr;
    json::object out{{"exit", ran.exit}, {"said", std::string(trim(ran.err))}};
    if (error != nullptr && error->is_object())
      out["said"] =
          text_of(error->get_object(), "code") + ": " + text_of(error->get_object(), "message");
    return out;
  }
  static void put(json::object& file, const char* name, const std::string& text) {
    file.at("id").get_object()[name] = text;
  }
  /// Refused, and saying one of the words.
  void refused(Point& p, const std::string& what, const Result<json::object>& r,
               const std::vector<std::string>& words) {
    const std::string said = r ? text_of(*r, "said") : r.error().context();
    p.measured[what] = said;
    bool named = false;
    for (const auto& word : words) named = named || said.find(word) != std::string::npos;
    p.pass = p.pass && r && r->at("exit") != 0 && named;
  }

  Status break_certificate(Point& p) {
    p.pass = true;
    TRY_ASSIGN(const auto text, fs::read_text(dir_ + "/stranger/identity.json", 1 << 20));
    const auto other = parse(text);
    if (!other) return fail(Errc::kFailed, "no identity file", Source::kLocal);
    refused(p, "its certificate with another device's key",
            dial_with("key",
                      [&](json::object& f) {
                        put(f, "key", text_of(other->at("id").get_object(), "key"));
                      }),
            {"no certificate in id.cert belongs to id.key"});
    refused(p, "one byte of it flipped",
            dial_with("byte",
                      [&](json::object& f) {
                        std::string cert = text_of(f.at("id").get_object(), "cert");
                        const std::size_t at = cert.find('\n', cert.find("BEGIN")) + 200;
                        cert[at] = cert[at] == 'A' ? 'B' : 'A';
                        put(f, "cert", cert);
                      }),
            {"sally.denied", "id.cert", "certificate", "identity"});
    const std::string made = dir_ + "/made";
    TRY_ASSIGN(const auto mine, fs::read_text(dir_ + "/pump-17/identity.json", 1 << 20));
    TRY_ASSIGN(const auto shown, sally("hub", with_context({"device", "show", "pump-17"})));
    const auto own = parse(mine);
    const std::string uri = "URI:spiffe://" + text_of(own->at("sally").get_object(), "network") +
                            "/device/" + text_of(shown, "id");
    TRY(must("device", {"openssl",
                        "req",
                        "-x509",
                        "-newkey",
                        "ec",
                        "-pkeyopt",
                        "ec_paramgen_curve:P-256",
                        "-nodes",
                        "-keyout",
                        made + ".key",
                        "-out",
                        made + ".pem",
                        "-days",
                        "30",
                        "-subj",
                        "/CN=" + text_of(shown, "id"),
                        "-addext",
                        "subjectAltName=" + uri,
                        "-addext",
                        "basicConstraints=critical,CA:FALSE",
                        "-addext",
                        "keyUsage=critical,digitalSignature",
                        "-addext",
                        "extendedKeyUsage=clientAuth,serverAuth"}));
    TRY_ASSIGN(const auto key, fs::read_text(made + ".key", 1 << 16));
    TRY_ASSIGN(const auto cert, fs::read_text(made + ".pem", 1 << 16));
    refused(p, "one with its name that somebody else made",
            dial_with("made",
                      [&](json::object& f) {
                        put(f, "key", key);
                        put(f, "cert", cert);
                      }),
            {"refuses", "refused", "denied", "alert"});
    p.measured["why, in the router's log alone"] =
        field("net/router", "tls.handshake_failed", "code");
    TRY(sally("hub", with_context({"device", "rm", "pump-17", "--yes"})));
    refused(p, "its own, after the device was removed", dial_with("gone", [](json::object&) {}),
            {"refuses", "refused", "denied", "alert"});
    return {};
  }

  Status break_clock(Point& p) {
    p.pass = true;
    // As if the network had signed that it is 2090: then its routers' certificates are over.
    refused(p, "a device that believes it is 2090 meets the router",
            dial_with("late",
                      [](json::object& f) {
                        f.at("sally").get_object()["time_ms"] = std::int64_t{3'786'912'000'000};
                      }),
            {"expired"});
    p.measured["never set (1970), or far ahead"] =
        "connects at once: the floor counts, then the router's time (tests/sim/clocks_test.cc)";
    return {};
  }

  Status deny(Point& p) {
    const Ran dial = run_in(
        ns("device"), {sally_, "-o", "json", "connect", "plant-mqtt", "--dir", dir_ + "/stranger"},
        15'000);
    const auto error = parse(dial.err);
    p.measured["exit_code"] = dial.exit;
    p.measured["answer"] =
        error ? cell(error->at("error").get_object(), "message") : std::string(trim(dial.err));
    std::int64_t listed = -1;
    (void)agent("stranger", "device", [&](const json::object& s) {
      listed = static_cast<std::int64_t>(s.at("services").get_array().size());
      return true;
    });
    p.measured["services_listed"] = listed;
    const bool audited = until(
        [&] {
          const Ran audit = run_in(
              ns("hub"), {sally_, "--context", dir_ + "/net", "-o", "json", "audit", "list"});
          return audit.out.find("dial_denied") != std::string::npos;
        },
        5'000);
    p.measured["audited"] = audited;
    // Without a certificate: certificate_required (116), and nothing of ours is parsed.
    const Ran bare = run_in(ns("device"),
                            {"openssl", "s_client", "-connect", std::string(kHub) + ":3022",
                             "-alpn", "sally-edge/1", "-tls1_3", "-ign_eof"},
                            10'000);
    const bool alert = bare.err.find("alert number 116") != std::string::npos ||
                       bare.out.find("alert number 116") != std::string::npos;
    p.measured["without_certificate_alert"] = alert ? 116 : 0;
    p.pass = dial.exit == kNotFound && listed == 0 && audited && alert;
    return {};
  }

  Options options_;
  std::string sally_ = sibling("sally");
  std::string dir_;
  std::int64_t ready_ms_ = 0;
  std::map<std::string, std::unique_ptr<Namespace>> namespaces_;
  std::vector<std::unique_ptr<Child>> children_;
  std::vector<Point> points_;
};

}  // namespace

Status run(const Common&, const Options& options) {
  struct sigaction action{};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  Demo demo(options);
  const Status s = demo.run();
  if (options.json) {
    std::printf("%s\n", demo.as_json().c_str());
  }
  if (interrupted != 0 && !demo.all_pass())
    return fail(Errc::kInterrupted, "the demo was stopped, and with it all that it had started",
                Source::kLocal);
  TRY(s);
  if (options.keep && interrupted == 0) demo.keep();
  if (!demo.all_pass()) return fail(Errc::kVerify, "a point of the demo does not hold");
  return {};
}

}  // namespace sally::cli::demo
