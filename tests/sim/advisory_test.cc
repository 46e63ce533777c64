// SPDX-License-Identifier: Apache-2.0
// Published advisories of overlays like ours against the real router and real SDK ends, each test
// named after its row (tests/hostile/README.md).
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <set>
#include <tuple>

#include "attack.h"
#include "loop/net.h"

namespace sally::sim {
namespace {

using wire::SetupCode;

class AdvisoryTest : public AttackTest {
 protected:
  std::size_t denied() const {
    return static_cast<std::size_t>(std::ranges::count(
        world.controller.events, "router.dial_denied", [](const auto& e) { return e.code; }));
  }
  void stand(const std::string& id, wire::Standing s) {
    world.controller.op({wire::IdentityState{
        .id = id, .standing = s, .credential_epoch = 0, .attr_epoch = 0, .at_ms = now_ms()}});
  }
};

// ---- GHSA-mrpr-756c-xm47: a chain that is valid for somebody, a leaf that is nobody's
// ------------

TEST_P(AdvisoryTest, GhsaMrpr756cXm47InsideACircuitTheHostReadsTheProvenLeafOnly) {
  bring_up_host();
  const auto m = raw("mallory");
  const crypto::TestPki evil(world.pki.network, world.pki.now_s);  // the same name, other keys
  const auto victim = world.pki.leaf(crypto::Role::kDevice, "pump");
  for (const char* id : {"mallory", "pump", "host"}) {
    const auto fake = evil.leaf(crypto::Role::kDevice, id);
    const std::vector<std::vector<crypto::Certificate>> fillers{
        {m->leaf.cert},
        {m->leaf.cert, world.pki.devices},
        {victim.cert, world.pki.devices},
        {evil.devices, m->leaf.cert, world.pki.devices}};
    for (const auto& filler : fillers) {
      const int gone = server.gone;
      std::vector<crypto::Certificate> chain{fake.cert};
      chain.insert(chain.end(), filler.begin(), filler.end());
      auto s = m->setup("s-1", "s-1", m->inner(tls::Side::kClient, fake.key, chain));
      ASSERT_EQ(m->open(m->sealed(std::move(s))), SetupCode::kNone);
      m->finish_handshake(m->ends.back());
      EXPECT_TRUE(world.until([&] { return server.gone == gone + 1; })) << id;
      // And as what the set-up brings: the leaf's path counts, whatever stands beside it.
      auto claimed = m->setup("s-1");
      claimed.leaf = fake.cert.der();
      claimed.issuing = world.pki.devices.der();
      claimed.proof = must(trust::make_dial_proof(claimed, "r-1", now_ms(), *fake.key));
      EXPECT_EQ(m->open(claimed), SetupCode::kInvalid) << id;
    }
  }
  EXPECT_TRUE(server.streams.empty());
  EXPECT_TRUE(m->alive());
}

TEST_P(AdvisoryTest, GhsaMrpr756cXm47AHostWithAGenuineFillerIsNotTheHost) {
  bring_up_pump();
  const auto m = raw("mallory");
  ASSERT_EQ(m->bind("s-1"), SetupCode::kNone);
  const crypto::TestPki evil(world.pki.network, world.pki.now_s);
  const auto good = world.pki.leaf(crypto::Role::kDevice, "host");
  for (const char* id : {"mallory", "host"}) {
    const auto fake = evil.leaf(crypto::Role::kDevice, id);
    m->on_setup = [&](const auto& a) {
      m->answer(a,
                m->inner(tls::Side::kServer, fake.key, {fake.cert, good.cert, world.pki.devices}),
                m->card);
    };
    EXPECT_EQ(dial_code(), "sally.verify") << id;
  }
}

// ---- GHSA-hhm9-wf63-g7qj: any certificate of the chain counted
// -----------------------------------

TEST_P(AdvisoryTest, GhsaHhm9Wf63G7qjInsideACircuitOthersOfTheChainNameNobody) {
  bring_up_host();
  const auto m = raw("mallory");
  const auto victim = world.pki.leaf(crypto::Role::kDevice, "pump");
  const std::vector<crypto::Certificate> all{victim.cert, m->leaf.cert, world.pki.devices};
  std::vector<std::size_t> order{0, 1, 2};
  do {
    for (std::size_t n = 1; n <= order.size(); ++n) {
      std::vector<crypto::Certificate> chain{m->leaf.cert};
      for (std::size_t i = 0; i < n; ++i) chain.push_back(all[order[i]]);
      const auto streams = server.streams.size();
      auto s = m->setup("s-1", "s-1", m->inner(tls::Side::kClient, m->leaf.key, chain));
      ASSERT_EQ(m->open(m->sealed(std::move(s))), SetupCode::kNone);
      m->finish_handshake(m->ends.back());
      ASSERT_TRUE(world.until([&] { return server.streams.size() == streams + 1; }));
      EXPECT_EQ(server.callers.back().id, "mallory");
    }
  } while (std::ranges::next_permutation(order).found);
  server.streams.clear();
}

// ---- GHSA-cc5m-7mhm-xh9f: a header steered past the verification
// ---------------------------------

TEST_P(AdvisoryTest, GhsaCc5m7mhmXh9fTheCardInAHelloIsNoIdentity) {
  bring_up_host();
  const auto other = raw("mallory");
  const Bytes card = other->card;
  Bytes cut = card;
  cut.pop_back();
  for (const Bytes& claimed : {card, cut, Bytes(3'000, 7), Bytes{1}}) {
    RawDevice guest(world, "guest", claimed);
    ASSERT_TRUE(world.until([&] { return guest.ready(); }));
    EXPECT_NE(guest.card, card);
    EXPECT_TRUE(guest.services->entries.empty());
    EXPECT_EQ(guest.open(guest.sealed(guest.setup("s-1"))), SetupCode::kNoService);
    EXPECT_EQ(guest.bind("s-1"), SetupCode::kNoService);
  }
}

// ---- GHSA-7868-235p-7497: a circuit for an identity that somebody else named
// ---------------------

TEST_P(AdvisoryTest, Ghsa7868235p7497ACircuitNeedsTheDialersOwnProof) {
  bring_up_host();
  const auto m = raw("mallory");
  const auto guest = raw("guest");
  const auto pump_leaf = world.pki.leaf(crypto::Role::kDevice, "pump");
  // A second certificate of mallory's, revoked; its identity goes on.
  const auto old = world.pki.leaf(crypto::Role::kDevice, "mallory");
  world.controller.op({wire::RevokedCertificate{
      .serial = old.cert.serial_hex(), .not_after_ms = now_ms() + 3'600'000, .at_ms = now_ms()}});
  ASSERT_TRUE(world.until([&] { return world.controller.acked == world.controller.version(); }));
  const crypto::TestPki net_b("net-b.sally", world.pki.now_s);
  const auto foreign = net_b.leaf(crypto::Role::kDevice, "mallory");
  const auto proof = [](wire::Setup& s, const crypto::TestLeaf& by, std::int64_t late_ms = 0) {
    s.proof = must(trust::make_dial_proof(s, "r-1", now_ms() - late_ms, *by.key));
  };
  const std::pair<const char*, std::function<void(wire::Setup&)>> cases[] = {
      {"none", [](auto& s) { s.proof.clear(); }},
      {"garbage", [](auto& s) { s.proof = Bytes(200, 0x5a); }},
      {"expired", [&](auto& s) { proof(s, m->leaf, 61'500); }},
      {"from the future", [&](auto& s) { proof(s, m->leaf, -61'500); }},
      {"revoked",
       [&](auto& s) {
         s.leaf = old.cert.der();
         proof(s, old);
       }},
      {"of another identity",
       [&](auto& s) {
         s.leaf = pump_leaf.cert.der();
         proof(s, pump_leaf);
       }},
      {"of another identity, its card too",
       [&](auto& s) {
         s.leaf = guest->leaf.cert.der();
         s.card = guest->card;
         proof(s, guest->leaf);
       }},
      {"by another key of the same identity", [&](auto& s) { proof(s, old); }},
      {"by another's key", [&](auto& s) { proof(s, pump_leaf); }},
      {"by another network's key", [&](auto& s) { proof(s, foreign); }},
      {"of another network",
       [&](auto& s) {
         s.leaf = foreign.cert.der();
         s.issuing = net_b.devices.der();
         proof(s, foreign);
       }},
      {"of another network, said so",
       [&](auto& s) {
         s.network = "net-b.sally";
         s.leaf = foreign.cert.der();
         s.issuing = net_b.devices.der();
         proof(s, foreign);
       }},
      {"over other app data",
       [&](auto& s) {
         s.app_data = {1};
         proof(s, m->leaf);
         s.app_data = {2};
       }},
      {"stripped of its app data",
       [&](auto& s) {
         s.app_data = {1};
         proof(s, m->leaf);
         s.app_data.clear();
       }},
  };
  for (const auto& [what, change] : cases) {
    const auto told = denied();
    auto s = m->sealed(m->setup("s-1"));
    change(s);
    EXPECT_EQ(m->open(s), SetupCode::kInvalid) << what;
    EXPECT_EQ(world.router->circuits(), 0U) << what;
    EXPECT_TRUE(world.until([&] { return denied() > told; })) << what;
  }
  EXPECT_TRUE(server.callers.empty());
  EXPECT_TRUE(world.until([&] { return world.router->labels() == 0; }));
  EXPECT_TRUE(m->alive());
  auto s = m->setup("s-1");
  s.app_data = {1, 2, 3};
  EXPECT_EQ(m->open(m->sealed(std::move(s))), SetupCode::kNone);
  m->ends.clear();
}

// ---- 3927: a session that was revoked went on
// ----------------------------------------------------

TEST_P(AdvisoryTest, Issue3927WhoeverIsRevokedWhileACircuitStreamsIsCutWithinASecond) {
  may_lose_lanes = true;
  for (const char* who : {"pump", "host"}) {
    bring_up_host();
    bring_up_pump();
    auto r = world.dial(*pump, "plant-mqtt");
    ASSERT_TRUE(r && *r);
    Recorder client(std::move(**r));
    const auto n = server.streams.size();
    client.send(Bytes(2'000'000, 1));
    ASSERT_TRUE(world.until([&] {
      return !server.streams.empty() && server.streams.back()->received > 100'000;
    })) << n;
    stand(who, wire::Standing::kSuspended);
    const auto start = now_ms();
    EXPECT_TRUE(world.until([&] { return client.cut && server.streams.back()->cut; }, 3'000));
    EXPECT_LT(now_ms() - start, 1'000);
    // Neither comes back with what it had: not as a dialer, not as a host.
    EXPECT_FALSE(world.until(
        [&] { return (who == std::string("pump") ? pump : host)->engine->online(); }, 700));
    const auto late = world.dial(*pump, "plant-mqtt", 700);
    EXPECT_TRUE(late && !*late);
    EXPECT_TRUE(world.until([&] { return world.router->circuits() == 0; }));
    stand(who, wire::Standing::kActive);
    server.streams.clear();
    host.reset();
    pump.reset();
  }
}

// ---- 4330, 4332, 4336: a dial check that was inverted, or missing at one entry
// -------------------

TEST_P(AdvisoryTest, Issue4330Issue4332Issue4336EveryEntryOfADialAsksForTheGrant) {
  bring_up_host();
  may_lose_lanes = true;
  // The SDK, by name and by id; a set-up by hand; before a grant and after its end.
  auto device = world.device("guest");
  ASSERT_TRUE(world.until([&] { return device->engine->online(); }));
  const auto guest = raw("guest");
  const auto entries = [&](const std::string& want, SetupCode by_hand) {
    for (const char* name : {"plant-mqtt", "s-1"}) {
      auto r = world.dial(*device, name, 1'000);
      ASSERT_TRUE(r);
      EXPECT_EQ(*r ? "ok" : std::string((*r).error().code()), want) << name;
    }
    EXPECT_EQ(guest->open(guest->sealed(guest->setup("s-1"))), by_hand);
    guest->ends.clear();
    server.streams.clear();
  };
  entries("sally.no_service", SetupCode::kNoService);
  EXPECT_TRUE(server.callers.empty());
  world.controller.put_service("s-1", "plant-mqtt", {"#guests"}, {"#servers"});
  ASSERT_TRUE(world.until([&] {
    return device->engine->services().size() == 1 && guest->services->entries.size() == 1;
  }));
  entries("ok", SetupCode::kNone);
  world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
  ASSERT_TRUE(world.until([&] { return device->engine->services().empty(); }));
  const auto before = server.callers.size();
  entries("sally.no_service", SetupCode::kNoService);
  // Whoever may bind it may not therefore dial it.
  const auto m = raw("mallory");
  world.controller.put_service("s-1", "plant-mqtt", {"@pump"}, {"#servers"});
  ASSERT_TRUE(world.until([&] { return world.controller.acked == world.controller.version(); }));
  EXPECT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNoService);
  EXPECT_EQ(server.callers.size(), before);
}

// ---- 4234: terminators of others were deleted and re-weighted
// ------------------------------------

TEST_P(AdvisoryTest, Issue4234TerminatorsBelongToWhoeverBoundThem) {
  const auto a = raw("mallory");
  const auto b = raw("host");
  const auto stranger = raw("guest");
  SeededRandom random(GetParam() + 41);
  using Key = std::tuple<std::string, std::string, wire::InstanceId>;
  std::map<Key, std::uint32_t> owned;  // to its precedence
  for (int step = 0; step < 120; ++step) {
    const auto roll = random.u64();
    RawDevice* who = std::array{a.get(), b.get(), stranger.get()}[roll % 3];
    const std::string service = (roll >> 8U) % 2 == 0 ? "s-1" : "s-2";
    who->instance = {static_cast<std::uint8_t>((roll >> 16U) % 2)};
    const Key key{who->id, service, who->instance};
    const auto precedence = static_cast<std::uint32_t>((roll >> 32U) % 3);
    if ((roll >> 24U) % 2 == 0) {
      const auto code = who->bind(service, precedence);
      ASSERT_EQ(code, who == stranger.get() ? SetupCode::kNoService : SetupCode::kNone);
      if (code == SetupCode::kNone) owned[key] = precedence;
    } else {
      who->lane->send_control({wire::Unbind{.service = service, .instance = who->instance}});
      owned.erase(key);
      ASSERT_EQ(who->bind("no-such"), SetupCode::kNoService);  // it is through
    }
    if (step % 10 != 9) continue;
    EXPECT_TRUE(world.until([&] {
      std::map<Key, std::uint32_t> listed;
      for (const auto& t : world.controller.terminators)
        listed[{t.device, t.service, t.instance}] = t.precedence;
      return listed == owned && world.controller.terminators.size() == owned.size();
    })) << step;
  }
}

// ---- ours, of the same weight
// --------------------------------------------------------------------

TEST_P(AdvisoryTest, AFloodOfUnbindsCostsItsLaneOnly) {
  bring_up_host();
  bring_up_pump();
  const auto m = raw("mallory");
  const auto unbind = [&](int count) {
    for (int i = 0; i < count; ++i)
      m->lane->send_control({wire::Unbind{.service = "s-1", .instance = m->instance}});
  };
  unbind(500);
  EXPECT_EQ(m->bind("s-1"), SetupCode::kNone);
  unbind(1);
  EXPECT_EQ(dial_code(), "ok");
  EXPECT_TRUE(m->alive());
  unbind(3'000);
  EXPECT_TRUE(world.until([&] { return m->down.has_value(); }));
  EXPECT_EQ(dial_code(), "ok");
  server.streams.clear();
}

TEST_P(AdvisoryTest, TenThousandResetsOfOneCircuitHarmNobody) {
  bring_up_host();
  bring_up_pump();
  const auto m = raw("mallory");
  ASSERT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
  m->finish_handshake(m->ends.back());
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  const std::uint32_t label = m->ends.back().remote_label();
  for (int i = 0; i < 10'000; ++i) {
    RawEnd again;
    ASSERT_TRUE(m->lane->attach(again, label));
    m->lane->reset(again, wire::ResetCode::kClosed);
  }
  EXPECT_TRUE(world.until([&] { return server.streams[0]->cut.has_value(); }));
  EXPECT_EQ(dial_code(), "ok");
  EXPECT_TRUE(m->alive());
  // One for a label that was never given out is no late frame.
  RawEnd never;
  ASSERT_TRUE(m->lane->attach(never, 60'000));
  m->lane->reset(never, wire::ResetCode::kClosed);
  EXPECT_TRUE(world.until([&] { return m->down.has_value(); }));
  m->ends.clear();
  server.streams.clear();
}

/// The newest connected socket of this process to the port.
int newest_socket_to(std::uint16_t port) {
  int newest = -1;
  for (int fd = 3; fd < 1'024; ++fd) {
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0 &&
        peer.sin_family == AF_INET && ntohs(peer.sin_port) == port)
      newest = fd;
  }
  return newest;
}

TEST_P(AdvisoryTest, ALaneThatEndsWithoutCloseNotifyIsACutAndNoEnd) {
  bring_up_host();
  const auto m = raw("mallory");
  const int fd = newest_socket_to(world.port_of("mallory"));
  ASSERT_GE(fd, 0);
  ASSERT_EQ(m->open(m->sealed(m->setup("s-1"))), SetupCode::kNone);
  m->finish_handshake(m->ends.back());
  (void)m->session->write(as_bytes("half of it"));
  m->ends.back().send(m->session->take_output());
  ASSERT_TRUE(
      world.until([&] { return server.streams.size() == 1 && server.streams[0]->received == 10; }));
  // The network in the middle closes the connection: TCP's end, none of TLS.
  ASSERT_EQ(::shutdown(fd, SHUT_WR), 0);
  EXPECT_TRUE(world.until([&] { return server.streams[0]->cut.has_value(); }, 2'000));
  EXPECT_FALSE(server.streams[0]->ended);
  EXPECT_TRUE(world.until([&] { return m->down.has_value(); }));
}

TEST_P(AdvisoryTest, WhatANewCardCutsIsCounted) {
  bring_up_host();
  bring_up_pump();
  auto r = world.dial(*pump, "plant-mqtt");
  ASSERT_TRUE(r && *r);
  const Recorder client(std::move(**r));
  ASSERT_TRUE(world.until([&] { return server.streams.size() == 1; }));
  const auto before = world.controller.flows_cut;
  world.controller.put_device("pump", {"guests"});
  ASSERT_TRUE(world.until([&] { return client.cut && server.streams[0]->cut; }));
  EXPECT_TRUE(world.until([&] { return world.controller.flows_cut == before + 1; }));
}

// Both ends of a lane once waited for the other one to read: 300 connections to a local forward.
TEST_P(AdvisoryTest, ACrowdOfDialsAtOnceDoesNotStopTheLane) {
  bring_up_host();
  bring_up_pump();
  std::size_t done = 0;
  std::size_t opened = 0;
  for (int i = 0; i < 600; ++i)
    pump->engine->dial("plant-mqtt", {}, 10'000, [&](Result<std::unique_ptr<sdk::Circuit>> r) {
      ++done;
      if (!r) return;
      ++opened;
      (*r)->abort(wire::ResetCode::kClosed);
    });
  EXPECT_TRUE(world.until([&] { return done == 600; }, 15'000)) << done;
  EXPECT_GE(opened, 60U);
  EXPECT_TRUE(pump->engine->online());  // the next dial may still be too soon: 50 a second
  server.streams.clear();
}

INSTANTIATE_TEST_SUITE_P(Workers, AdvisoryTest, ::testing::Values(1U, 2U));

}  // namespace
}  // namespace sally::sim
