// SPDX-License-Identifier: Apache-2.0
// Hostile devices against the real router and real SDK ends. Each attack ends with its documented
// code, in bounded time, with no circuit left and the victims' lanes alive.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "attack.h"
#include "sdk/errors.h"

namespace sally::sim {
namespace {

using wire::SetupCode;

TEST_P(AttackTest, ASetupWithAnyFieldChangedAfterTheProofIsInvalid) {
  bring_up_host();
  const auto m = raw("mallory");
  const auto other = world.pki.leaf(crypto::Role::kDevice, "pump");
  const auto guest = raw("guest");
  struct Change {
    const char* what;
    std::function<void(wire::Setup&)> change;
    SetupCode code = SetupCode::kInvalid;
  };
  const Change changes[] = {
      {"network", [](auto& s) { s.network = "net-b.sally"; }},
      {"circuit", [](auto& s) { s.circuit.raw[0] ^= 1; }},
      {"epoch", [](auto& s) { ++s.epoch; }},
      {"service", [](auto& s) { s.service = "s-2"; }},
      {"client hello", [](auto& s) { s.client_hello.back() ^= 1; }},
      {"no client hello", [](auto& s) { s.client_hello.clear(); }},
      {"offset", [](auto& s) { ++s.next_expected; }},
      {"no leaf", [](auto& s) { s.leaf.clear(); }},
      {"another leaf", [&](auto& s) { s.leaf = other.cert.der(); }},
      {"no card", [](auto& s) { s.card.clear(); }},
      {"another card", [&](auto& s) { s.card = guest->card; }},
      {"card bit", [](auto& s) { s.card.back() ^= 1; }},
      {"no proof", [](auto& s) { s.proof.clear(); }},
      {"proof bit", [](auto& s) { s.proof.back() ^= 1; }},
      {"proof by another",
       [&](auto& s) { s.proof = must(trust::make_dial_proof(s, "r-1", now_ms(), *other.key)); }},
      {"move", [](auto& s) { s.kind = wire::SetupKind::kMove; }, SetupCode::kNotKnown},
  };
  for (const auto& c : changes) {
    auto s = m->sealed(m->setup("s-1"));
    c.change(s);
    const auto code = m->open(s);
    ASSERT_TRUE(code) << c.what;
    EXPECT_EQ(*code, c.code) << c.what << ": " << wire::setup_code_name(*code);
  }
  // All of another device, honestly signed by it: still not who this lane proved.
  auto s = m->setup("s-1");
  s.leaf = other.cert.der();
  s.card = guest->card;
  s.proof = must(trust::make_dial_proof(s, "r-1", now_ms(), *other.key));
  EXPECT_EQ(m->open(s), SetupCode::kInvalid);
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1"), "r-2")), SetupCode::kInvalid);
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1"), "r-1", 61'500)), SetupCode::kInvalid);
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1"), "r-1", -61'500)), SetupCode::kInvalid);
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1")), Bytes(40, 7)), SetupCode::kInvalid);
  EXPECT_TRUE(m->alive());
  // And unchanged it works.
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
  EXPECT_EQ(server.callers.size(), 1U);
  m->ends.clear();
}

TEST_P(AttackTest, ASetupWithAnyFieldTooLongIsInvalid) {
  bring_up_host();
  const auto mallory = raw("mallory");
  const std::vector<std::function<void(wire::Setup&)>> longer{
      [](auto& s) { s.client_hello.resize(wire::kMaxClientHello + 1); },
      [](auto& s) { s.app_data.resize(wire::kMaxAppData + 1); },
      [](auto& s) { s.leaf.resize(wire::kMaxCertificate + 1); },
      [](auto& s) { s.issuing.resize(wire::kMaxCertificate + 1); }};
  for (const auto& change : longer) {
    auto setup = mallory->setup("s-1");
    change(setup);
    EXPECT_EQ(mallory->open(mallory->sealed(std::move(setup))), SetupCode::kInvalid);
  }
  EXPECT_EQ(mallory->open(mallory->sealed(mallory->setup("s-1"))), SetupCode::kNone);
}

TEST_P(AttackTest, AReplayedSetupIsInvalidWhileOpenAndAfter) {
  bring_up_host();
  auto m = raw("mallory");
  const auto s = m->sealed(m->setup("s-1"));
  ASSERT_EQ(m->open(s), SetupCode::kNone);
  EXPECT_EQ(m->open(s), SetupCode::kInvalid);
  m->ends.clear();
  ASSERT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  EXPECT_EQ(m->open(s), SetupCode::kInvalid);
  // Over a lane of another device it proves nothing either.
  auto guest = raw("guest");
  EXPECT_EQ(guest->open(s), SetupCode::kInvalid);
}

TEST_P(AttackTest, SixtyFourHalfOpenSetupsThenBusy) {
  bring_up_pump();
  auto silent = raw("host");
  ASSERT_EQ(silent->bind("s-1"), SetupCode::kNone);
  auto m = raw("mallory");
  for (int i = 0; i < 64; ++i) m->begin(m->sealed(m->setup("s-1")));
  ASSERT_TRUE(world.until([&] { return silent->asked.size() == 64; }));
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kBusy);
  // Others are not hurt.
  silent->on_setup = [&](const RawDevice::Asked& a) {
    if (a.setup.leaf != m->leaf.cert.der()) silent->answer(a, silent->leaf, silent->card);
  };
  EXPECT_EQ(dial_code(), "ok");
  ASSERT_TRUE(world.until([&] {
    return std::ranges::all_of(m->ends, [](const RawEnd& e) { return e.refused.has_value(); });
  }));
  EXPECT_EQ(m->ends.front().refused->code, SetupCode::kTimeout);
  // The place is free again.
  const auto before = silent->asked.size();
  m->begin(m->sealed(m->setup("s-1")));
  EXPECT_TRUE(world.until([&] { return silent->asked.size() > before; }));
  EXPECT_TRUE(silent->alive());
}

TEST_P(AttackTest, AFloodOfDialsIsBusyAndHurtsNobody) {
  bring_up_host();
  bring_up_pump();
  auto m = raw("mallory");
  auto s = m->sealed(m->setup("s-9"));
  int denied = 0;
  int busy = 0;
  // So many that a slow machine sends them faster than the limit lets more in.
  constexpr int kDials = 1'500;
  for (int i = 0; i < kDials; ++i) m->begin(s);
  ASSERT_TRUE(world.until([&] {
    denied = busy = 0;
    for (const auto& e : m->ends) {
      denied += e.refused && e.refused->code == SetupCode::kNoService ? 1 : 0;
      busy += e.refused && e.refused->code == SetupCode::kBusy ? 1 : 0;
    }
    return denied + busy == kDials;
  }));
  EXPECT_GE(denied, 400);
  EXPECT_LT(denied, kDials - 10);
  EXPECT_EQ(dial_code(), "ok");
  EXPECT_TRUE(m->alive());
  server.streams.clear();
}

TEST_P(AttackTest, BindNeedsAGrantAndTheProofOfThisDevice) {
  bring_up_host();
  bring_up_pump();
  auto guest = raw("guest");
  EXPECT_EQ(guest->bind("s-1"), SetupCode::kNoService);
  EXPECT_EQ(guest->bind("no-such"), SetupCode::kNoService);
  auto m = raw("mallory");
  EXPECT_EQ(m->bind("s-1", m->bind_proof("s-1", m->instance, *guest->leaf.key)),
            SetupCode::kInvalid);
  EXPECT_EQ(m->bind("s-1", m->bind_proof("s-2", m->instance, *m->leaf.key)), SetupCode::kInvalid);
  EXPECT_EQ(m->bind("s-1", m->bind_proof("s-1", {9}, *m->leaf.key)), SetupCode::kInvalid);
  EXPECT_EQ(m->bind("s-1", Bytes{1, 2, 3}), SetupCode::kInvalid);
  // Nobody unbinds what is another's, by service and instance.
  ASSERT_TRUE(world.until([&] { return world.controller.terminators.size() == 1; }));
  const auto t = world.controller.terminators.front();
  m->lane->send_control({wire::Unbind{.service = t.service, .instance = t.instance}});
  guest->lane->send_control({wire::Unbind{.service = t.service, .instance = t.instance}});
  EXPECT_EQ(m->bind("nothing"), SetupCode::kNoService);  // both are through
  EXPECT_EQ(dial_code(), "ok");
  // The same instance id bound by another device stands beside the first, it does not replace it.
  m->instance = t.instance;
  EXPECT_EQ(m->bind("s-1"), SetupCode::kNone);
  m->lane->send_control({wire::Unbind{.service = t.service, .instance = t.instance}});
  EXPECT_EQ(m->bind("nothing"), SetupCode::kNoService);
  EXPECT_EQ(dial_code(), "ok");
  server.streams.clear();
}

TEST_P(AttackTest, AHostThatAnswersWithAnothersCardLosesItsLane) {
  bring_up_pump();
  auto guest = raw("guest");
  auto m = raw("mallory");
  ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);
  m->on_setup = [&](const auto& a) { m->answer(a, m->leaf, guest->card); };
  EXPECT_EQ(dial_code(), "sally.no_host");
  EXPECT_TRUE(world.until([&] { return m->down.has_value(); }));
}

