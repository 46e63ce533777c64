// SPDX-License-Identifier: Apache-2.0
// Devices whose keys are in a chip that takes its time: everything they sign is waited for beside
// the loop, on which the whole network of this test runs.
#include <gtest/gtest.h>

#include <algorithm>

#include "crypto/test_token.h"
#include "world.h"

namespace sally::sim {
namespace {

constexpr int kSignMs = 300;

class SlowChips : public ::testing::Test {
 protected:
  SlowChips() {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
    server.echo = true;
  }
  void SetUp() override {
#ifdef SALLY_THREAD_SANITIZER
    GTEST_SKIP() << "paused calls are not followed by ThreadSanitizer";
#endif
  }
  ~SlowChips() override {
    flow.reset();
    server.streams.clear();
    pump.reset();
    host.reset();
  }
  std::unique_ptr<Device> device(const std::string& id, crypto::TokenKey& token,
                                 const crypto::Certificate& leaf) {
    auto material = world.material(id, {nullptr, leaf});
    material.key = token.key;
    material.session_key = session_key;
    return std::make_unique<Device>(world.loop, std::move(material));
  }
  /// Both devices, on line and hosting.
  void start() {
    host = device("host", host_token, host_leaf.cert);
    binding = host->engine->bind("plant-mqtt", 0, server);
    pump = device("pump", pump_token, pump_leaf.cert);
    ASSERT_TRUE(world.until(
        [&] { return !world.controller.terminators.empty() && pump->engine->online(); }));
  }
  void sign_in(int ms) {
    host_token.controls->sign_ms = ms;
    pump_token.controls->sign_ms = ms;
  }

