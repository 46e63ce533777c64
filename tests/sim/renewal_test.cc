// SPDX-License-Identifier: Apache-2.0
// Certificates that live seconds, renewed over the lane under running flows.
#include <gtest/gtest.h>

#include <atomic>

#include "base/fs.h"
#include "http/server.h"
#include "identity/recovery.h"
#include "world.h"

namespace sally::sim {
namespace {

class Renewals : public ::testing::Test {
 protected:
  static constexpr std::int64_t kLifeS = 6;
  Renewals() {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
    server.echo = true;
    host = world.device("host");
    host->engine->bind("plant-mqtt", 0, server);
  }
  ~Renewals() override {
    flow.reset();
    server.streams.clear();
    pump.reset();
    host.reset();
  }
  /// A pump whose certificate lives kLifeS.
  void start_pump() {
    auto spec = world.pki.leaf_spec(crypto::Role::kDevice, "pump");
    spec.not_before_s = now_ms() / 1000 - 1;
    spec.not_after_s = now_ms() / 1000 + kLifeS;
    auto material = world.material("pump", world.pki.leaf(spec, true));
    first = material.chain.front().serial_hex();
    material.keep = [this](const identity::Credential& fresh) -> Status {
      if (disk_full) return fail(fs::Errc::kFull, "test");
      kept.push_back(fresh.chain.front().serial_hex());
      return {};
    };
    pump = std::make_unique<Device>(world.loop, std::move(material));
    ASSERT_TRUE(world.until(
        [&] { return !world.controller.terminators.empty() && pump->engine->online(); }));
  }
  void open_flow() {
    auto circuit = world.dial(*pump, "plant-mqtt");
    ASSERT_TRUE(circuit && *circuit) << (circuit ? circuit->error().text() : "no answer");
    flow = std::make_unique<Recorder>(std::move(**circuit));
  }
  bool flow_works() {
    const std::size_t before = flow->received;
    flow->send(as_bytes("ping"));
    return world.until([&] { return flow->received == before + 4 || flow->cut.has_value(); }) &&
           !flow->cut;
  }
  World world;
  TestHost server;
  std::unique_ptr<Device> host, pump;
  std::unique_ptr<Recorder> flow;
  std::string first;
  std::vector<std::string> kept;
  bool disk_full = false;
};

TEST_F(Renewals, AFlowRunsThroughThreeOfThem) {
  world.controller.life_s = kLifeS;
  start_pump();
  open_flow();
  const std::uint64_t connects = pump->engine->connects();
  // The first certificate, with which the lane came up, is over and superseded meanwhile.
  ASSERT_TRUE(world.until([&] { return flow_works() && pump->engine->renewer().count() >= 3; },
                          6 * kLifeS * 1'000));
  EXPECT_TRUE(flow_works());
  EXPECT_EQ(pump->engine->connects(), connects) << "no lane was dropped for it";
  EXPECT_EQ(kept.size(), pump->engine->renewer().count());
  ASSERT_TRUE(world.until([&] {
    return !world.controller.used.empty() && world.controller.used.back() == kept.back();
  }));
  // A new circuit proves itself with the new one.
  auto circuit = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(circuit && *circuit) << (circuit ? circuit->error().text() : "no answer");
  EXPECT_NE(server.callers.back().serial, first);
  (*circuit)->get()->abort(wire::ResetCode::kClosed);
  // So does a new lane.
  world.router.reset();
  world.start_router();
  ASSERT_TRUE(world.until([&] { return pump->engine->connects() > connects; }));
}

TEST_F(Renewals, WhatCouldNotBeKeptIsNotUsed) {
  world.controller.life_s = 3'600;
  disk_full = true;
  start_pump();
  pump->engine->renew_within(0);
  ASSERT_TRUE(world.until([&] { return world.controller.renewals >= 2; })) << "it asks again";
  EXPECT_EQ(pump->engine->material().chain.front().serial_hex(), first);
  disk_full = false;
  ASSERT_TRUE(world.until([&] { return pump->engine->renewer().count() == 1; }));
  EXPECT_EQ(pump->engine->material().chain.front().serial_hex(), kept.back());
}

TEST_F(Renewals, ARefusalIsAskedAgainAndAControllerThatIsAwayIsWaitedFor) {
  world.controller.life_s = 3'600;
  world.controller.refuse_renewals = "controller.busy";
  start_pump();
  pump->engine->renew_within(0);
  (void)world.until([] { return false; }, 700);
  EXPECT_EQ(pump->engine->renewer().count(), 0u);
  EXPECT_TRUE(pump->engine->online());
  world.controller.stop();
  ASSERT_TRUE(world.until([&] { return !world.router->controller_up(); }));
  world.controller.refuse_renewals.clear();
  world.controller.start();
  EXPECT_TRUE(world.until([&] { return pump->engine->renewer().count() == 1; }, 60'000));
}

// Two programs with one identity file: what one renews the other takes over, also when it comes
// back after its own certificate was superseded.
TEST_F(Renewals, TwoProcessesOfOneIdentityAgree) {
  world.controller.life_s = 3'600;
  const auto leaf = world.pki.leaf(crypto::Role::kDevice, "pump");
  identity::Credential file{{leaf.cert, world.pki.devices}, leaf.key};
  // So that what is renewed ends later.
  auto spec = world.pki.leaf_spec(crypto::Role::kDevice, "pump");
  spec.not_before_s = now_ms() / 1000 - 1;
  spec.not_after_s = now_ms() / 1000 + 1'800;
  file.chain.front() = must(crypto::sign_certificate(
      spec, leaf.key->public_key(), &world.pki.devices, *world.pki.devices_key, system_random()));
  const auto start = [&] {
    auto material = world.material("pump", {leaf.key, file.chain.front()});
    material.keep = [&file](const identity::Credential& fresh) -> Status {
      file = fresh;
      return {};
    };
    material.kept = [&file]() -> Result<identity::Credential> { return file; };
    return std::make_unique<Device>(world.loop, std::move(material));
  };
  const auto one = start();
  const auto two = start();
  ASSERT_TRUE(world.until([&] { return one->engine->online() && two->engine->online(); }));
  const std::string old = file.chain.front().serial_hex();
  one->engine->renew_within(0);
  ASSERT_TRUE(world.until([&] { return one->engine->renewer().count() == 1; }));
  ASSERT_TRUE(world.until([&] {
    return !world.controller.used.empty() &&
           world.controller.used.back() == file.chain.front().serial_hex();
  }));
  EXPECT_EQ(two->engine->material().chain.front().serial_hex(), old);
  const auto revoked = world.controller.version();
  ASSERT_TRUE(world.until([&] { return world.controller.acked == revoked; }));
  world.router.reset();
  world.start_router();
  ASSERT_TRUE(world.until([&] { return two->engine->connects() == 2 && two->engine->online(); }));
  EXPECT_EQ(two->engine->material().chain.front().serial_hex(), file.chain.front().serial_hex());
}

// Two workers: both take the new certificate over.
TEST(RouterRenewal, DropsNoLaneAndNoFlow) {
  constexpr std::int64_t kLifeS = 6;
  std::vector<std::string> kept;
  World world(2, true, [&kept](router::RouterOptions& o) {
    o.keep = [&kept](const identity::Credential& fresh) -> Status {
      kept.push_back(fresh.chain.front().serial_hex());
      return {};
    };
  });
  world.controller.life_s = kLifeS;
  world.controller.put_device("host", {"servers"});
  world.controller.put_device("pump", {"sensors"});
  world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
  TestHost server;
  server.echo = true;
  auto host = world.device("host");
  auto pump = world.device("pump");
  host->engine->bind("plant-mqtt", 0, server);
  ASSERT_TRUE(
      world.until([&] { return !world.controller.terminators.empty() && pump->engine->online(); }));
  auto circuit = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(circuit && *circuit);
  Recorder flow(std::move(**circuit));
  const auto works = [&] {
    const std::size_t before = flow.received;
    flow.send(as_bytes("ping"));
    return world.until([&] { return flow.received == before + 4 || flow.cut.has_value(); }) &&
           !flow.cut;
  };
  world.router->renewer().renew_within(0);
  ASSERT_TRUE(world.until([&] { return works() && world.router->renewer().count() >= 2; },
                          4 * kLifeS * 1'000));
  ASSERT_TRUE(world.until([&] {
    return !world.controller.used.empty() && world.controller.used.back() == kept.back();
  }));
  EXPECT_TRUE(works());
  EXPECT_EQ(pump->engine->connects(), 1u);
  EXPECT_TRUE(world.router->controller_up());
  // Whoever comes now sees the new one, and what it signs is believed.
  auto late = world.device("pump");
  ASSERT_TRUE(world.until([&] { return late->engine->online(); }));
  EXPECT_EQ(late->engine->lane()->peer().serial(), kept.back());
  auto second = world.dial(*late, "plant-mqtt");
  ASSERT_TRUE(second && *second) << (second ? second->error().text() : "no answer");
  second->value()->abort(wire::ResetCode::kClosed);
  server.streams.clear();
}

/// The controller's door over HTTPS. Answers as pki::RenewalDoor does, of which src/pki has the
/// tests: here it is the device's half that counts.
class Door {
 public:
  explicit Door(World& world)
      : world_(world), server_(world.loop, {}, [this](http::Request&& r) { return answer(r); }) {
    auto spec = world.pki.leaf_spec(crypto::Role::kController, "c-1");
    spec.ips = {"127.0.0.1"};
    const auto leaf = world.pki.leaf(spec, false);
    tls::ContextOptions o{.side = tls::Side::kServer,
                          .chain = {leaf.cert, world.pki.infrastructure},
                          .key = leaf.key,
                          .anchors = {world.pki.root},
                          .issuing = {world.pki.devices, world.pki.infrastructure},
                          .network = NetworkId(world.pki.network),
                          .alpn = {"http/1.1"},
                          .alpn_optional = true,
                          .peer_certificate = tls::PeerCertificate::kOptional};
    acceptor_ = must(tls::Acceptor::create(
        world.loop,
        {.host = "127.0.0.1",
         .port = 0,
         .context = must(tls::Context::create(std::move(o))),
         .limits = {},
         .name = "door"},
        [this](std::unique_ptr<tls::Stream> s) { server_.adopt(std::move(s)); }));
  }
  [[nodiscard]] std::string url() const {
    return "https://127.0.0.1:" + std::to_string(acceptor_->port());
  }
  std::atomic<int> asked = 0;
  std::atomic<bool> wanted = true;

 private:
  http::Response answer(const http::Request& r) {
    ++asked;
    const auto message = must(wire::decode_control(as_bytes(r.body)));
    const auto& renew = std::get<wire::Renew>(message.member);
    const auto request = must(trust::read_renewal(renew.envelope, world_.pki.network));
    wire::Renewed reply{.request = renew.request, .id = request.id};
    if (!wanted) {
      reply.error = "pki.identity_inactive";
    } else if (std::abs(request.time_ms - now_ms()) > 300'000) {
      reply.error = "pki.request_time";
    } else {
      const bool router = request.id == "r-1";
      auto spec =
          world_.pki.leaf_spec(router ? crypto::Role::kRouter : crypto::Role::kDevice, request.id);
      const auto& issuing = router ? world_.pki.infrastructure : world_.pki.devices;
      spec.not_before_s = now_ms() / 1000 - 60;
      spec.not_after_s = now_ms() / 1000 + 3'600;
      reply.leaf =
          must(crypto::sign_certificate(spec, must(crypto::parse_csr(request.csr)).key, &issuing,
                                        router ? *world_.pki.infra_key : *world_.pki.devices_key,
                                        system_random()))
              .der();
      reply.issuing = issuing.der();
    }
    http::Response out;
    out.headers.add("sally-time-ms", std::to_string(now_ms()));
    const Bytes body = wire::encode(wire::Control{std::move(reply)});
    out.body = {body.begin(), body.end()};
    return out;
  }
  World& world_;
  http::Server server_;
  std::unique_ptr<tls::Acceptor> acceptor_;
};

class MovedClock final : public Clock {
 public:
  [[nodiscard]] std::int64_t unix_ms() const override { return system_clock().unix_ms() + by; }
  [[nodiscard]] std::int64_t mono_us() const override { return system_clock().mono_us(); }
  std::int64_t by = 0;
};

class Recovery : public ::testing::Test {
 protected:
  Recovery() { world.controller.put_device("pump", {"sensors"}); }
  /// A device that slept for eleven months over the end of its certificate.
  std::unique_ptr<Device> sleeper(loop::Loop& loop) {
    auto spec = world.pki.leaf_spec(crypto::Role::kDevice, "pump");
    spec.not_before_s = now_ms() / 1000 - 365LL * 86'400;
    spec.not_after_s = now_ms() / 1000 - 335LL * 86'400;
    auto material = world.material("pump", world.pki.leaf(spec, true));
    material.controller = door.url();
    return std::make_unique<Device>(loop, std::move(material));
  }
  World world;
  Door door{world};
};

TEST_F(Recovery, WhoSleptComesBackByItself) {
  const auto pump = sleeper(world.loop);
  ASSERT_TRUE(world.until([&] { return pump->engine->online(); })) << pump->engine->last_error();
  EXPECT_EQ(door.asked, 1);
  EXPECT_EQ(pump->engine->renewer().count(), 1u);
  EXPECT_FALSE(pump->engine->refused());
}

TEST_F(Recovery, AWrongClockCostsOneTripMore) {
  for (const std::int64_t by : {-now_ms(), std::int64_t{14LL * 365 * 86'400'000}}) {
    MovedClock clock;
    clock.by = by;
    loop::Loop own(clock);
    const auto pump = sleeper(own);
    const std::int64_t end = system_clock().mono_us() + 20'000'000;
    door.asked = 0;
    while (!pump->engine->online() && system_clock().mono_us() < end) {
      (void)world.loop.run_until([] { return false; }, 1);
      own.run_once(false);
    }
    EXPECT_TRUE(pump->engine->online()) << pump->engine->last_error();
    EXPECT_EQ(door.asked, 2);
    EXPECT_NEAR(static_cast<double>(pump->engine->clock().unix_ms()), static_cast<double>(now_ms()),
                5'000);
  }
}

TEST_F(Recovery, WhoIsNotWantedAsksLessAndLess) {
  door.wanted = false;
  const auto pump = sleeper(world.loop);
  ASSERT_TRUE(world.until([&] { return door.asked >= 1; }));
  (void)world.until([&] { return pump->engine->online(); }, 3'000);
  EXPECT_FALSE(pump->engine->online());
  EXPECT_LE(door.asked, 4);
  EXPECT_TRUE(pump->engine->refused());
}

// A router that was off for months, with an old state: the controller takes its certificate no
// more.
TEST(RouterRecovery, ComesBackByItself) {
  std::string url;
  std::vector<std::string> kept;
  World world(1, true, [&](router::RouterOptions& o) {
    o.controller_url = url;
    o.keep = [&kept](const identity::Credential& fresh) -> Status {
      kept.push_back(fresh.chain.front().serial_hex());
      return {};
    };
  });
  Door door(world);
  url = door.url();
  world.controller.put_device("pump", {"sensors"});
  ASSERT_TRUE(world.until([&] { return world.router->controller_up(); }));
  auto spec = world.pki.leaf_spec(crypto::Role::kRouter, "r-1");
  spec.not_before_s = now_ms() / 1000 - 100LL * 86'400;
  spec.not_after_s = now_ms() / 1000 - 70LL * 86'400;
  world.router_leaf = world.pki.leaf(spec, false);
  world.router.reset();
  world.start_router();
  ASSERT_TRUE(world.until([&] { return world.router->controller_up(); }));
  EXPECT_EQ(kept.size(), 1u);
  auto pump = world.device("pump");
  EXPECT_TRUE(world.until([&] { return pump->engine->online(); })) << pump->engine->last_error();
}

// Somebody with a name that fits and a certificate of this network, though not the controller's.
TEST_F(Recovery, OnlyTheControllerIsBelieved) {
  auto spec = world.pki.leaf_spec(crypto::Role::kRouter, "r-9");
  spec.ips = {"127.0.0.1"};
  const auto leaf = world.pki.leaf(spec, false);
  std::atomic<int> asked = 0;
  http::Server server(world.loop, {}, [&](http::Request&&) {
    ++asked;
    http::Response r;
    r.headers.add("sally-time-ms", "1");
    return r;
  });
  const auto acceptor = must(tls::Acceptor::create(
      world.loop,
      {.host = "127.0.0.1",
       .port = 0,
       .context = must(tls::Context::create({.side = tls::Side::kServer,
                                             .chain = {leaf.cert, world.pki.infrastructure},
                                             .key = leaf.key,
                                             .anchors = {world.pki.root},
                                             .network = NetworkId(world.pki.network),
                                             .alpn = {"http/1.1"},
                                             .alpn_optional = true,
                                             .peer_certificate = tls::PeerCertificate::kNone})),
       .limits = {},
       .name = "other"},
      [&](std::unique_ptr<tls::Stream> s) { server.adopt(std::move(s)); }));
  const auto anchors = world.anchors();
  std::int64_t told = 0;
  bool answered = false;
  identity::RecoveryDoor knock(world.loop, "https://127.0.0.1:" + std::to_string(acceptor->port()),
                               anchors, system_clock(), [&](std::int64_t ms) { told = ms; });
  ASSERT_TRUE(knock.send("pump", {.request = 1, .id = {}, .serial = {}, .envelope = Bytes{1}},
                         [&](const wire::Renewed&) { answered = true; }));
  ASSERT_TRUE(world.until([&] { return asked > 0 && !knock.last_error().empty(); }));
  EXPECT_NE(knock.last_error().find("not_believed"), std::string::npos) << knock.last_error();
  EXPECT_EQ(told, 0);
  EXPECT_FALSE(answered);
}

}  // namespace
}  // namespace sally::sim
