// SPDX-License-Identifier: Apache-2.0
#include "cli/demo/demo.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstdio>

#include "base/clock.h"
#include "base/fs.h"
#include "base/random.h"
#include "base/text.h"
#include "cli/demo/stage.h"
#include "cli/errors.h"

namespace sally::cli::demo {
namespace {

namespace json = boost::json;

class Demo {
 public:
  explicit Demo(const Options& options) : options_(options) {}

  Status run() {
    const std::int64_t start = now_ms();
    TRY(stage_.build());
    ready_ms_ = now_ms() - start;
    say("ready in " + std::to_string(ready_ms_) +
        " ms: controller, router, a dark MQTT broker, three devices");
    if (options_.broken == "cert")
      return prove("break-cert", "a certificate that is not right gets nothing",
                   [this](Point& p) { return break_certificate(stage_, p); });
    if (options_.broken == "clock")
      return prove("break-clock", "a wrong time switches no check off",
                   [this](Point& p) { return break_clock(stage_, p); });
    TRY(prove("mtls", "a real MQTT message arrives; both sides are proven",
              [this](Point& p) { return mtls(p); }));
    TRY(prove("dark", "the server has no reachable port", [this](Point& p) { return dark(p); }));
    TRY(prove("renew", "a certificate is renewed under a running flow; nobody notices",
              [this](Point& p) { return renew(p); }));
    TRY(prove("revoke", "a live session is cut at once, and does not come back",
              [this](Point& p) { return revoke(p); }));
    TRY(prove("deny", "a valid certificate without a grant gets nothing",
              [this](Point& p) { return deny(p); }));
    return {};
  }

  [[nodiscard]] bool all_pass() const {
    for (const auto& p : points_) {
      if (!p.pass) return false;
    }
    return points_.size() == (options_.broken.empty() ? 5 : 1);
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
      return "nsenter --net=/proc/" + std::to_string(stage_.ns(ns).holder()) + "/ns/net ";
    };
    std::printf(
        "\nIt goes on until Ctrl-C. In another terminal, as the same user:\n"
        "  %smosquitto_pub -p 1883 -t hello -m world      # the device publishes through its "
        "forward\n"
        "  %smosquitto_sub -p 1883 -t '#' -v              # at the broker\n"
        "  %s%s --context %s/net status\n"
        "  %s%s --context %s/net deny '#sensors' plant-mqtt\n"
        "  %sss -lntu                                      # nothing but loopback\n",
        in("device").c_str(), in("server").c_str(), in("hub").c_str(), stage_.program().c_str(),
        stage_.dir().c_str(), in("hub").c_str(), stage_.program().c_str(), stage_.dir().c_str(),
        in("server").c_str());
    std::fflush(stdout);
    while (!interrupted()) ::pause();
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
    if (interrupted()) return fail(Errc::kInterrupted, id, Source::kLocal);
    say((p.pass ? "PASS  " : "FAIL  ") + id + ": " + claim);
    for (const auto& [key, value] : p.measured)
      say("        " + std::string(key) + ": " + cell(json::object{{"v", value}}, "v"));
    points_.push_back(std::move(p));
    return {};
  }