  World world;
  identity::SessionKey session_key = identity::SessionKey::kNever;
  crypto::TestLeaf host_leaf = world.pki.leaf(crypto::Role::kDevice, "host");
  crypto::TestLeaf pump_leaf = world.pki.leaf(crypto::Role::kDevice, "pump");
  crypto::TokenKey host_token{host_leaf.key};
  crypto::TokenKey pump_token{pump_leaf.key};
  TestHost server;
  std::uint64_t binding = 0;
  std::unique_ptr<Device> host, pump;
  std::unique_ptr<Recorder> flow;
};

TEST_F(SlowChips, LanesBindingsDialsAndRenewalsLeaveTheLoopAlone) {
  sign_in(kSignMs);
  world.controller.life_s = 3'600;
  int pauses = 0;
  std::int64_t last_ms = world.loop.now_ms();
  loop::Timer tick(world.loop.timers(), [&] {
    pauses += world.loop.now_ms() - last_ms >= kSignMs ? 1 : 0;
    last_ms = world.loop.now_ms();
    tick.arm(2);
  });
  tick.arm(2);
  start();
  auto circuit = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(circuit && *circuit) << (circuit ? circuit->error().text() : "no answer");
  flow = std::make_unique<Recorder>(std::move(**circuit));
  flow->send(as_bytes("ping"));
  ASSERT_TRUE(world.until([&] { return flow->received == 4; }));
  pump->engine->renew_within(0);
  ASSERT_TRUE(world.until([&] {
    return pump->engine->renewer().count() == 1 &&
           world.controller.used.back() == pump->engine->material().chain.front().serial_hex();
  }));
  // The lane, the certificate's use told; the dial's proof and its inner handshake; the renewal's
  // request and envelope, and its use.
  EXPECT_GE(pump_token.controls->signatures, 7);
  EXPECT_GE(host_token.controls->signatures, 3);
  // Each would be one. A busy machine may make one or two.
  EXPECT_LT(pauses, 3);
}

TEST_F(SlowChips, APulledTokenFailsTheDialAndNotTheLane) {
  start();
  auto circuit = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(circuit && *circuit);
  flow = std::make_unique<Recorder>(std::move(**circuit));
  pump_token.controls->gone = true;
  auto refused = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(refused && !*refused);
  EXPECT_TRUE(refused->error().is(sdk::Errc::kIdentity)) << refused->error().text();
  EXPECT_NE(refused->error().text().find("crypto.token_missing"), std::string::npos);
  // The host's: its half of the inner handshake.
  pump_token.controls->gone = false;
  host_token.controls->gone = true;
  refused = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(refused && !*refused);
  EXPECT_TRUE(pump->engine->online() && host->engine->online());
  flow->send(as_bytes("ping"));
  EXPECT_TRUE(world.until([&] { return flow->received == 4; }));
  host_token.controls->gone = false;
  auto again = world.dial(*pump, "plant-mqtt");
  EXPECT_TRUE(again && *again);
  EXPECT_EQ(pump->engine->connects(), 1u);
}

// The router goes while both ends sign; and the devices while theirs do.
TEST_F(SlowChips, LanesAndDevicesGoWhileTheirKeysSign) {
  start();
  sign_in(kSignMs);
  std::optional<Result<std::unique_ptr<sdk::Circuit>>> done;
  pump->engine->dial("plant-mqtt", {}, 20'000,
                     [&](Result<std::unique_ptr<sdk::Circuit>> r) { done.emplace(std::move(r)); });
  (void)world.until([] { return false; }, kSignMs / 4);
  world.router.reset();
  world.start_router();
  // The proof for the router of before is not used; the host may not have bound itself again yet.
  ASSERT_TRUE(world.until([&] { return done.has_value(); }, 30'000));
  EXPECT_TRUE(*done || done->error().is(sdk::Errc::kNoHost)) << done->error().text();
  if (*done) (**done)->abort(wire::ResetCode::kClosed);
  ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  auto circuit = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(circuit && *circuit) << (circuit ? circuit->error().text() : "no answer");
  circuit.reset();
  done.reset();
  pump->engine->dial("plant-mqtt", {}, 20'000,
                     [&](Result<std::unique_ptr<sdk::Circuit>> r) { done.emplace(std::move(r)); });
  (void)world.until([] { return false; }, kSignMs / 4);
  pump.reset();
  ASSERT_TRUE(done && !*done);
  host.reset();
  (void)world.until([] { return false; }, 2 * kSignMs);
}

class SessionKeys : public SlowChips {
 protected:
  SessionKeys() {
    session_key = identity::SessionKey::kAuto;
    world.controller.life_s = 3'600;
    sign_in(60);
  }
  void start_with_sessions() {
    start();
    ASSERT_TRUE(world.until([&] { return has(*pump) && has(*host); }));
  }
  /// Lanes of sessions from now on.
  void lanes_again() {
    world.router.reset();
    world.start_router();
    const auto again = [](const Device& d) {
      return d.engine->online() && d.engine->connects() >= 2;
    };
    ASSERT_TRUE(world.until([&] { return again(*pump) && again(*host); }));
    EXPECT_TRUE(has(*pump) && has(*host));
  }
  static bool has(const Device& d) { return d.engine->sessions().active(); }
  /// What is said to a dial; empty: it works, with bytes there and back.
  std::string ping() {
    auto circuit = world.dial(*pump, "plant-mqtt");
    if (!circuit || !*circuit) return circuit ? circuit->error().text() : "no answer";
    Recorder one(std::move(**circuit));
    one.send(as_bytes("ping"));
    return world.until([&] { return one.received == 4; }) ? "" : "no echo";
  }
};

TEST_F(SessionKeys, TwentyDialsCostTheChipsNothing) {
  start_with_sessions();
  const int pump_before = pump_token.controls->signatures;
  const int host_before = host_token.controls->signatures;
  for (int i = 0; i < 20; ++i) ASSERT_EQ(ping(), "") << i;
  EXPECT_LE(pump_token.controls->signatures - pump_before, 1);  // of a use told late
  EXPECT_LE(host_token.controls->signatures - host_before, 1);
  EXPECT_EQ(world.controller.sessions, 2u);
  // The next lane is of the session, too; what the device renews is its own certificate.
  lanes_again();
  ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  EXPECT_EQ(ping(), "");
  pump->engine->renew_within(0);
  ASSERT_TRUE(world.until([&] { return pump->engine->renewer().count() == 1 && has(*pump); }));
  EXPECT_TRUE(pump->engine->material().chain.front().session_parent().empty());
  EXPECT_EQ(ping(), "");
}

TEST_F(SessionKeys, ItIsRenewedBeforeItsEndUnderARunningFlow) {
  world.controller.session_life_s = 6;
  start_with_sessions();
  auto circuit = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(circuit && *circuit);
  flow = std::make_unique<Recorder>(std::move(**circuit));
  ASSERT_TRUE(world.until([&] { return pump->engine->sessions().count() >= 3; }, 30'000));
  flow->send(as_bytes("ping"));
  EXPECT_TRUE(world.until([&] { return flow->received == 4; }));
  EXPECT_EQ(ping(), "");
  EXPECT_EQ(pump->engine->connects(), 1u);
}

TEST_F(SessionKeys, RefusedOrUnansweredTheDevicesKeyServes) {
  world.controller.refuse_renewals = "pki.session_not_here";
  start();
  EXPECT_EQ(ping(), "");
  EXPECT_FALSE(has(*pump) || has(*host));
}

// It would fall with a certificate that is nobody's, that is never.
TEST_F(SessionKeys, OneOfAnotherParentIsNotTaken) {
  world.controller.session_parent = "4f01";
  start();
  ASSERT_TRUE(world.until([&] { return world.controller.sessions >= 2; }));
  EXPECT_EQ(ping(), "");
  EXPECT_FALSE(has(*pump) || has(*host));
}

TEST_F(SessionKeys, AFastChipNeedsNone) {
  sign_in(0);
  start();
  EXPECT_EQ(ping(), "");
  EXPECT_EQ(world.controller.sessions, 0u);
}

TEST_F(SessionKeys, ARevokedParentCutsTheLaneOfItsSession) {
  start_with_sessions();
  lanes_again();
  const auto parent = pump->engine->material().chain.front().serial_hex();
  world.controller.revoke_certificate(parent);
  ASSERT_TRUE(world.until([&] { return pump->engine->refused(); }));
  EXPECT_FALSE(has(*pump)) << "what is refused is not shown again";
}

TEST_F(SessionKeys, DeviceKeyOnlyEndsItAndTheDeviceGoesOnWithItsOwnKey) {
  start_with_sessions();
  lanes_again();
  world.controller.put_device("pump", {"device-key-only", "sensors"});
  ASSERT_TRUE(world.until([&] {
    return std::ranges::any_of(world.controller.events, [](const auto& e) {
      return e.code == "router.device_key_only" && e.actor == "pump";
    });
  }));
  ASSERT_TRUE(world.until([&] { return pump->engine->online() && !has(*pump); }));
  EXPECT_EQ(ping(), "");
  EXPECT_FALSE(has(*pump));
}

}  // namespace
}  // namespace sally::sim
