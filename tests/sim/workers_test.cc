// SPDX-License-Identifier: Apache-2.0
// A router with several workers: what the suites of network_test.cc and attack_test.cc, which run
// with two workers as well, do not look at.
#include <gtest/gtest.h>

#include <algorithm>
#include <future>

#include "raw_device.h"
#include "sdk/errors.h"
#include "world.h"

namespace sally::sim {
namespace {

using wire::SetupCode;

/// The host is on the last worker, everybody else on the first one.
class WorkersTest : public ::testing::Test {
 protected:
  WorkersTest() {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("near", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_device("mallory", {"sensors", "servers"});
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"@host", "#servers"});
    world.controller.put_service("s-2", "near-service", {"#sensors"}, {"#servers"});
    world.until([&] { return world.controller.acked > 0; });
  }
  void bring_up() {
    host = world.device("host");
    const auto binding = host->engine->bind("plant-mqtt", 0, server);
    pump = world.device("pump");
    ASSERT_TRUE(world.until([&] {
      return !host->engine->binding_error(binding) && pump->engine->services().size() == 2;
    }));
  }
  std::unique_ptr<Recorder> open(const std::string& service = "plant-mqtt") {
    auto r = world.dial(*pump, service);
    if (!r || !*r) {
      ADD_FAILURE() << (r ? r->error().text() : "no answer");
      return nullptr;
    }
    return std::make_unique<Recorder>(std::move(**r));
  }
  std::unique_ptr<RawDevice> raw(const std::string& id) {
    auto d = std::make_unique<RawDevice>(world, id);
    EXPECT_TRUE(world.until([&] { return d->ready(); })) << (d->down ? d->down->text() : "");
    return d;
  }
  /// The last worker does nothing until the promise is kept.
  std::promise<void> hold_host_worker() {
    std::promise<void> go;
    world.router->on_worker(1, [wait = go.get_future()] { wait.wait(); });
    return go;
  }
  bool nothing_left() {
    return world.until([&] {
      return world.router->circuits() == 0 && world.router->hosted() == 0 &&
             world.router->labels() == 0;
    });
  }

  World world{2};
  TestHost server;
  std::unique_ptr<Device> host;
  std::unique_ptr<Device> near;
  std::unique_ptr<Device> pump;
};

Bytes pattern(std::size_t size, std::uint64_t seed = 1) {
  Bytes out(size);
  SeededRandom(seed).fill(out);
  return out;
}

TEST_F(WorkersTest, BulkBothWaysAtOnceBetweenTwoWorkers) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  EXPECT_EQ(world.router->circuits(), 1U);
  EXPECT_EQ(world.router->hosted(), 1U);  // it does cross
  Recorder& served = *server.streams[0];
  const Bytes up = pattern(9'000'000, 1);
  const Bytes down = pattern(7'000'000, 2);
  client->send(up);
  client->end_after_sending();
  served.send(down);
  served.end_after_sending();
  ASSERT_TRUE(world.until([&] { return client->ended && served.ended; }, 60'000));
  EXPECT_TRUE(served.data == up);
  EXPECT_TRUE(client->data == down);
  EXPECT_FALSE(client->cut || served.cut);
  sdk::Circuit::finish(std::move(client->circuit));
  sdk::Circuit::finish(std::move(served.circuit));
  EXPECT_TRUE(nothing_left());
}

TEST_F(WorkersTest, ADeviceComesBackToAnotherWorkerWhileTheControllerIsAway) {
  bring_up();
  world.controller.stop();
  ASSERT_TRUE(world.until([&] { return !world.router->controller_up(); }));
  pump.reset();
  world.placed["pump"] = 1;
  pump = world.device("pump");  // it has forgotten its card, the other worker has not
  ASSERT_TRUE(world.until([&] { return pump->engine->services().size() == 2; }));
  EXPECT_NE(open(), nullptr);
  world.controller.start();
  ASSERT_TRUE(world.until([&] { return world.router->controller_up(); }));
}

TEST_F(WorkersTest, ABusyWorkerHoldsOneWindowAndSlowsNobody) {
  bring_up();
  TestHost near_server;
  near_server.echo = true;
  near = world.device("near");
  const auto binding = near->engine->bind("near-service", 0, near_server);
  ASSERT_TRUE(world.until([&] { return !near->engine->binding_error(binding); }));
  auto far = open();
  auto close = open("near-service");
  ASSERT_TRUE(far && close);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  EXPECT_EQ(world.router->hosted(), 1U);

  auto go = hold_host_worker();
  const Bytes data = pattern(4'000'000);
  far->send(data);
  close->send(data);
  ASSERT_TRUE(world.until([&] { return close->received == data.size(); }, 60'000));
  EXPECT_TRUE(close->data == data);
  EXPECT_EQ(server.streams[0]->received, 0U);
  go.set_value();
  ASSERT_TRUE(world.until([&] { return server.streams[0]->received == data.size(); }, 60'000));
  EXPECT_TRUE(server.streams[0]->data == data);
}

TEST_F(WorkersTest, AnEndIsNotLostOnABusyWorker) {
  bring_up();
  auto ended = open();
  auto aborted = open();
  auto lost = open();
  ASSERT_TRUE(ended && aborted && lost);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 3; }));
  auto go = hold_host_worker();
  ended->send(as_bytes("last words"));
  ended->end_after_sending();
  aborted->send(pattern(2'000'000));
  world.until([] { return false; }, 200);
  aborted->circuit->abort(wire::ResetCode::kClosed);
  world.until([] { return false; }, 100);
  pump.reset();  // and then its whole lane, with all three
  ASSERT_TRUE(world.until([&] { return world.router->lanes() == 1; }));
  go.set_value();
  ASSERT_TRUE(world.until([&] {
    return std::ranges::all_of(server.streams,
                               [](const auto& s) { return s->cut.has_value() || s->ended; });
  }));
  EXPECT_TRUE(nothing_left());
}

TEST_F(WorkersTest, AHostThatIsLostIsToldToTheDialer) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  client->send(as_bytes("x"));
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1 && client->circuit; }));
  server.streams.clear();
  host.reset();
  ASSERT_TRUE(world.until([&] { return client->cut.has_value(); }));
  EXPECT_TRUE(nothing_left());
  const auto again = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->error().is(sdk::Errc::kNoHost)) << again->error().text();
}

