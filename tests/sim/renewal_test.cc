// SPDX-License-Identifier: Apache-2.0
// Certificates that live seconds, renewed over the lane under running flows.
#include <gtest/gtest.h>

#include "base/fs.h"
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

}  // namespace
}  // namespace sally::sim
