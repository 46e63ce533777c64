// SPDX-License-Identifier: Apache-2.0
// Usage is exactly what circuits carried: while they live, over lost acknowledgements, an absent
// controller and a new router.
#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>

#include "raw_device.h"

namespace sally::sim {
namespace {

class UsageTest : public ::testing::TestWithParam<unsigned> {
 protected:
  struct Sum {
    std::uint64_t sent = 0, received = 0, circuits = 0, others = 0;
    friend bool operator==(const Sum&, const Sum&) = default;
  };
  [[nodiscard]] Sum told() const {
    Sum sum;
    for (const auto& [key, batch] : world.controller.usage) {
      for (const auto& e : batch.entries) {
        if (e.device == "pump" && e.service == "s-1") {
          sum.sent += e.sent;
          sum.received += e.received;
          sum.circuits += e.circuits;
        } else {
          ++sum.others;
        }
      }
    }
    return sum;
  }
  World world{GetParam()};
};

TEST_P(UsageTest, EveryByteOnce) {
  auto& controller = world.controller;
  // The router is connected already, to a controller that did not say it counts.
  world.router.reset();
  controller.counts_usage = true;
  controller.put_service("s-1", "plant", {"#sensors"}, {"#servers"});
  controller.put_device("pump", {"sensors"});
  controller.put_device("host", {"servers"});
  world.start_router();
  ASSERT_TRUE(world.until([&] { return controller.acked == controller.version(); }));
  RawDevice pump(world, "pump");
  RawDevice host(world, "host");
  ASSERT_TRUE(world.until([&] { return pump.ready() && host.ready(); }));
  RawEnd* far = nullptr;
  host.on_setup = [&](const RawDevice::Asked& a) { far = &host.answer(a, host.leaf, host.card); };
  ASSERT_EQ(host.bind("s-1"), wire::SetupCode::kNone);
  ASSERT_EQ(pump.open(pump.sealed(pump.setup("s-1"))), wire::SetupCode::kNone);
  ASSERT_NE(far, nullptr);
  RawEnd& near = pump.ends.back();
  // Refused ones carry nothing.
  EXPECT_EQ(pump.open(pump.sealed(pump.setup("s-2"))), wire::SetupCode::kNoService);

  controller.lost_acks = 2;
  for (int i = 0; i < 3; ++i) near.send(Bytes(3'001, 1));
  for (int i = 0; i < 2; ++i) far->send(Bytes(3'000, 2));
  ASSERT_TRUE(world.until([&] { return far->data.size() == 9'003 && near.data.size() == 6'000; }));
  // It is still open.
  ASSERT_TRUE(world.until([&] { return told() == Sum{9'003, 6'000, 1, 0}; })) << told().sent;
  const auto heard = controller.usage_heard;
  ASSERT_TRUE(world.until([&] { return controller.usage_heard >= heard + 2; }));
  EXPECT_EQ(told(), (Sum{9'003, 6'000, 1, 0}));

  // The controller is away, and the router is gone before it comes back.
  controller.stop();
  ASSERT_TRUE(world.until([&] { return !world.router->controller_up(); }));
  near.send(Bytes(1'000, 3));
  near.send_fin();
  ASSERT_TRUE(world.until([&] { return far->data.size() == 10'003 && far->fin; }));
  world.router.reset();
  EXPECT_EQ(told(), (Sum{9'003, 6'000, 1, 0}));
  world.start_router();
  controller.lost_acks = 1;
  controller.start();
  ASSERT_TRUE(world.until([&] { return told() == Sum{10'003, 6'000, 1, 0}; })) << told().sent;
  const auto again = controller.usage_heard;
  ASSERT_TRUE(world.until([&] { return controller.usage_heard >= again + 2; }));
  EXPECT_EQ(told(), (Sum{10'003, 6'000, 1, 0}));
  ASSERT_TRUE(
      world.until([&] { return ::access((world.dir + "/state.usage").c_str(), F_OK) != 0; }));

  // And the figures say what there is.
  std::string text;
  world.router->collect_metrics([&](std::string t) { text = std::move(t); });
  ASSERT_TRUE(world.until([&] { return !text.empty(); }));
  EXPECT_NE(text.find("\nsally_router_workers " + std::to_string(GetParam()) + "\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("\nsally_router_controller_up 1\n"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Workers, UsageTest, ::testing::Values(1U, 2U));

}  // namespace
}  // namespace sally::sim
