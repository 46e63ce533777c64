// SPDX-License-Identifier: Apache-2.0
// What many idle lanes, circuits and sessions hold.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>

#include "lane/lane.h"
#include "runs.h"
#include "sdk/core.h"

namespace sally::bench {
namespace {

constexpr std::size_t kInFlight = 16;
constexpr int kPerSecond = 400;  // under the router's accept rate for all sources together

double own_cpu_s() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

/// Lets the loop run for a while.
void turn(loop::Loop& loop, std::int64_t ms) {
  (void)loop.run_until([] { return false; }, ms);
}

std::shared_ptr<const tls::Context> lane_context(const sdk::Material& m) {
  return crypto::must(tls::Context::create({.side = tls::Side::kClient,
                                            .chain = m.chain,
                                            .key = m.key,
                                            .anchors = m.anchors.roots,
                                            .issuing = m.anchors.issuing,
                                            .network = NetworkId(m.network),
                                            .roles = {tls::Role::kRouter},
                                            .alpn = {std::string(lane::kAlpnEdge)}}));
}

/// A lane of a device that wants nothing. Owner: the run. Thread: its loop's. Failure: ends the
/// program.
class IdleLane final : public lane::LaneOwner {
 public:
  IdleLane(loop::Loop& loop, ChunkPool& pool, std::shared_ptr<const tls::Context> context,
           const std::string& network, const std::string& host, std::uint16_t port)
      : dialing_(tls::dial(loop, std::move(context), {.host = host, .port = port},
                           [this, &loop, &pool, network](Result<std::unique_ptr<tls::Stream>> s) {
                             if (!s) {
                               failed_ = s.error().text();
                               return;
                             }
                             lane::LaneOptions options;
                             options.hello.network = network;
                             options.max_control = wire::kMaxControlMessage;
                             lane_ = std::make_unique<lane::Lane>(loop, pool, std::move(*s), *this,
                                                                  std::move(options));
                           })) {}
  [[nodiscard]] bool up() const { return lane_ != nullptr && lane_->up(); }
  void close() {
    closing_ = true;
    lane_->close(Error(lane::Errc::kClosed));
  }
  [[nodiscard]] bool closed() const { return lane_ == nullptr && closing_; }
  /// Why it did not come up, or went down; empty while all is well.
  [[nodiscard]] const std::string& failed() const { return failed_; }

  void on_lane_up(lane::Lane&, const wire::Hello&) override {}
  void on_lane_control(lane::Lane&, wire::Control&&) override {}
  void on_lane_setup(lane::Lane&, std::uint32_t, ByteView) override { die("a set-up"); }
  void on_lane_down(lane::Lane&, const Error& why) override {
    if (!closing_) failed_ = why.text();
    lane_.reset();
  }

 private:
  std::unique_ptr<lane::Lane> lane_;
  std::unique_ptr<tls::Dialing> dialing_;
  bool closing_ = false;
  std::string failed_;
};

/// Opens `count` lanes, over the addresses in turn, and waits until all are up. A busy machine lets
/// connections pile up into the router's limits: those are tried again.
void open_lanes(loop::Loop& loop, ChunkPool& pool, const Options& o, int count,
                std::list<IdleLane>& lanes, bool close_each) {
  const auto material = crypto::must(sdk::load_material(o.text("identity")));
  const auto context = lane_context(material);
  const auto hosts = text_list(o.text("routers"));
  const auto port = static_cast<std::uint16_t>(o.number("port", 0));
  std::size_t next_host = 0;
  int failures = 0;
  const auto add = [&] {
    lanes.emplace_back(loop, pool, context, material.network, hosts[next_host++ % hosts.size()],
                       port);
    turn(loop, 1000 / kPerSecond);
  };
  const auto tend = [&] {
    int again = 0;
    bool all = true;
    for (auto at = lanes.begin(); at != lanes.end();) {
      if (!at->failed().empty()) {
        if (++failures > count / 10) die("lanes fail: " + at->failed());
        ++again;
      }
      if (!at->failed().empty() || at->closed()) {
        at = lanes.erase(at);
        continue;
      }
      if (close_each && at->up()) at->close();
      all = all && at->up() && !close_each;
      ++at;
    }
    for (int i = 0; i < again; ++i) add();
    return again == 0 && (all || lanes.empty());
  };
  for (int i = 0; i < count; ++i) {
    add();
    if (close_each) (void)tend();
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!tend()) {
    if (std::chrono::steady_clock::now() > until) die("not all lanes came up");
    turn(loop, 10);
  }
}

}  // namespace

double status_kb(pid_t pid, const std::string& key) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key + ":")) return std::atof(line.c_str() + key.size() + 1);
  }
  die("no such process: " + std::to_string(pid));
}

