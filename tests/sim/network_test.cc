// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "sdk/errors.h"
#include "world.h"

namespace sally::sim {
namespace {

/// With one worker, and with the two ends of every circuit on different ones.
class NetworkTest : public ::testing::TestWithParam<unsigned> {
 protected:
  NetworkTest() {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_device("other", {"guests"});
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"@host"});
  }
  /// A host that has bound, and a dialer that is on line.
  void bring_up() {
    host = world.device("host");
    binding = host->engine->bind("plant-mqtt", 0, server);
    pump = world.device("pump");
    ASSERT_TRUE(world.until([&] {
      return !host->engine->binding_error(binding) && pump->engine->services().size() == 1;
    }));
  }
  std::unique_ptr<Recorder> open() {
    auto r = world.dial(*pump, "plant-mqtt");
    if (!r || !*r) {
      ADD_FAILURE() << (r ? r->error().text() : "no answer");
      return nullptr;
    }
    const std::size_t before = server.streams.size();
    auto client = std::make_unique<Recorder>(std::move(**r));
    EXPECT_TRUE(
        world.until([&] { return server.streams.size() > before || !server.streams.empty(); }));
    return client;
  }

  World world{GetParam()};
  TestHost server;
  std::unique_ptr<Device> host;
  std::unique_ptr<Device> pump;
  std::uint64_t binding = 0;
};

std::int64_t loop_time() {
  return system_clock().mono_us() / 1000;
}

Bytes pattern(std::size_t size) {
  Bytes out(size);
  SeededRandom(size).fill(out);
  return out;
}

TEST_P(NetworkTest, BothSidesAreProvenAndBytesFlowBothWays) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  EXPECT_EQ(client->circuit->peer().id(), "host");
  EXPECT_EQ(client->circuit->peer_name(), "name-of-host");
  EXPECT_EQ(server.streams[0]->circuit->peer().id(), "pump");
  EXPECT_EQ(server.callers.at(0).name, "name-of-pump");
  EXPECT_EQ(client->circuit->session().group(), "X25519MLKEM768");
  EXPECT_EQ(client->circuit->session().alpn(), "sally-circuit/1");
  client->send(as_bytes("hello"));
  server.streams[0]->send(as_bytes("welcome"));
  ASSERT_TRUE(
      world.until([&] { return client->received == 7 && server.streams[0]->received == 5; }));
  EXPECT_EQ(as_text(server.streams[0]->data), "hello");
  EXPECT_EQ(as_text(client->data), "welcome");
}

TEST_P(NetworkTest, ManyMegabytesEchoedAreTheSameAndTheEndIsOrderly) {
  bring_up();
  server.echo = true;
  auto client = open();
  ASSERT_NE(client, nullptr);
  const Bytes data = pattern(8'000'000);
  client->send(data);
  client->end_after_sending();
  ASSERT_TRUE(world.until([&] { return client->ended; }, 60'000));
  EXPECT_TRUE(client->data == data);
  EXPECT_FALSE(client->cut);
  sdk::Circuit::finish(std::move(client->circuit));
  sdk::Circuit::finish(std::move(server.streams[0]->circuit));
  // Labels come back: nothing of the circuit is left anywhere.
  ASSERT_TRUE(world.until([&] {
    return world.router->circuits() == 0 && pump->engine->lane()->circuits() == 0 &&
           host->engine->lane()->circuits() == 0;
  }));
}

TEST_P(NetworkTest, HalfCloseInBothDirections) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  auto& served = *server.streams[0];
  client->circuit->shutdown_write();
  ASSERT_TRUE(world.until([&] { return served.ended; }));
  served.send(as_bytes("still here"));
  ASSERT_TRUE(world.until([&] { return client->received == 10; }));
  EXPECT_FALSE(client->ended);
  served.end_after_sending();
  ASSERT_TRUE(world.until([&] { return client->ended; }));
  EXPECT_FALSE(client->cut);
}

TEST_P(NetworkTest, AResetIsSeenAsOneAndNotAsAnEnd) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  client->send(as_bytes("x"));
  ASSERT_TRUE(world.until([&] { return server.streams[0]->received == 1; }));
  client->circuit->abort(wire::ResetCode::kClosed);
  ASSERT_TRUE(world.until([&] { return server.streams[0]->cut.has_value(); }));
  EXPECT_FALSE(server.streams[0]->ended);
  ASSERT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
}

TEST_P(NetworkTest, WithoutAGrantTheServiceDoesNotExist) {
  bring_up();
  auto other = world.device("other");
  ASSERT_TRUE(world.until([&] { return other->seen.contains(sdk::Event::kServices); }));
  EXPECT_TRUE(other->engine->services().empty());
  const auto denied = world.dial(*other, "plant-mqtt");
  const auto unknown = world.dial(*other, "no-such-thing");
  ASSERT_TRUE(denied && unknown);
  EXPECT_TRUE(denied->error().is(sdk::Errc::kNoService));
  EXPECT_TRUE(unknown->error().is(sdk::Errc::kNoService));
}

TEST_P(NetworkTest, NobodyHostsAndTheHostRefuses) {
  pump = world.device("pump");
  const auto nobody = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(nobody);
  EXPECT_TRUE(nobody->error().is(sdk::Errc::kNoHost)) << nobody->error().text();
  server.refuse = Error(sdk::Errc::kRefused, "target is down");
  bring_up();
  const auto refused = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(refused);
  EXPECT_TRUE(refused->error().is(sdk::Errc::kRefused)) << refused->error().text();
  EXPECT_NE(refused->error().context().find("target is down"), std::string::npos);
}

