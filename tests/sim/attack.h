// SPDX-License-Identifier: Apache-2.0
// What hostile devices meet: the real router, a real host and a real dialer.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "raw_device.h"
#include "world.h"

namespace sally::sim {

/// Ends with no circuit left and the victims' lanes alive. Parameter: the router's workers.
class AttackTest : public ::testing::TestWithParam<unsigned> {
 protected:
  AttackTest() {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_device("mallory", {"sensors", "servers"});
    world.controller.put_device("guest", {"guests"});
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
    world.controller.put_service("s-2", "other-service", {"#sensors"}, {"#servers"});
    world.controller.put_service("s-3", "foreign", {"#sensors"}, {"#servers"},
                                 wire::E2e::kCompatible);
    world.controller.put_service("s-4", "plain", {"#sensors"}, {"#servers"}, wire::E2e::kNone);
    // A device that comes before the router knows anything is refused, and counts as a loss.
    world.until([&] { return world.controller.acked > 0; });
  }
  void TearDown() override {
    EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }, 12'000));
    for (const auto* victim : {host.get(), pump.get()}) {
      if (victim == nullptr) continue;
      EXPECT_TRUE(victim->engine->online());
      EXPECT_TRUE(may_lose_lanes || !victim->seen.contains(sdk::Event::kOffline))
          << victim->last_text;
    }
  }
  void bring_up_host(const std::string& service = "plant-mqtt") {
    if (!host) host = world.device("host");
    binding = host->engine->bind(service, 0, server);
    ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  }
  void bring_up_pump() {
    pump = world.device("pump");
    ASSERT_TRUE(world.until([&] { return pump->engine->services().size() >= 1; }));
  }
  std::unique_ptr<RawDevice> raw(const std::string& id) {
    auto d = std::make_unique<RawDevice>(world, id);
    EXPECT_TRUE(world.until([&] { return d->ready(); })) << (d->down ? d->down->text() : "");
    return d;
  }
  /// The code a dial of pump ends with.
  std::string dial_code(const std::string& service = "plant-mqtt") {
    auto r = world.dial(*pump, service);
    if (!r) return "never";
    return *r ? "ok" : std::string((*r).error().code());
  }

  World world{GetParam()};
  TestHost server;
  std::unique_ptr<Device> host;
  std::unique_ptr<Device> pump;
  std::uint64_t binding = 0;
  bool may_lose_lanes = false;
};

}  // namespace sally::sim
