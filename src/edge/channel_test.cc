// SPDX-License-Identifier: Apache-2.0
#include "edge/channel.h"

#include <gtest/gtest.h>

#include "edge/test_channel.h"

namespace sally::edge {
namespace {

using test::le16;
using test::le32;
using test::message;

std::string code_of(const Status& s) {
  return s ? "" : std::string(s.error().code());
}

struct EdgeChannel : ::testing::Test {
  test::TestChannel t;
  test::Heard heard() {
    const auto m = t.ear.take();
    EXPECT_TRUE(m) << "nothing was said";
    return m.value_or(test::Heard{});
  }
  void bind(std::uint32_t id, bool router_ids = true) {
    test::Fields f{{Id::kConn, le32(id)}, {Id::kPublicKey, Bytes(32, 9)}};
    if (router_ids) f.emplace_back(Id::kRouterConn, Bytes{1});
    ASSERT_TRUE(t.say(message(Type::kBind, 4, f, "bind-token")));
    const auto answer = heard();
    ASSERT_EQ(answer.type, Type::kStateConnected);
    EXPECT_EQ(answer.u32(Id::kReplyFor), 4U);
    EXPECT_EQ(answer.u32(Id::kConn), id);
    EXPECT_EQ(answer.has(Id::kRouterConn), router_ids);
  }
  void connect(std::uint32_t id, std::int32_t sequence = 5) {
    ASSERT_TRUE(t.say(message(Type::kConnect, sequence,
                              {{Id::kConn, le32(id)},
                               {Id::kPublicKey, Bytes(32, 7)},
                               {Id::kCallerId, to_bytes("alice")},
                               {Id::kMarker, to_bytes("QUJDREVG")},
                               {Id::kAppData, to_bytes("{}")}},
                              "dial-token")));
  }
  /// A dial that its host took: the dialer's conn and the host's id.
  std::uint32_t open(std::uint32_t id) {
    connect(id);
    const auto dial = heard();
    EXPECT_EQ(dial.type, Type::kDial);
    const std::uint32_t host_id = dial.u32(Id::kRouterConn);
    EXPECT_TRUE(t.say(message(
        Type::kDialSuccess, 9,
        {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial.sequence))}, {Id::kConn, le32(7)}},
        le32(host_id))));
    EXPECT_EQ(heard().type, Type::kStateConnected);
    return host_id;
  }
  Bytes data(std::uint32_t id, ByteView body, std::optional<std::uint32_t> flags = {},
             std::optional<Bytes> uuid = {}) {
    test::Fields f{{Id::kConn, le32(id)}, {Id::kListenerId, to_bytes("hop-local")}};
    if (flags) f.emplace_back(Id::kFlags, le32(*flags));
    if (uuid) f.emplace_back(Id::kUuid, *uuid);
    return message(Type::kData, 10, f, body);
  }
};

TEST_F(EdgeChannel, AHelloIsAnsweredWithItsOwnNumberAndFirst) {
  for (const std::int32_t sequence : {-1, 0, 1}) {
    test::TestChannel c;
    ASSERT_TRUE(c.say(
        message(Type::kHello, sequence, {{Id::kSessionToken, to_bytes("tok")}, {Id{9}, {1}}})));
    EXPECT_EQ(c.token, "tok");
    const auto m = c.ear.take();
    ASSERT_TRUE(m);
    EXPECT_EQ(m->type, Type::kResult);
    EXPECT_EQ(m->sequence, -1);
    EXPECT_EQ(m->u32(Id::kReplyFor), static_cast<std::uint32_t>(sequence));
    EXPECT_EQ(m->headers.at(Id::kResult), Bytes{1});
    EXPECT_EQ(m->text(Id::kRouterId), "r-1");
    EXPECT_EQ(m->text(Id::kConnectionId), "c0ffee");
    EXPECT_TRUE(m->has(Id::kBindSuccess));
    EXPECT_FALSE(m->has(Id{9})) << "no groups";
    EXPECT_TRUE(c.channel->live());
    EXPECT_EQ(code_of(c.say(message(Type::kHello, 2, {}))), "edge.protocol");
  }
}

