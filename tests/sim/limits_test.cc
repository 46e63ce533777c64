// SPDX-License-Identifier: Apache-2.0
// What one device, one service, one host or one reader that does not read can take from the others:
// with one worker, and with the ends on two.
#include <gtest/gtest.h>

#include <algorithm>

#include "raw_device.h"
#include "sdk/errors.h"
#include "world.h"

namespace sally::sim {
namespace {

using wire::SetupCode;

constexpr std::size_t kMemory = std::size_t{6} << 20U;

class LimitsTest : public ::testing::TestWithParam<unsigned> {
 protected:
  LimitsTest()
      : world(GetParam(), true, [](router::RouterOptions& o) {
          o.memory_bytes = kMemory;
          o.per_device = {.lanes = 3,
                          .openings = 8,
                          .asked = 5,
                          .circuits = 400,
                          .dials_per_s = 0.001,
                          .dial_burst = 500,
                          .binds_per_s = 0.001,
                          .bind_burst = 10};
          o.per_service = {.dials_per_s = 0.001, .dial_burst = 450};
        }) {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_device("other", {"sensors"});
    world.controller.put_device("mallory", {"sensors", "servers"});
    world.controller.put_service("s-1", "plant", {"#sensors"}, {"#servers"});
    world.controller.put_service("s-2", "slow", {"#sensors"}, {"#servers"});
    world.until([&] { return world.controller.acked > 0; });
    host = world.device("host");
    binding = host->engine->bind("plant", 0, server);
    EXPECT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  }
  ~LimitsTest() override {
    EXPECT_TRUE(host->engine->online());
    EXPECT_FALSE(host->seen.contains(sdk::Event::kOffline)) << host->last_text;
  }
  std::unique_ptr<RawDevice> raw(const std::string& id) {
    auto d = std::make_unique<RawDevice>(world, id);
    EXPECT_TRUE(world.until([&] { return d->ready(); })) << (d->down ? d->down->text() : "");
    return d;
  }
  std::unique_ptr<Device> dialer(const std::string& id) {
    auto d = world.device(id);
    EXPECT_TRUE(world.until([&] { return !d->engine->services().empty(); }));
    return d;
  }
  std::string dial_code(Device& d, const std::string& service = "plant") {
    auto r = world.dial(d, service);
    if (!r) return "never";
    return *r ? "ok" : std::string((*r).error().code());
  }

