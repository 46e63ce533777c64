// SPDX-License-Identifier: Apache-2.0
// What a revocation ends, what it leaves alone, and what never comes back.
#include <gtest/gtest.h>

#include "raw_device.h"
#include "world.h"

namespace sally::sim {
namespace {

/// With one worker, and with the two ends of every circuit on different ones.
class RevocationTest : public ::testing::TestWithParam<unsigned> {
 protected:
  RevocationTest() {
    world.controller.put_device("host", {"servers"});
    world.controller.put_device("pump", {"sensors"});
    world.controller.put_device("fan", {"sensors"});
    world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"@host"});
    world.until([&] { return world.controller.acked > 0; });
  }
  void bring_up_host() {
    host = world.device("host");
    const auto binding = host->engine->bind("plant-mqtt", 0, server);
    ASSERT_TRUE(world.until([&] { return !host->engine->binding_error(binding); }));
  }
  /// A device with a certificate of its own, on line and with its services.
  std::unique_ptr<Device> device(const std::string& id, const crypto::TestLeaf& leaf) {
    auto d = std::make_unique<Device>(world.loop, world.material(id, leaf));
    EXPECT_TRUE(world.until([&] { return d->engine->services().size() == 1; }, 3'000)) << id;
    return d;
  }
  [[nodiscard]] crypto::TestLeaf leaf(const std::string& id) const {
    return world.pki.leaf(crypto::Role::kDevice, id);
  }
  std::unique_ptr<Recorder> flow(Device& from) {
    const auto n = server.streams.size();
    auto r = world.dial(from, "plant-mqtt");
    if (!r || !*r) {
      ADD_FAILURE() << (r ? r->error().text() : "no answer");
      return nullptr;
    }
    auto client = std::make_unique<Recorder>(std::move(**r));
    client->send(as_bytes("on"));
    EXPECT_TRUE(world.until(
        [&] { return server.streams.size() > n && server.streams.back()->received == 2; }));
    return client;
  }
  bool settled() {
    return world.until([&] { return world.controller.acked == world.controller.version(); });
  }
  /// It tries for a while, and does not get in.
  bool stays_out(Device& d) {
    return !world.until([&] { return d.engine->online(); }, 1'200);
  }

  World world{GetParam()};
  TestHost server;
  std::unique_ptr<Device> host;
};

TEST_P(RevocationTest, NothingOfARevokedDeviceComesBackWithIt) {
  bring_up_host();
  const auto old_leaf = leaf("pump");
  auto pump = device("pump", old_leaf);
  auto fan = device("fan", leaf("fan"));
  auto client = flow(*pump);
  auto other = flow(*fan);
  ASSERT_TRUE(client && other);
  const auto stolen =
      must(trust::make_card(world.controller.card("pump"), *world.controller.signer()));

  world.controller.revoke_device("pump");
  // Confirmed is what has happened.
  ASSERT_TRUE(settled());
  EXPECT_EQ(world.controller.flows_cut, 1U);
  EXPECT_TRUE(world.until([&] { return client->cut && server.streams[0]->cut; }, 1'000));
  EXPECT_TRUE(stays_out(*pump));

  // Back in service: not with the certificate it had, and not with the card.
  world.controller.resume_device("pump", {old_leaf.cert.serial_hex()});
  ASSERT_TRUE(settled());
  EXPECT_TRUE(stays_out(*pump));
  world.controller.silent = true;
  {
    RawDevice thief(world, "pump", stolen);  // a new certificate, the old card
    ASSERT_TRUE(world.until([&] { return thief.lane && thief.lane->up(); }));
    world.until([] { return false; }, 300);
    EXPECT_FALSE(thief.services && !thief.services->entries.empty());
  }
  world.controller.silent = false;
  pump.reset();
  pump = device("pump", leaf("pump"));
  EXPECT_NE(flow(*pump), nullptr);

  // Nobody else noticed.
  other->send(as_bytes("still"));
  EXPECT_TRUE(world.until([&] { return server.streams[1]->received == 7; }));
  EXPECT_FALSE(other->cut);
}

TEST_P(RevocationTest, ASuspendedDeviceComesBackWithItsCertificateAndANewCard) {
  bring_up_host();
  const auto own = leaf("pump");
  auto pump = device("pump", own);
  auto client = flow(*pump);
  ASSERT_TRUE(client);
  world.controller.suspend_device("pump");
  ASSERT_TRUE(settled());
  EXPECT_EQ(world.controller.flows_cut, 1U);
  EXPECT_TRUE(world.until([&] { return client->cut.has_value(); }, 1'000));
  EXPECT_TRUE(stays_out(*pump));
  world.controller.resume_device("pump", {});
  EXPECT_TRUE(world.until([&] { return pump->engine->online(); }, 20'000));
  // The card it had is dead: the new one comes with the lane.
  std::optional<Result<std::unique_ptr<sdk::Circuit>>> again;
  for (int i = 0; i < 20 && !(again && *again); ++i) {
    world.until([] { return false; }, 50);
    again = world.dial(*pump, "plant-mqtt");
  }
  EXPECT_TRUE(again && *again);
}

TEST_P(RevocationTest, ARevokedCertificateCutsItsLaneAndLeavesTheOtherOne) {
  bring_up_host();
  const auto one = leaf("pump");
  const auto two = leaf("pump");
  auto first = device("pump", one);
  auto second = device("pump", two);
  auto gone = flow(*first);
  auto stays = flow(*second);
  ASSERT_TRUE(gone && stays);
  world.controller.op({wire::RevokedCertificate{
      .serial = one.cert.serial_hex(), .not_after_ms = now_ms() + 3'600'000, .at_ms = now_ms()}});
  ASSERT_TRUE(settled());
  EXPECT_EQ(world.controller.flows_cut, 1U);
  EXPECT_TRUE(world.until([&] { return gone->cut.has_value(); }, 1'000));
  EXPECT_TRUE(stays_out(*first));
  stays->send(as_bytes("still"));
  EXPECT_TRUE(world.until([&] { return server.streams[1]->received == 7; }));
}

TEST_P(RevocationTest, ARevokedCaTakesAllThatItVouchedForAlong) {
  bring_up_host();
  auto pump = device("pump", leaf("pump"));
  auto client = flow(*pump);
  ASSERT_TRUE(client);
  const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  const auto next = must(crypto::sign_certificate(
      world.pki.ca_spec("Test Devices 2", 5, 0,
                        crypto::kEkuClientAuth | crypto::kEkuServerAuth | crypto::kEkuOcspSigning),
      key->public_key(), &world.pki.root, *world.pki.root_key, system_random()));
  world.controller.op({wire::RevokedCertificate{.serial = world.pki.devices.serial_hex(),
                                                .not_after_ms = now_ms() + 3'600'000,
                                                .at_ms = now_ms()}});
  ASSERT_TRUE(settled());
  EXPECT_TRUE(world.until([&] { return client->cut && server.streams[0]->cut; }, 1'000));
  EXPECT_TRUE(world.until([&] { return world.router->lanes() == 0; }, 1'000));
  EXPECT_TRUE(stays_out(*pump));
  EXPECT_EQ(world.router->circuits(), 0U);
  EXPECT_TRUE(world.until([&] { return world.controller.terminators.empty(); }));

  // Its successor vouches for both: nobody tells the router more than the certificates do.
  const auto again = [&](const std::string& id) {
    const auto device_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    auto material = world.material(
        id, {device_key, must(crypto::sign_certificate(
                             world.pki.leaf_spec(crypto::Role::kDevice, id),
                             device_key->public_key(), &next, *key, system_random()))});
    material.chain[1] = next;
    return std::make_unique<Device>(world.loop, std::move(material));
  };
  host = again("host");
  const auto binding = host->engine->bind("plant-mqtt", 0, server);
  pump = again("pump");
  ASSERT_TRUE(world.until([&] {
    return !host->engine->binding_error(binding) && pump->engine->services().size() == 1;
  }));
  EXPECT_NE(flow(*pump), nullptr);
}

// The whole state again, as after a long absence: what is in it is enforced as by an entry.
TEST_P(RevocationTest, ARevocationInASnapshotIsEnforced) {
  bring_up_host();
  auto pump = device("pump", leaf("pump"));
  auto client = flow(*pump);
  ASSERT_TRUE(client);
  for (int i = 0; i < 9'000; ++i) {
    world.controller.hold_op({wire::IdentityState{.id = "gone-" + std::to_string(i),
                                                  .standing = wire::Standing::kRevoked,
                                                  .credential_epoch = 1,
                                                  .attr_epoch = 0,
                                                  .at_ms = now_ms()}});
  }
  world.controller.revoke_device("pump");
  ASSERT_TRUE(settled());
  EXPECT_TRUE(world.until([&] { return client->cut.has_value(); }, 1'000));
  EXPECT_TRUE(stays_out(*pump));
}

INSTANTIATE_TEST_SUITE_P(Workers, RevocationTest, ::testing::Values(1U, 2U));

}  // namespace
}  // namespace sally::sim
