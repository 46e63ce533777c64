// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <set>

#include "crypto/csr.h"
#include "crypto/jws.h"
#include "crypto/test_pki.h"
#include "pki/enroll.h"
#include "pki/publish.h"
#include "pki/renew.h"
#include "pki/revoke.h"
#include "trust/records.h"
#include "trust/renewal.h"

namespace sally::pki {
namespace {

using crypto::must;

void ok(const Status& s) {
  if (!s) {
    ADD_FAILURE() << s.error().text();
    std::abort();
  }
}

constexpr std::int64_t kNow = 1'800'000'000'000;
const NetworkId kNet("n-1.sally");

class PkiTest : public testing::Test {
 protected:
  PkiTest() {
    char name[] = "/tmp/sally_pki_XXXXXX";
    dir = mkdtemp(name);
    keys = std::make_unique<KeyDir>(dir + "/keys");
    db = must(store::open_sqlite(":memory:", store_hooks()));
    auto tx = must(db->begin(kNet, kNow));
    ok(tx->put_network({kNet.str(), "test", "https://c:1280", kNow}));
    authority = must(Authority::create(*tx, kNet, *keys, kNow, random));
    auto rest_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    auto issued =
        must(authority->issue(*tx, {"ctrl-1", {"localhost"}, {"127.0.0.1"}}, rest_key->public_key(),
                              Profile::kController, kNow, random));
    rest = std::make_unique<RestIdentity>(RestIdentity{issued.leaf, issued.issuing, rest_key});
    signer_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    signer_cert = std::make_unique<crypto::Certificate>(
        must(authority->issue(*tx, {"1", {}, {}}, signer_key->public_key(), Profile::kSigner, kNow,
                              random))
            .leaf);
    ok(tx->commit());
    door = std::make_unique<TokenDoor>(authority, must(keys->secret("tokens", random)));
  }
  ~PkiTest() override { std::filesystem::remove_all(dir); }

  store::Identity add(const std::string& id, store::Kind kind = store::Kind::kDevice) {
    auto tx = must(db->begin(kNet, kNow));
    store::Identity i;
    i.id = id;
    i.name = "name-" + id;
    i.kind = kind;
    i.tags = {"sensors"};
    i.created_ms = kNow;
    ok(tx->put_identity(i));
    if (kind == store::Kind::kRouter)
      ok(tx->put_router_info({id, {"r.example:3022"}, {"r.example"}, {"10.1.2.3"}}));
    ok(tx->audit("t", "add", id));
    ok(tx->commit());
    return i;
  }
  std::string token(const store::Identity& i, std::string* jwt = nullptr) {
    auto tx = must(db->begin(kNet, kNow));
    auto t =
        must(door->create(*tx, "admin/a", i, *rest, "https://c:1280", kNow, kTokenLifeMs, random));
    ok(tx->commit());
    if (jwt != nullptr) *jwt = t.jwt;
    const std::string payload = must(crypto::split_jws(t.jwt)).payload;
    return payload.substr(payload.find("\"jti\":\"") + 7, 36);
  }
  Result<TokenDoor::Enrolled> enroll(const std::string& jti, const std::string& csr,
                                     std::int64_t now = kNow) {
    auto tx = must(db->begin(kNet, now));
    auto r = door->enroll(*tx, jti, as_bytes(csr), now, random);
    if (r) ok(tx->commit());
    return r;
  }
  std::string csr() { return must(crypto::make_csr(*device_key, "evil-name")); }