  World world;
  TestHost server;
  std::unique_ptr<Device> host;
  std::uint64_t binding = 0;
};

TEST_P(LimitsTest, ADeviceHasSoManyConnectionsAndNotOneMore) {
  std::vector<std::unique_ptr<RawDevice>> lanes;
  for (int i = 0; i < 3; ++i) lanes.push_back(raw("mallory"));
  RawDevice more(world, "mallory");
  ASSERT_TRUE(world.until([&] { return more.down.has_value(); }));
  EXPECT_NE(more.down->text().find("router.too_many_lanes"), std::string::npos)
      << more.down->text();
  EXPECT_TRUE(std::ranges::all_of(lanes, [](const auto& l) { return l->alive(); }));
  const auto other = raw("other");  // nobody else's business
  // One that ends makes room.
  lanes.back()->lane->close(Error(lane::Errc::kClosed));
  ASSERT_TRUE(world.until([&] { return lanes.back()->down.has_value(); }));
  ASSERT_TRUE(world.until([&] { return world.router->lanes() == 4; }));
  (void)raw("mallory");
}

TEST_P(LimitsTest, SetupsAndTheirRateAreTheDevicesOverAllItsConnections) {
  const auto silent = raw("mallory");
  silent->instance = {9};
  ASSERT_EQ(silent->bind("s-2"), SetupCode::kNone);
  auto one = raw("pump");
  auto two = raw("pump");
  // Five wait for the host that does not answer, which is all that it may be asked; the sixth is
  // refused.
  for (int i = 0; i < 3; ++i) one->begin(one->sealed(one->setup("s-2")));
  for (int i = 0; i < 2; ++i) two->begin(two->sealed(two->setup("s-2")));
  ASSERT_TRUE(world.until([&] { return silent->asked.size() == 5; }));
  EXPECT_EQ(two->open(two->sealed(two->setup("s-2"))), SetupCode::kBusy);
  // That host's trouble is nobody else's.
  const auto good = dialer("other");
  EXPECT_EQ(dial_code(*good), "ok");
  // Nor is a device's flood, whichever of its connections it uses.
  const auto denied = one->sealed(one->setup("s-9"));
  std::size_t unknown = 0;
  const auto count = [&](RawDevice& d) {
    for (int i = 0; i < 300; ++i) d.begin(denied);
    const auto decided = [&] {
      return std::ranges::count_if(d.ends, [](const RawEnd& e) { return e.refused.has_value(); });
    };
    EXPECT_TRUE(world.until([&] { return decided() >= 300; }));
    for (const RawEnd& e : d.ends) unknown += e.refused && e.refused->code == SetupCode::kNoService;
  };
  count(*one);
  EXPECT_EQ(unknown, 300U);
  count(*two);
  EXPECT_EQ(unknown, 500U - 6U);  // the rest of its burst
  EXPECT_EQ(dial_code(*good), "ok");
}

TEST_P(LimitsTest, AServiceIsDialedSoOftenAndTheOthersDoNotNotice) {
  const auto m = raw("mallory");
  m->instance = {9};
  ASSERT_EQ(m->bind("s-2"), SetupCode::kNone);
  m->on_setup = [&](const RawDevice::Asked& a) {
    m->lane->send_setup_err(a.label, {.circuit = a.setup.circuit,
                                      .attempt = a.frame.attempt,
                                      .hop = {},
                                      .code = SetupCode::kRefused,
                                      .text = {}});
  };
  const auto one = raw("pump");
  int busy = 0;
  for (int i = 0; i < 460; ++i) {
    const auto code = one->open(one->sealed(one->setup("s-2")));
    ASSERT_TRUE(code);
    busy += *code == SetupCode::kBusy ? 1 : 0;
    ASSERT_EQ(*code == SetupCode::kBusy, i >= 450) << i;
  }
  EXPECT_EQ(busy, 10);
  EXPECT_EQ(dial_code(*dialer("other")), "ok");
}

TEST_P(LimitsTest, EndsOfBindingsThatAreNotThereAreCounted) {
  const auto m = raw("mallory");
  for (int i = 0; i < 12; ++i)
    m->lane->send_control({wire::Unbind{.service = "s-1", .instance = {1}}});
  ASSERT_TRUE(world.until([&] { return m->down.has_value(); }));
  EXPECT_NE(m->down->text().find("router.too_fast"), std::string::npos) << m->down->text();
}

TEST_P(LimitsTest, AClassGoesThroughTheRouter) {
  const auto pump = dialer("pump");
  auto r = world.dial(*pump, "plant");
  ASSERT_TRUE(r && *r);
  Recorder stream(std::move(**r));
  stream.circuit->set_traffic_class(wire::Class::kBulk);
  stream.send(as_bytes("x"));
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  ASSERT_TRUE(world.until([&] { return server.streams[0]->received == 1; }));
  EXPECT_EQ(server.streams[0]->circuit->heard_class(), wire::Class::kBulk);
  server.streams[0]->send(as_bytes("y"));
  ASSERT_TRUE(world.until([&] { return stream.received == 1; }));
  EXPECT_EQ(stream.circuit->heard_class(), wire::Class::kNormal);  // the other direction's own
}

// Far more is sent into streams that nobody reads than the router may hold: it gives less, then
// resets what does not move, and what moves goes on.
TEST_P(LimitsTest, StalledStreamsTakeNoMemoryFromTheOthers) {
  const auto pump = dialer("pump");
  const auto open = [&](Device& d) {
    const std::size_t before = server.streams.size();
    auto r = world.dial(d, "plant");
    EXPECT_TRUE(r && *r) << (r ? (*r).error().text() : "never");
    auto stream = std::make_unique<Recorder>(std::move(**r));
    EXPECT_TRUE(world.until([&] { return server.streams.size() > before; }));
    return stream;
  };
  server.echo = true;
  const auto live = open(*pump);
  server.echo = false;
  Bytes block(3 << 20, 7);
  std::vector<std::unique_ptr<Recorder>> stalled;
  for (int i = 0; i < 300; ++i) {
    stalled.push_back(open(*pump));
    server.streams.back()->paused = true;
    stalled.back()->send(block);
  }
  // All that can be granted is: each end takes a mebibyte, the rest waits in the router.
  std::size_t cut = 0;
  const auto count = [&] {
    cut = 0;
    for (const auto& s : stalled) cut += s->cut.has_value() ? 1 : 0;
    return cut;
  };
  std::size_t most = 0;
  for (int i = 0; i < 100; ++i) {
    world.until([] { return false; }, 20);
    most = std::max(most, world.router->memory_used());
  }

  EXPECT_LE(most, kMemory + kMemory / 4);
  EXPECT_GT(most, kMemory / 2);
  EXPECT_LT(count(), stalled.size() * 2 / 3) << "a window that shrinks, not a massacre";
  for (const auto& s : stalled) {
    EXPECT_TRUE(!s->cut || s->cut->text().contains("budget")) << s->cut->text();
  }
  const std::size_t before = live->received;
  live->keep = false;
  live->send(block);
  EXPECT_TRUE(world.until([&] { return live->received == before + block.size(); }));
  EXPECT_FALSE(live->cut);
  // And a new one still opens and flows.
  server.echo = true;
  const auto other = dialer("other");
  const auto fresh = open(*other);
  fresh->send(Bytes(200'000, 1));
  EXPECT_TRUE(world.until([&] { return fresh->received == 200'000; }));
  server.streams.clear();
  stalled.clear();
  EXPECT_TRUE(world.until([&] { return world.router->memory_used() < kMemory / 8; }));
}

INSTANTIATE_TEST_SUITE_P(Workers, LimitsTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace sally::sim
