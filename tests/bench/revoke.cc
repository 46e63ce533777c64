// SPDX-License-Identifier: Apache-2.0
// Flows of devices that are about to be revoked: when each device's last byte arrived, and when its
// last flow was over at the sink. And what one more revocation costs a router that knows many.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <list>
#include <map>
#include <memory>

#include "../sim/world.h"
#include "runs.h"

namespace sally::bench {
namespace {

constexpr std::int64_t kPaceMs = 50;
constexpr std::size_t kPiece = 100;
constexpr int kInFlight = 16;

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// What the sinks saw of one device.
struct Seen {
  int open = 0;
  int over = 0;
  std::int64_t last_byte_us = 0;
  std::int64_t over_us = 0;
};

class Sink final : public sdk::CircuitUser {
 public:
  Sink(std::unique_ptr<sdk::Circuit> circuit, Seen& seen)
      : circuit_(std::move(circuit)), seen_(seen) {
    ++seen_.open;
    circuit_->set_user(*this);
  }
  void on_circuit_readable() override {
    std::uint8_t buffer[4'096];
    for (;;) {
      const auto r = circuit_->read(buffer);
      if (r.kind != sdk::Circuit::ReadKind::kData) return;
      seen_.last_byte_us = now_us();
    }
  }
  void on_circuit_writable() override {}
  void on_circuit_over(const Error&) override {
    ++seen_.over;
    seen_.over_us = now_us();
  }

 private:
  std::unique_ptr<sdk::Circuit> circuit_;
  Seen& seen_;
};

class SinkHost final : public sdk::Host {
 public:
  void on_caller(std::uint64_t, const sdk::Caller&, Answer answer) override {
    answer(std::nullopt);
  }
  void on_stream(std::uint64_t, const sdk::Caller& caller,
                 std::unique_ptr<sdk::Circuit> circuit) override {
    if (circuit != nullptr)
      sinks_.push_back(std::make_unique<Sink>(std::move(circuit), seen[caller.id]));
  }
  std::map<std::string, Seen> seen;

 private:
  std::list<std::unique_ptr<Sink>> sinks_;
};

/// Sends a piece at every beat.
class Source final : public sdk::CircuitUser {
 public:
  explicit Source(std::unique_ptr<sdk::Circuit> circuit) : circuit_(std::move(circuit)) {
    circuit_->set_user(*this);
  }
  void beat() {
    static const Bytes piece(kPiece, 0x5a);
    if (!over_) (void)circuit_->write(piece);
  }
  void on_circuit_readable() override {}
  void on_circuit_writable() override {}
  void on_circuit_over(const Error&) override { over_ = true; }

 private:
  std::unique_ptr<sdk::Circuit> circuit_;
  bool over_ = false;
};

}  // namespace

void run_revoke(const Options& o) {
  loop::Loop loop;
  const std::string service = o.text("service");
  const auto routers = text_list(o.text("routers"));
  const auto devices = text_list(o.text("devices"));
  const int flows = o.number("flows", 10);
  const std::int64_t limit_ms = o.number("limit", 120) * std::int64_t{1'000};

  SinkHost sink;
  std::vector<std::unique_ptr<sdk::Engine>> hosts;
  for (const auto& router : routers) {
    auto host = start_engine(loop, o.text("host"), router);
    const auto binding = host->bind(service, 0, sink);
    if (!loop.run_until([&] { return !host->binding_error(binding); }, 20'000)) die("not bound");
    hosts.push_back(std::move(host));
  }
  // Each device has a connection to every router, and its flows spread over them.
  std::vector<std::unique_ptr<sdk::Engine>> engines;
  std::vector<std::unique_ptr<Source>> sources;
  int asked = 0;
  for (const auto& identity : devices) {
    for (std::size_t r = 0; r < routers.size(); ++r)
      engines.push_back(start_engine(loop, identity, routers[r]));
    for (int i = 0; i < flows; ++i) {
      auto& engine = *engines[engines.size() - 1 - static_cast<std::size_t>(i) % routers.size()];
      ++asked;
      engine.dial(service, {}, 20'000, [&](Result<std::unique_ptr<sdk::Circuit>> c) {
        if (!c) die("dial: " + c.error().text());
        sources.push_back(std::make_unique<Source>(std::move(*c)));
      });
    }
    if (!loop.run_until([&] { return std::ssize(sources) + kInFlight >= asked; }, 30'000))
      die("circuits do not open");
  }
  const auto all = devices.size() * static_cast<std::size_t>(flows);
  const auto count = [&](int Seen::* what) {
    std::size_t n = 0;
    for (const auto& [id, seen] : sink.seen) n += static_cast<std::size_t>(seen.*what);
    return n;
  };
  loop::Timer pace(loop.timers(), [&] {
    for (auto& s : sources) s->beat();
    pace.arm(kPaceMs);
  });
  pace.arm(kPaceMs);
  const auto flowing = [&] {
    return count(&Seen::open) == all &&
           std::ranges::all_of(sink.seen, [](const auto& s) { return s.second.last_byte_us != 0; });
  };
  if (!loop.run_until(flowing, 30'000)) die("flows do not arrive");
  std::puts("{\"ready\":true}");
  std::fflush(stdout);
  (void)loop.run_until([&] { return count(&Seen::over) >= all; }, limit_ms);
  std::string text = "{";
  for (const auto& [id, seen] : sink.seen) {
    Json json;
    json.add("flows", static_cast<std::uint64_t>(seen.over))
        .add("last_byte_us", static_cast<std::uint64_t>(seen.last_byte_us))
        .add("over_us", static_cast<std::uint64_t>(seen.over_us));
    text += (text.size() > 1 ? ",\"" : "\"") + id + "\":" + json.text();
  }
  std::puts((text + "}").c_str());
}

void run_revoked(const Options& o) {
  const int known = o.number("known", 100'000);
  const int count = o.number("count", 200);
  sim::World world;
  const auto revoked = [&](const std::string& id) {
    return wire::StateOp{wire::IdentityState{.id = id,
                                             .standing = wire::Standing::kRevoked,
                                             .credential_epoch = 1,
                                             .attr_epoch = 0,
                                             .at_ms = sim::now_ms()}};
  };
  const auto enforced = [&] { return world.controller.acked == world.controller.version(); };
  SeededRandom random(1);
  for (int i = 0; i < known; ++i) world.controller.hold_op(revoked(random.hex(8)));
  world.controller.push_all();
  if (!world.until(enforced, 60'000)) die("not enforced");
  std::vector<double> ms;
  for (int i = 0; i < count; ++i) {
    timespec from{};
    timespec to{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    world.controller.op(revoked(random.hex(8)));
    if (!world.loop.run_until(enforced, 10'000)) die("not enforced");
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    ms.push_back(static_cast<double>(to.tv_sec - from.tv_sec) * 1e3 +
                 static_cast<double>(to.tv_nsec - from.tv_nsec) / 1e6);
  }
  Json json;
  json.add("known", static_cast<std::uint64_t>(known))
      .add("p50_ms", quantile(ms, 0.5))
      .add("p99_ms", quantile(ms, 0.99));
  std::puts(json.text().c_str());
}

}  // namespace sally::bench