  SeededRandom random{1};
  std::string dir;
  std::unique_ptr<KeyDir> keys;
  std::unique_ptr<store::Store> db;
  AuthorityPtr authority;
  std::unique_ptr<RestIdentity> rest;
  crypto::FileKeyPtr signer_key;
  std::unique_ptr<crypto::Certificate> signer_cert;
  std::unique_ptr<TokenDoor> door;
  crypto::FileKeyPtr device_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
};

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

TEST_F(PkiTest, RoutersHearOfWhatDiedBeforeItsDeviceComesBack) {
  const auto device = add("dev1");
  const auto issued = must(enroll(token(device), csr())).issued;
  const auto unused = token(device);
  const auto apply =
      [&](const std::function<Status(store::Transaction&, store::Identity)>& change) {
        auto tx = must(db->begin(kNet, kNow));
        const auto from = must(tx->log_head()).version;
        ok(change(*tx, *must(tx->identity("dev1"))));
        ok(tx->audit("t", "change", "dev1"));
        ok(tx->commit());
        std::vector<wire::StateOp> ops;
        auto read = must(db->read(kNet));
        for (const auto& row : must(read->log_after(from, 100)))
          ops.push_back(must(wire::decode_state_op(must(wire::decode_log_entry(row.entry)).op)));
        return ops;
      };
  const auto standing = [](const wire::StateOp& op) {
    const auto* i = std::get_if<wire::IdentityState>(&op.op);
    return i == nullptr ? wire::Standing::kNone : i->standing;
  };

  // Suspension and back: one row each, the certificate is what it was; the cards are not.
  auto ops = apply([](auto& tx, auto i) { return suspend_identity(tx, i, kNow); });
  ASSERT_EQ(ops.size(), 1u);
  EXPECT_EQ(standing(ops[0]), wire::Standing::kSuspended);
  EXPECT_EQ(std::get<wire::IdentityState>(ops[0].op).credential_epoch, 1u);
  EXPECT_TRUE(apply([](auto& tx, auto i) { return suspend_identity(tx, i, kNow); }).empty());
  ops = apply([](auto& tx, auto i) { return resume_identity(tx, i, kNow); });
  ASSERT_EQ(ops.size(), 1u);
  EXPECT_EQ(std::get<wire::IdentityState>(ops[0].op).credential_epoch, 1u);
  EXPECT_EQ(must(must(db->read(kNet))->certificate(issued.leaf.serial_hex()))->revoked_ms, 0);

  // Revocation is one row, however many certificates; coming back names them first.
  const auto revoke = [](auto& tx, auto i) -> Status {
    TRY(revoke_identity(tx, i, store::Reason::kKeyCompromise, kNow));
    return {};
  };
  ops = apply(revoke);
  ASSERT_EQ(ops.size(), 1u);
  EXPECT_EQ(standing(ops[0]), wire::Standing::kRevoked);
  EXPECT_EQ(std::get<wire::IdentityState>(ops[0].op).credential_epoch, 2u);
  EXPECT_TRUE(apply(revoke).empty());
  EXPECT_TRUE(apply([](auto& tx, auto i) { return suspend_identity(tx, i, kNow); }).empty());
  const auto row = *must(must(db->read(kNet))->certificate(issued.leaf.serial_hex()));
  EXPECT_EQ(row.revoked_ms, kNow);
  EXPECT_EQ(row.reason, store::Reason::kKeyCompromise);
  EXPECT_EQ(row.issuer, "devices-1");
  ops = apply([](auto& tx, auto i) { return resume_identity(tx, i, kNow); });
  ASSERT_EQ(ops.size(), 2u);
  EXPECT_EQ(std::get<wire::RevokedCertificate>(ops[0].op).serial, issued.leaf.serial_hex());
  EXPECT_EQ(standing(ops[1]), wire::Standing::kActive);
  EXPECT_EQ(std::get<wire::IdentityState>(ops[1].op).credential_epoch, 2u);
  EXPECT_TRUE(enroll(unused, csr()).error().is(Errc::kTokenRevoked));
}

// Requests that ask for more than a key; their own keys are nowhere.
constexpr char kCaCsr[] =
    "-----BEGIN CERTIFICATE REQUEST-----\n"
    "MIHqMIGRAgEAMBAxDjAMBgNVBAMMBWRldi0xMFkwEwYHKoZIzj0CAQYIKoZIzj0D\n"
    "AQcDQgAEl37IxJ9WoO0ftQru1Pi4rD35Ivhb8DOptsi9peR0t7XfXkN47hAgSUOQ\n"
    "AAaKhRYRifIWVJedDSC0EIK1DQX/g6AfMB0GCSqGSIb3DQEJDjEQMA4wDAYDVR0T\n"
    "BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEArBNVPe+9FXgPcyqrUqmvBeryMBlL\n"
    "s27N+mq0YhsJRFACIFSbwVSB1rAOoUvhlSovX7TSiHEmx+iZ3eAEAS4hx8wV\n"
    "-----END CERTIFICATE REQUEST-----\n";
constexpr char kSanCsr[] =
    "-----BEGIN CERTIFICATE REQUEST-----\n"
    "MIIBBzCBrwIBADAQMQ4wDAYDVQQDDAVkZXYtMTBZMBMGByqGSM49AgEGCCqGSM49\n"
    "AwEHA0IABJd+yMSfVqDtH7UK7tT4uKw9+SL4W/AzqbbIvaXkdLe1315DeO4QIElD\n"
    "kAAGioUWEYnyFlSXnQ0gtBCCtQ0F/4OgPTA7BgkqhkiG9w0BCQ4xLjAsMCoGA1Ud\n"
    "EQQjMCGGH3NwaWZmZTovL24tMS5zYWxseS9kZXZpY2UvZGV2LTIwCgYIKoZIzj0E\n"
    "AwIDRwAwRAIgAzh+ha9NoLpqeB0mC46UM2iVP9cCoZbxn/INz0W8AooCIBo7uDRQ\n"
    "qJM+TsmG9dsNzYAQ2EDfzZue3mndV+qPf0kR\n"
    "-----END CERTIFICATE REQUEST-----\n";

constexpr std::int64_t kDayMs = 86'400'000;

/// A device that was enrolled for 30 days.
class RenewalTest : public PkiTest {
 protected:
  RenewalTest() {
    const auto device = add("dev-1");
    auto tx = must(db->begin(kNet, kNow));
    first = must(authority->issue(*tx, {"dev-1", {}, {}}, device_key->public_key(),
                                  Profile::kDevice, kNow, random, kRenewingLifeS))
                .leaf.serial_hex();
    ok(tx->audit("t", "enroll", "dev-1"));
    ok(tx->commit());
    request = {.network = kNet.str(),
               .id = "dev-1",
               .serial = first,
               .csr = csr_of(*device_key),
               .time_ms = now};
  }
  static Bytes csr_of(const crypto::Signer& key, const std::string& name = "dev-1") {
    return to_bytes(as_bytes(must(crypto::make_csr(key, name))));
  }
  Bytes sealed() const { return must(trust::make_renewal(request, *device_key)); }
  Result<RenewalDoor::Outcome> take(ByteView envelope, const std::string& serial,
                                    const std::string& id = "dev-1") {
    auto tx = must(db->begin(kNet, now));
    auto r = renewals.take(*tx, envelope, {id, serial}, now, random);
    if (r && r->changed) ok(tx->commit());
    return r;
  }
  std::string refusal(ByteView envelope) {
    const auto r = take(envelope, first);
    return r ? "taken" : std::string(r.error().code());
  }
  store::CertificateRow row(const std::string& serial) {
    auto tx = must(db->read(kNet));
    return *must(tx->certificate(serial));
  }
  RenewalDoor renewals{authority};
  std::int64_t now = kNow + 20 * kDayMs;
  std::string first;
  wire::RenewalRequest request;
};

TEST_F(RenewalTest, TheOlderOneDiesWithTheFirstProvenUseOfTheNewOne) {
  const auto done = must(take(sealed(), first));
  ASSERT_TRUE(done.issued);
  const auto& leaf = done.issued->leaf;
  EXPECT_EQ(leaf.uri_sans().front(), "spiffe://" + kNet.str() + "/device/dev-1");
  EXPECT_TRUE(leaf.public_key() == device_key->public_key());
  EXPECT_EQ(leaf.not_after() - now / 1000, kRenewingLifeS);
  EXPECT_EQ(row(first).revoked_ms, 0) << "two are valid until the new one is used";
  const std::uint64_t version = must(must(db->read(kNet))->log_head()).version;

  // An answer that was lost: the next request ends what it issued, and never a third is valid.
  request.time_ms = now += 60'000;
  const auto again = must(take(sealed(), first));
  EXPECT_TRUE(row(leaf.serial_hex()).superseded);
  EXPECT_EQ(row(first).revoked_ms, 0);

  request.csr.clear();
  request.serial = again.issued->leaf.serial_hex();
  EXPECT_EQ(must(take(sealed(), first)).superseded, 1u) << "told on the lane of the older one";
  EXPECT_TRUE(row(first).superseded);
  EXPECT_EQ(row(request.serial).used_ms, now);
  EXPECT_EQ(must(must(db->read(kNet))->log_head()).version, version + 2);
  EXPECT_FALSE(must(take(sealed(), request.serial)).changed) << "told twice";
  // The same lane, which came up with the first one, serves for the next renewal.
  request.csr = csr_of(*device_key);
  request.time_ms = now += 60'000;
  EXPECT_TRUE(must(take(sealed(), first)).issued);
  // The older one renews nothing any more; the identity, its card and its epoch are as before.
  request.serial = first;
  request.csr = csr_of(*device_key);
  EXPECT_EQ(refusal(sealed()), "pki.certificate_revoked");
  EXPECT_EQ(must(must(db->read(kNet))->identity("dev-1"))->credential_epoch, 0u);
  EXPECT_TRUE(must(db->read(kNet))->verify_chains());
}

TEST_F(RenewalTest, ANewKeyIsTakenFromTheRequest) {
  const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  request.csr = csr_of(*key);
  const auto done = must(take(sealed(), first));
  EXPECT_TRUE(done.issued->leaf.public_key() == key->public_key());
  // Only its owner may say that it is in use.
  request.csr.clear();
  request.serial = done.issued->leaf.serial_hex();
  EXPECT_EQ(refusal(sealed()), "trust.unknown_key");
  EXPECT_EQ(must(take(must(trust::make_renewal(request, *key)), first)).superseded, 1u);
}

TEST_F(RenewalTest, EveryRefusalHasItsCode) {
  const auto good = request;
  const auto other = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  add("dev-2");
  EXPECT_EQ(refusal(must(trust::make_renewal(request, *other))), "trust.unknown_key");
  Bytes flipped = sealed();
  flipped.back() ^= 1U;
  EXPECT_EQ(refusal(flipped), "trust.bad_signature");
  const auto is = [&](std::string_view code, auto change) {
    request = good;
    change(request);
    EXPECT_EQ(refusal(sealed()), code);
  };
  is("pki.request_foreign", [](auto& r) { r.network = "n-2.sally"; });
  is("pki.not_yours", [](auto& r) { r.id = "dev-2"; });
  is("pki.certificate_unknown", [](auto& r) { r.serial = "7777"; });
  is("pki.name_asked", [&](auto& r) { r.csr = csr_of(*other, "dev-2"); });
  is("pki.name_asked", [](auto& r) { r.csr = to_bytes(as_bytes(std::string_view(kSanCsr))); });
  is("pki.ca_asked", [](auto& r) { r.csr = to_bytes(as_bytes(std::string_view(kCaCsr))); });
  is("crypto.malformed", [](auto& r) { r.csr = to_bytes(as_bytes(std::string_view("x"))); });
  is("pki.request_time", [](auto& r) { r.time_ms -= kDayMs; });
  is("pki.request_time", [](auto& r) { r.time_ms += 600'000; });
  request = good;
  EXPECT_TRUE(take(sealed(), first, "dev-2").error().is(Errc::kNotYours)) << "another's lane";
  EXPECT_TRUE(take(sealed(), "7777").error().is(Errc::kNotYours)) << "another certificate's lane";
  const Bytes once = sealed();
  EXPECT_TRUE(take(once, first));
  EXPECT_EQ(refusal(once), "pki.request_replayed");
  now = kNow + 31 * kDayMs;
  request.time_ms = now;
  EXPECT_EQ(refusal(sealed()), "pki.certificate_expired");
  {
    auto tx = must(db->begin(kNet, now));
    auto i = *must(tx->identity("dev-1"));
    i.standing = store::Standing::kRevoked;
    ok(tx->put_identity(i));
    ok(tx->audit("t", "revoke", "dev-1"));
    ok(tx->commit());
  }
  EXPECT_EQ(refusal(sealed()), "pki.identity_inactive") << "expired and revoked";
}

TEST_F(RenewalTest, AnIdentityThatRenewsWithoutEndIsToldToWait) {
  for (int i = 0; i < 60; ++i) {
    request.time_ms = now += 1'000;
    ASSERT_TRUE(take(sealed(), first)) << i;
  }
  request.time_ms = now += 1'000;
  const auto r = take(sealed(), first);
  ASSERT_TRUE(!r && r.error().is(Errc::kTooOften));
  EXPECT_TRUE(r.error().retry());
}

// What pki.md asks for, row by row: each refused, each by a code of its own. A stale snapshot of
// the state is in src/replica/replica_test.cc (replica.older); claims are not built.
TEST_F(RenewalTest, TheNegativeMatrix) {
  std::map<std::string, std::string> said;
  const auto good = request;
  const auto ask = [&](const char* row, auto change) {
    request = good;
    change(request);
    said[row] = refusal(sealed());
    request = good;
  };
  const auto other = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  add("dev-2");
  said["wrong key"] = refusal(must(trust::make_renewal(request, *other)));
  ask("other device's CSR", [&](auto& r) { r.id = "dev-2"; });
  ask("name smuggling", [](auto& r) { r.csr = to_bytes(as_bytes(std::string_view(kSanCsr))); });
  ask("CA:TRUE", [](auto& r) { r.csr = to_bytes(as_bytes(std::string_view(kCaCsr))); });
  ask("foreign network", [](auto& r) { r.network = "n-2.sally"; });
  Bytes flipped = sealed();
  flipped.back() ^= 1U;
  said["flipped byte"] = refusal(flipped);
  const Bytes once = sealed();
  ASSERT_TRUE(take(once, first));
  said["replayed request"] = refusal(once);
  {
    const std::string jti = token(add("dev-3"));
    ASSERT_TRUE(enroll(jti, csr()));
    said["replayed token"] = enroll(jti, csr()).error().code();
  }
  {  // By the right CA, in another trust domain: what a path check says of it.
    const auto ca_key = must(keys->load("devices-1"));
    crypto::CertSpec spec;
    spec.common_name = "dev-1";
    spec.not_before_s = kNow / 1000 - 60;
    spec.not_after_s = kNow / 1000 + 86'400;
    spec.eku = crypto::kEkuClientAuth | crypto::kEkuServerAuth;
    spec.uris = {"spiffe://n-2.sally/device/dev-1"};
    const auto leaf = must(crypto::sign_certificate(spec, device_key->public_key(),
                                                    &authority->devices(), *ca_key, random));
    said["foreign trust domain"] =
        validate_path(leaf, {}, authority->policy(crypto::Purpose::kTlsClient, kNow / 1000))
            .error()
            .code();
  }
  now = kNow + 31 * kDayMs;
  ask("expired", [&](auto& r) { r.time_ms = now; });
  {
    auto tx = must(db->begin(kNet, now));
    ok(revoke_certificate(*tx, *must(tx->certificate(first)), now));
    ok(tx->audit("t", "revoke", "dev-1"));
    ok(tx->commit());
  }
  ask("expired and revoked", [&](auto& r) { r.time_ms = now; });
  const std::map<std::string, std::string> expected = {
      {"wrong key", "trust.unknown_key"},
      {"other device's CSR", "pki.not_yours"},
      {"name smuggling", "pki.name_asked"},
      {"CA:TRUE", "pki.ca_asked"},
      {"foreign network", "pki.request_foreign"},
      {"flipped byte", "trust.bad_signature"},
      {"replayed request", "pki.request_replayed"},
      {"replayed token", "pki.token_used"},
      {"foreign trust domain", "crypto.wrong_trust_domain"},
      {"expired", "pki.certificate_expired"},
      {"expired and revoked", "pki.certificate_revoked"},
  };
  EXPECT_EQ(said, expected);
  std::set<std::string> codes;
  for (const auto& [row, code] : said) codes.insert(code);
  EXPECT_EQ(codes.size(), said.size()) << "no two share a code";
}

class RecoveryTest : public RenewalTest {
 protected:
  /// At the recovery door, which no lane leads to.
  Result<RenewalDoor::Outcome> recover(ByteView envelope) {
    auto tx = must(db->begin(kNet, now));
    auto done = renewals.recover(*tx, envelope, now, random);
    if (done) ok(tx->commit());
    return done;
  }
  std::string code() {
    const auto r = recover(sealed());
    return r ? std::string("none") : std::string(r.error().code());
  }
  void set_standing(store::Standing standing) {
    auto tx = must(db->begin(kNet, now));
    auto i = *must(tx->identity("dev-1"));
    i.standing = standing;
    ok(tx->put_identity(i));
    ok(tx->audit("t", "standing", "dev-1"));
    ok(tx->commit());
  }
  void revoke(const std::string& serial, bool superseded) {
    auto tx = must(db->begin(kNet, now));
    ok(revoke_certificate(*tx, *must(tx->certificate(serial)), now, superseded));
    ok(tx->audit("t", "revoke", "dev-1"));
    ok(tx->commit());
  }
  void at(std::int64_t ms) { request.time_ms = now = ms; }
};

TEST_F(RecoveryTest, WhoSleptForAYearGetsTheNextOneAndTheAuditSaysByWhichDoor) {
  at(kNow + 365 * kDayMs);
  const Bytes envelope = sealed();
  const auto done = must(recover(envelope));
  ASSERT_TRUE(done.issued);
  EXPECT_EQ(done.issued->leaf.not_after() - now / 1000, kRenewingLifeS);
  EXPECT_TRUE(done.issued->leaf.public_key() == device_key->public_key());
  const auto row = must(must(db->read(kNet))->audit_rows(0, 1)).front();
  EXPECT_EQ(row.action, "certificate.renew");
  EXPECT_NE(row.detail.find("\"door\":\"recovery\""), std::string::npos) << row.detail;
  EXPECT_NE(row.detail.find(done.issued->leaf.serial_hex()), std::string::npos);
  EXPECT_NE(row.detail.find(device_key->public_key().hash_hex()), std::string::npos);
  // The lane's door stays shut for it.
  EXPECT_EQ(refusal(sealed()), "pki.certificate_expired");
  EXPECT_TRUE(recover(envelope).error().is(Errc::kRequestReplayed));
}

TEST_F(RecoveryTest, EveryRefusalHasItsCode) {
  at(kNow + 30 * kDayMs + kRecoveryGraceS * 1000 + 1'000);
  EXPECT_EQ(code(), "pki.beyond_grace");
  at(kNow + 200 * kDayMs);
  request.time_ms = 0;  // boots in 1970
  EXPECT_EQ(code(), "pki.request_time");
  request.time_ms = now;
  for (const auto s : {store::Standing::kSuspended, store::Standing::kRevoked}) {
    set_standing(s);
    EXPECT_EQ(code(), "pki.identity_inactive");
  }
  set_standing(store::Standing::kActive);
  const auto good = request;
  request.network = "n-2.sally";
  EXPECT_EQ(code(), "pki.request_foreign");
  request = good;
  request.id = "dev-2";
  EXPECT_EQ(code(), "pki.not_yours");
  request = good;
  request.serial = "7777";
  EXPECT_EQ(code(), "pki.certificate_unknown");
  request = good;
  request.csr = csr_of(*device_key, "dev-2");
  EXPECT_EQ(code(), "pki.name_asked");
  request = good;
  request.csr.clear();
  EXPECT_EQ(code(), "crypto.malformed") << "a use is told on a lane";
  request = good;
  {
    const auto other = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    const auto r = recover(must(trust::make_renewal(request, *other)));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code(), "trust.unknown_key");
  }
  revoke(first, false);
  EXPECT_EQ(code(), "pki.certificate_revoked") << "expired and revoked";
}

TEST_F(RecoveryTest, AKeyThatWasReplacedRecoversNothing) {
  at(kNow + kDayMs);
  const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  request.csr = csr_of(*key);
  const auto fresh = must(take(sealed(), first)).issued->leaf.serial_hex();
  request.csr = csr_of(*device_key);
  EXPECT_EQ(code(), "none") << "it may never have arrived";
  request.csr = csr_of(*key);
  const auto next = must(take(sealed(), first)).issued->leaf.serial_hex();
  EXPECT_NE(fresh, next);
  request.csr.clear();
  request.serial = next;
  ASSERT_TRUE(take(must(trust::make_renewal(request, *key)), first));
  request.csr = csr_of(*device_key);
  request.serial = first;
  EXPECT_EQ(code(), "pki.key_not_current");
}

TEST_F(RecoveryTest, ARenewedOneThatNobodyUsesEndsTheOlderAfterADayAndItsOwnerComesBack) {
  at(kNow + 20 * kDayMs);
  const auto lost = must(take(sealed(), first)).issued->leaf.serial_hex();
  const auto end = [&] {
    auto tx = must(db->begin(kNet, now));
    const auto n = must(supersede_unproven(*tx, now));
    if (n > 0) ok(tx->commit());
    return n;
  };
  at(now + kUnprovenMs - 1);
  EXPECT_EQ(end(), 0u);
  EXPECT_EQ(row(first).revoked_ms, 0);
  at(now + 2);
  EXPECT_EQ(end(), 1u);
  EXPECT_TRUE(row(first).superseded);
  EXPECT_EQ(row(lost).revoked_ms, 0);
  EXPECT_EQ(end(), 0u) << "once";
  EXPECT_EQ(refusal(sealed()), "pki.certificate_revoked");
  // The answer never arrived: with the older certificate and the same key it asks again.
  const auto again = must(recover(sealed()));
  EXPECT_TRUE(row(lost).superseded) << "two at most";
  EXPECT_EQ(row(again.issued->leaf.serial_hex()).revoked_ms, 0);
  EXPECT_TRUE(must(db->read(kNet))->verify_chains());
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