void run_lanes(const Options& o) {
  loop::Loop loop;
  ChunkPool pool;
  const pid_t router = o.watch().at(0);
  const int count = o.number("count", 5'000);
  std::list<IdleLane> lanes;
  open_lanes(loop, pool, o, 1, lanes, false);  // what the first one costs is not of each
  turn(loop, 1'000);
  const double before = status_kb(router, "VmRSS");
  open_lanes(loop, pool, o, count, lanes, false);
  turn(loop, 4'000);
  Json json;
  json.add("kb_per_lane", (status_kb(router, "VmRSS") - before) / count).add("foreign", 0.0);
  std::puts(json.text().c_str());
}

void run_handshakes(const Options& o) {
  loop::Loop loop;
  ChunkPool pool;
  const auto watched = o.watch();
  const int count = o.number("count", 1'000);
  std::list<IdleLane> lanes;
  open_lanes(loop, pool, o, 20, lanes, true);
  const auto from = CpuSample::now(watched);
  open_lanes(loop, pool, o, count, lanes, true);
  const auto to = CpuSample::now(watched);
  Json json;
  json.add("count", static_cast<std::uint64_t>(count));
  add_cpu(json, from, to);
  std::puts(json.text().c_str());
}

namespace {

class Nothing final : public LegUser {
 public:
  void on_open(Leg&) override {}
  void on_data(Leg&, ByteView) override {}
  void on_writable(Leg&) override {}
};

}  // namespace

void run_circuits(const Options& o) {
  loop::Loop loop;
  const pid_t router = o.watch().at(0);
  const int lanes = o.number("lanes", 64);
  const auto count = static_cast<std::size_t>(o.number("count", 10'000));
  const auto hosts = text_list(o.text("routers"));
  const std::string port = ":" + o.text("port");
  const std::string service = o.text("service");
  const MakeUser nobody = [] {
    static Nothing nothing;
    return &nothing;
  };
  SdkDevice host(loop, o.text("host"), hosts[0] + port);
  host.host(service, nobody);
  if (!loop.run_until([&] { return host.bound(); }, 20'000)) die("not bound");
  std::list<SdkDevice> dialers;
  for (int i = 0; i < lanes; ++i)
    dialers.emplace_back(loop, o.text("dialer"),
                         hosts[static_cast<std::size_t>(i) % hosts.size()] + port);
  auto next = dialers.begin();
  const auto opened = [&] {
    std::size_t n = 0;
    for (const auto& d : dialers) n += d.legs();
    return n;
  };
  const auto open = [&](std::size_t target) {
    // Few at a time: on a busy machine more would meet the router's time-out for half-open ones.
    for (std::size_t asked = opened(); asked < target;) {
      for (std::size_t i = 0; i < kInFlight && asked < target; ++i, ++asked) {
        if (next == dialers.end()) next = dialers.begin();
        (next++)->dial(service, nobody, 1);
      }
      if (!loop.run_until([&] { return opened() >= asked && host.legs() >= asked; }, 30'000))
        die("circuits do not open: " + std::to_string(opened()) + " of " + std::to_string(asked));
    }
  };
  open(dialers.size());  // one on each lane: what the first one costs is not of each
  turn(loop, 1'000);
  const double router_before = status_kb(router, "VmRSS");
  const double own_before = status_kb(::getpid(), "VmRSS");
  const std::size_t first = opened();
  open(first + count);
  turn(loop, 12'000);  // until the router has looked after its memory
  const auto n = static_cast<double>(count);
  Json json;
  json.add("router_bytes", (status_kb(router, "VmRSS") - router_before) * 1024 / n)
      .add("end_kb", (status_kb(::getpid(), "VmRSS") - own_before) / n / 2)
      .add("foreign", 0.0);
  std::puts(json.text().c_str());
}

void run_sessions(const Options& o) {
  // The same TLS as inside a circuit, on memory: what an end would hold without any of our own.
  const std::string dir = o.text("dir");
  const auto context = [&](tls::Side side) {
    return crypto::must(tls::Context::create([&] {
      auto options = LegPki::context(dir, side)->options();
      options.inner = true;
      return options;
    }()));
  };
  const auto client_context = context(tls::Side::kClient);
  const auto server_context = context(tls::Side::kServer);
  const int count = o.number("count", 2'000);
  std::vector<std::unique_ptr<tls::Session>> sessions;
  sessions.reserve(static_cast<std::size_t>(2 * count));
  double client_s = 0;
  double server_s = 0;
  const auto step = [](tls::Session& s, double& cpu) {
    const double from = own_cpu_s();
    if (s.handshake().kind == tls::IoKind::kError) die("handshake");
    cpu += own_cpu_s() - from;
  };
  const auto pair = [&] {
    auto c = crypto::must(tls::Session::on_memory(client_context));
    auto s = crypto::must(tls::Session::on_memory(server_context));
    for (int i = 0; i < 4 && !(c->handshaken() && s->handshaken()); ++i) {
      step(*c, client_s);
      if (c->has_output()) s->feed(c->take_output());
      step(*s, server_s);
      if (s->has_output()) c->feed(s->take_output());
    }
    if (!c->handshaken() || !s->handshaken()) die("no handshake");
    sessions.push_back(std::move(c));
    sessions.push_back(std::move(s));
  };
  for (int i = 0; i < 50; ++i) pair();
  client_s = server_s = 0;
  const double before = status_kb(::getpid(), "VmRSS");
  for (int i = 0; i < count; ++i) pair();
  Json json;
  json.add("kb_per_session", (status_kb(::getpid(), "VmRSS") - before) / (2.0 * count))
      .add("client_ms", client_s / count * 1e3)
      .add("server_ms", server_s / count * 1e3)
      .add("foreign", 0.0);
  std::puts(json.text().c_str());
}

}  // namespace sally::bench