// What `deny` reports: the version is confirmed when every worker has enforced it, and a circuit
// that both of its workers cut counts once.
TEST_F(WorkersTest, ADenyIsConfirmedWhenAllWorkersHaveCut) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(world.until([&] {
    return server.streams.size() == 1 && world.controller.acked == world.controller.version();
  }));
  const auto before = world.controller.acked;
  auto go = hold_host_worker();
  world.controller.put_service("s-1", "plant-mqtt", {"#nobody"}, {"#nobody"});
  // The dialer's worker has cut.
  ASSERT_TRUE(world.until([&] { return client->cut.has_value(); }));
  world.until([&] { return world.controller.acked != before; }, 300);
  EXPECT_EQ(world.controller.acked, before);
  EXPECT_FALSE(server.streams[0]->cut);
  go.set_value();
  ASSERT_TRUE(world.until([&] { return world.controller.acked == world.controller.version(); }));
  EXPECT_EQ(world.controller.flows_cut, 1U);
  EXPECT_TRUE(world.until([&] { return server.streams[0]->cut.has_value(); }));
  EXPECT_TRUE(nothing_left());
}

TEST_F(WorkersTest, TheHostsWorkerCutsWhenTheHostMayNotBindAnyMore) {
  bring_up();
  auto client = open();
  ASSERT_NE(client, nullptr);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#nobody"});
  ASSERT_TRUE(world.until([&] { return client->cut && server.streams[0]->cut; }));
  ASSERT_TRUE(world.until([&] { return world.controller.acked == world.controller.version(); }));
  EXPECT_EQ(world.controller.flows_cut, 1U);
  EXPECT_TRUE(world.until([&] { return world.controller.terminators.empty(); }));
  EXPECT_TRUE(nothing_left());
}

TEST_F(WorkersTest, AReplayOnAnotherWorkerIsInvalidWhileOpenAndAfter) {
  world.placed["near"] = 1;
  auto careless = raw("near");  // it would answer anything
  ASSERT_EQ(careless->bind("s-2"), SetupCode::kNone);
  careless->on_setup = [&](const RawDevice::Asked& a) {
    careless->answer(a, careless->leaf, careless->card);
  };
  auto m = raw("mallory");
  world.placed["mallory"] = 1;
  auto twin = raw("mallory");
  const auto s = m->sealed(m->setup("s-2"));
  ASSERT_EQ(m->open(s), SetupCode::kNone);
  EXPECT_EQ(twin->open(s), SetupCode::kInvalid);
  m->ends.clear();
  ASSERT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  EXPECT_EQ(twin->open(s), SetupCode::kInvalid);
  EXPECT_EQ(m->open(s), SetupCode::kInvalid);
  EXPECT_EQ(careless->asked.size(), 1U);
  careless->ends.clear();
}