TEST_P(AttackTest, NobodyPosesAsAHostWithAnotherCertificate) {
  bring_up_pump();
  auto guest = raw("guest");
  auto m = raw("mallory");
  ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);
  // Its own card, the inner certificate of a device that may not host.
  m->on_setup = [&](const auto& a) { m->answer(a, guest->leaf, m->card); };
  EXPECT_EQ(dial_code(), "sally.verify");
  // No TLS at all in its flight.
  m->on_setup = [&](const auto& a) { m->answer(a, Bytes(200, 0x16), m->card); };
  EXPECT_EQ(dial_code(), "sally.verify");
  EXPECT_TRUE(m->alive());
}

TEST_P(AttackTest, ACircuitSplicedToAnotherServiceIsRefusedByTheHost) {
  bring_up_host();
  auto m = raw("mallory");
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1", "s-2"))), SetupCode::kInvalid);
  EXPECT_TRUE(server.callers.empty());
}

TEST_P(AttackTest, FinWithoutCloseNotifyIsACutAndNotAnEnd) {
  bring_up_host();
  auto m = raw("mallory");
  ASSERT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
  auto& end = m->ends.back();
  m->finish_handshake(end);
  (void)m->session->write(as_bytes("half of it"));
  end.send(m->session->take_output());
  ASSERT_TRUE(
      world.until([&] { return server.streams.size() == 1 && server.streams[0]->received == 10; }));
  end.send_fin();
  ASSERT_TRUE(world.until([&] { return server.streams[0]->cut.has_value(); }));
  EXPECT_FALSE(server.streams[0]->ended);
  EXPECT_TRUE(world.until([&] { return end.reset.has_value(); }));
}

