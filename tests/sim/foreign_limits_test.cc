// SPDX-License-Identifier: Apache-2.0
// Ziti SDKs that do not read, or ask for too much: one channel is held up for a moment, and nobody
// else.
#include "foreign_world.h"

namespace sally::sim {
namespace {

class ForeignLimitsTest : public ForeignTest {
 protected:
  static constexpr std::int64_t kStallMs = 400;
  static constexpr std::size_t kMemory = std::size_t{6} << 20U;
  ForeignLimitsTest()
      : ForeignTest([](router::RouterOptions& o) {
          o.memory_bytes = kMemory;
          o.foreign_stall_ms = kStallMs;
          o.per_device = {.lanes = 3,
                          .openings = 4,
                          .dials_per_s = 0.001,
                          .dial_burst = 12,
                          .binds_per_s = 0.001,
                          .bind_burst = 4};
        }) {
    world.controller.put_device("other", {"sensors"});
    world.controller.put_device("second", {"seconds"});
    world.controller.put_service("s-4", "second", {"#sensors"}, {"#seconds"}, wire::E2e::kNone);
    world.until([&] { return world.controller.acked == world.controller.version(); });
  }
  /// Answers the next dial that `sdk` hears; its id.
  static std::uint32_t take(ForeignSdk& sdk) {
    const auto dial = sdk.heard();
    if (!dial) return 0;
    sdk.say(message(Type::kDialSuccess, 5,
                    {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial->sequence))}},
                    le32(dial->u32(Id::kRouterConn))));
    return dial->u32(Id::kRouterConn);
  }
};
INSTANTIATE_TEST_SUITE_P(Workers, ForeignLimitsTest, ::testing::Values(1U, 2U));

TEST_P(ForeignLimitsTest, AStalledConnHoldsUpItsChannelForAMomentAndOthersNotAtAll) {
  bring_up();
  auto second = up(world, "second");
  auto other = up(world, "other");
  ASSERT_EQ(second->bind(1, second->token(SessionUse::kBind, "s-4")), "");
  open(3);
  pump->connect(4, pump->token(SessionUse::kDial, "s-4"));
  ASSERT_NE(take(*second), 0U);
  ASSERT_EQ(pump->heard()->type, Type::kStateConnected);
  other->connect(1, other->token(SessionUse::kDial, "s-4"));
  const std::uint32_t to_other = take(*second);
  ASSERT_EQ(other->heard()->type, Type::kStateConnected);

  host->stream->want_read(false);
  for (int i = 0; i < 48; ++i) pump->data(3, Bytes(std::size_t{1} << 20U));
  pump->data(4, as_bytes("behind it"));
  std::size_t most = 0;
  int rounds = 0;
  const std::int64_t began = now_ms();
  // Until the conn that stalls is closed the other client goes on; then the rest of the channel
  // does.
  while (pump->ear.messages.empty() && now_ms() - began < 10'000) {
    other->data(1, as_bytes("tick"));
    ASSERT_EQ(body_at(*second), "tick");
    second->data(to_other, as_bytes("tock"));
    ASSERT_EQ(body_at(*other), "tock");
    most = std::max(most, world.router->memory_used());
    ++rounds;
  }
  EXPECT_GT(rounds, 10);
  const auto closed = pump->heard();
  ASSERT_TRUE(closed);
  EXPECT_EQ(closed->type, Type::kStateClosed);
  EXPECT_EQ(closed->u32(Id::kConn), 3U);
  EXPECT_EQ(closed->said(), "the other end takes nothing, or a message has no end");
  EXPECT_GE(now_ms() - began, kStallMs);
  EXPECT_EQ(body_at(*second), "behind it");
  EXPECT_LE(most, kMemory);
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 2; }));
}

TEST_P(ForeignLimitsTest, WhatWaitsForManyReadersStaysInsideTheMemory) {
  bring_up();
  for (std::uint32_t conn = 1; conn <= 8; ++conn) open(conn);
  host->stream->want_read(false);
  // Messages that never become whole wait as well.
  for (std::uint32_t conn = 1; conn <= 8; ++conn) {
    pump->data(conn, Bytes(std::size_t{4} << 20U));
    const Bytes cut =
        message(Type::kData, 7, {{Id::kConn, le32(conn)}}, Bytes(std::size_t{8} << 20U));
    pump->say(cut);
  }
  std::size_t most = 0;
  EXPECT_TRUE(world.until(
      [&] {
        most = std::max(most, world.router->memory_used());
        return pump->ear.messages.size() == 8;
      },
      20'000))
      << pump->ear.messages.size();
  EXPECT_LE(most, kMemory + (std::size_t{2} << 20U)) << "and what comes until workers have shed";
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
}

TEST_P(ForeignLimitsTest, ADeviceHasItsLimitsOnChannelsToo) {
  bring_up();
  // Connections.
  auto second = up(world, "pump");
  auto third = up(world, "pump");
  ForeignSdk fourth(world, "pump");
  EXPECT_FALSE(fourth.hello());
  // Dials that wait, over all of them.
  for (std::uint32_t conn = 1; conn <= 2; ++conn) {
    pump->connect(conn, pump->token(SessionUse::kDial, "s-1"));
    second->connect(conn, second->token(SessionUse::kDial, "s-1"));
  }
  EXPECT_TRUE(world.until([&] { return host->ear.messages.size() == 4; }));
  host->ear.messages.clear();
  auto m = third->refused(1, third->token(SessionUse::kDial, "s-1"));
  EXPECT_TRUE(m && m->said() == "too many dials" && m->u32(Id::kErrorCode) == 1U);
  for (std::uint32_t conn = 1; conn <= 2; ++conn) {
    pump->close(conn);
    second->close(conn);
  }
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  // Dials a second, before a token is looked at.
  for (int i = 0; i < 7; ++i) EXPECT_EQ(third->refused(1, "garbage")->u32(Id::kErrorCode), 3U);
  EXPECT_EQ(third->refused(1, "garbage")->said(), "too many dials");
  // Binds a second.
  for (std::uint32_t conn = 10; conn < 13; ++conn)
    EXPECT_EQ(
        host->bind(conn, host->token(SessionUse::kBind, "s-1"), {{Id::kListenerId, le32(conn)}}),
        "");
  EXPECT_EQ(host->bind(13, host->token(SessionUse::kBind, "s-1")), "too many binds");
}

}  // namespace
}  // namespace sally::sim