TEST_F(EdgeChannel, NothingComesBeforeAHelloAndItsAnswer) {
  EXPECT_EQ(code_of(t.say(message(Type::kLatency, 1, {}))), "edge.protocol");
  test::TestChannel late;
  late.answer_hello = false;
  ASSERT_TRUE(late.say(message(Type::kHello, 1, {})));
  EXPECT_EQ(code_of(late.say(message(Type::kConnect, 2, {}))), "edge.protocol");
  test::TestChannel silent;
  EXPECT_TRUE(silent.pass(4'999));
  EXPECT_EQ(code_of(silent.pass(1)), "edge.no_hello");
  test::TestChannel dribbling;
  EXPECT_TRUE(dribbling.say(ByteView(kMagic)));
  EXPECT_EQ(code_of(dribbling.pass(5'000)), "edge.no_hello");
}

TEST_F(EdgeChannel, ARefusedHelloHearsItAfterASecondAndThenTheEnd) {
  t.refuse_hello = true;
  ASSERT_TRUE(t.say(message(Type::kHello, -1, {})));
  EXPECT_TRUE(t.ear.messages.empty());
  EXPECT_FALSE(t.channel->wants_read());
  EXPECT_EQ(t.channel->deadline_ms(), t.now_ms + 1'000);
  EXPECT_TRUE(t.pass(999));
  EXPECT_TRUE(t.ear.messages.empty());
  EXPECT_EQ(code_of(t.pass(1)), "edge.refused");
  const auto m = heard();
  EXPECT_EQ(m.headers.at(Id::kResult), Bytes{0});
  EXPECT_EQ(m.u32(Id::kReplyFor), 0xffff'ffffU);
  EXPECT_EQ(m.said(), "not permitted");
}

TEST_F(EdgeChannel, ProbesAreAnsweredAllOfThem) {
  ASSERT_TRUE(t.up());
  Bytes two = message(Type::kLatency, 10, {{Id::kUuid, Bytes{0, 0, 0, 0, 0x98, 1, 0, 0}}});
  append(two, message(Type::kLatency, 0, {}));
  ASSERT_TRUE(t.say(two));
  auto m = heard();
  EXPECT_EQ(m.type, Type::kResult);
  EXPECT_EQ(m.u32(Id::kReplyFor), 10U);
  EXPECT_EQ(to_hex(m.headers.at(Id::kUuid)), "0000000098010000");
  EXPECT_EQ(heard().u32(Id::kReplyFor), 0U);
  EXPECT_TRUE(t.pass(179'999));
  EXPECT_EQ(code_of(t.pass(1)), "edge.silent");
}

TEST_F(EdgeChannel, ADialCarriesWhatTheHostMayKnow) {
  ASSERT_TRUE(t.up());
  bind(7);
  connect(3);
  const auto dial = heard();
  EXPECT_EQ(dial.type, Type::kDial);
  EXPECT_EQ(dial.u32(Id::kConn), 7U);
  EXPECT_EQ(dial.u32(Id::kRouterConn), 0x8000'0000U);
  EXPECT_EQ(dial.said(), "bind-token") << "byte by byte the bind's";
  EXPECT_EQ(dial.text(Id::kCallerId), "alice");
  EXPECT_EQ(dial.text(Id::kMarker), "QUJDREVG");
  EXPECT_EQ(dial.text(Id::kCircuit), "3kVd8Tq0p");
  EXPECT_EQ(dial.text(Id::kDialerId), "id.dialer1");
  EXPECT_EQ(dial.headers.at(Id::kPublicKey), Bytes(32, 7));
  EXPECT_FALSE(dial.has(Id{1009})) << "the method is of this hop";
  EXPECT_EQ(t.connects.at(0).token, "dial-token");
  // The host's first data comes in the same piece as its answer.
  Bytes both = message(Type::kDialSuccess, 9,
                       {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial.sequence))}},
                       le32(0x8000'0000));
  append(both, data(0x8000'0000, as_bytes("first"), 4));
  ASSERT_TRUE(t.say(both));
  const auto answer = heard();
  EXPECT_EQ(answer.type, Type::kStateConnected);
  EXPECT_EQ(answer.u32(Id::kConn), 3U);
  EXPECT_EQ(answer.u32(Id::kReplyFor), 5U);
  EXPECT_EQ(answer.headers.at(Id::kPublicKey), Bytes(32, 9)) << "the bind's, the answer had none";
  const auto first = heard();
  EXPECT_EQ(first.type, Type::kData);
  EXPECT_EQ(first.u32(Id::kConn), 3U);
  EXPECT_EQ(first.said(), "first");
}

TEST_F(EdgeChannel, AnOldHostNamesTheConnItself) {
  ASSERT_TRUE(t.up());
  bind(0, false);
  connect(3);
  const auto dial = heard();
  EXPECT_FALSE(dial.has(Id::kRouterConn));
  Bytes both = message(Type::kDialSuccess, 77,
                       {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial.sequence))},
                        {Id::kPublicKey, Bytes(32, 5)}},
                       le32(1));
  append(both, data(1, as_bytes("x")));
  ASSERT_TRUE(t.say(both));
  const auto to_host = heard();
  EXPECT_EQ(to_host.type, Type::kStateConnected);
  EXPECT_EQ(to_host.u32(Id::kReplyFor), 77U);
  EXPECT_EQ(to_host.u32(Id::kConn), 0U) << "the bind's";
  EXPECT_EQ(heard().headers.at(Id::kPublicKey), Bytes(32, 5)) << "the answer's key wins";
  EXPECT_EQ(heard().said(), "x");
  // An id that is in use.
  connect(4);
  const auto again = heard();
  ASSERT_TRUE(
      t.say(message(Type::kDialSuccess, 78,
                    {{Id::kReplyFor, le32(static_cast<std::uint32_t>(again.sequence))}}, le32(3))));
  EXPECT_EQ(heard().said(), "exceeded retries (the host's conn id is in use)");
}

TEST_F(EdgeChannel, AHostRefusesOrAnswersTooLate) {
  ASSERT_TRUE(t.up());
  bind(7);
  connect(3);
  auto dial = heard();
  ASSERT_TRUE(t.say(message(
      Type::kDialFailed, 9,
      {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial.sequence))}, {Id::kConn, le32(0)}},
      "rejected\nby \"application\"")));
  auto m = heard();
  EXPECT_EQ(m.type, Type::kStateClosed);
  EXPECT_EQ(m.u32(Id::kReplyFor), 5U);
  EXPECT_EQ(m.u32(Id::kErrorCode), 1U);
  EXPECT_EQ(m.said(), "exceeded retries (rejected.by \"application\")");
  EXPECT_NE(m.text(Id::kStructuredError).find(R"(by \"application\")"), std::string::npos);
  connect(4);
  dial = heard();
  t.channel->close(*t.conns.back(), "given up");
  ASSERT_TRUE(t.say(message(Type::kDialSuccess, 10,
                            {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial.sequence))}},
                            le32(dial.u32(Id::kRouterConn)))));
  m = heard();
  EXPECT_EQ(m.type, Type::kStateClosed) << "the host would think that it is open";
  EXPECT_EQ(m.u32(Id::kConn), dial.u32(Id::kRouterConn));
}

TEST_F(EdgeChannel, FlagsEdgesAndIdsOfMessagesArePassedOn) {
  ASSERT_TRUE(t.up());
  bind(7);
  const std::uint32_t host = open(3);
  const Bytes uuid(16, 3);
  for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{2'048},
                              std::size_t{2'049}, std::size_t{100'000}, kMaxBody}) {
    const Bytes body(n, static_cast<std::uint8_t>(n));
    ASSERT_TRUE(t.say(data(3, body, 6, uuid)));
    const auto m = heard();
    EXPECT_EQ(m.u32(Id::kConn), host);
    EXPECT_EQ(m.u32(Id::kFlags), 6U);
    EXPECT_EQ(m.headers.at(Id::kUuid), uuid);
    EXPECT_FALSE(m.has(Id::kListenerId)) << "nothing else";
    EXPECT_TRUE(m.body == body) << n;
  }
  ASSERT_TRUE(t.say(data(host, as_bytes("back"))));
  const auto m = heard();
  EXPECT_EQ(m.u32(Id::kConn), 3U);
  EXPECT_FALSE(m.has(Id::kFlags));
  EXPECT_EQ(m.said(), "back");
}

TEST_F(EdgeChannel, HalfCloseLeavesTheOtherDirectionAndCloseWaitsForTheData) {
  ASSERT_TRUE(t.up());
  bind(7);
  const std::uint32_t host = open(3);
  ASSERT_TRUE(t.say(data(3, as_bytes("last"), 1)));
  auto m = heard();
  EXPECT_EQ(m.u32(Id::kFlags), 1U);
  EXPECT_EQ(m.said(), "last");
  ASSERT_TRUE(t.say(data(3, as_bytes("after the end"))));
  EXPECT_TRUE(t.ear.messages.empty()) << "some SDKs break on data after it";
  ASSERT_TRUE(t.say(data(host, as_bytes("still open"))));
  EXPECT_EQ(heard().said(), "still open");
  // Close behind data, in one piece.
  Bytes both = data(host, Bytes(50'000, 1));
  append(both, message(Type::kStateClosed, 20, {{Id::kConn, le32(host)}}));
  ASSERT_TRUE(t.say(both));
  EXPECT_EQ(heard().body.size(), 50'000U);
  m = heard();
  EXPECT_EQ(m.type, Type::kStateClosed);
  EXPECT_EQ(m.u32(Id::kConn), 3U);
  EXPECT_EQ(m.said(), "close called");
  EXPECT_EQ(t.channel->conns(), 0U);
  ASSERT_TRUE(t.say(data(3, as_bytes("late"))));
  ASSERT_TRUE(t.say(message(Type::kStateClosed, 21, {{Id::kConn, le32(3)}})));
  EXPECT_TRUE(t.ear.messages.empty());
}

TEST_F(EdgeChannel, ADialThatWaitsCanBeGivenUpByItsSdk) {
  ASSERT_TRUE(t.up());
  t.hold_connects = true;
  connect(3);
  ASSERT_TRUE(t.say(data(3, as_bytes("too early"))));
  EXPECT_TRUE(t.conns.front()->stream.empty());
  ASSERT_TRUE(t.say(message(Type::kStateClosed, 6, {{Id::kConn, le32(3)}})));
  EXPECT_EQ(t.conns.front()->closed, true);
  EXPECT_EQ(t.channel->conns(), 0U);
  connect(3);  // the id is free again
  connect(3);
  EXPECT_EQ(heard().said(), "in use");
  ASSERT_TRUE(t.say(message(Type::kConnect, 9, {}, "token")));
  const auto m = heard();
  EXPECT_EQ(m.u32(Id::kConn), 0U);
  EXPECT_EQ(m.said(), "connId not set, required");
}

TEST_F(EdgeChannel, ARefusedDialSaysWhyInEveryForm) {
  ASSERT_TRUE(t.up());
  t.refuse_with =
      Failure{.code = Code::kInvalidSession, .hint = Hint::kStartOver, .text = "Invalid Session"};
  connect(3);
  const auto m = heard();
  EXPECT_EQ(m.said(), "Invalid Session");
  EXPECT_EQ(m.u32(Id::kErrorCode), 3U);
  EXPECT_EQ(m.text(Id::kStructuredError),
            R"({"message":"Invalid Session","code":3,"retryHint":2})");
}

TEST_F(EdgeChannel, ARefusedBindWaitsAndAFloodOfThemEndsTheChannel) {
  ASSERT_TRUE(t.up());
  t.refuse_with =
      Failure{.code = Code::kAccessDenied, .hint = Hint::kStartOver, .text = "no access"};
  const Bytes ask = message(Type::kBind, 4, {{Id::kConn, le32(7)}}, "t");
  ASSERT_TRUE(t.say(ask));
  ASSERT_TRUE(t.pass(1'999));
  EXPECT_TRUE(t.ear.messages.empty());
  ASSERT_TRUE(t.pass(1));
  const auto m = heard();
  EXPECT_EQ(m.type, Type::kStateClosed);
  EXPECT_EQ(m.u32(Id::kErrorCode), 14U);
  Status s;
  int asked = 0;
  for (; s && asked < 5'000; ++asked) s = t.say(ask);
  EXPECT_EQ(code_of(s), "edge.too_fast");
  EXPECT_EQ(asked, 1'025);
}

TEST_F(EdgeChannel, BindsUpdatesHealthAndUnbind) {
  ASSERT_TRUE(t.up());
  ASSERT_TRUE(t.say(message(Type::kBind, 5,
                            {{Id::kConn, le32(7)},
                             {Id::kCost, le16(10)},
                             {Id::kPrecedence, {1}},
                             {Id::kListenerId, to_bytes("listener")},
                             {Id::kInstance, to_bytes("inst")},
                             {Id::kRouterConn, {1}},
                             {Id::kBindSuccess, {1}}},
                            "bind")));
  EXPECT_EQ(heard().type, Type::kStateConnected);
  EXPECT_EQ(heard().type, Type::kBindSuccess);
  const Bind& b = t.binds.at(0);
  EXPECT_EQ(b.cost, 10);
  EXPECT_EQ(b.precedence, 1);
  EXPECT_EQ(b.listener, "listener");
  EXPECT_EQ(b.instance, "inst");
  ASSERT_TRUE(t.say(message(Type::kUpdateBind, 6, {{Id::kConn, le32(7)}, {Id::kCost, le16(9)}})));
  ASSERT_TRUE(t.say(message(Type::kHealth, 6, {{Id::kConn, le32(7)}, {Id::kHealth, {0}}})));
  ASSERT_TRUE(t.say(message(Type::kHealth, 6, {{Id::kConn, le32(8)}, {Id::kHealth, {1}}})));
  ASSERT_EQ(t.updates.size(), 1U);
  EXPECT_EQ(t.updates[0].first, 9);
  EXPECT_FALSE(t.updates[0].second);
  EXPECT_EQ(t.health, std::vector<bool>{false}) << "of binds that are there";
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(t.say(message(Type::kUnbind, 8, {{Id::kConn, le32(7)}}, "bind")));
    const auto m = heard();
    EXPECT_EQ(m.type, Type::kStateClosed);
    EXPECT_EQ(m.u32(Id::kReplyFor), 8U);
    EXPECT_EQ(m.said(), "unbound");
  }
  EXPECT_EQ(t.unbound, std::vector<std::uint32_t>{7});
  connect(3);
  EXPECT_EQ(heard().said(), "nobody hosts it");
  ASSERT_TRUE(t.say(message(Type::kStateClosed, 9, {{Id::kConn, le32(7)}})));
  EXPECT_TRUE(t.ear.messages.empty());
}

TEST_F(EdgeChannel, AKeyIsShort) {
  ASSERT_TRUE(t.up());
  const test::Fields key{{Id::kConn, le32(7)}, {Id::kPublicKey, Bytes(129)}};
  ASSERT_TRUE(t.say(message(Type::kConnect, 4, key, "t")));
  EXPECT_EQ(heard().said(), "public key is too long");
  ASSERT_TRUE(t.say(message(Type::kBind, 4, key, "t")));
  ASSERT_TRUE(t.pass(2'000));
  EXPECT_EQ(heard().said(), "public key is too long");
  EXPECT_TRUE(t.binds.empty());
  EXPECT_TRUE(t.connects.empty());
}

TEST_F(EdgeChannel, ATokenIsRenewedOrTheChannelEnds) {
  ASSERT_TRUE(t.up());
  ASSERT_TRUE(t.say(message(Type::kUpdateToken, 11, {}, "fresh")));
  auto m = heard();
  EXPECT_EQ(m.type, Type::kUpdateTokenSuccess);
  EXPECT_EQ(m.u32(Id::kReplyFor), 11U);
  EXPECT_EQ(t.token, "fresh");
  t.refuse_with = Failure{};
  ASSERT_TRUE(t.say(message(Type::kBindSuccess, 12, {}, "bad")));  // what old SDKs call it
  m = heard();
  EXPECT_EQ(m.type, Type::kUpdateTokenFailure);
  EXPECT_EQ(m.u32(Id::kErrorCode), 2U);
  EXPECT_EQ(code_of(t.pass(0)), "edge.refused");
}

TEST_F(EdgeChannel, OneConnHoldsUpTheOthersForHalfAMinuteAtMost) {
  ASSERT_TRUE(t.up());
  bind(7);
  open(3);
  test::TestConn& conn = *t.conns.front();
  t.channel->block(conn, true, t.now_ms);
  EXPECT_FALSE(t.channel->wants_read());
  EXPECT_EQ(t.channel->deadline_ms(), t.now_ms + 30'000);
  EXPECT_TRUE(t.pass(29'999));
  EXPECT_FALSE(conn.stalled);
  EXPECT_TRUE(t.pass(1));
  EXPECT_TRUE(conn.stalled);
  EXPECT_TRUE(t.channel->wants_read());
  t.channel->block(conn, true, t.now_ms);
  t.channel->close(conn, "too much of it waits");
  EXPECT_TRUE(t.channel->wants_read()) << "one that is gone holds up nobody";
}

// One conn after the other could hold it up for ever.
TEST_F(EdgeChannel, HowLongItIsHeldUpIsCountedForAllConnsTogether) {
  ASSERT_TRUE(t.up());
  bind(7);
  open(3);
  open(4);
  test::TestConn& one = *t.conns.front();
  test::TestConn& other = **std::next(t.conns.begin(), 2);
  t.channel->block(one, true, t.now_ms);
  EXPECT_TRUE(t.pass(20'000));
  t.channel->block(one, false, t.now_ms);
  t.channel->block(other, true, t.now_ms);
  EXPECT_EQ(t.channel->deadline_ms(), t.now_ms + 10'000);
  EXPECT_TRUE(t.pass(10'000));
  EXPECT_TRUE(other.stalled);
  EXPECT_FALSE(one.stalled);
  // What was spent comes back while it is read.
  EXPECT_TRUE(t.pass(5'000));
  t.channel->block(one, true, t.now_ms);
  EXPECT_EQ(t.channel->deadline_ms(), t.now_ms + 5'000);
  t.channel->block(one, false, t.now_ms);
  EXPECT_TRUE(t.pass(60'000));
  t.channel->block(one, true, t.now_ms);
  EXPECT_EQ(t.channel->deadline_ms(), t.now_ms + 30'000);
}

// Its sender was told that it was passed on: without this it would cost nothing to begin many.
TEST_F(EdgeChannel, AMessageWithoutAnEndIsNotKept) {
  ASSERT_TRUE(t.up());
  bind(7);
  const auto begin = [](test::TestConn& conn, std::size_t bytes) {
    std::uint8_t head[kMaxRecordHead];
    Bytes part(head, head + encode({.length = 1'000'000, .flags = 0, .uuid = std::nullopt}, head));
    part.resize(part.size() + bytes);
    conn.send(part);
  };
  open(3);
  test::TestConn& slow = *t.conns.front();
  begin(slow, 10'000);
  t.hear();
  EXPECT_TRUE(t.pass(29'999));
  slow.send(Bytes(10));
  t.hear();
  EXPECT_TRUE(t.pass(29'999));
  EXPECT_FALSE(slow.stalled) << "it comes, slowly";
  EXPECT_TRUE(t.pass(1));
  EXPECT_TRUE(slow.stalled);
}

TEST_F(EdgeChannel, OfManyMessagesWithoutAnEndTheLargestGoes) {
  test::TestChannel small({.router_id = "r-1",
                           .connection_id = "c0ffee",
                           .software = "v1|0|2026-01-01|linux|amd64",
                           .most_unfinished = 50'000});
  ASSERT_TRUE(small.up());
  std::vector<test::TestConn*> conns;
  std::uint8_t head[kMaxRecordHead];
  const std::size_t n = encode({.length = 1'000'000, .flags = 0, .uuid = std::nullopt}, head);
  const std::size_t bytes[] = {20'000, 29'000, 10'000};
  for (std::uint32_t i = 0; i < 3; ++i) {
    conns.push_back(&small.conn());
    ASSERT_TRUE(small.channel->attach(*conns.back(), i + 1));
    small.channel->connected(*conns.back(), 1, "c", {});
    conns.back()->send(ByteView(head, n));
    for (std::size_t sent = 0; sent < bytes[i]; sent += 1'000) conns.back()->send(Bytes(1'000));
    small.hear();
  }
  EXPECT_FALSE(conns[0]->stalled);
  EXPECT_TRUE(conns[1]->stalled);
  EXPECT_FALSE(conns[2]->stalled);
}

TEST_F(EdgeChannel, AMessageThatIsNotWholeHoldsUpNobodyAndACutOneIsNoMessage) {
  ASSERT_TRUE(t.up());
  bind(7);
  open(3);
  open(4);
  test::TestConn& slow = *t.conns.front();
  test::TestConn& fast = **std::next(t.conns.begin(), 2);
  std::uint8_t head[kMaxRecordHead];
  Bytes record(head, head + encode({.length = 30'000, .flags = 0, .uuid = std::nullopt}, head));
  record.resize(record.size() + 30'000);
  slow.send(ByteView(record).first(10'000));
  fast.send_close("bye");
  t.hear();
  EXPECT_EQ(heard().u32(Id::kConn), 4U);
  EXPECT_TRUE(t.ear.messages.empty());
  EXPECT_EQ(slow.held_chunks(), 1U);
  slow.send(ByteView(record).subspan(10'000, 10'000));
  slow.send(ByteView(record).subspan(20'000));
  t.hear();
  EXPECT_EQ(heard().body.size(), 30'000U);
  // The other way: one whose channel ends in the middle.
  const Bytes big = data(3, Bytes(200'000, 1));
  ASSERT_TRUE(t.say(ByteView(big).first(150'000)));
  EXPECT_TRUE(t.ear.messages.empty());
  t.channel->end(false);
  EXPECT_EQ(slow.closed, false) << "cut off";
  EXPECT_EQ((*std::next(t.conns.begin()))->closed, true);
  EXPECT_EQ(t.channel->conns(), 0U);
}

TEST_F(EdgeChannel, WhoDoesNotReadHisAnswersIsNotReadFrom) {
  ASSERT_TRUE(t.up());
  const Bytes probe = message(Type::kLatency, 1, {{Id::kUuid, Bytes(8)}});
  int asked = 0;
  while (t.channel->wants_read() && asked < 100'000) {
    ASSERT_TRUE(t.channel->feed(probe, t.now_ms));
    ++asked;
  }
  EXPECT_LT(asked, 6'000);
  t.hear();
  EXPECT_TRUE(t.channel->wants_read());
}

TEST_F(EdgeChannel, UnknownMessagesAreIgnored) {
  ASSERT_TRUE(t.up());
  for (const int type : {1, 4, 5, 1100, 60792, 60804, 10800, 70000})
    ASSERT_TRUE(t.say(message(static_cast<Type>(type), 3, {{Id::kConn, le32(1)}}, "body")));
  EXPECT_TRUE(t.ear.messages.empty());
  ASSERT_TRUE(t.say(message(Type::kLatency, 1, {})));
  EXPECT_EQ(heard().type, Type::kResult);
}

TEST_F(EdgeChannel, WithoutAConnIdNoConnIsMeant) {
  ASSERT_TRUE(t.up());
  bind(0);
  open(1);
  t.hold_connects = true;
  connect(0);
  for (const Type type : {Type::kData, Type::kStateClosed, Type::kUnbind, Type::kHealth,
                          Type::kUpdateBind, Type::kBind})
    ASSERT_TRUE(t.say(message(type, 3, {}, "x")));
  EXPECT_TRUE(t.ear.messages.empty());
  EXPECT_EQ(t.channel->conns(), 3U);
  EXPECT_EQ(t.channel->binds(), 1U);
  EXPECT_TRUE(t.health.empty());
}

// The hello's headers, however many, large, doubled or unknown, decide nothing but which token is
// looked at.
TEST_F(EdgeChannel, GHSAcc5m7mhmxh9fHelloHeadersOfEveryKind) {
  const Bytes token = to_bytes("token");
  for (int id = 0; id < 1'100; ++id) {
    if (static_cast<Id>(id) == Id::kSessionToken) continue;
    test::TestChannel c;
    ASSERT_TRUE(c.say(message(Type::kHello, 1,
                              {{static_cast<Id>(id), Bytes(static_cast<std::size_t>(id % 40), 1)},
                               {Id::kSessionToken, token}})));
    EXPECT_EQ(c.token, "token");
  }
  test::TestChannel twice;
  EXPECT_EQ(code_of(twice.say(message(Type::kHello, 1,
                                      {{Id::kSessionToken, token}, {Id::kSessionToken, token}}))),
            "edge.headers");
  test::TestChannel large;
  EXPECT_EQ(code_of(large.say(message(Type::kHello, 1, {{Id::kSessionToken, Bytes(16'384)}}))),
            "edge.too_large");
  test::TestChannel none;
  ASSERT_TRUE(none.say(message(Type::kHello, 1, {})));
  EXPECT_EQ(none.token, "");
}

}  // namespace
}  // namespace sally::edge