TEST_P(AttackTest, AHostileEndCannotCostTheVictimItsLane) {
  bring_up_host();
  auto m = raw("mallory");
  const auto opened = [&]() -> RawEnd& {
    EXPECT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
    m->finish_handshake(m->ends.back());
    const auto n = server.streams.size();
    EXPECT_TRUE(world.until([&] { return server.streams.size() == n + 1; }));
    return m->ends.back();
  };
  {  // acknowledges what was never sent
    RawEnd& end = opened();
    m->lane->send_ack(end, 1'000'000'000);
    EXPECT_TRUE(world.until([&] { return server.streams.back()->cut.has_value(); }));
  }
  {  // grants without end: the host may send, and no more than it keeps
    RawEnd& end = opened();
    m->lane->send_credit(end, wire::kMaxOffset);
    server.streams.back()->send(Bytes(8'000'000));
    ASSERT_TRUE(world.until([&] { return end.data.size() >= 1'000'000; }));
    world.until([] { return false; }, 200);
    EXPECT_LT(end.data.size(), 1'200'000U);
    m->lane->reset(end, wire::ResetCode::kClosed);
    EXPECT_TRUE(world.until([&] { return server.streams.back()->cut.has_value(); }));
  }
  {  // inner TLS that is none
    RawEnd& end = opened();
    end.send(Bytes(1000, 0x17));
    EXPECT_TRUE(world.until([&] { return server.streams.back()->cut.has_value(); }));
  }
  {  // garbage instead of the last flight of the handshake
    const int gone = server.gone;
    ASSERT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
    m->ends.back().send(Bytes(500, 1));
    EXPECT_TRUE(world.until([&] { return server.gone == gone + 1; }));
  }
  {  // a gap: the lane of the guilty end, and only that
    RawEnd& end = opened();
    end.send_at(5'000'000, Bytes(10));
    EXPECT_TRUE(world.until([&] { return m->down && server.streams.back()->cut; }));
  }
  m = raw("mallory");
  {  // data beyond credit
    RawEnd& end = opened();
    server.streams.back()->paused = true;
    for (int i = 0; i < 400; ++i) end.send(Bytes(16'000));
    EXPECT_TRUE(world.until([&] { return m->down && server.streams.back()->cut; }));
  }
}

/// Decides when the test says so.
class SlowHost final : public sdk::Host {
 public:
  void on_caller(std::uint64_t, const sdk::Caller&, Answer answer) override {
    waiting.push_back(std::move(answer));
  }
  void on_stream(std::uint64_t, const sdk::Caller&, std::unique_ptr<sdk::Circuit> c) override {
    ++(c == nullptr ? gone : opened);
  }
  std::vector<Answer> waiting;
  int gone = 0;
  int opened = 0;
};

TEST_P(AttackTest, AWelcomedCallerThatIsLostIsToldToTheHost) {
  SlowHost slow;
  host = world.device("host");
  binding = host->engine->bind("plant-mqtt", 0, slow);
  ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  auto m = raw("mallory");
  // Welcomed, never finishes its handshake; another one is welcomed too late.
  m->begin(m->sealed(m->setup("s-1")));
  m->begin(m->sealed(m->setup("s-1")));
  ASSERT_TRUE(world.until([&] { return slow.waiting.size() == 2; }));
  slow.waiting[0](std::nullopt);
  ASSERT_TRUE(world.until([&] { return m->ends.front().answer.has_value(); }));
  may_lose_lanes = true;
  world.router.reset();
  ASSERT_TRUE(world.until([&] { return slow.gone == 1; }));
  slow.waiting[1](std::nullopt);
  EXPECT_TRUE(world.until([&] { return slow.gone == 2; }));
  EXPECT_EQ(slow.opened, 0);
  world.start_router();
  EXPECT_TRUE(world.until([&] { return host->engine->online(); }));
  host.reset();
}

TEST_P(AttackTest, UnbindingAnswersWhoWaits) {
  SlowHost slow;
  host = world.device("host");
  binding = host->engine->bind("plant-mqtt", 0, slow);
  ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  auto m = raw("mallory");
  RawEnd& end = m->begin(m->sealed(m->setup("s-1")));
  ASSERT_TRUE(world.until([&] { return slow.waiting.size() == 1; }));
  host->engine->unbind(binding);
  ASSERT_TRUE(world.until([&] { return end.refused.has_value(); }, 1'000));
  EXPECT_EQ(end.refused->code, SetupCode::kNoTerminator);
  slow.waiting[0](std::nullopt);
}

TEST_P(AttackTest, AFinishedCircuitGoesWithItsEngineWhenThePeerNeverEnds) {
  bring_up_host();
  bring_up_pump();
  auto r = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(r && *r);
  sdk::Circuit::finish(std::move(**r));
  ASSERT_TRUE(world.until([&] {
    if (server.streams.empty()) return false;
    server.streams[0]->on_circuit_readable();
    return server.streams[0]->ended;
  }));
  pump.reset();  // the leak checker sees to the rest
}

TEST_P(AttackTest, ASuspendedDeviceIsRefusedAndAResumedOneAccepted) {
  bring_up_host();
  bring_up_pump();
  const auto stand = [&](wire::Standing s) {
    world.controller.op({wire::IdentityState{
        .id = "pump", .standing = s, .credential_epoch = 0, .attr_epoch = 0, .at_ms = now_ms()}});
  };
  may_lose_lanes = true;
  stand(wire::Standing::kSuspended);
  ASSERT_TRUE(world.until([&] { return !pump->engine->online(); }, 2'000));
  EXPECT_FALSE(world.until([&] { return pump->engine->online(); }, 1'500));
  stand(wire::Standing::kActive);
  ASSERT_TRUE(
      world.until([&] { return pump->engine->services().size() == 2 || pump->engine->online(); }));
  EXPECT_EQ(dial_code(), "ok");
}

TEST_P(AttackTest, CardsAndRecordsOfAWrongSignerAreNotBelieved) {
  bring_up_host();
  const wire::Card forged{.network = world.pki.network,
                          .id = "guest",
                          .name = "guest",
                          .attributes = {"sensors", "servers"},
                          .attr_epoch = 0,
                          .credential_epoch = 0,
                          .not_after_ms = now_ms() + 3'600'000};
  const auto rogue = world.pki.leaf(crypto::Role::kSigner, "9");  // valid, not this network's own
  const auto device = world.pki.leaf(crypto::Role::kDevice, "guest");
  for (const auto* key : {&rogue, &device}) {
    const Bytes card = must(trust::make_card(forged, *key->key));
    RawDevice guest(world, "guest", card);
    ASSERT_TRUE(world.until([&] { return guest.ready(); }));
    EXPECT_NE(guest.card, card);
    EXPECT_TRUE(guest.services->entries.empty());
    EXPECT_EQ(guest.bind("s-1"), SetupCode::kNoService);
    EXPECT_EQ(guest.open(guest.sealed(guest.setup("s-1"))), SetupCode::kNoService);
    guest.card = card;
    EXPECT_EQ(guest.open(guest.sealed(guest.setup("s-1"))), SetupCode::kInvalid);
  }
}

TEST_P(AttackTest, AControllerThatRollsBackIsNotFollowed) {
  bring_up_host();
  bring_up_pump();
  auto guest = raw("guest");
  const auto port = world.controller.address().port;
  world.controller.stop();
  ASSERT_TRUE(world.until([&] { return !world.router->controller_up(); }));
  FakeController evil(world.loop, world.pki);
  evil.put_service("s-1", "plant-mqtt", {"#guests"}, {"#servers"});
  evil.listen(port);
  ASSERT_TRUE(world.until([&] { return evil.heard("router.state_refused"); }));
  EXPECT_EQ(dial_code(), "ok");
  EXPECT_EQ(guest->open(guest->sealed(guest->setup("s-1"))), SetupCode::kNoService);
  server.streams.clear();
  evil.stop();
  world.until([] { return false; }, 20);
}

TEST_P(AttackTest, AServiceThatIsNotEndToEndTlsIsRefusedByBoth) {
  bring_up_pump();
  auto m = raw("mallory");
  EXPECT_EQ(dial_code("foreign"), "sally.verify");
  EXPECT_EQ(dial_code("plain"), "sally.verify");
  EXPECT_EQ(m->open(m->sealed(m->setup("s-3"))), SetupCode::kInvalid);
  EXPECT_EQ(m->open(m->sealed(m->setup("s-4"))), SetupCode::kInvalid);
}

TEST_P(AttackTest, TheNextHostIsTriedWhenOneRefusesOrDies) {
  bring_up_host();
  bring_up_pump();
  auto m = raw("mallory");
  // Refuses.
  m->on_setup = [&](const auto& a) {
    m->lane->send_setup_err(a.label, {.circuit = a.setup.circuit,
                                      .attempt = a.frame.attempt,
                                      .hop = "mallory",
                                      .code = SetupCode::kRefused,
                                      .text = "no"});
  };
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);
    EXPECT_EQ(dial_code(), "ok");
  }
  // Another's card: its lane goes, the dial does not.
  auto guest = raw("guest");
  m->on_setup = [&](const auto& a) { m->answer(a, m->leaf, guest->card); };
  for (int i = 0; i < 8 && !m->down; ++i) EXPECT_EQ(dial_code(), "ok");
  server.streams.clear();
}

TEST_P(AttackTest, AHostLaneThatDiesDuringOpeningEndsTheDialAtOnce) {
  bring_up_pump();
  auto m = raw("mallory");
  ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);
  m->on_setup = [&](const auto&) { m->lane->close(Error(lane::Errc::kClosed)); };
  const auto start = now_ms();
  EXPECT_EQ(dial_code(), "sally.no_host");
  EXPECT_LT(now_ms() - start, 2'000);
}

TEST_P(AttackTest, AHostThatLosesItsGrantDuringOpeningIsLeftForAnother) {
  host = world.device("host");
  binding = host->engine->bind("plant-mqtt", 1'000, server);
  ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  bring_up_pump();
  auto m = raw("mallory");
  ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);  // cheaper, and silent
  m->on_setup = [&](const auto&) {
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"@host"});
  };
  const auto start = now_ms();
  EXPECT_EQ(dial_code(), "ok");
  EXPECT_LT(now_ms() - start, 2'000);
  EXPECT_EQ(m->asked.size(), 1U);
  server.streams.clear();
}

TEST_P(AttackTest, AControllerThatNeverAnswersCardRequests) {
  bring_up_host();
  world.controller.silent = true;
  pump = world.device("pump");
  ASSERT_TRUE(world.until([&] { return pump->engine->online(); }));
  auto r = world.dial(*pump, "plant-mqtt", 700);
  ASSERT_TRUE(r && !*r);
  EXPECT_TRUE((*r).error().is(sdk::Errc::kTimeout)) << (*r).error().text();
  world.controller.silent = false;
}

TEST_P(AttackTest, DataBeforeTheAnswerCostsTheHostItsLane) {
  bring_up_pump();
  auto m = raw("mallory");
  ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);
  m->on_setup = [&](const auto& a) {
    // A place on the lane whose answer never goes out.
    m->ends.emplace_back();
    ASSERT_TRUE(m->lane->attach(m->ends.back(), a.label));
    m->ends.back().send(Bytes(100, 1));
  };
  EXPECT_EQ(dial_code(), "sally.no_host");
}

TEST_P(AttackTest, KeysOfTheInnerTlsChangeUnderData) {
  bring_up_host();
  bring_up_pump();
  server.echo = true;
  auto r = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(r && *r);
  Recorder client(std::move(**r));
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  client.circuit->session().set_key_update_every(3);
  server.streams[0]->circuit->session().set_key_update_every(2);
  Bytes data(2'000'000);
  SeededRandom(7).fill(data);
  client.send(data);
  client.end_after_sending();
  ASSERT_TRUE(world.until([&] { return client.ended; }, 30'000));
  EXPECT_TRUE(client.data == data);
  EXPECT_FALSE(client.cut);
  EXPECT_GT(client.circuit->session().key_updates_sent(), 30U);
}

TEST_P(AttackTest, ARefusalOfAnOpenCircuitCostsTheGuiltyItsLane) {
  bring_up_host();
  bring_up_pump();
  for (const bool as_host : {false, true}) {
    auto m = raw("mallory");
    std::optional<Result<std::unique_ptr<sdk::Circuit>>> victim;
    std::unique_ptr<Recorder> client;
    if (as_host) {
      host->engine->unbind(binding);
      ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);
      m->on_setup = [&](const auto& a) { m->answer(a, m->leaf, m->card); };
      ASSERT_TRUE(world.until([&] { return world.controller.terminators.size() == 1; }));
      victim = world.dial(*pump, "plant-mqtt");
      ASSERT_TRUE(victim && *victim);
      client = std::make_unique<Recorder>(std::move(**victim));
    } else {
      ASSERT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
      m->finish_handshake(m->ends.back());
      ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
    }
    Recorder& other = as_host ? *client : *server.streams[0];
    m->lane->send_setup_err(
        m->ends.back().remote_label(),
        {.circuit = {}, .attempt = 0, .hop = "mallory", .code = SetupCode::kRefused, .text = {}});
    EXPECT_TRUE(world.until([&] { return m->down.has_value(); })) << as_host;
    // The other end is told, and what it still sends meets no lane that is gone.
    other.send(Bytes(100'000, 1));
    EXPECT_TRUE(world.until([&] { return other.cut.has_value(); }, 3'000)) << as_host;
    EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }, 3'000)) << as_host;
  }
}

TEST_P(AttackTest, BothEndsOfACircuitAreCutInOneTurn) {
  bring_up_host();
  bring_up_pump();
  auto r = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(r && *r);
  Recorder client(std::move(**r));
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  may_lose_lanes = true;
  // One update takes both.
  for (const char* id : {"pump", "host"}) {
    world.controller.hold_op({wire::IdentityState{.id = id,
                                                  .standing = wire::Standing::kSuspended,
                                                  .credential_epoch = 0,
                                                  .attr_epoch = 0,
                                                  .at_ms = now_ms()}});
  }
  world.controller.push_all();
  EXPECT_TRUE(world.until([&] { return client.cut && server.streams[0]->cut; }));
  EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
  host.reset();
  pump.reset();
}

TEST_P(AttackTest, AFloodOfBindsIsBusyAndHurtsNobody) {
  bring_up_host();
  bring_up_pump();
  auto m = raw("mallory");
  constexpr std::size_t kMany = 3'000;
  for (std::size_t i = 0; i < kMany; ++i) {
    m->lane->send_control({wire::Bind{.request = 1'000 + i,
                                      .service = "s-1",
                                      .instance = m->instance,
                                      .proof = Bytes{1, 2, 3},
                                      .cost = 0}});
  }
  ASSERT_TRUE(world.until([&] { return m->bind_replies.size() == kMany; }));
  const auto busy = std::ranges::count(m->bind_replies, SetupCode::kBusy, &wire::BindReply::code);
  EXPECT_GT(busy, 1'000);
  EXPECT_EQ(std::ranges::count(m->bind_replies, SetupCode::kInvalid, &wire::BindReply::code),
            static_cast<std::ptrdiff_t>(kMany) - busy);
  EXPECT_EQ(dial_code(), "ok");
  EXPECT_TRUE(m->alive());
  server.streams.clear();
}

TEST_P(AttackTest, OneByteFramesAreKeptTogether) {
  bring_up_host();
  auto m = raw("mallory");
  ASSERT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
  RawEnd& end = m->ends.back();
  m->finish_handshake(end);
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  Recorder& victim = *server.streams[0];
  victim.paused = true;
  const std::uint64_t before = end.acked;
  for (int i = 0; i < 300; ++i) {
    end.send(Bytes(1, 0x17));
    world.until([] { return false; }, 1);  // one frame a turn: the router has nothing to merge
  }
  ASSERT_TRUE(world.until([&] { return end.acked >= before + 300; }));
  EXPECT_LE(victim.circuit->waiting_pieces(), 2U);
  m->lane->reset(end, wire::ResetCode::kClosed);
}

TEST_P(AttackTest, ACallerThatIsNeverAnsweredLeavesNoLabel) {
  SlowHost slow;
  host = world.device("host");
  binding = host->engine->bind("plant-mqtt", 0, slow);
  ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  auto m = raw("mallory");
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kTimeout);
  EXPECT_EQ(slow.waiting.size(), 1U);
  // The host's program never decides: its SDK does, and the router has its label back.
  EXPECT_TRUE(world.until([&] { return world.router->labels() == 0; }, 12'000));
  host.reset();
}

INSTANTIATE_TEST_SUITE_P(Workers, AttackTest, ::testing::Values(1U, 2U));

}  // namespace
}  // namespace sally::sim
