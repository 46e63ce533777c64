// SPDX-License-Identifier: Apache-2.0
#include "trust/circuit.h"

#include <gtest/gtest.h>

#include <functional>

#include "trust/test_world.h"

namespace sally::trust {
namespace {

const TestWorld& world() {
  static const TestWorld w;
  return w;
}
const TestWorld& other_world() {
  static const TestWorld w("net-b.sally");
  return w;
}

template <typename R>
std::string code(const R& r) {
  return r ? "ok" : std::string(r.error().code());
}
template <typename R>
std::string text(const R& r) {
  return r ? "ok" : r.error().text();
}

TEST(DialProof, Good) {
  const auto& w = world();
  const auto got = verify_dial_from_lane(w.setup(), "r-1", "d-1", w.ctx());
  ASSERT_TRUE(got) << got.error().text();
  EXPECT_EQ(got->caller.id, "d-1");
  EXPECT_EQ(got->card->attributes, std::vector<std::string>{"sensors"});
}

TEST(DialProof, EveryFieldOfTheSetupIsCompared) {
  const auto& w = world();
  const std::pair<const char*, std::function<void(wire::Setup&)>> changes[] = {
      {"trust.mismatch: kind", [](auto& s) { s.kind = wire::SetupKind::kMove; }},
      {"trust.wrong_network: net-b.sally", [](auto& s) { s.network = "net-b.sally"; }},
      {"trust.mismatch: circuit", [](auto& s) { s.circuit.raw[15] ^= 1; }},
      {"trust.mismatch: epoch", [](auto& s) { s.epoch++; }},
      {"trust.mismatch: service", [](auto& s) { s.service = "s-2"; }},
      {"trust.mismatch: client_hello", [](auto& s) { s.client_hello[0] ^= 1; }},
      {"trust.mismatch: client_hello", [](auto& s) { s.client_hello.clear(); }},
      {"trust.mismatch: next_expected", [](auto& s) { s.next_expected++; }},
      {"trust.mismatch: app_data", [](auto& s) { s.app_data = {1}; }},
  };
  for (const auto& [want, change] : changes) {
    auto s = w.setup();
    change(s);
    EXPECT_EQ(text(verify_dial(s, "r-1", w.ctx())), want);
  }
}

TEST(DialProof, AppDataIsSignedToo) {
  const auto& w = world();
  auto s = w.setup();
  s.app_data = {1, 2, 3};
  s.proof = *make_dial_proof(s, "r-1", w.now_ms, *w.device.key);
  EXPECT_EQ(text(verify_dial(s, "r-1", w.ctx())), "ok");
  for (const Bytes& other : {Bytes{}, Bytes{1, 2}, Bytes{1, 2, 4}, Bytes{1, 2, 3, 0}}) {
    auto changed = s;
    changed.app_data = other;
    EXPECT_EQ(text(verify_dial(changed, "r-1", w.ctx())), "trust.mismatch: app_data");
  }
}

TEST(DialProof, WrongParties) {
  const auto& w = world();
  const auto& o = other_world();
  const auto with = [&](const std::function<void(wire::Setup&)>& change) {
    auto s = w.setup();
    change(s);
    return code(verify_dial(s, "r-1", w.ctx()));
  };
  EXPECT_EQ(code(verify_dial(w.setup(), "r-2", w.ctx())), "trust.mismatch");
  EXPECT_EQ(code(verify_dial(w.setup(), "", w.ctx())), "trust.mismatch");
  EXPECT_EQ(code(verify_dial_from_lane(w.setup(), "r-1", "d-2", w.ctx())), "trust.wrong_identity");
  // Another device's certificate, card, key.
  EXPECT_EQ(with([&](auto& s) { s.leaf = w.host.cert.der(); }), "trust.wrong_identity");
  EXPECT_EQ(with([&](auto& s) { s.card = *make_card(w.card("d-2"), *w.signer.key); }),
            "trust.wrong_identity");
  EXPECT_EQ(with([&](auto& s) { s.proof = *make_dial_proof(s, "r-1", w.now_ms, *w.host.key); }),
            "trust.unknown_key");
  EXPECT_EQ(with([&](auto& s) {
              s.leaf = w.host.cert.der();
              s.card = *make_card(w.card("d-2"), *w.signer.key);
            }),
            "trust.unknown_key");
  // Self-made cards, certificates of the wrong kind, nothing at all.
  EXPECT_EQ(with([&](auto& s) { s.card = *make_card(w.card(), *w.device.key); }),
            "trust.unknown_key");
  EXPECT_EQ(with([&](auto& s) {
              s.leaf = w.router.cert.der();
              s.issuing = w.pki.infrastructure.der();
            }),
            "crypto.wrong_role");
  EXPECT_EQ(with([&](auto& s) { s.leaf = w.pki.devices.der(); }), "crypto.intermediate_as_leaf");
  EXPECT_EQ(with([&](auto& s) {
              s.leaf = o.device.cert.der();
              s.issuing = o.pki.devices.der();
            }),
            "crypto.unknown_ca");
  EXPECT_EQ(with([](auto& s) { s.leaf.clear(); }), "crypto.malformed");
  EXPECT_EQ(with([](auto& s) { s.card.clear(); }), "wire.missing");
  EXPECT_EQ(with([](auto& s) { s.proof.clear(); }), "wire.missing");
  EXPECT_EQ(with([&](auto& s) { s.proof = *make_bind_proof(w.bind(), *w.device.key); }),
            "trust.wrong_type");
  EXPECT_EQ(with([&](auto& s) {
              auto p = s;
              p.network = "net-b.sally";
              s.proof = *make_dial_proof(p, "r-1", w.now_ms, *w.device.key);
            }),
            "trust.wrong_network");
}

TEST(DialProof, TimeAndRevocation) {
  const auto& w = world();
  auto s = w.setup();
  const struct {
    std::int64_t offset;
    const char* want;
  } times[] = {{-kMaxSkewMs - 1, "trust.time"},
               {-kMaxSkewMs, "ok"},
               {kMaxSkewMs, "ok"},
               {kMaxSkewMs + 1, "trust.time"}};
  for (const auto& t : times) {
    s.proof = *make_dial_proof(s, "r-1", w.now_ms + t.offset, *w.device.key);
    EXPECT_EQ(code(verify_dial(s, "r-1", w.ctx())), t.want) << t.offset;
  }
  TestRevocation r;
  auto ctx = w.ctx();
  ctx.revocation = &r;
  r.serials = {w.device.cert.serial_hex()};
  EXPECT_EQ(code(verify_dial(w.setup(), "r-1", ctx)), "trust.revoked");
  r.serials.clear();
  r.dead = {"d-1"};
  EXPECT_EQ(code(verify_dial(w.setup(), "r-1", ctx)), "trust.revoked");
  r.dead.clear();
  r.min_epoch = 2;
  EXPECT_EQ(code(verify_dial(w.setup(), "r-1", ctx)), "trust.revoked");
  auto later = w.ctx();
  later.now_ms = (w.device.cert.not_after() + 1) * 1000;
  EXPECT_EQ(code(verify_dial(w.setup(), "r-1", later)), "crypto.expired");
}

TEST(Route, GoodAndEveryFieldCompared) {
  const auto& w = world();
  const auto setup = w.setup();
  const auto bytes = wire::encode(setup);
  const auto check = [&](const wire::Route& r, const crypto::Signer& key,
                         std::uint32_t attempt = 1) {
    return text(verify_route(*make_route(r, key), bytes, setup, attempt, w.ctx()));
  };
  EXPECT_EQ(check(w.route(setup), *w.router.key), "ok");
  const std::pair<const char*, std::function<void(wire::Route&)>> changes[] = {
      {"trust.wrong_network: net-b.sally", [](auto& r) { r.network = "net-b.sally"; }},
      {"trust.mismatch: circuit", [](auto& r) { r.circuit.raw[0] ^= 1; }},
      {"trust.mismatch: epoch", [](auto& r) { r.epoch++; }},
      {"trust.mismatch: attempt", [](auto& r) { r.attempt++; }},
      {"trust.mismatch: service", [](auto& r) { r.service = "s-2"; }},
      {"trust.mismatch: setup", [](auto& r) { r.setup_hash[31] ^= 1; }},
      {"trust.wrong_identity: signed by r-1", [](auto& r) { r.hops = {"r-3", "r-1", "r-2"}; }},
      {"wire.duplicate: route: hops", [](auto& r) { r.hops = {"r-1", "r-3", "r-1"}; }},
  };
  for (const auto& [want, change] : changes) {
    auto r = w.route(setup);
    change(r);
    EXPECT_EQ(check(r, *w.router.key), want);
  }
  EXPECT_EQ(check(w.route(setup), *w.router.key, 2), "trust.mismatch: attempt");
  // One byte of the set-up changed under the same route.
  auto other = bytes;
  other.back() ^= 1;
  EXPECT_EQ(
      code(verify_route(*make_route(w.route(setup), *w.router.key), other, setup, 1, w.ctx())),
      "trust.mismatch");
}

TEST(Route, WrongSignerAndTime) {
  const auto& w = world();
  const auto setup = w.setup();
  const auto bytes = wire::encode(setup);
  const auto check = [&](const std::function<void(wire::Route&)>& change,
                         const crypto::Signer& key) {
    auto r = w.route(setup);
    change(r);
    return code(verify_route(*make_route(r, key), bytes, setup, 1, w.ctx()));
  };
  EXPECT_EQ(check([](auto&) {}, *w.egress.key), "trust.unknown_key");
  EXPECT_EQ(check([&](auto& r) { r.ingress_leaf = w.egress.cert.der(); }, *w.egress.key),
            "trust.wrong_identity");
  // A device cannot route, nor the signer, nor a router of another network, nor one that left the
  // directory.
  EXPECT_EQ(check(
                [&](auto& r) {
                  r.ingress_leaf = w.device.cert.der();
                  r.ingress_issuing = w.pki.devices.der();
                  r.hops[0] = "d-1";
                },
                *w.device.key),
            "crypto.wrong_role");
  EXPECT_NE(check([&](auto& r) { r.ingress_leaf = w.signer.cert.der(); }, *w.signer.key), "ok");
  EXPECT_EQ(check(
                [&](auto& r) {
                  r.ingress_leaf = other_world().router.cert.der();
                  r.ingress_issuing = other_world().pki.infrastructure.der();
                },
                *other_world().router.key),
            "crypto.unknown_ca");
  TestRevocation rev;
  rev.routers = {"r-2"};
  auto ctx = w.ctx();
  ctx.revocation = &rev;
  const auto good = *make_route(w.route(setup), *w.router.key);
  EXPECT_EQ(code(verify_route(good, bytes, setup, 1, ctx)), "trust.unknown_router");
  rev.routers = {"r-1"};
  EXPECT_EQ(code(verify_route(good, bytes, setup, 1, ctx)), "ok");
  // Its certificate, its CA, itself.
  for (const auto& serial : {w.router.cert.serial_hex(), w.pki.infrastructure.serial_hex()}) {
    rev.serials = {serial};
    EXPECT_EQ(code(verify_route(good, bytes, setup, 1, ctx)), "trust.revoked");
  }
  rev.serials.clear();
  rev.dead = {"r-1"};
  EXPECT_EQ(code(verify_route(good, bytes, setup, 1, ctx)), "trust.revoked");

  const auto at = [&](std::int64_t expiry) {
    return check([&](auto& r) { r.expiry_ms = w.now_ms + expiry; }, *w.router.key);
  };
  EXPECT_EQ(at(-kMaxSkewMs), "ok");
  EXPECT_EQ(at(-kMaxSkewMs - 1), "trust.expired");
  EXPECT_EQ(at(kMaxRouteLifeMs + kMaxSkewMs), "ok");
  EXPECT_EQ(at(kMaxRouteLifeMs + kMaxSkewMs + 1), "trust.time");
}

TEST(Route, PlaceOnThePath) {
  const auto r = world().route(world().setup());
  EXPECT_EQ(code(check_egress(r, "r-2")), "ok");
  EXPECT_EQ(code(check_egress(r, "r-3")), "trust.not_on_path");
  EXPECT_EQ(code(check_egress(r, "")), "trust.not_on_path");
  EXPECT_EQ(*next_hop(r, "r-1"), "r-3");
  EXPECT_EQ(*next_hop(r, "r-3"), "r-2");
  EXPECT_EQ(code(next_hop(r, "r-2")), "trust.not_on_path");
  EXPECT_EQ(code(next_hop(r, "r-9")), "trust.not_on_path");
}

TEST(Answer, GoodAndEveryFieldCompared) {
  const auto& w = world();
  const auto setup = w.setup();
  AnswerExpected expected{.circuit = setup.circuit, .epoch = setup.epoch};
  const auto good = *make_answer(w.answer(setup), *w.egress.key);
  EXPECT_EQ(text(verify_answer(good, expected, w.ctx())), "ok");
  expected.attempt = setup.attempt;
  expected.terminator = "t-1";
  expected.egress = "r-2";
  expected.instance = w.answer(setup).instance;
  EXPECT_EQ(text(verify_answer(good, expected, w.ctx())), "ok");
  const std::pair<const char*, std::function<void(wire::Answer&)>> changes[] = {
      {"trust.wrong_network: net-b.sally", [](auto& a) { a.network = "net-b.sally"; }},
      {"trust.mismatch: circuit", [](auto& a) { a.host.circuit.raw[3] ^= 1; }},
      {"trust.mismatch: epoch", [](auto& a) { a.host.epoch++; }},
      {"trust.mismatch: attempt", [](auto& a) { a.host.attempt++; }},
      {"trust.mismatch: terminator", [](auto& a) { a.terminator = "t-2"; }},
      {"trust.mismatch: instance", [](auto& a) { a.instance[0] ^= 1; }},
      {"trust.wrong_identity: signed by r-2", [](auto& a) { a.egress = "r-3"; }},
  };
  for (const auto& [want, change] : changes) {
    auto a = w.answer(setup);
    change(a);
    EXPECT_EQ(text(verify_answer(*make_answer(a, *w.egress.key), expected, w.ctx())), want);
  }
  EXPECT_EQ(code(verify_answer(*make_answer(w.answer(setup), *w.router.key), expected, w.ctx())),
            "trust.unknown_key");
  // Another router of the network answers under its own name.
  auto a = w.answer(setup);
  a.egress = "r-1";
  a.egress_leaf = w.router.cert.der();
  EXPECT_EQ(text(verify_answer(*make_answer(a, *w.router.key), expected, w.ctx())),
            "trust.mismatch: egress");
  // The host itself cannot.
  a = w.answer(setup);
  a.egress_leaf = w.host.cert.der();
  a.egress_issuing = w.pki.devices.der();
  EXPECT_EQ(code(verify_answer(*make_answer(a, *w.host.key), expected, w.ctx())),
            "crypto.wrong_role");
  auto bad = good;
  bad[bad.size() / 2] ^= 1;
  EXPECT_FALSE(verify_answer(bad, expected, w.ctx()));
}

TEST(BindProof, GoodAndEveryFieldCompared) {
  const auto& w = world();
  const auto& key = w.host.cert.public_key();
  const auto good = *make_bind_proof(w.bind(), *w.host.key);
  EXPECT_EQ(text(verify_bind_proof(good, w.bind(), key, w.ctx())), "ok");
  const std::pair<const char*, std::function<void(wire::BindProof&)>> changes[] = {
      {"trust.wrong_network", [](auto& b) { b.network = "net-b.sally"; }},
      {"trust.mismatch", [](auto& b) { b.service = "s-2"; }},
      {"trust.mismatch", [](auto& b) { b.instance[0] ^= 1; }},
      {"trust.mismatch", [](auto& b) { b.router = "r-1"; }},
      {"trust.time", [](auto& b) { b.time_ms += kMaxSkewMs + 1; }},
      {"trust.time", [](auto& b) { b.time_ms -= kMaxSkewMs + 1; }},
  };
  for (const auto& [want, change] : changes) {
    auto b = w.bind();
    change(b);
    EXPECT_EQ(code(verify_bind_proof(*make_bind_proof(b, *w.host.key), w.bind(), key, w.ctx())),
              want);
  }
  EXPECT_EQ(code(verify_bind_proof(good, w.bind(), w.device.cert.public_key(), w.ctx())),
            "trust.unknown_key");

  EXPECT_EQ(text(verify_terminator(w.terminator(), w.ctx())), "ok");
  const std::pair<const char*, std::function<void(wire::Terminator&)>> records[] = {
      {"trust.mismatch", [](auto& t) { t.service = "s-2"; }},
      {"trust.mismatch", [](auto& t) { t.instance[0] ^= 1; }},
      {"trust.mismatch", [](auto& t) { t.router = "r-1"; }},
      {"trust.wrong_identity", [](auto& t) { t.device = "d-1"; }},
      {"trust.unknown_key",
       [&](auto& t) {
         t.device = "d-1";
         t.leaf = w.device.cert.der();
       }},
      {"crypto.malformed", [](auto& t) { t.leaf.clear(); }},
  };
  for (const auto& [want, change] : records) {
    auto t = w.terminator();
    change(t);
    EXPECT_EQ(code(verify_terminator(t, w.ctx())), want);
  }
  // A bind made days ago is still the host's word; one from the future is not.
  auto later = w.ctx();
  later.now_ms += 5 * 86'400'000LL;
  EXPECT_EQ(code(verify_terminator(w.terminator(), later)), "ok");
  later.now_ms = w.now_ms - kMaxSkewMs - 1;
  EXPECT_EQ(code(verify_terminator(w.terminator(), later)), "trust.time");
  TestRevocation rev;
  rev.routers.clear();
  auto ctx = w.ctx();
  ctx.revocation = &rev;
  EXPECT_EQ(code(verify_terminator(w.terminator(), ctx)), "trust.unknown_router");
}

TEST(SeenCircuits, RefusesReplayUntilItCannotBeValid) {
  SeenCircuits seen(2);
  CircuitId a;
  CircuitId b;
  b.raw[0] = 1;
  EXPECT_EQ(code(seen.remember(a, 1, 0, 10'000, 0)), "ok");
  EXPECT_EQ(code(seen.remember(a, 1, 0, 10'000, 0)), "trust.replay");
  EXPECT_EQ(code(seen.remember(a, 1, 1, 10'000, 0)), "ok");
  EXPECT_EQ(code(seen.remember(b, 1, 0, 10'000, 0)), "trust.full");
  EXPECT_EQ(code(seen.remember(a, 1, 0, 10'000, 10'000 + kMaxSkewMs)), "trust.replay");
  EXPECT_EQ(code(seen.remember(b, 1, 0, 99'000, 10'001 + kMaxSkewMs)), "ok");
  EXPECT_EQ(seen.size(), 1U);
}

}  // namespace
}  // namespace sally::trust
