// SPDX-License-Identifier: Apache-2.0
// Ziti SDKs at a real router: dial, host, data, and what they may not. With one worker, and with
// the ends on two.
#include "foreign_world.h"

namespace sally::sim {
namespace {

INSTANTIATE_TEST_SUITE_P(Workers, ForeignTest, ::testing::Values(1U, 2U));

TEST_P(ForeignTest, OneDialsAndTheOtherHosts) {
  bring_up("s-2", Bytes(32, 9));
  const std::uint32_t at_host =
      open(3, "s-2", {{Id::kCallerId, to_bytes("caller")}, {Id::kAppData, to_bytes("{}")}});
  EXPECT_EQ(last_dial.text(Id::kDialerId), "pump") << "who it is, is our word";
  EXPECT_EQ(last_dial.text(Id::kDialerName), "name-of-pump");
  EXPECT_EQ(last_dial.text(Id::kCallerId), "caller");
  EXPECT_EQ(last_dial.headers.at(Id::kPublicKey), Bytes(32, 9));
  EXPECT_EQ(last_answer.headers.at(Id::kPublicKey), Bytes(32, 9));
  EXPECT_EQ(world.router->circuits(), 1U);
  pump->data(3, as_bytes("hello"), {{Id::kFlags, le32(4)}, {Id::kUuid, Bytes(16, 1)}});
  auto m = host->heard();
  ASSERT_TRUE(m);
  EXPECT_EQ(m->u32(Id::kConn), at_host);
  EXPECT_EQ(m->u32(Id::kFlags), 4U);
  EXPECT_EQ(m->headers.at(Id::kUuid), Bytes(16, 1));
  EXPECT_EQ(m->said(), "hello");
  host->data(at_host, as_bytes("ok"));
  EXPECT_EQ(body_at(*pump), "ok");
  // Half close each way, then close.
  pump->data(3, {}, {{Id::kFlags, le32(1)}});
  m = host->heard();
  EXPECT_TRUE(m && m->u32(Id::kFlags) == 1U);
  host->data(at_host, as_bytes("still"));
  EXPECT_EQ(body_at(*pump), "still");
  host->data(at_host, as_bytes("last"), {{Id::kFlags, le32(1)}});
  EXPECT_EQ(body_at(*pump), "last");
  pump->close(3);
  m = host->heard();
  EXPECT_TRUE(m && m->type == Type::kStateClosed && m->u32(Id::kConn) == at_host);
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
}

TEST_P(ForeignTest, MessagesFromNothingTo15MiBArriveWholeAndInOrder) {
  bring_up();
  const std::uint32_t at_host = open(3);
  std::vector<std::size_t> sizes{0, 1, 100, 4'095, 4'096, 16'384, 65'537, 15 << 20U, 7};
  for (const std::size_t n : sizes) pump->data(3, Bytes(n, static_cast<std::uint8_t>(n % 253)));
  for (const std::size_t n : sizes) {
    const auto m = host->heard(20'000);
    ASSERT_TRUE(m && m->type == Type::kData) << n;
    EXPECT_TRUE(m->body == Bytes(n, static_cast<std::uint8_t>(n % 253))) << n;
  }
  for (int i = 0; i < 2'000; ++i) host->data(at_host, as_bytes(std::to_string(i)));
  for (int i = 0; i < 2'000; ++i) ASSERT_EQ(body_at(*pump), std::to_string(i));
}

TEST_P(ForeignTest, WhatWasSentBeforeACloseArrivesBeforeIt) {
  bring_up();
  std::uint32_t at_host = open(3);
  for (int i = 0; i < 64; ++i) pump->data(3, Bytes(32'768, 1));
  pump->close(3);
  for (int i = 0; i < 64; ++i) ASSERT_EQ(body_at(*host).size(), 32'768U);
  EXPECT_EQ(host->heard()->type, Type::kStateClosed);
  // The same where the connection ends, here of the host.
  at_host = open(4);
  for (int i = 0; i < 8; ++i) host->data(at_host, Bytes(1'000, 2));
  world.until([&] { return host->unsaid() == 0; });
  host->stream->close();
  for (int i = 0; i < 8; ++i) ASSERT_EQ(body_at(*pump).size(), 1'000U);
  EXPECT_EQ(pump->heard()->type, Type::kStateClosed);
  // "has no online terminators" where the other worker is about to hear of it.
  const auto m = pump->refused(5, pump->token(SessionUse::kDial, "s-1"));
  EXPECT_TRUE(m && m->said().ends_with("terminators")) << (m ? m->said() : "no answer");
}

TEST_P(ForeignTest, WhereBothEndsGoAtOnceNothingStays) {
  bring_up();
  for (std::uint32_t conn = 1; conn <= 20; ++conn) {
    const std::uint32_t at_host = open(conn);
    pump->data(conn, Bytes(1'000));
    host->data(at_host, Bytes(1'000));
    pump->close(conn);
    host->close(at_host);
  }
  EXPECT_TRUE(world.until(
      [&] { return world.router->circuits() == 0 && world.router->hosted() == 0; }, 5'000))
      << world.router->circuits();
  open(30);
  open(31);
  host->stream->close();
  pump->stream->close();
  EXPECT_TRUE(world.until(
      [&] { return world.router->circuits() == 0 && world.router->hosted() == 0; }, 5'000))
      << world.router->circuits();
}

TEST_P(ForeignTest, AnOldHostNamesItsConns) {
  host = up(world, "host");
  pump = up(world, "pump");
  host->ids = false;
  ASSERT_EQ(host->bind(0, host->token(SessionUse::kBind, "s-1")), "");
  pump->connect(0, pump->token(SessionUse::kDial, "s-1"));
  const auto dial = host->heard();
  ASSERT_TRUE(dial);
  EXPECT_FALSE(dial->has(Id::kRouterConn));
  Bytes both =
      message(Type::kDialSuccess, 5,
              {{Id::kReplyFor, le32(static_cast<std::uint32_t>(dial->sequence))}}, le32(1));
  append(both, message(Type::kData, 6, {{Id::kConn, le32(1)}}, "at once"));
  host->say(both);
  EXPECT_EQ(host->heard()->type, Type::kStateConnected);
  EXPECT_EQ(pump->heard()->type, Type::kStateConnected);
  EXPECT_EQ(body_at(*pump), "at once");
}

TEST_P(ForeignTest, DialsThatFailSayWhy) {
  bring_up();
  const auto why = [&](const std::string& token, const Fields& more = {}) {
    const auto m = pump->refused(9, token, more);
    return m ? std::to_string(m->u32(Id::kErrorCode)) + " " + m->said() : "no refusal";
  };
  const auto dial = [&](const std::string& s) { return pump->token(SessionUse::kDial, s); };
  EXPECT_EQ(why(dial("s-9")), "6 invalid service");
  EXPECT_EQ(why(dial("s-3")), "14 the service is end to end TLS between Sallyport's own clients");
  EXPECT_EQ(why(dial("s-2")),
            "11 encryption required on service, initiator did not send public header");
  pump->key = Bytes(32, 1);
  EXPECT_EQ(why(dial("s-2")), "1 service s-2 has no terminators");
  EXPECT_EQ(why(dial("s-1"), {{Id::kInstance, to_bytes("nobody")}}),
            "1 service s-1 has no online terminators for the instanceId that was asked for");
  // A host of a sealed service that shows no key.
  ASSERT_EQ(host->bind(8, host->token(SessionUse::kBind, "s-2")), "");
  pump->connect(4, dial("s-2"));
  auto asked = host->heard();
  ASSERT_TRUE(asked);
  host->say(message(Type::kDialSuccess, 5,
                    {{Id::kReplyFor, le32(static_cast<std::uint32_t>(asked->sequence))}},
                    le32(asked->u32(Id::kRouterConn))));
  EXPECT_EQ(pump->heard()->u32(Id::kErrorCode), 11U);
  EXPECT_EQ(host->heard()->type, Type::kStateClosed);
  // One that says no.
  pump->connect(5, dial("s-1"));
  asked = host->heard();
  ASSERT_TRUE(asked);
  host->say(message(Type::kDialFailed, 5,
                    {{Id::kReplyFor, le32(static_cast<std::uint32_t>(asked->sequence))}}, "busy"));
  const auto m = pump->heard();
  EXPECT_TRUE(m && m->said().ends_with("(busy)"));
  // One that says nothing.
  pump->connect(6, dial("s-1"));
  EXPECT_TRUE(host->heard());
  EXPECT_TRUE(pump->heard()->said().starts_with("timeout creating routes"));
  // Who gives up is forgotten.
  pump->connect(7, dial("s-1"));
  asked = host->heard();
  pump->close(7);
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  host->say(message(Type::kDialSuccess, 5,
                    {{Id::kReplyFor, le32(static_cast<std::uint32_t>(asked->sequence))}},
                    le32(asked->u32(Id::kRouterConn))));
  EXPECT_EQ(host->heard()->type, Type::kStateClosed);
  // An id twice.
  open(10);
  EXPECT_EQ(pump->refused(10, dial("s-1"))->said(), "connection id already in use");
}

// Tokens of another identity, session, network or use, altered, expired, of an old credential
// epoch: in a hello, a dial and a bind. None leaves anything behind.
TEST_P(ForeignTest, GHSA7868235p7497TokensThatAreNotItsOwn) {
  bring_up();
  struct Row {
    const char* name;
    std::function<void(wire::SessionToken&)> change;
  };
  const std::vector<Row> rows{
      {"identity", [](auto& t) { t.identity = "pump2"; }},
      {"network", [](auto& t) { t.network = "net-b.sally"; }},
      {"expired", [](auto& t) { t.not_after_ms = now_ms() - 1; }},
      {"from the future", [](auto& t) { t.issued_ms = now_ms() + 120'000; }},
      {"use", [](auto& t) {
         t.use = t.use == SessionUse::kApi ? SessionUse::kDial : SessionUse::kApi;
         t.service = t.use == SessionUse::kApi ? "" : "s-1";
       }}};
  const auto forged = [&](const ForeignSdk& sdk, SessionUse use, const std::string& service) {
    std::vector<std::pair<std::string, std::string>> out{
        {"none", ""}, {"garbage", "sy1.AAAA"}, {"jwt", "eyJhbGciOiJub25lIn0.e30."}};
    for (const auto& row : rows) out.emplace_back(row.name, sdk.token(use, service, row.change));
    std::string altered = sdk.token(use, service);
    altered[altered.size() / 2] = altered[altered.size() / 2] == 'A' ? 'B' : 'A';
    out.emplace_back("altered", altered);
    // Signed by somebody who is not the network's signer.
    const auto other = world.pki.leaf(crypto::Role::kDevice, sdk.id);
    wire::SessionToken t{.network = world.pki.network,
                         .identity = sdk.id,
                         .credential_epoch = 0,
                         .session = "session-of-" + sdk.id,
                         .use = use,
                         .service = service,
                         .issued_ms = now_ms(),
                         .not_after_ms = now_ms() + 1'000'000};
    out.emplace_back("signer", must(trust::make_session_token(t, *other.key)));
    return out;
  };
  for (const auto& [name, token] : forged(*pump, SessionUse::kDial, "s-1")) {
    const auto m = pump->refused(3, token);
    ASSERT_TRUE(m) << name;
    EXPECT_EQ(m->u32(Id::kErrorCode), 3U) << name;
    EXPECT_EQ(m->said(), "Invalid Session") << name;
  }
  auto m = pump->refused(
      3, pump->token(SessionUse::kDial, "s-1", [](auto& t) { t.session = "another"; }));
  EXPECT_TRUE(m && m->u32(Id::kErrorCode) == 3U) << "of another session of the same identity";
  m = pump->refused(3, pump->token(SessionUse::kBind, "s-1"));
  EXPECT_TRUE(m && m->u32(Id::kErrorCode) == 4U);
  EXPECT_EQ(world.router->circuits(), 0U);
  EXPECT_TRUE(world.controller.heard("router.dial_denied") ||
              world.until([&] { return world.controller.heard("router.dial_denied"); }));
  // Hosts: all asked at once, since each answer waits.
  std::size_t asked = 0;
  for (const auto& [name, token] : forged(*host, SessionUse::kBind, "s-1")) {
    host->say(message(Type::kBind, 30, {{Id::kConn, le32(40)}}, token));
    ++asked;
  }
  host->say(message(Type::kBind, 30, {{Id::kConn, le32(40)}},
                    host->token(SessionUse::kBind, "s-1", [](auto& t) { t.session = "another"; })));
  const std::int64_t began = now_ms();
  for (++asked; asked > 0; --asked) {
    const auto no = host->heard();
    ASSERT_TRUE(no);
    EXPECT_EQ(no->type, Type::kStateClosed);
    EXPECT_EQ(no->u32(Id::kErrorCode), 3U);
  }
  EXPECT_GE(now_ms() - began, 1'900);
  EXPECT_EQ(world.controller.terminators.size(), 1U);
  // Hellos, beside each other.
  std::vector<std::pair<std::string, std::unique_ptr<ForeignSdk>>> strangers;
  for (const auto& [name, token] : forged(*pump, SessionUse::kApi, "")) {
    strangers.emplace_back(name, std::make_unique<ForeignSdk>(world, "pump"));
    strangers.back().second->say(message(Type::kHello, 1, {{Id::kSessionToken, to_bytes(token)}}));
  }
  // A good token, of another identity than the leaf.
  strangers.emplace_back("leaf", std::make_unique<ForeignSdk>(world, "mallory"));
  strangers.back().second->say(
      message(Type::kHello, 1, {{Id::kSessionToken, to_bytes(pump->token(SessionUse::kApi))}}));
  for (auto& [name, sdk] : strangers) {
    const auto no = sdk->heard();
    ASSERT_TRUE(no) << name;
    EXPECT_EQ(no->headers.at(Id::kResult), Bytes{0}) << name;
    EXPECT_EQ(no->said(), "not permitted") << name << ": they look alike";
    EXPECT_TRUE(world.until([&, &s = sdk] { return s->down.has_value(); })) << name;
  }
  EXPECT_TRUE(world.until([&] { return world.controller.heard("router.foreign_denied"); }));
}

TEST_P(ForeignTest, WhoIsNotGrantedNeitherDialsNorHosts) {
  bring_up();
  auto guest = up(world, "guest");
  const auto m = guest->refused(1, guest->token(SessionUse::kDial, "s-1"));
  EXPECT_TRUE(m && m->u32(Id::kErrorCode) == 14U);
  EXPECT_EQ(guest->bind(2, guest->token(SessionUse::kBind, "s-1")),
            "no bind access to the service");
  EXPECT_EQ(host->bind(8, host->token(SessionUse::kBind, "s-3")),
            "the service is end to end TLS between Sallyport's own clients");
}

TEST_P(ForeignTest, OurOwnEndsAndForeignOnesDoNotMeetYet) {
  bring_up();
  auto own = world.device("mallory");
  ASSERT_TRUE(world.until([&] { return own->engine->services().size() == 3; }));
  const auto r = world.dial(*own, "plain");
  ASSERT_TRUE(r);
  EXPECT_FALSE(r->has_value());
  EXPECT_TRUE(host->ear.messages.empty()) << "nobody was asked";
}

TEST_P(ForeignTest, AWithdrawnGrantCutsFlowsAndBindings) {
  bring_up();
  const std::uint32_t at_host = open(3);
  open(4);
  // The dial grant: both circuits end, the binding stays.
  world.controller.put_service("s-1", "plain", {"#nobody"}, {"#servers"}, wire::E2e::kNone);
  for (ForeignSdk* sdk : {pump.get(), host.get()}) {
    for (int i = 0; i < 2; ++i) {
      const auto m = sdk->heard(1'000);
      ASSERT_TRUE(m);
      EXPECT_EQ(m->type, Type::kStateClosed);
      EXPECT_EQ(m->said(), "dial access lost");
    }
  }
  EXPECT_NE(at_host, 0U);
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  EXPECT_EQ(pump->refused(5, pump->token(SessionUse::kDial, "s-1"))->u32(Id::kErrorCode), 14U);
  world.controller.put_service("s-1", "plain", {"#sensors"}, {"#servers"}, wire::E2e::kNone);
  world.until([&] { return world.controller.acked == world.controller.version(); });
  open(6);
  // The bind grant: the binding too.
  world.controller.put_service("s-1", "plain", {"#sensors"}, {"#nobody"}, wire::E2e::kNone);
  EXPECT_EQ(pump->heard(1'000)->type, Type::kStateClosed);
  std::vector<std::string> said;
  for (int i = 0; i < 2; ++i) {
    const auto m = host->heard(1'000);
    ASSERT_TRUE(m);
    said.push_back(m->said());
    if (m->said() == "bind access lost") {
      EXPECT_EQ(m->u32(Id::kConn), 7U);
      EXPECT_EQ(m->u32(Id::kErrorCode), 14U);
    }
  }
  EXPECT_TRUE(std::ranges::contains(said, "bind access lost"));
  EXPECT_TRUE(world.until([&] { return world.controller.terminators.empty(); }));
}

TEST_P(ForeignTest, AServiceThatBecomesOursIsClosedToForeignEnds) {
  bring_up();
  open(3);
  world.controller.put_service("s-1", "plain", {"#sensors"}, {"#servers"}, wire::E2e::kTls);
  EXPECT_EQ(pump->heard(1'000)->type, Type::kStateClosed);
  EXPECT_TRUE(world.until([&] { return world.controller.terminators.empty(); }));
}

// Revoked sessions kept dialing and hosting there until their token ended.
TEST_P(ForeignTest, Row3927ARevokedIdentityLosesFlowsAndBindingsAtOnce) {
  bring_up();
  open(3);
  pump->data(3, Bytes(100'000, 1));
  ASSERT_EQ(body_at(*host).size(), 100'000U);
  world.controller.revoke_device("pump");
  const auto m = host->heard(1'000);
  ASSERT_TRUE(m);
  EXPECT_EQ(m->type, Type::kStateClosed);
  EXPECT_TRUE(world.until([&] { return pump->down.has_value(); }, 1'000));
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }, 1'000));
  ForeignSdk again(world, "pump");
  EXPECT_FALSE(again.hello()) << "and does not come back";
  world.controller.revoke_device("host");
  EXPECT_TRUE(world.until([&] { return host->down.has_value(); }, 1'000));
  EXPECT_TRUE(world.until([&] { return world.controller.terminators.empty(); }));
}

// It had left, and what it sent was on its way still: nobody to close, and so it went on.
TEST_P(ForeignTest, WhoHasLeftIsRevokedAllTheSame) {
  bring_up();
  open(3);
  host->stream->want_read(false);
  // So much that some of it waits, and not so much that the channel is not read any more.
  const std::size_t most = std::size_t{1} << 20U;
  for (int i = 0; i < 1'000 && world.router->memory_used() < most; ++i) {
    pump->data(3, Bytes(32'768, 1));
    world.until([&] { return pump->unsaid() == 0; });
    world.until([&] { return world.router->memory_used() >= most; }, 2);
  }
  pump.reset();
  ASSERT_TRUE(world.until([&] { return world.router->lanes() == 1; }));
  EXPECT_EQ(world.router->circuits(), 1U);
  // Of no concern to it.
  world.controller.revoke_device("guest");
  world.until([&] { return world.controller.acked == world.controller.version(); });
  EXPECT_EQ(world.router->circuits(), 1U);
  world.controller.revoke_device("pump");
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }, 2'000));
  host->stream->want_read(true);
}

TEST_P(ForeignTest, AnOldCredentialEpochEndsTheConnectionAndOpensNone) {
  bring_up();
  open(3);
  const std::string old = pump->token(SessionUse::kApi);
  world.controller.enroll_again("pump", "00");
  EXPECT_EQ(host->heard(1'000)->type, Type::kStateClosed);
  EXPECT_TRUE(world.until([&] { return pump->down.has_value(); }, 1'000));
  ForeignSdk again(world, "pump");
  EXPECT_FALSE(again.hello(old));
  ForeignSdk fresh(world, "pump");
  EXPECT_TRUE(
      fresh.hello(fresh.token(SessionUse::kApi, "", [](auto& t) { t.credential_epoch = 1; })));
}

TEST_P(ForeignTest, AConnectionEndsWithItsSessionsToken) {
  pump = std::make_unique<ForeignSdk>(world, "pump");
  ASSERT_TRUE(pump->hello(
      pump->token(SessionUse::kApi, "", [](auto& t) { t.not_after_ms = now_ms() + 1'000; })));
  EXPECT_TRUE(world.until([&] { return pump->down.has_value(); }, 8'000))
      << "within the look of every 5 s";
  pump = std::make_unique<ForeignSdk>(world, "pump");
  ASSERT_TRUE(pump->hello(
      pump->token(SessionUse::kApi, "", [](auto& t) { t.not_after_ms = now_ms() + 2'000; })));
  pump->say(message(Type::kUpdateToken, 4, {}, pump->token(SessionUse::kApi)));
  EXPECT_EQ(pump->heard()->type, Type::kUpdateTokenSuccess);
  pump->say(message(Type::kUpdateToken, 5, {},
                    pump->token(SessionUse::kApi, "", [](auto& t) { t.session = "x"; })));
  EXPECT_EQ(pump->heard()->type, Type::kUpdateTokenFailure);
  EXPECT_TRUE(world.until([&] { return pump->down.has_value(); }));
}

TEST_P(ForeignTest, OnePortTellsProtocolsApartByTheFirstBytes) {
  ForeignSdk named(world, "pump", {"ziti-edge"});
  EXPECT_TRUE(named.hello());
  for (const char* text : {"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\x03\x06\x09\x0d", "\x16"}) {
    ForeignSdk other(world, "pump");
    other.say(as_bytes(text));
    EXPECT_TRUE(world.until([&] { return other.down.has_value(); }));
    EXPECT_TRUE(other.ear.messages.empty());
  }
  ForeignSdk wrong(world, "pump", {"h2"});
  EXPECT_TRUE(wrong.down) << "a name that is not ours";
}

TEST_P(ForeignTest, WithoutACardNobodyComesIn) {
  world.controller.silent = true;
  const std::int64_t began = now_ms();
  ForeignSdk sdk(world, "pump");
  sdk.say(message(Type::kHello, 1, {{Id::kSessionToken, to_bytes(sdk.token(SessionUse::kApi))}}));
  const auto m = sdk.heard();
  ASSERT_TRUE(m);
  EXPECT_GE(now_ms() - began, 4'900);
  EXPECT_EQ(m->said(), "try again later");
  EXPECT_EQ(m->u32(Id::kRejectClass), 1U);
  world.controller.silent = false;
}

TEST_P(ForeignTest, AListenerThatComesAgainTakesItsTerminatorOver) {
  bring_up();
  const Fields listener{{Id::kListenerId, to_bytes("b1f0c3d2")}, {Id::kBindSuccess, {1}}};
  ASSERT_EQ(host->bind(8, host->token(SessionUse::kBind, "s-1"), listener), "");
  EXPECT_EQ(host->heard()->type, Type::kBindSuccess);
  ASSERT_TRUE(world.until([&] { return world.controller.terminators.size() == 2; }));
  auto second = up(world, "host");
  ASSERT_EQ(second->bind(1, second->token(SessionUse::kBind, "s-1"), listener), "");
  EXPECT_EQ(second->heard()->type, Type::kBindSuccess);
  const auto m = host->heard();
  ASSERT_TRUE(m);
  EXPECT_EQ(m->u32(Id::kConn), 8U);
  EXPECT_EQ(m->said(), "found a newer terminator for listener id");
  EXPECT_EQ(world.controller.terminators.size(), 2U);
  host->say(message(Type::kUnbind, 9, {{Id::kConn, le32(7)}}, "token"));
  EXPECT_EQ(host->heard()->said(), "unbound");
  ASSERT_TRUE(world.until([&] { return world.controller.terminators.size() == 1; }));
  pump->connect(1, pump->token(SessionUse::kDial, "s-1"));
  EXPECT_EQ(second->heard()->type, Type::kDial);
  second->stream->close();
  ASSERT_TRUE(world.until([&] { return world.controller.terminators.empty(); }));
  EXPECT_EQ(pump->heard()->type, Type::kStateClosed);
}

TEST_P(ForeignTest, PrecedenceInstanceAndHealthChooseTheHost) {
  bring_up();
  const auto bind = [&](std::uint32_t conn, const char* name, std::uint8_t precedence) {
    ASSERT_EQ(host->bind(conn, host->token(SessionUse::kBind, "s-1"),
                         {{Id::kListenerId, to_bytes(name)}, {Id::kPrecedence, {precedence}}}),
              "");
  };
  bind(8, "required", 1);
  bind(9, "failed", 2);
  std::uint32_t next = 20;
  const auto asked = [&](const Fields& more = {}) {
    // What the host said before has been heard.
    host->say(message(Type::kLatency, 90, {}));
    EXPECT_EQ(host->heard()->type, Type::kResult);
    pump->connect(++next, pump->token(SessionUse::kDial, "s-1"), more);
    const auto m = host->heard();
    if (!m) return 0U;
    host->say(message(Type::kDialFailed, 5,
                      {{Id::kReplyFor, le32(static_cast<std::uint32_t>(m->sequence))}}, "x"));
    // The others are tried as well.
    for (int i = 0; i < 2 && more.empty(); ++i) {
      const auto again = host->heard();
      if (again)
        host->say(message(Type::kDialFailed, 5,
                          {{Id::kReplyFor, le32(static_cast<std::uint32_t>(again->sequence))}},
                          "x"));
    }
    EXPECT_EQ(pump->heard()->type, Type::kStateClosed);
    return m->u32(Id::kConn);
  };
  EXPECT_EQ(asked(), 8U);
  host->say(message(Type::kHealth, 6, {{Id::kConn, le32(8)}, {Id::kHealth, {0}}}, "token"));
  EXPECT_EQ(asked(), 7U);
  host->say(message(Type::kHealth, 6, {{Id::kConn, le32(8)}, {Id::kHealth, {1}}}, "token"));
  EXPECT_EQ(asked(), 8U);
  host->say(message(Type::kUpdateBind, 6, {{Id::kConn, le32(9)}, {Id::kPrecedence, {1}}}, "token"));
  host->say(
      message(Type::kUpdateBind, 6, {{Id::kConn, le32(8)}, {Id::kCost, le16(60'000)}}, "token"));
  EXPECT_EQ(asked(), 9U);
  ASSERT_EQ(
      host->bind(10, host->token(SessionUse::kBind, "s-1"), {{Id::kInstance, to_bytes("one")}}),
      "");
  EXPECT_EQ(asked({{Id::kInstance, to_bytes("one")}}), 10U);
}

TEST_P(ForeignTest, EveryByteCountsOnce) {
  world.controller.stop();
  world.controller.counts_usage = true;
  world.controller.start();
  world.until([&] { return world.controller.usage_heard > 0; });
  bring_up();
  const std::uint32_t at_host = open(3);
  pump->data(3, Bytes(50'000));
  host->data(at_host, Bytes(2'000));
  EXPECT_EQ(body_at(*host).size(), 50'000U);
  EXPECT_EQ(body_at(*pump).size(), 2'000U);
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t circuits = 0;
  EXPECT_TRUE(world.until(
      [&] {
        sent = received = circuits = 0;
        for (const auto& [key, batch] : world.controller.usage) {
          for (const auto& e : batch.entries) {
            if (e.device != "pump" || e.service != "s-1") continue;
            sent += e.sent;
            received += e.received;
            circuits += e.circuits;
          }
        }
        return received != 0;
      },
      15'000));
  EXPECT_EQ(sent, 50'004U) << "and the record's head";
  EXPECT_EQ(received, 2'004U);
  EXPECT_EQ(circuits, 1U);
  const auto& live = world.controller.usage.rbegin()->second.live;
  EXPECT_GT(live.bytes_in, 52'000U);
  EXPECT_GT(live.bytes_out, 52'000U);
}

}  // namespace
}  // namespace sally::sim
