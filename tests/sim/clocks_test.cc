// SPDX-License-Identifier: Apache-2.0
// Clocks that are set forwards and backwards while everything runs: nothing dies of it, nothing old
// becomes new, and it is over when the clock is right again.
#include <gtest/gtest.h>

#include "raw_device.h"
#include "world.h"

namespace sally::sim {
namespace {

constexpr std::int64_t kHour = 3'600'000;
constexpr std::int64_t kYear = 365 * 24 * kHour;

/// The machine's clock, with its wall time moved; monotonic time is what it is.
class MovedClock final : public Clock {
 public:
  [[nodiscard]] std::int64_t unix_ms() const override { return system_clock().unix_ms() + by; }
  [[nodiscard]] std::int64_t mono_us() const override { return system_clock().mono_us(); }
  std::int64_t by = 0;
};

/// A router and its controller on one loop, devices on another: three clocks.
class Clocks : public ::testing::Test {
 protected:
  Clocks() {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
    server.echo = true;
    host = device("host");
    pump = device("pump");
    host->engine->bind("plant-mqtt", 0, server);
    if (!until([&] { return !world.controller.terminators.empty() && pump->engine->online(); }))
      std::abort();
  }
  ~Clocks() override {
    flow.reset();
    server.streams.clear();
    pump.reset();
    host.reset();
  }
  std::unique_ptr<Device> device(const std::string& id) {
    return std::make_unique<Device>(devices,
                                    world.material(id, world.pki.leaf(crypto::Role::kDevice, id)));
  }
  bool until(const std::function<bool()>& done, std::int64_t ms = 10'000) {
    const std::int64_t end = system_clock().mono_us() + ms * 1000;
    while (!done()) {
      if (system_clock().mono_us() > end) return false;
      (void)world.loop.run_until([&] { return done(); }, 1);
      devices.run_once(false);
    }
    return true;
  }
  std::unique_ptr<Recorder> dial() {
    auto result = std::make_shared<std::optional<Result<std::unique_ptr<sdk::Circuit>>>>();
    pump->engine->dial("plant-mqtt", {}, 3'000, [result](Result<std::unique_ptr<sdk::Circuit>> r) {
      result->emplace(std::move(r));
    });
    (void)until([&] { return result->has_value(); });
    if (!*result || !**result) {
      why = *result ? (*result)->error().text() : "no answer";
      return nullptr;
    }
    return std::make_unique<Recorder>(std::move(***result));
  }
  /// A flow that was there before the clock moved.
  void open_flow() {
    flow = dial();
    ASSERT_NE(flow, nullptr) << why;
    ASSERT_TRUE(flow_works());
    lanes = world.router->lanes();
  }
  bool flow_works() {
    const std::size_t before = flow->received;
    flow->send(as_bytes("ping"));
    return until([&] { return flow->received == before + 4 || flow->cut.has_value(); }) &&
           !flow->cut;
  }
  /// Long enough for probes and their answers on every lane.
  void let_it_run(std::int64_t ms = 2'500) {
    (void)until([] { return false; }, ms);
  }
  bool dials_within(std::int64_t ms) {
    return until([&] { return dial() != nullptr; }, ms);
  }
  /// The controller says something new, and the router confirms it.
  bool enforced() {
    const std::uint64_t before = world.controller.version();
    while (world.controller.version() == before)
      world.controller.put_device("x", {"t" + std::to_string(++edits)});
    return until([&] { return world.controller.acked == world.controller.version(); }, 3'000);
  }

  MovedClock router_clock;
  FlooredClock held_up{router_clock};
  World world{1, true, [this](router::RouterOptions& o) { o.time = &held_up; }, held_up};
  MovedClock device_clock;
  loop::Loop devices{device_clock};
  TestHost server;
  std::unique_ptr<Device> host, pump;
  std::unique_ptr<Recorder> flow;
  std::string why;
  std::size_t lanes = 0;
  int edits = 0;
};

TEST_F(Clocks, ARouterSetBackGoesOnAndStillHearsOfRevocations) {
  for (const std::int64_t by : {-kHour, -3 * kYear}) {
    open_flow();
    router_clock.by = by;
    let_it_run(1'500);
    EXPECT_TRUE(flow_works());
    EXPECT_NE(dial(), nullptr) << why;
    EXPECT_TRUE(enforced()) << "heads are not from the future";
    // Started again with the wrong clock: its own disk says how late it is at least.
    flow.reset();
    world.router.reset();
    held_up.~FlooredClock();
    new (&held_up) FlooredClock(router_clock);
    world.start_router();
    ASSERT_TRUE(dials_within(8'000)) << why;
    EXPECT_TRUE(enforced());
    router_clock.by = 0;
    ASSERT_TRUE(dials_within(8'000)) << why;
  }
  open_flow();
  router_clock.by = -kHour;
  world.controller.remove_device("pump");
  EXPECT_TRUE(until([&] { return flow->cut.has_value(); }, 2'000)) << "revoked is revoked";
}

TEST_F(Clocks, ACertificateThatIsOverStaysSoWhenTheRouterIsSetBack) {
  auto spec = world.pki.leaf_spec(crypto::Role::kDevice, "old");
  spec.not_before_s = now_ms() / 1000 - 7'200;
  spec.not_after_s = now_ms() / 1000 - 600;
  Device old(devices, world.material("old", world.pki.leaf(spec, true)));
  // Of a time when it was good.
  router_clock.by = -kHour;
  device_clock.by = -kHour;
  EXPECT_TRUE(until([&] { return !old.engine->last_error().empty(); }));
  let_it_run(500);
  EXPECT_FALSE(old.engine->online());
}

TEST_F(Clocks, ARouterSetForwardRefusesWhatIsOverAndComesBack) {
  open_flow();
  world.controller.put_device("late", {"sensors"});
  RawDevice raw(world, "pump2");
  world.controller.put_device("pump2", {"sensors"});
  ASSERT_TRUE(until([&] { return raw.ready(); }));
  const auto once = raw.sealed(raw.setup("s-1"));
  RawEnd& first = raw.begin(once);
  ASSERT_TRUE(until([&] { return first.decided(); }));
  ASSERT_TRUE(first.answer.has_value());

  router_clock.by = kHour / 6;
  ASSERT_TRUE(dials_within(10'000)) << "devices follow the time of their router: " << why;
  router_clock.by = 400 * 24 * kHour;  // every device's certificate is over
  EXPECT_TRUE(flow_works()) << "a flow does not look at the clock";
  EXPECT_EQ(dial(), nullptr);
  {
    const auto late = device("late");
    EXPECT_TRUE(until([&] { return !late->engine->last_error().empty(); }));
    EXPECT_FALSE(late->engine->online());
  }
  let_it_run();
  EXPECT_TRUE(flow_works());
  EXPECT_EQ(world.router->lanes(), lanes + 1) << "no lane died of it";

  router_clock.by = 0;
  ASSERT_TRUE(dials_within(10'000)) << why;
  const auto late = device("late");
  EXPECT_TRUE(until([&] { return late->engine->online(); }));
  EXPECT_TRUE(flow_works());
  // What was used once was not forgotten meanwhile. (Its lane's circuit is over first.)
  raw.lane->reset(first, wire::ResetCode::kClosed);
  ASSERT_TRUE(until([&] { return world.router->circuits() <= 1; }));
  RawEnd& again = raw.begin(once);
  ASSERT_TRUE(until([&] { return again.decided() || raw.down.has_value(); }));
  EXPECT_FALSE(again.answer.has_value()) << "a proof used twice";
}

TEST_F(Clocks, ADevicesClockMovesNothingThatIsConnected) {
  open_flow();
  for (const std::int64_t by : {kHour, -kHour, 20 * kYear, -20 * kYear}) {
    device_clock.by = by;
    EXPECT_TRUE(flow_works());
    EXPECT_NE(dial(), nullptr) << by / kHour << " h: " << why << ": the router's time counts";
    let_it_run(1'500);
    EXPECT_TRUE(flow_works());
    EXPECT_EQ(world.router->lanes(), lanes);
    device_clock.by = 0;
    EXPECT_NE(dial(), nullptr) << why;
  }
}

// Never set (1970) or far ahead (2040): in at the first attempt, since what the machine says cannot
// be; by the router's time from then on.
TEST_F(Clocks, ADeviceWhoseClockWasNeverSetOrIsFarAheadComesInAtOnce) {
  world.controller.put_device("third", {"sensors"});
  for (const std::int64_t by : {-now_ms(), 14 * kYear}) {
    device_clock.by = by;
    std::int64_t kept = 0;
    auto material = world.material("third", world.pki.leaf(crypto::Role::kDevice, "third"));
    material.keep_time = [&kept](std::int64_t ms) -> Status {
      kept = ms;
      return {};
    };
    Device third(devices, std::move(material));
    EXPECT_TRUE(third.engine->clock().in_doubt());
    ASSERT_TRUE(until([&] { return third.engine->online() || third.engine->refused(); }));
    EXPECT_TRUE(third.engine->online()) << third.engine->last_error();
    EXPECT_EQ(third.engine->last_error(), "") << "no attempt failed";
    EXPECT_FALSE(third.engine->clock().in_doubt());
    EXPECT_NEAR(static_cast<double>(third.engine->clock().unix_ms()), static_cast<double>(now_ms()),
                5'000);
    // What the network signed of the time stays for the next start.
    ASSERT_TRUE(until([&] { return kept != 0; }));
    EXPECT_NEAR(static_cast<double>(kept), static_cast<double>(now_ms()), 60'000);
    // The inner handshake, the other end's certificate: by that time as well.
    pump.reset();
    pump = device("pump");
    EXPECT_TRUE(until([&] { return pump->engine->online(); }));
    EXPECT_TRUE(dials_within(5'000)) << why;
  }
}

// It would lie beyond the end of every router's certificate, for good.
TEST_F(Clocks, AControllerThatIsAheadDoesNotMoveADevicesFloor) {
  world.controller.put_device("third", {"sensors"});
  ASSERT_TRUE(enforced());
  world.controller.shift_ms = kYear;
  std::int64_t kept = 0;
  auto material = world.material("third", world.pki.leaf(crypto::Role::kDevice, "third"));
  material.keep_time = [&kept](std::int64_t ms) -> Status {
    kept = ms;
    return {};
  };
  Device third(devices, std::move(material));
  ASSERT_TRUE(until([&] { return kept != 0; })) << third.engine->last_error();
  EXPECT_NEAR(static_cast<double>(kept), static_cast<double>(now_ms()), 60'000);
}

// A floor that was kept is not forgotten: what ended before it stays out, whatever the clock says.
TEST_F(Clocks, ARoutersCertificateThatEndedBeforeTheFloorIsNotTaken) {
  device_clock.by = -now_ms();
  world.controller.put_device("third", {"sensors"});
  auto material = world.material("third", world.pki.leaf(crypto::Role::kDevice, "third"));
  material.time_floor_ms = world.router_leaf.cert.not_after() * 1000 + 1'000;
  Device third(devices, std::move(material));
  EXPECT_TRUE(until([&] { return !third.engine->last_error().empty(); }));
  EXPECT_FALSE(third.engine->online());
  EXPECT_NE(third.engine->last_error().find("expired"), std::string::npos)
      << third.engine->last_error();
}

TEST_F(Clocks, AControllersClockStopsNoRevocationAndPoisonsNobody) {
  open_flow();
  world.controller.shift_ms = -kHour;
  EXPECT_TRUE(enforced()) << "behind: what is new is taken";
  world.controller.push_all();
  EXPECT_TRUE(flow_works());
  EXPECT_TRUE(world.router->controller_up());
  EXPECT_NE(dial(), nullptr) << why;

  world.controller.shift_ms = kYear;
  EXPECT_FALSE(enforced()) << "a head of next year";
  EXPECT_TRUE(world.controller.heard("router.state_refused"));
  EXPECT_TRUE(flow_works());
  EXPECT_NE(dial(), nullptr) << why;

  world.controller.shift_ms = 0;
  EXPECT_TRUE(until([&] { return world.controller.acked == world.controller.version(); }));
  EXPECT_TRUE(enforced());
  world.controller.remove_device("pump");
  EXPECT_TRUE(until([&] { return flow->cut.has_value(); }, 2'000));
}

}  // namespace
}  // namespace sally::sim
