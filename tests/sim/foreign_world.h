// SPDX-License-Identifier: Apache-2.0
// A router with a host and a dialer that are Ziti SDKs, services of every kind, and what most tests
// of them do.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "foreign_sdk.h"

namespace sally::sim {

using wire::SessionUse;

class ForeignTest : public ::testing::TestWithParam<unsigned> {
 protected:
  explicit ForeignTest(World::Adjust adjust = {}) : world(GetParam(), true, std::move(adjust)) {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_device("mallory", {"sensors", "servers"});
    world.controller.put_device("guest", {"guests"});
    world.controller.put_service("s-1", "plain", {"#sensors"}, {"#servers"}, wire::E2e::kNone);
    world.controller.put_service("s-2", "sealed", {"#sensors"}, {"#servers"},
                                 wire::E2e::kCompatible);
    world.controller.put_service("s-3", "ours", {"#sensors"}, {"#servers"}, wire::E2e::kTls);
    world.until([&] { return world.controller.acked == world.controller.version(); });
  }
  ~ForeignTest() override {
    host.reset();
    pump.reset();
    EXPECT_TRUE(world.until([&] { return world.router->lanes() == 0; }));
    EXPECT_EQ(world.router->circuits(), 0U);
    EXPECT_TRUE(world.until([&] { return world.router->hosted() == 0; }));
    EXPECT_TRUE(world.until([&] { return world.router->memory_used() <= 64 * sizeof(Chunk); }))
        << world.router->memory_used();
  }
  static std::unique_ptr<ForeignSdk> up(World& w, const std::string& id) {
    auto sdk = std::make_unique<ForeignSdk>(w, id);
    EXPECT_TRUE(sdk->hello()) << (sdk->down ? sdk->down->text() : "");
    return sdk;
  }
  void bring_up(const std::string& service = "s-1", Bytes key = {}) {
    host = up(world, "host");
    pump = up(world, "pump");
    host->key = pump->key = std::move(key);
    ASSERT_EQ(host->bind(7, host->token(SessionUse::kBind, service)), "");
  }
  /// Opens a circuit; the host's id of it.
  std::uint32_t open(std::uint32_t conn, const std::string& service = "s-1",
                     const Fields& more = {}) {
    pump->connect(conn, pump->token(SessionUse::kDial, service), more);
    const auto dial = host->heard();
    EXPECT_TRUE(dial && dial->type == Type::kDial);
    if (!dial) return 0;
    host->say(message(Type::kDialSuccess, 5,
                      {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial->sequence))}},
                      le32(dial->u32(Id::kRouterConn))));
    const auto answer = pump->heard();
    EXPECT_TRUE(answer && answer->type == Type::kStateConnected) << (answer ? answer->said() : "");
    EXPECT_EQ(answer->u32(Id::kConn), conn);
    EXPECT_EQ(answer->text(Id::kCircuit), dial->text(Id::kCircuit));
    last_answer = *answer;
    last_dial = *dial;
    return dial->u32(Id::kRouterConn);
  }
  std::string body_at(ForeignSdk& sdk) {
    const auto m = sdk.heard();
    return m && m->type == Type::kData ? m->said()
           : m                         ? "another message: " + m->said()
                                       : "nothing";
  }

  World world;
  std::unique_ptr<ForeignSdk> host;
  std::unique_ptr<ForeignSdk> pump;
  Heard last_answer;
  Heard last_dial;
};

}  // namespace sally::sim
