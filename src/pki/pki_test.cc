// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "pki/test_office.h"

namespace sally::pki {
namespace {

TEST_F(PkiTest, ProfilesValidateForWhatTheyAreAndNothingElse) {
  using crypto::Purpose;
  struct Row {
    Profile profile;
    bool client, server, signer;
  };
  for (const Row& r :
       {Row{Profile::kDevice, true, true, false}, Row{Profile::kRouter, true, true, false},
        Row{Profile::kController, true, true, false}, Row{Profile::kAdmin, true, false, false},
        Row{Profile::kSigner, false, false, true}}) {
    auto tx = must(db->begin(kNet, kNow));
    const auto leaf = must(authority->issue(*tx, {"x1", {}, {}}, device_key->public_key(),
                                            r.profile, kNow, random))
                          .leaf;
    const auto fits = [&](Purpose p) {
      return validate_path(leaf, {}, authority->policy(p, kNow / 1000)).has_value();
    };
    EXPECT_EQ(fits(Purpose::kTlsClient), r.client) << profile_name(r.profile);
    EXPECT_EQ(fits(Purpose::kTlsServer), r.server) << profile_name(r.profile);
    EXPECT_EQ(fits(Purpose::kSigner), r.signer) << profile_name(r.profile);
    EXPECT_EQ(leaf.not_after() - kNow / 1000, lifetime_days(r.profile) * 86'400LL);
    EXPECT_EQ(must(tx->certificate(leaf.serial_hex()))->der, leaf.der());
  }
  auto tx = must(db->begin(kNet, kNow));
  EXPECT_TRUE(
      authority
          ->issue(*tx, {"a/b", {}, {}}, device_key->public_key(), Profile::kDevice, kNow, random)
          .error()
          .is(Errc::kBadSubject));
  EXPECT_TRUE(
      authority
          ->issue(*tx, {"a", {"x"}, {}}, device_key->public_key(), Profile::kDevice, kNow, random)
          .error()
          .is(Errc::kBadSubject));
  // Four and a half years on: the leaf ends with its issuer.
  const std::int64_t late = kNow + 1643LL * 86'400 * 1000;
  EXPECT_EQ(must(authority->issue(*tx, {"y", {}, {}}, device_key->public_key(), Profile::kDevice,
                                  late, random))
                .leaf.not_after(),
            authority->devices().not_after());
}

TEST_F(PkiTest, LoadsAgainAndRefusesOpenKeyFiles) {
  auto tx = must(db->read(kNet));
  EXPECT_EQ(must(Authority::load(*tx, kNet, *keys))->root(), authority->root());
  chmod((dir + "/keys/devices-1.key").c_str(), 0640);
  EXPECT_TRUE(Authority::load(*tx, kNet, *keys).error().is(Errc::kKeyFile));
  chmod((dir + "/keys/devices-1.key").c_str(), 0600);
  std::filesystem::copy_file(dir + "/keys/infrastructure-1.key", dir + "/keys/devices-1.key",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(Authority::load(*tx, kNet, *keys).error().is(crypto::Errc::kKeyMismatch));
}

TEST_F(PkiTest, TokenHasTheCompatibleForm) {
  std::string jwt;
  token(add("dev1"), &jwt);
  const auto jws = must(crypto::split_jws(jwt));
  EXPECT_EQ(jws.header,
            "{\"alg\":\"ES256\",\"kid\":\"" + rest->leaf.sha1_hex() + "\",\"typ\":\"JWT\"}");
  EXPECT_TRUE(crypto::verify_jws(jws, "ES256", rest->leaf.public_key()));
  EXPECT_NE(jws.payload.find(
                "\"iss\":\"https://c:1280\",\"sub\":\"dev1\",\"aud\":[\"\"],\"exp\":1800086400,"),
            std::string::npos);
  EXPECT_NE(jws.payload.find("\"em\":\"ott\""), std::string::npos);
  EXPECT_LT(jwt.size(), 4096u);
  // The id itself is nowhere in the store.
  auto tx = must(db->read(kNet));
  EXPECT_EQ(must(tx->enrollments({})).front().token_mac.size(), 32u);
}

TEST_F(PkiTest, EnrolsOnceAndTakesNothingButTheKey) {
  const std::string jti = token(add("dev1"));
  const auto e = must(enroll(jti, csr()));
  EXPECT_EQ(e.issued.leaf.subject_cn(), "dev1");
  EXPECT_EQ(e.issued.leaf.public_key(), device_key->public_key());
  EXPECT_EQ(e.issued.leaf.uri_sans(), std::vector<std::string>{"spiffe://n-1.sally/device/dev1"});
  EXPECT_TRUE(enroll(jti, csr()).error().is(Errc::kTokenUsed));
  const auto r = add("router1", store::Kind::kRouter);
  const auto router = must(enroll(token(r), csr()));
  EXPECT_EQ(router.issued.leaf.dns_sans(), std::vector<std::string>{"r.example"});
  EXPECT_EQ(router.issued.leaf.ip_sans(), std::vector<std::string>{"10.1.2.3"});
  EXPECT_EQ(router.issued.issuing, authority->infrastructure());
}

TEST_F(PkiTest, EveryRefusalHasItsCode) {
  const auto device = add("dev1");
  const std::string jti = token(device);
  std::string altered = jti;
  altered[0] = altered[0] == 'a' ? 'b' : 'a';
  EXPECT_TRUE(enroll(altered, csr()).error().is(Errc::kTokenUnknown));
  EXPECT_TRUE(enroll("", csr()).error().is(Errc::kTokenUnknown));
  EXPECT_TRUE(enroll(jti, csr(), kNow + kTokenLifeMs).error().is(Errc::kTokenExpired));
  EXPECT_TRUE(enroll(jti, "rubbish").error().is(crypto::Errc::kMalformed));
  // A token of another network that shares this database.
  const NetworkId other("n-2.sally");
  {
    auto tx = must(db->begin(other, kNow));
    EXPECT_TRUE(
        door->enroll(*tx, jti, as_bytes(csr()), kNow, random).error().is(Errc::kTokenUnknown));
  }
  {
    auto tx = must(db->begin(kNet, kNow));
    auto i = *must(tx->identity("dev1"));
    i.standing = store::Standing::kSuspended;
    ok(tx->put_identity(i));
    ok(tx->audit("t", "suspend", "dev1"));
    ok(tx->commit());
  }
  EXPECT_TRUE(enroll(jti, csr()).error().is(Errc::kIdentityInactive));
  {
    auto tx = must(db->begin(kNet, kNow));
    auto e = must(tx->enrollments({})).front();
    e.revoked_ms = kNow;
    ok(tx->put_enrollment(e));
    ok(tx->audit("t", "token.revoke", "dev1"));
    ok(tx->commit());
  }
  EXPECT_TRUE(enroll(jti, csr()).error().is(Errc::kTokenRevoked));
}

TEST_F(PkiTest, SecondEnrolmentKillsTheFirst) {
  const auto device = add("dev1");
  const auto first = must(enroll(token(device), csr()));
  const auto second = must(enroll(token(device), csr()));
  EXPECT_EQ(second.identity.credential_epoch, 1u);
  auto tx = must(db->read(kNet));
  EXPECT_EQ(must(tx->revoked_certificates(kNow / 1000)).front().serial,
            first.issued.leaf.serial_hex());
  EXPECT_EQ(must(tx->log_head()).version, 2u);
  EXPECT_EQ(must(snapshot_ops(*tx, kNow)).size(), 2u);
  EXPECT_TRUE(tx->verify_chains());
}

TEST_F(PkiTest, PublishesRecordsAndCardsThatVerify) {
  {
    auto tx = must(db->begin(kNet, kNow));
    store::Service s;
    s.id = "s1";
    s.name = "mqtt";
    ok(tx->put_service(s));
    ok(tx->put_grant({"g1", "s1", store::GrantKind::kDial, "#sensors", kNow}));
    ok(tx->put_grant({"g2", "s1", store::GrantKind::kBind, "@dev9", kNow}));
    ok(publish_service(*tx, kNet, s, *signer_key, kNow));
    ok(tx->audit("t", "service.add", "s1"));
    ok(tx->commit());
  }
  const trust::Anchors anchors{kNet.str(), {authority->root()}, {authority->infrastructure()}};
  trust::SignerSet signers;
  ok(signers.add({signer_cert->der(), authority->infrastructure().der()}, anchors, kNow / 1000));
  const trust::Context ctx{anchors, signers, nullptr, kNow};
  auto tx = must(db->begin(kNet, kNow));
  const auto row = *must(tx->service("s1"));
  const auto record = must(trust::verify_service_record(row.record, ctx));
  EXPECT_EQ(record->dial, std::vector<std::string>{"#sensors"});
  EXPECT_EQ(record->bind, std::vector<std::string>{"@dev9"});
  EXPECT_EQ(record->version, 1u);
  EXPECT_EQ(must(refresh_services(*tx, kNet, *signer_key, kNow)), 0u);
  EXPECT_EQ(must(refresh_services(*tx, kNet, *signer_key, kNow + kRecordLifeMs - kRecordRefreshMs)),
            1u);
  store::Identity i;
  i.id = "dev1";
  i.name = "pump";
  i.tags = {"sensors"};
  const auto card = must(trust::verify_card(must(make_card(kNet, i, *signer_key, kNow)), ctx));
  EXPECT_EQ(card->attributes, i.tags);
  i.standing = store::Standing::kSuspended;
  EXPECT_TRUE(make_card(kNet, i, *signer_key, kNow).error().is(Errc::kIdentityInactive));
}

}  // namespace
}  // namespace sally::pki