TEST_P(NetworkTest, WithdrawnGrantCutsTheFlowAndTheList) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  const auto before = loop_time();
  world.controller.put_service("s-1", "plant-mqtt", {"#nobody"}, {"@host"});
  ASSERT_TRUE(world.until(
      [&] { return client->cut && server.streams[0]->cut && pump->engine->services().empty(); }));
  EXPECT_LT(loop_time() - before, 1'000);
  const auto again = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->error().is(sdk::Errc::kNoService));
  ASSERT_TRUE(world.until([&] { return world.controller.heard("router.circuit_cut"); }));
}

TEST_P(NetworkTest, ATagEditKeepsTheFlowWhenItStillMatches) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  world.controller.put_device("pump", {"sensors", "hall-2"});
  ASSERT_TRUE(world.until([&] { return world.controller.acked > 0; }));
  client->send(as_bytes("on"));
  ASSERT_TRUE(world.until([&] { return server.streams[0]->received == 2; }));
  world.controller.put_device("pump", {"hall-2"});
  ASSERT_TRUE(world.until([&] { return client->cut.has_value(); }));
}

TEST_P(NetworkTest, ARemovedDeviceIsCutAndCannotComeBack) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  const auto before = loop_time();
  world.controller.remove_device("pump");
  ASSERT_TRUE(world.until(
      [&] { return client->cut && server.streams[0]->cut && !pump->engine->online(); }));
  EXPECT_LT(loop_time() - before, 1'000);
  world.controller.op({wire::RouterEntry{.id = "r-1", .name = "first", .addresses = {}}});
  EXPECT_FALSE(world.until([&] { return pump->engine->online(); }, 1'500));
  EXPECT_EQ(world.router->lanes(), 1U);
}

TEST_P(NetworkTest, ControllerGoneTheFlowAndNewDialsGoOn) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  world.controller.stop();
  ASSERT_TRUE(world.until([&] { return !world.router->controller_up(); }));
  client->send(as_bytes("on"));
  ASSERT_TRUE(world.until([&] { return server.streams[0]->received == 2; }));
  const auto more = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(more);
  EXPECT_TRUE(more->has_value()) << more->error().text();
  world.controller.start();
  ASSERT_TRUE(world.until([&] { return world.router->controller_up(); }));
}

TEST_P(NetworkTest, RouterRestartsWithoutTheControllerFromItsDisk) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(world.until([&] { return world.controller.acked > 0; }));
  world.controller.stop();
  world.router.reset();
  ASSERT_TRUE(world.until([&] { return client->cut.has_value(); }));
  world.start_router();
  // The devices carry their cards: nobody has to be asked.
  ASSERT_TRUE(world.until(
      [&] { return pump->engine->online() && !host->engine->binding_error(binding); }, 10'000));
  const auto again = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->has_value()) << again->error().text();
}

TEST_P(NetworkTest, AStalledReaderHoldsOneWindowAndSlowsNobody) {
  bring_up();
  auto stalled = open();
  ASSERT_NE(stalled, nullptr);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  server.streams[0]->paused = true;
  stalled->send(pattern(6'000'000));
  server.echo = true;
  auto busy = open();
  ASSERT_NE(busy, nullptr);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 2; }));
  server.streams[1]->keep = false;
  const Bytes data = pattern(4'000'000);
  busy->send(data);
  ASSERT_TRUE(world.until([&] { return busy->received == data.size(); }, 60'000));
  EXPECT_EQ(server.streams[0]->received, 0U);
  server.streams[0]->paused = false;
  server.streams[0]->on_circuit_readable();
  ASSERT_TRUE(world.until([&] { return server.streams[0]->received == 6'000'000; }, 60'000));
}

TEST_P(NetworkTest, SixtyFourStreamsShareOneLane) {
  bring_up();
  server.echo = true;
  std::vector<std::unique_ptr<Recorder>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(open());
    ASSERT_NE(clients.back(), nullptr);
  }
  const Bytes data = pattern(200'000);
  for (auto& c : clients) {
    c->send(data);
    c->end_after_sending();
  }
  ASSERT_TRUE(world.until(
      [&] { return std::ranges::all_of(clients, [](const auto& c) { return c->ended; }); },
      60'000));
  for (auto& c : clients) EXPECT_TRUE(c->data == data);
}

// A device may hold both grants and stand at both ends; when it goes, both sides end in one turn.
TEST_P(NetworkTest, OneDeviceAtBothEndsMayGo) {
  world.controller.put_service("s-9", "self", {"@host"}, {"@host"});
  host = world.device("host");
  binding = host->engine->bind("self", 0, server);
  ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  auto r = world.dial(*host, "self");
  ASSERT_TRUE(r && *r) << (r ? r->error().text() : "no answer");
  Recorder client(std::move(**r));
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  client.send(as_bytes("me"));
  ASSERT_TRUE(world.until([&] { return server.streams[0]->received == 2; }));
  client.circuit->abort(wire::ResetCode::kLaneLost);
  server.streams[0]->circuit->abort(wire::ResetCode::kLaneLost);
  ASSERT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  auto again = world.dial(*host, "self");
  ASSERT_TRUE(again && *again);
  Recorder second(std::move(**again));
  server.streams.clear();
  world.controller.remove_device(
      "host");  // the router closes the lane: both its labels in one pass
  ASSERT_TRUE(
      world.until([&] { return world.router->circuits() == 0 && world.router->lanes() == 0; }));
}

TEST_P(NetworkTest, BothEndsRevokedInOneTurn) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  world.controller.remove_device("pump");
  world.controller.remove_device("host");
  ASSERT_TRUE(
      world.until([&] { return world.router->circuits() == 0 && world.router->lanes() == 0; }));
}

INSTANTIATE_TEST_SUITE_P(Workers, NetworkTest, ::testing::Values(1U, 2U));

}  // namespace
}  // namespace sally::sim
