// SPDX-License-Identifier: Apache-2.0
// Which certificate speaks inside a circuit. No router sees it, so a hostile one loses nothing by
// being honest here: the two ends check it, or nobody does.
#include <gtest/gtest.h>

#include <utility>

#include "attack.h"

namespace sally::sim {
namespace {

using wire::SetupCode;

class InnerIdentity : public AttackTest {
 protected:
  /// Of one device: an hours' key that stands for a certificate of its.
  crypto::TestLeaf session_of(const std::string& id, const crypto::Certificate& parent) const {
    auto spec = world.pki.leaf_spec(crypto::Role::kDevice, id);
    spec.session_parent = parent.serial_hex();
    return world.pki.leaf(spec, true);
  }
};

// The proof is by a certificate that is good; the handshake by another one of the same identity,
// which may be the one that was revoked.
TEST_P(InnerIdentity, AHostTakesTheCertificateOfTheProofAndNoOtherOfItsDevice) {
  bring_up_host();
  const auto m = raw("mallory");
  const auto revoked = world.pki.leaf(crypto::Role::kDevice, "mallory");
  world.controller.revoke_certificate(revoked.cert.serial_hex());
  ASSERT_TRUE(world.until([&] { return world.controller.acked == world.controller.version(); }));
  const std::pair<const char*, crypto::TestLeaf> others[] = {
      {"a revoked one", revoked},
      {"a good one", world.pki.leaf(crypto::Role::kDevice, "mallory")},
      {"a session of the proof's", session_of("mallory", m->leaf.cert)},
      {"a session of the revoked one", session_of("mallory", revoked.cert)}};
  for (const auto& [what, inside] : others) {
    const int gone = server.gone;
    auto s = m->setup("s-1", "s-1", m->inner(tls::Side::kClient, inside));
    ASSERT_EQ(m->open(m->sealed(std::move(s))), SetupCode::kNone) << what;
    m->finish_handshake(m->ends.back());
    EXPECT_TRUE(world.until([&] { return server.gone == gone + 1 || !server.streams.empty(); }));
    EXPECT_TRUE(server.streams.empty()) << what;
    server.streams.clear();
  }
  // The one that signed the proof is let in; so is a session that signed its own.
  for (const auto& leaf : {m->leaf, session_of("mallory", m->leaf.cert)}) {
    const auto streams = server.streams.size();
    auto s = m->setup("s-1", "s-1", m->inner(tls::Side::kClient, leaf));
    s.leaf = leaf.cert.der();
    s.proof = must(trust::make_dial_proof(s, "r-1", now_ms(), *leaf.key));
    ASSERT_EQ(m->open(s), SetupCode::kNone);
    m->finish_handshake(m->ends.back());
    EXPECT_TRUE(world.until([&] { return server.streams.size() == streams + 1; }));
  }
  server.streams.clear();
}

// Its lane is of its own key, as the tag asks; what stands inside is for the dialer to see.
TEST_P(InnerIdentity, ADialerTakesNoSessionOfAHostThatMayHaveNone) {
  bring_up_pump();
  const auto dial = [&](bool tagged) {
    std::vector<std::string> tags{"sensors", "servers"};
    if (tagged) tags.insert(tags.begin(), std::string(trust::kDeviceKeyOnly));
    world.controller.put_device("mallory", tags);
    const auto m = raw("mallory");
    EXPECT_EQ(m->bind("s-1"), SetupCode::kNone);
    m->on_setup = [&](const auto& a) {
      m->answer(a, session_of("mallory", m->leaf.cert), m->card);
    };
    std::string code = dial_code();
    if (tagged) {
      m->on_setup = [&](const auto& a) { m->answer(a, m->leaf, m->card); };
      EXPECT_EQ(dial_code(), "ok") << "its own key";
    }
    EXPECT_TRUE(m->alive());
    return code;
  };
  EXPECT_EQ(dial(false), "ok");
  EXPECT_EQ(dial(true), "sally.verify");
}

INSTANTIATE_TEST_SUITE_P(Workers, InnerIdentity, ::testing::Values(1U, 2U));

}  // namespace
}  // namespace sally::sim