  Status mtls(Point& p) {
    const std::string message = "pressure=4.2 " + system_random().hex(12);
    TRY_ASSIGN(auto tap, Child::start(stage_.ns("device"), {stage_.program(), "wiretap", message},
                                      stage_.dir() + "/wiretap.log", true));
    TRY_ASSIGN(auto sub, Child::start(stage_.ns("server"),
                                      {"mosquitto_sub", "-h", "127.0.0.1", "-p", "1883", "-t",
                                       "plant/pump-17", "-C", "1", "-W", "15"},
                                      stage_.dir() + "/sub.log"));
    if (!stage_.until([&] { return stage_.tail("wiretap").find("ready") != std::string::npos; },
                      5'000))
      return fail(Errc::kFailed, "no wiretap");
    const std::int64_t start = now_ms();
    // Until the subscription stands a message would be lost: publish until one arrives.
    bool arrived = false;
    int published = 0;
    while (!arrived && now_ms() - start < 15'000 && !interrupted()) {
      const Ran pub = run_in(stage_.ns("device"),
                             {"mosquitto_pub", "-h", "127.0.0.1", "-p", "1883", "-t",
                              "plant/pump-17", "-m", message, "-q", "1"},
                             8'000);
      published += pub.exit == 0 ? 1 : 0;
      arrived = sub->wait(300) == 0;
    }
    // A second connection of the device's lane, so that the tap sees a whole handshake.
    (void)run_in(stage_.ns("device"),
                 {stage_.program(), "connect", "plant-mqtt", "--dir", stage_.dir() + "/pump-17"},
                 5'000);
    tap->end_input();
    (void)tap->wait(5'000);
    std::string report = stage_.tail("wiretap");
    if (const auto at = report.find('{'); at != std::string::npos) report.erase(0, at);
    const auto wire = parse(report);
    const std::string caller = stage_.field("broker-1/agent", "agent.caller", "device");
    const auto device = stage_.admin({"device", "show", "pump-17"});
    p.measured["message_arrived"] =
        arrived && stage_.tail("sub").find(message) != std::string::npos;
    p.measured["published"] = published;
    p.measured["caller_named_by_certificate"] =
        device && caller == cell(*device, "id") ? "pump-17" : caller;
    p.measured["key_exchange"] = stage_.field("net/router", "router.device_up", "group");
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

  Status dark(Point& p) {
    const auto scan = [&](const char* address) {
      return parse(run_in(stage_.ns("hub"), {stage_.program(), "scan", address}, 60'000).out);
    };
    const auto server = scan(kServer);
    const auto control = scan(kControl);
    if (!server || !control) return fail(Errc::kFailed, "the scanner failed");
    const Ran counters = run_in(stage_.ns("server"), {"nft", "-j", "list", "counters"});
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
    const Ran listening = run_in(stage_.ns("server"), {"ss", "-lntuH"});
    const Ran connected = run_in(stage_.ns("server"), {"ss", "-tnH", "state", "established"});
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
      const auto text = fs::read_text(stage_.dir() + "/pump-17/agent.log", 16 << 20);
      std::int64_t n = 0;
      for (std::size_t at = 0; text && (at = text->find(" sdk.online ", at)) != std::string::npos;
           ++at)
        ++n;
      return n;
    };
    const auto serial = [&] {
      const auto v = stage_.admin({"device", "show", "pump-17"});
      if (!v) return std::string();
      const auto& certificates = v->at("certificates").get_array();
      return certificates.empty() ? std::string()
                                  : text_of(certificates.front().get_object(), "serial");
    };
    const std::string before = serial();
    const std::int64_t lanes_before = lanes();
    TRY_ASSIGN(auto sub, Child::start(stage_.ns("device"),
                                      {"mosquitto_sub", "-h", "127.0.0.1", "-p", "1883", "-t",
                                       "plant/news", "-C", "2", "-W", "40"},
                                      stage_.dir() + "/news.log"));
    const auto publish = [&](const std::string& text) {
      return run_in(stage_.ns("server"), {"mosquitto_pub", "-h", "127.0.0.1", "-p", "1883", "-t",
                                          "plant/news", "-r", "-q", "1", "-m", text})
                 .exit == 0;
    };
    const bool first =
        publish("before") &&
        stage_.until([&] { return stage_.tail("news").find("before") != std::string::npos; },
                     10'000);
    const std::int64_t start = now_ms();
    TRY(stage_.admin({"renew", "pump-17"}, 40'000));
    const std::int64_t took = now_ms() - start;
    const bool second = publish("after") && sub->wait(10'000) == 0 &&
                        stage_.tail("news").find("after") != std::string::npos;
    p.measured["certificate_before"] = before;
    const std::string fresh = serial();
    p.measured["certificate_after"] = fresh;
    p.measured["renewed_in_ms"] = took;
    p.measured["same_flow_goes_on"] = first && second;
    p.measured["connections_made_for_it"] = lanes() - lanes_before;
    p.pass = first && second && !before.empty() && fresh != before && lanes() == lanes_before;
    return {};
  }

  // News that come without end over a device's own connection, until the device is revoked.
  Status revoke(Point& p) {
    TRY(stage_.sally("device",
                     {"forward", "plant-mqtt", "1884", "--dir", stage_.dir() + "/pump-18"}));
    TRY_ASSIGN(auto news,
               Child::start(stage_.ns("server"),
                            {"mosquitto_pub", "-h", "127.0.0.1", "-p", "1883", "-t", "plant/ticks",
                             "-m", "tick", "--repeat", "20000", "--repeat-delay", "0.005"},
                            stage_.dir() + "/ticks-out.log"));
    TRY_ASSIGN(auto sub, Child::start(stage_.ns("device"),
                                      {"mosquitto_sub", "-h", "127.0.0.1", "-p", "1884", "-t",
                                       "plant/ticks", "-F", "%U"},
                                      stage_.dir() + "/ticks.log"));
    // When the last of them came, in milliseconds since 1970; 0: none did.
    const auto last_ms = [&] {
      const auto text = fs::read_text(stage_.dir() + "/ticks.log", 16 << 20);
      std::int64_t last = 0;
      for (const auto line : split(text.value_or(""), '\n')) {
        const auto seconds = parse_u64(line.substr(0, line.find('.')));
        const auto part = line.find('.') == line.npos
                              ? std::nullopt
                              : parse_u64(line.substr(line.find('.') + 1, 3));
        if (seconds && part) last = static_cast<std::int64_t>(*seconds * 1'000 + *part);
      }
      return last;
    };
    const bool flowing = stage_.until([&] { return last_ms() > 0; }, 10'000);
    const std::int64_t asked = system_clock().unix_ms();
    TRY_ASSIGN(const auto answer, stage_.admin({"revoke", "device", "pump-18", "--yes"}));
    const std::int64_t answered = system_clock().unix_ms();
    const bool silent = stage_.until(
        [&] { return system_clock().unix_ms() - std::max(last_ms(), answered) > 500; }, 3'000);
    const Ran again = run_in(stage_.ns("device"),
                             {stage_.program(), "-o", "json", "connect", "plant-mqtt", "--dir",
                              stage_.dir() + "/pump-18"},
                             20'000);
    const auto said = parse(again.err);
    const std::int64_t last = last_ms();
    p.measured["enforced"] = cell(answer, "enforced.routers") + " of " +
                             cell(answer, "enforced.of") + " routers, " +
                             cell(answer, "enforced.flows_cut") + " flows cut, " +
                             cell(answer, "enforced.took_ms") + " ms";
    p.measured["last_byte_after_answer_ms"] = std::max<std::int64_t>(0, last - answered);
    p.measured["command_ms"] = answered - asked;
    p.measured["again"] = said ? text_of(said->at("error").get_object(), "code") + ": " +
                                     text_of(said->at("error").get_object(), "message")
                               : std::string(trim(again.err));
    p.pass = flowing && silent && last >= asked - 1'000 && last - answered <= 1'000 &&
             cell(answer, "enforced.routers") == cell(answer, "enforced.of") &&
             cell(answer, "enforced.flows_cut") == "1" && again.exit != 0;
    return {};
  }

  Status deny(Point& p) {
    const Ran dial = run_in(stage_.ns("device"),
                            {stage_.program(), "-o", "json", "connect", "plant-mqtt", "--dir",
                             stage_.dir() + "/stranger"},
                            15'000);
    const auto error = parse(dial.err);
    p.measured["exit_code"] = dial.exit;
    p.measured["answer"] =
        error ? cell(error->at("error").get_object(), "message") : std::string(trim(dial.err));
    std::int64_t listed = -1;
    (void)stage_.agent("stranger", "device", [&](const json::object& s) {
      listed = static_cast<std::int64_t>(s.at("services").get_array().size());
      return true;
    });
    p.measured["services_listed"] = listed;
    const bool audited = stage_.until(
        [&] {
          const Ran audit =
              run_in(stage_.ns("hub"), {stage_.program(), "--context", stage_.dir() + "/net", "-o",
                                        "json", "audit", "list"});
          return audit.out.find("dial_denied") != std::string::npos;
        },
        5'000);
    p.measured["audited"] = audited;
    // Without a certificate: certificate_required (116), and nothing of ours is parsed.
    const Ran bare = run_in(stage_.ns("device"),
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
  Stage stage_;
  std::int64_t ready_ms_ = 0;
  std::vector<Point> points_;
};

}  // namespace

Status run(const Common&, const Options& options) {
  catch_signals();
  Demo demo(options);
  const Status s = demo.run();
  if (options.json) {
    std::printf("%s\n", demo.as_json().c_str());
  }
  if (interrupted() && !demo.all_pass())
    return fail(Errc::kInterrupted, "the demo was stopped, and with it all that it had started",
                Source::kLocal);
  TRY(s);
  if (options.keep && !interrupted()) demo.keep();
  if (!demo.all_pass()) return fail(Errc::kVerify, "a point of the demo does not hold");
  return {};
}

}  // namespace sally::cli::demo
