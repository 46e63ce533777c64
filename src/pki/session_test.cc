// SPDX-License-Identifier: Apache-2.0
// Session certificates at the door of the controller.
#include "pki/test_office.h"

namespace sally::pki {
namespace {

class SessionTest : public RenewalTest {
 protected:
  SessionTest() {
    request.csr.clear();
    request.session_csr = csr_of(*session_key);
  }
  Result<RenewalDoor::Outcome> recover(ByteView envelope) {
    auto tx = must(db->begin(kNet, now));
    return renewals.open(*tx, envelope).and_then([&](auto from) {
      return renewals.recover(*tx, std::move(from), now, random);
    });
  }
  void tag(const std::string& id, std::vector<std::string> tags) {
    auto tx = must(db->begin(kNet, now));
    auto i = *must(tx->identity(id));
    i.tags = std::move(tags);
    ok(tx->put_identity(i));
    ok(tx->audit("t", "device.tags", id));
    ok(tx->commit());
  }
  crypto::FileKeyPtr session_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
};

TEST_F(SessionTest, IsOfTheDeviceLivesHoursAndDiesWithItsParent) {
  const auto rows = must(must(db->read(kNet))->certificates_of("dev-1")).size();
  const auto version = must(must(db->read(kNet))->log_head()).version;
  const auto done = must(take(sealed(), first));
  ASSERT_TRUE(done.issued && done.session);
  const auto& leaf = done.issued->leaf;
  EXPECT_EQ(leaf.uri_sans().front(), "spiffe://" + kNet.str() + "/device/dev-1");
  EXPECT_EQ(leaf.session_parent(), first);
  EXPECT_TRUE(leaf.public_key() == session_key->public_key());
  EXPECT_EQ(leaf.not_after() - now / 1000, kSessionLifeS);
  EXPECT_TRUE(validate_path(leaf, {}, authority->policy(crypto::Purpose::kTlsClient, now / 1000)));
  // Nothing of the device's own certificate changes.
  EXPECT_EQ(done.superseded, 0u);
  EXPECT_EQ(row(first).revoked_ms, 0);
  EXPECT_EQ(row(first).used_ms, 0);
  EXPECT_EQ(must(must(db->read(kNet))->certificates_of("dev-1")).size(), rows);
  EXPECT_EQ(must(must(db->read(kNet))->log_head()).version, version);
  const auto audit = must(must(db->read(kNet))->audit_rows(0, 1)).front();
  EXPECT_EQ(audit.action, "certificate.session");
  EXPECT_EQ(audit.actor, "device/dev-1");
  for (const auto& said : {leaf.serial_hex(), first, session_key->public_key().hash_hex()})
    EXPECT_NE(audit.detail.find(said), std::string::npos) << audit.detail;
  EXPECT_TRUE(must(db->read(kNet))->verify_chains());
}

TEST_F(SessionTest, NeverOutlivesItsParent) {
  now = kNow + 30 * kDayMs - 3'600'000;
  request.time_ms = now;
  const auto leaf = must(take(sealed(), first)).issued->leaf;
  EXPECT_EQ(leaf.not_after(), row(first).not_after_s);
}

// What a session certificate may not, and who may not have one.
TEST_F(SessionTest, TheNegativeMatrix) {
  const auto good = request;
  const auto session = must(take(sealed(), first)).issued->leaf.serial_hex();
  std::map<std::string, std::string> said;
  const auto ask = [&](const char* what, const crypto::Signer& key, auto change) {
    request = good;
    change(request);
    said[what] = refusal(must(trust::make_renewal(request, key)));
  };
  ask("it renews", *session_key, [&](auto& r) {
    r.serial = session;
    r.session_csr.clear();
    r.csr = csr_of(*session_key);
  });
  ask("it gets another one", *session_key, [&](auto& r) { r.serial = session; });
  ask("as its parent", *session_key, [](auto&) {});
  ask("renewal and session in one", *device_key, [&](auto& r) { r.csr = csr_of(*device_key); });
  ask("the device's own key", *device_key, [&](auto& r) { r.session_csr = csr_of(*device_key); });
  ask("a name", *device_key,
      [](auto& r) { r.session_csr = to_bytes(as_bytes(std::string_view(kSanCsr))); });
  ask("a CA", *device_key,
      [](auto& r) { r.session_csr = to_bytes(as_bytes(std::string_view(kCaCsr))); });
  request = good;
  request.serial = session;
  said["it recovers"] = recover(must(trust::make_renewal(request, *session_key))).error().code();
  request = good;
  said["at the recovery door"] = recover(sealed()).error().code();
  said["another's lane"] = take(sealed(), first, "dev-2").error().code();
  said["a lane of nobody's certificate"] = take(sealed(), session).error().code();
  tag("dev-1", {"device-key-only", "sensors"});
  said["device-key-only"] = refusal(sealed());
  tag("dev-1", {"sensors"});
  EXPECT_TRUE(take(sealed(), first)) << "the policy is withdrawn";
  const std::map<std::string, std::string> expected = {
      {"it renews", "pki.certificate_unknown"},
      {"it gets another one", "pki.certificate_unknown"},
      {"it recovers", "pki.certificate_unknown"},
      {"as its parent", "trust.unknown_key"},
      {"renewal and session in one", "pki.session_not_here"},
      {"at the recovery door", "pki.session_not_here"},
      {"the device's own key", "pki.session_key"},
      {"a name", "pki.name_asked"},
      {"a CA", "pki.ca_asked"},
      {"another's lane", "pki.not_yours"},
      {"a lane of nobody's certificate", "pki.not_yours"},
      {"device-key-only", "pki.device_key_only"},
  };
  EXPECT_EQ(said, expected);
}

TEST_F(SessionTest, NoneAfterTheParentIsRevoked) {
  auto tx = must(db->begin(kNet, now));
  ok(revoke_certificate(*tx, *must(tx->certificate(first)), now));
  ok(tx->audit("t", "revoke", "dev-1"));
  ok(tx->commit());
  tx.reset();
  EXPECT_EQ(refusal(sealed()), "pki.certificate_revoked");
}

}  // namespace
}  // namespace sally::pki
