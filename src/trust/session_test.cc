// SPDX-License-Identifier: Apache-2.0
// Session certificates as a router and a peer see them.
#include <gtest/gtest.h>

#include "trust/test_world.h"

namespace sally::trust {
namespace {

class SessionTrust : public ::testing::Test {
 protected:
  /// A dial that a session of d-1 signed, with these tags on the card.
  wire::Setup dial(std::vector<std::string> tags = {"sensors"}) const {
    auto s = world.setup();
    auto card = world.card();
    card.attributes = std::move(tags);
    s.card = crypto::must(make_card(card, *world.signer.key));
    s.leaf = session.cert.der();
    s.proof = crypto::must(make_dial_proof(s, "r-1", world.now_ms, *session.key));
    return s;
  }
  std::string said(const wire::Setup& s) const {
    const auto r = verify_dial(s, "r-1", world.ctx());
    return r ? "taken" : std::string(r.error().code());
  }
  static crypto::CertSpec spec(const TestWorld& w, crypto::Role role, const std::string& parent) {
    auto s = w.pki.leaf_spec(role, "d-1");
    s.session_parent = parent;
    return s;
  }
  TestWorld world;
  crypto::TestLeaf session =
      world.pki.leaf(spec(world, crypto::Role::kDevice, world.device.cert.serial_hex()), true);
};

TEST_F(SessionTrust, ItSpeaksForItsDeviceAndFallsWithItsParent) {
  EXPECT_EQ(session.cert.session_parent(), world.device.cert.serial_hex());
  EXPECT_TRUE(world.device.cert.session_parent().empty());
  EXPECT_EQ(said(dial()), "taken");
  world.revocation.serials = {world.device.cert.serial_hex()};
  EXPECT_EQ(said(dial()), "trust.revoked") << "the parent";
  world.revocation.serials = {session.cert.serial_hex()};
  EXPECT_EQ(said(dial()), "trust.revoked") << "itself";
  EXPECT_EQ(said(world.setup()), "taken") << "the parent does not fall with it";
  world.revocation.serials.clear();
  world.revocation.dead = {"d-1"};
  EXPECT_EQ(said(dial()), "trust.revoked") << "the identity";
}

TEST_F(SessionTrust, DeviceKeyOnlyRefusesItAndNotTheDevice) {
  EXPECT_EQ(said(dial({"device-key-only", "sensors"})), "trust.device_key_only");
  auto s = world.setup();
  auto card = world.card();
  card.attributes = {"device-key-only", "sensors"};
  s.card = crypto::must(make_card(card, *world.signer.key));
  s.proof = crypto::must(make_dial_proof(s, "r-1", world.now_ms, *world.device.key));
  EXPECT_EQ(said(s), "taken");
}

TEST_F(SessionTrust, OnlyADeviceHasOne) {
  const auto router = world.pki.leaf(spec(world, crypto::Role::kRouter, "4f01"), false);
  const auto path = validate_path(router.cert, {}, world.pki.policy(crypto::Purpose::kTlsClient));
  EXPECT_TRUE(!path && path.error().is(crypto::Errc::kWrongRole));
}

}  // namespace
}  // namespace sally::trust
