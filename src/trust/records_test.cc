// SPDX-License-Identifier: Apache-2.0
#include "trust/records.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/fs.h"
#include "trust/test_world.h"

namespace sally::trust {
namespace {

using wire::EnvelopeType;

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

TEST(Envelope, EveryFieldIsCovered) {
  const auto& w = world();
  const Bytes payload = {1, 2, 3};
  const auto sealed = seal(EnvelopeType::kCard, "net-a.sally", payload, *w.signer.key);
  ASSERT_TRUE(sealed);
  const auto& key = w.signer.cert.public_key();
  ASSERT_EQ(*open(*sealed, EnvelopeType::kCard, "net-a.sally", key), payload);

  const std::pair<const char*, std::function<void(wire::Envelope&)>> changes[] = {
      {"trust.wrong_network", [](auto& e) { e.network = "net-b.sally"; }},
      {"trust.wrong_type", [](auto& e) { e.type = EnvelopeType::kServiceRecord; }},
      {"trust.bad_signature", [](auto& e) { e.payload[0] ^= 1; }},
      {"trust.bad_signature", [](auto& e) { e.payload.push_back(0); }},
      {"trust.bad_signature", [](auto& e) { e.payload.clear(); }},
      {"trust.unknown_key", [](auto& e) { e.key_id[0] ^= 1; }},
      {"trust.bad_signature", [](auto& e) { e.signature.back() ^= 1; }},
      {"wire.missing", [](auto& e) { e.signature.clear(); }},
  };
  for (const auto& [want, change] : changes) {
    auto e = *wire::decode_envelope(*sealed);
    change(e);
    EXPECT_EQ(code(open(wire::encode(e), EnvelopeType::kCard, "net-a.sally", key)), want);
  }
  // A network that matches what was altered does not help: it is signed.
  auto e = *wire::decode_envelope(*sealed);
  e.network = "net-b.sally";
  EXPECT_EQ(code(open(wire::encode(e), EnvelopeType::kCard, "net-b.sally", key)),
            "trust.bad_signature");
  e = *wire::decode_envelope(*sealed);
  e.type = EnvelopeType::kRoute;
  EXPECT_EQ(code(open(wire::encode(e), EnvelopeType::kRoute, "net-a.sally", key)),
            "trust.bad_signature");
  EXPECT_EQ(code(open(*sealed, EnvelopeType::kCard, "", key)), "trust.wrong_network");
  EXPECT_EQ(code(open(*sealed, EnvelopeType::kCard, "net-a.sally", w.device.cert.public_key())),
            "trust.unknown_key");
  EXPECT_EQ(code(open({}, EnvelopeType::kCard, "net-a.sally", key)), "wire.missing");
  EXPECT_EQ(code(seal(EnvelopeType::kCard, "", payload, *w.signer.key)), "trust.invalid");
  EXPECT_EQ(code(seal(EnvelopeType::kCard, std::string(256, 'n'), payload, *w.signer.key)),
            "trust.invalid");
}

TEST(SignerSet, OnlySignersOfThisNetwork) {
  const auto& w = world();
  const auto now = w.pki.now_s;
  const auto chain = [&](const crypto::TestLeaf& l, const crypto::Certificate& ca) {
    return wire::SignerChain{l.cert.der(), ca.der()};
  };
  SignerSet set;
  EXPECT_EQ(code(set.add(w.signer_chain(), w.anchors, now)), "ok");
  EXPECT_NE(code(set.add(chain(w.device, w.pki.devices), w.anchors, now)), "ok");
  EXPECT_NE(code(set.add(chain(w.router, w.pki.infrastructure), w.anchors, now)), "ok");
  EXPECT_NE(code(set.add(other_world().signer_chain(), w.anchors, now)), "ok");
  EXPECT_NE(code(set.add(w.signer_chain(), w.anchors, now + 91 * 86400)), "ok");
  EXPECT_NE(code(set.add({{1}, {2}}, w.anchors, now)), "ok");
  auto other_name = w.anchors;
  other_name.network = "net-b.sally";
  EXPECT_NE(code(set.add(w.signer_chain(), other_name, now)), "ok");
  auto no_roots = w.anchors;
  no_roots.roots.clear();
  EXPECT_NE(code(set.add(w.signer_chain(), no_roots, now)), "ok");
  EXPECT_EQ(set.size(), 1U);
  EXPECT_EQ(set.chains().size(), 1U);

  const auto id = w.signer.cert.public_key().key_id();
  EXPECT_EQ(code(set.find(id, now)), "ok");
  EXPECT_EQ(code(set.find(id, w.signer.cert.not_after() + 1)), "trust.signer_expired");
  EXPECT_EQ(code(set.find(w.device.cert.public_key().key_id(), now)), "trust.unknown_key");
  set.remove_serial(w.signer.cert.serial_hex());
  EXPECT_EQ(code(set.find(id, now)), "trust.unknown_key");
}

TEST(SessionToken, IsOfOneIdentityOneUseOneTime) {
  using wire::SessionUse;
  const auto& w = world();
  const wire::SessionToken dial{w.pki.network,     "d-1", 3,        "a-1",
                                SessionUse::kDial, "s-1", w.now_ms, w.now_ms + 60'000};
  const auto text = *make_session_token(dial, *w.signer.key);
  EXPECT_FALSE(text.starts_with("ey"));
  EXPECT_LT(text.size(), 500U);
  const auto check = [&](const wire::SessionToken& t, const crypto::Signer& by) {
    return code(
        verify_session_token(*make_session_token(t, by), SessionUse::kDial, "d-1", w.ctx()));
  };
  ASSERT_EQ(check(dial, *w.signer.key), "ok");
  EXPECT_EQ(**verify_session_token(text, SessionUse::kDial, "d-1", w.ctx()), dial);

  EXPECT_EQ(code(verify_session_token(text, SessionUse::kBind, "d-1", w.ctx())),
            "trust.wrong_type");
  EXPECT_EQ(code(verify_session_token(text, SessionUse::kDial, "d-2", w.ctx())),
            "trust.wrong_identity");
  EXPECT_EQ(code(verify_session_token(text, SessionUse::kDial, "", w.ctx())),
            "trust.wrong_identity");
  EXPECT_EQ(check(dial, *w.device.key), "trust.unknown_key");
  auto changed = dial;
  changed.network = "net-b.sally";
  EXPECT_EQ(check(changed, *w.signer.key), "trust.wrong_network");
  changed = dial;
  changed.not_after_ms = w.now_ms;
  EXPECT_EQ(check(changed, *w.signer.key), "trust.expired");
  changed = dial;
  changed.issued_ms = w.now_ms + kMaxSkewMs + 1;
  EXPECT_EQ(check(changed, *w.signer.key), "trust.time");
  changed = dial;
  changed.service.clear();
  EXPECT_EQ(code(make_session_token(changed, *w.signer.key)), "trust.invalid");
  // Any other text, and any other thing that is signed.
  for (const std::string& bad :
       {std::string(), text.substr(4), "ey" + text, text + "=", std::string(kSessionPrefix),
        std::string(kSessionPrefix) + std::string(kMaxSessionText, 'A'),
        std::string(kSessionPrefix) + to_base64url(*make_card(w.card(), *w.signer.key))})
    EXPECT_NE(code(verify_session_token(bad, SessionUse::kDial, "d-1", w.ctx())), "ok") << bad;
  auto flipped = text;
  flipped[flipped.size() / 2] = flipped[flipped.size() / 2] == 'A' ? 'B' : 'A';
  EXPECT_NE(code(verify_session_token(flipped, SessionUse::kDial, "d-1", w.ctx())), "ok");

  TestRevocation r;
  auto ctx = w.ctx();
  ctx.revocation = &r;
  r.min_epoch = 4;
  EXPECT_EQ(code(verify_session_token(text, SessionUse::kDial, "d-1", ctx)), "trust.revoked");
}

TEST(Card, GoodAndRefused) {
  const auto& w = world();
  const auto good = *make_card(w.card(), *w.signer.key);
  ASSERT_EQ(code(verify_card(good, w.ctx())), "ok");
  EXPECT_EQ(**verify_card(good, w.ctx()), w.card());

  EXPECT_EQ(code(verify_card(*make_card(w.card(), *w.device.key), w.ctx())), "trust.unknown_key");
  EXPECT_EQ(code(verify_card(*make_card(w.card(), *other_world().signer.key), w.ctx())),
            "trust.unknown_key");
  EXPECT_EQ(code(verify_card(*make_card(other_world().card(), *w.signer.key), w.ctx())),
            "trust.wrong_network");
  // The envelope of this network around a payload of another one.
  EXPECT_EQ(code(verify_card(*seal(EnvelopeType::kCard, w.pki.network,
                                   wire::encode(other_world().card()), *w.signer.key),
                             w.ctx())),
            "trust.wrong_network");
  EXPECT_EQ(code(verify_card(*make_service_record(w.record(), *w.signer.key), w.ctx())),
            "trust.wrong_type");
  auto late = w.ctx();
  late.now_ms = w.card().not_after_ms;
  EXPECT_EQ(code(verify_card(good, late)), "trust.expired");
  auto none = w.card();
  none.not_after_ms = 0;
  EXPECT_EQ(code(verify_card(*make_card(none, *w.signer.key), w.ctx())), "trust.expired");

  TestRevocation r;
  auto ctx = w.ctx();
  ctx.revocation = &r;
  r.dead = {"d-1"};
  EXPECT_EQ(code(verify_card(good, ctx)), "trust.revoked");
  r.dead.clear();
  r.min_epoch = 2;
  EXPECT_EQ(code(verify_card(good, ctx)), "trust.revoked");

  // Every bit of the envelope counts.
  for (std::size_t i = 0; i < good.size(); ++i) {
    auto bad = good;
    bad[i] ^= 0x20;
    const auto got = verify_card(bad, w.ctx());
    EXPECT_FALSE(got) << "byte " << i;
  }
}

TEST(ServiceRecord, GoodAndRefused) {
  const auto& w = world();
  const auto good = *make_service_record(w.record(), *w.signer.key);
  ASSERT_EQ(code(verify_service_record(good, w.ctx())), "ok");
  EXPECT_EQ(code(verify_service_record(*make_service_record(w.record(), *w.router.key), w.ctx())),
            "trust.unknown_key");
  EXPECT_EQ(code(verify_service_record(*make_service_record(other_world().record(), *w.signer.key),
                                       w.ctx())),
            "trust.wrong_network");
  EXPECT_EQ(code(verify_service_record(*make_card(w.card(), *w.signer.key), w.ctx())),
            "trust.wrong_type");
  auto late = w.ctx();
  late.now_ms = w.record().not_after_ms;
  EXPECT_EQ(code(verify_service_record(good, late)), "trust.expired");
}

TEST(Heads, GoodAndRefused) {
  const auto& w = world();
  const wire::StateHead head{w.pki.network, 7, {}, w.now_ms};
  const wire::SnapshotHead snap{w.pki.network, 7, {}, {}, w.now_ms};
  EXPECT_EQ(code(verify_state_head(*make_state_head(head, *w.signer.key), w.ctx())), "ok");
  EXPECT_EQ(code(verify_snapshot_head(*make_snapshot_head(snap, *w.signer.key), w.ctx())), "ok");
  EXPECT_EQ(code(verify_state_head(*make_snapshot_head(snap, *w.signer.key), w.ctx())),
            "trust.wrong_type");
  EXPECT_EQ(code(verify_state_head(*make_state_head(head, *w.router.key), w.ctx())),
            "trust.unknown_key");
  auto future = head;
  future.time_ms = w.now_ms + kMaxSkewMs + 1;
  EXPECT_EQ(code(verify_state_head(*make_state_head(future, *w.signer.key), w.ctx())),
            "trust.time");
  auto foreign = head;
  foreign.network = "net-b.sally";
  EXPECT_EQ(code(verify_state_head(*make_state_head(foreign, *w.signer.key), w.ctx())),
            "trust.wrong_network");
}

TEST(Parties, AValidDeviceCannotPoseAsTheHost) {
  const auto& w = world();
  const auto record =
      *verify_service_record(*make_service_record(w.record(), *w.signer.key), w.ctx());
  const auto host = *verify_card(*make_card(w.card("d-2"), *w.signer.key), w.ctx());
  const auto dialer = *verify_card(*make_card(w.card("d-1"), *w.signer.key), w.ctx());
  EXPECT_EQ(code(check_host(host, "d-2", record)), "ok");
  EXPECT_EQ(code(check_host(dialer, "d-1", record)), "trust.not_granted");
  EXPECT_EQ(code(check_host(host, "d-1", record)), "trust.wrong_identity");
  EXPECT_EQ(code(check_host(host, "", record)), "trust.wrong_identity");
  EXPECT_EQ(code(check_caller(dialer, "d-1", record)), "ok");
  auto untagged = w.card("d-3");
  untagged.attributes.clear();
  const auto stranger = *verify_card(*make_card(untagged, *w.signer.key), w.ctx());
  EXPECT_EQ(code(check_caller(stranger, "d-3", record)), "trust.not_granted");
}

// Seeds of the fuzz target: SALLY_WRITE_CORPUS=tests/corpus build/dev/bin/trust_test writes them.
// They hold public data of a throw-away network; their certificates are not in the target's
// anchors, so no time makes them old.
TEST(Envelope, Corpus) {
  const char* to = std::getenv("SALLY_WRITE_CORPUS");
  if (to == nullptr) GTEST_SKIP() << "only on request";
  const auto& w = world();
  const auto setup = w.setup();
  const std::string dir = std::string(to) + "/trust_envelope_fuzz";
  ASSERT_TRUE(fs::make_dirs(dir, 0755));
  const auto put = [&](const char* name, std::uint8_t selector, const Bytes& body) {
    Bytes file{selector};
    append(file, body);
    ASSERT_TRUE(fs::write_file_atomic(dir + "/" + name, file, 0644));
  };
  put("card", 0, *make_card(w.card(), *w.signer.key));
  put("record", 1, *make_service_record(w.record(), *w.signer.key));
  put("head", 2, *make_state_head({w.pki.network, 7, {}, w.now_ms}, *w.signer.key));
  put("setup", 3, wire::encode(setup));
  put("route", 4, *make_route(w.route(setup), *w.router.key));
  put("answer", 5, *make_answer(w.answer(setup), *w.egress.key));
  put("bind", 6, *make_bind_proof(w.bind(), *w.host.key));
  put("signer", 7, w.signer.cert.der());
  const auto token = *make_session_token(
      {w.pki.network, "d-1", 3, "a-1", wire::SessionUse::kDial, "s-1", w.now_ms, w.now_ms + 1},
      *w.signer.key);
  put("session", 8, to_bytes(token));
  put("session_raw", 8, *from_base64url(token.substr(kSessionPrefix.size())));
}

}  // namespace
}  // namespace sally::trust