TEST_F(WorkersTest, BeyondItsCreditTheSenderLosesItsLaneAndTheOtherEndIsTold) {
  bring_up();
  for (const bool as_host : {false, true}) {
    auto a = raw("mallory");
    std::unique_ptr<RawDevice> b;
    world.placed["near"] = 1;
    b = raw("near");
    ASSERT_EQ(b->bind("s-2"), SetupCode::kNone);
    b->on_setup = [&](const RawDevice::Asked& asked) { b->answer(asked, b->leaf, b->card); };
    ASSERT_EQ(a->open(a->sealed(a->setup("s-2"))), SetupCode::kNone);
    auto go = hold_host_worker();
    RawDevice& bad = as_host ? *b : *a;
    RawDevice& good = as_host ? *a : *b;
    if (as_host) go.set_value();
    for (std::uint64_t at = 0; at < 3'000'000; at += 16'000)
      bad.ends.back().send_at(at, Bytes(16'000, 7));
    // It is judged by its own worker, whatever the other one does.
    ASSERT_TRUE(world.until([&] { return bad.down.has_value(); })) << as_host;
    if (!as_host) go.set_value();
    ASSERT_TRUE(world.until([&] { return good.ends.back().reset.has_value(); })) << as_host;
    EXPECT_TRUE(good.alive());
    a->ends.clear();
    b->ends.clear();
  }
  EXPECT_TRUE(nothing_left());
}

TEST_F(WorkersTest, AHostThatRefusesOrIsSilentIsFollowedByTheNextOneOnAnotherWorker) {
  bring_up();
  auto first = raw("mallory");  // on the dialer's worker, preferred
  ASSERT_EQ(first->bind("s-2"), SetupCode::kNone);
  world.placed["near"] = 1;
  auto second = raw("near");
  ASSERT_EQ(second->bind("s-2", 1), SetupCode::kNone);
  first->on_setup = [&](const RawDevice::Asked& a) {
    first->lane->send_setup_err(a.label, {.circuit = a.setup.circuit,
                                          .attempt = a.frame.attempt,
                                          .hop = "",
                                          .code = SetupCode::kRefused,
                                          .text = "not now"});
  };
  second->on_setup = [&](const RawDevice::Asked& a) {
    EXPECT_EQ(a.frame.attempt, 1U);
    second->answer(a, second->leaf, second->card);
  };
  auto client = open("near-service");
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(first->asked.size(), 1U);
  EXPECT_EQ(world.router->hosted(), 1U);
  client.reset();
  second->ends.clear();
  // And the other way round: the far one's lane breaks, the near one answers.
  first->on_setup = [&](const RawDevice::Asked& a) { first->answer(a, first->leaf, first->card); };
  second->on_setup = [&](const RawDevice::Asked&) {
    second->lane->close(Error(lane::Errc::kClosed));
  };
  ASSERT_EQ(first->bind("s-2", 2), SetupCode::kNone);
  client = open("near-service");
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(world.router->hosted(), 0U);
  client.reset();
  first->ends.clear();
  EXPECT_TRUE(nothing_left());
}

// The dialer has gone before the host on the other worker was even asked, or had answered.
TEST_F(WorkersTest, ADialerThatGoesWhileItsHostIsAskedLeavesNothing) {
  bring_up();
  world.placed["near"] = 1;
  auto silent = raw("near");
  ASSERT_EQ(silent->bind("s-2"), SetupCode::kNone);
  auto m = raw("mallory");
  m->begin(m->sealed(m->setup("s-2")));
  ASSERT_TRUE(world.until([&] { return silent->asked.size() == 1; }));
  EXPECT_EQ(world.router->hosted(), 1U);
  auto go = hold_host_worker();
  m->begin(m->sealed(m->setup("s-2")));
  ASSERT_TRUE(world.until([&] { return world.router->circuits() == 2; }));
  m->lane->close(Error(lane::Errc::kClosed));
  ASSERT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  go.set_value();
  ASSERT_TRUE(world.until([&] { return world.router->hosted() == 0; }));
  // A late answer is reset, and the label comes back.
  RawEnd& late = silent->answer(silent->asked.front(), Bytes(100, 1), silent->card);
  ASSERT_TRUE(world.until([&] { return late.reset.has_value(); }));
  EXPECT_EQ(silent->asked.size(), 1U);
  EXPECT_TRUE(silent->alive());
  m->ends.clear();
  EXPECT_TRUE(nothing_left());
}

TEST_F(WorkersTest, AnInstanceThatBindsOnAnotherWorkerMovesThere) {
  bring_up();
  world.placed["near"] = 0;
  auto before = raw("near");
  ASSERT_EQ(before->bind("s-2"), SetupCode::kNone);
  world.placed["near"] = 1;
  auto after = raw("near");
  ASSERT_EQ(after->bind("s-2"), SetupCode::kNone);
  EXPECT_EQ(after->bind_replies.back().terminator, before->bind_replies.back().terminator);
  // Its old lane takes nothing with it.
  before->lane->send_control({wire::Unbind{.service = "s-2", .instance = before->instance}});
  before->lane->close(Error(lane::Errc::kClosed));
  ASSERT_TRUE(world.until([&] { return before->down && world.router->lanes() == 3; }));
  after->on_setup = [&](const RawDevice::Asked& a) { after->answer(a, after->leaf, after->card); };
  auto client = open("near-service");
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(world.router->hosted(), 1U);
  client.reset();
  after->ends.clear();
  EXPECT_TRUE(nothing_left());
}

TEST_F(WorkersTest, ARouterEndsInTheMiddleOfTraffic) {
  bring_up();
  server.echo = true;
  std::vector<std::unique_ptr<Recorder>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(open());
    ASSERT_NE(clients.back(), nullptr);
    clients.back()->keep = false;
    clients.back()->send(pattern(4'000'000));
  }
  ASSERT_TRUE(world.until([&] { return clients.back()->received > 200'000; }));
  world.router.reset();
  ASSERT_TRUE(world.until([&] {
    return std::ranges::all_of(clients, [](const auto& c) { return c->cut.has_value(); });
  }));
}

// One port for all: devices fall where the kernel puts them; everything at once.
TEST(SharedPort, ManyDevicesOnFourWorkersDialEachOther) {
  World world(4, false);
  constexpr std::size_t kDevices = 12;
  world.controller.put_service("s-1", "mesh", {"#all"}, {"#all"});
  world.controller.put_service("s-2", "noise", {"#all"}, {"#all"});
  std::vector<std::unique_ptr<TestHost>> servers;
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<std::uint64_t> bindings;
  for (std::size_t i = 0; i < kDevices; ++i)
    world.controller.put_device("d" + std::to_string(i), {"all"});
  ASSERT_TRUE(world.until([&] { return world.controller.acked == world.controller.version(); }));
  for (std::size_t i = 0; i < kDevices; ++i) {
    servers.push_back(std::make_unique<TestHost>());
    servers.back()->echo = true;
    devices.push_back(world.device("d" + std::to_string(i)));
    bindings.push_back(devices.back()->engine->bind("mesh", 0, *servers.back()));
  }
  ASSERT_TRUE(world.until([&] {
    for (std::size_t i = 0; i < kDevices; ++i) {
      if (devices[i]->engine->binding_error(bindings[i])) return false;
    }
    return true;
  }));
  const Bytes data = pattern(300'000);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Recorder>> clients;
    std::size_t failed = 0;
    for (auto& d : devices) {
      for (int k = 0; k < 3; ++k) {
        d->engine->dial("mesh", {}, 5'000, [&](Result<std::unique_ptr<sdk::Circuit>> r) {
          if (!r) {
            ++failed;
            return;
          }
          clients.push_back(std::make_unique<Recorder>(std::move(*r)));
          clients.back()->send(data);
          clients.back()->end_after_sending();
        });
      }
    }
    ASSERT_TRUE(world.until([&] { return clients.size() + failed == 3 * kDevices; }, 30'000));
    EXPECT_EQ(failed, 0U);
    // A change of state in the middle, which cuts nothing.
    world.controller.put_service("s-2", "noise", {"#all"}, {"#all", "#more"});
    for (std::size_t i = 0; i < clients.size(); i += 5) clients[i].reset();  // aborted
    std::erase(clients, nullptr);
    ASSERT_TRUE(world.until(
        [&] {
          return std::ranges::all_of(clients, [](const auto& c) { return c->ended || c->cut; });
        },
        60'000));
    for (const auto& c : clients) EXPECT_TRUE(c->ended && c->data == data);
    clients.clear();
    for (auto& s : servers) s->streams.clear();
  }
  ASSERT_TRUE(world.until([&] {
    return world.router->circuits() == 0 && world.router->hosted() == 0 &&
           world.router->labels() == 0 && world.controller.acked == world.controller.version();
  }));
}

TEST(SharedPort, NobodyElseGetsOnIt) {
  World world(2, false);
  for (const unsigned workers : {1U, 2U}) {
    router::RouterOptions o;
    o.state_path = world.dir + "/other";
    o.workers = workers;
    o.listen = {"127.0.0.1", world.ports[0]};
    o.controller = world.controller.address();
    o.network = world.pki.network;
    o.id = "r-1";
    o.chain = {world.router_leaf.cert, world.pki.infrastructure};
    o.key = world.router_leaf.key;
    o.anchors = world.anchors();
    router::Router second(world.loop, system_random(), std::move(o));
    const Status s = second.start();
    ASSERT_FALSE(s) << workers;
    EXPECT_EQ(s.error().code(), "loop.bind") << s.error().text();
  }
}

}  // namespace
}  // namespace sally::sim
