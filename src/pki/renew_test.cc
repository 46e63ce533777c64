// SPDX-License-Identifier: Apache-2.0
#include "pki/test_office.h"

namespace sally::pki {
namespace {

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
  EXPECT_EQ(refusal(sealed()), "pki.request_replayed") << "the same, with another signature";
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

TEST_F(RenewalTest, OfAShortLifeOnlyTheNewestRowsAreKeptAndTheyHaveAMost) {
  const store::CertificateRow model = row(first);
  const auto put = [&](int from, int to, const auto& f) {
    auto tx = must(db->begin(kNet, now));
    for (int i = from; i < to; ++i) {
      auto r = model;
      r.serial = "s" + std::to_string(i);
      r.issued_ms = model.issued_ms - i;
      f(r);
      ok(tx->put_certificate(r));
    }
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
  };
  const auto ended = [&](store::CertificateRow& r) {
    r.not_after_s = now / 1000 - 3 * 86'400;
    r.revoked_ms = r.issued_ms + 1;
    r.superseded = true;
    r.reason = store::Reason::kSuperseded;
  };
  const auto has = [&](const std::string& serial) {
    return must(must(db->read(kNet))->certificate(serial)).has_value();
  };
  put(1, 21, ended);
  put(21, 22, [&](store::CertificateRow& r) {
    ended(r);
    r.reason = store::Reason::kCaCompromise;  // bars its key
  });
  put(22, 23, [&](store::CertificateRow& r) {
    ended(r);
    r.superseded = false;
    r.reason = store::Reason::kUnspecified;
  });
  put(23, 24, [&](store::CertificateRow& r) {
    ended(r);
    r.not_after_s = now / 1000 - 86'400;
  });
  must(take(sealed(), first));
  EXPECT_TRUE(has("s15")) << "first and fifteen more";
  for (int i = 16; i < 21; ++i) EXPECT_FALSE(has("s" + std::to_string(i))) << i;
  for (int i = 21; i < 24; ++i) EXPECT_TRUE(has("s" + std::to_string(i))) << i;
  // That have not ended yet: they cannot be forgotten, so there is a most.
  put(100, 100 + 3'000, [](store::CertificateRow&) {});
  request.time_ms = now += 1'000;
  const auto r = take(sealed(), first);
  ASSERT_TRUE(!r && r.error().is(Errc::kTooOften));
}

// Three in one transaction: the second is refused after it has changed rows, and undone alone.
TEST_F(RenewalTest, OfManyInOneTransactionARefusedOneIsUndoneAlone) {
  const auto one = sealed();
  request.time_ms = now += 1'000;
  const auto lost = must(take(sealed(), first)).issued->leaf.serial_hex();
  const Bytes smuggling = [&] {
    auto r = request;
    r.csr = to_bytes(as_bytes(std::string_view(kCaCsr)));
    return must(trust::make_renewal(r, *device_key));
  }();
  request.time_ms += 1;
  const auto two = sealed();
  const auto rows = must(must(db->read(kNet))->certificates_of("dev-1")).size();
  auto tx = must(db->begin(kNet, now));
  const auto all = renewals.take_all(
      *tx, {{one, {"dev-1", first}}, {smuggling, {"dev-1", first}}, {two, {"dev-1", first}}}, now,
      random);
  ok(tx->commit());
  tx.reset();
  ASSERT_EQ(all.size(), 3u);
  ASSERT_TRUE(all[0] && all[2]);
  EXPECT_TRUE(all[1].error().is(Errc::kCaAsked));
  EXPECT_TRUE(row(lost).superseded);
  EXPECT_TRUE(row(all[0]->issued->leaf.serial_hex()).superseded) << "by the third";
  EXPECT_EQ(row(all[2]->issued->leaf.serial_hex()).revoked_ms, 0);
  EXPECT_EQ(must(must(db->read(kNet))->certificates_of("dev-1")).size(), rows + 2);
  EXPECT_TRUE(must(db->read(kNet))->verify_chains());
}

// What pki.md asks for, row by row: each refused, each by a code of its own. A stale snapshot of
// the state is in src/replica/replica_test.cc (replica.rollback); claims are not built.
// The rows of the negative matrix that end at this desk. A stale snapshot ends at the router
// (Replica.NeverBackNeverSideways: replica.rollback); claims, which could be reused, are not built.
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
    const auto devices = authority->devices();
    const auto leaf =
        must(crypto::sign_certificate(spec, device_key->public_key(), &devices, *ca_key, random));
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
    auto done = renewals.open(*tx, envelope).and_then([&](auto from) {
      return renewals.recover(*tx, std::move(from), now, random);
    });
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

TEST_F(RecoveryTest, RowsGoAfterTheGraceButNotWhatStillBarsOrIsTheLast) {
  const auto prune = [&](std::uint64_t limit) {
    auto tx = must(db->begin(kNet, now));
    const auto n = must(renewals.prune(*tx, now, limit));
    if (n > 0) ok(tx->commit());
    return n;
  };
  const store::CertificateRow model = row(first);
  const auto put = [&](const std::string& serial, std::int64_t issued_ms, std::int64_t ended_s,
                       bool revoked) {
    auto tx = must(db->begin(kNet, now));
    auto r = model;
    r.serial = serial;
    r.issued_ms = issued_ms;
    r.not_after_s = ended_s;
    r.revoked_ms = revoked ? issued_ms : 0;
    ok(tx->put_certificate(r));
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
  };
  const auto left = [&] { return must(must(db->read(kNet))->certificates_of("dev-1")).size(); };
  const std::int64_t end_s = model.not_after_s;
  at((end_s + kRecoveryGraceS + 2 * 86'400) * 1000);
  EXPECT_EQ(prune(9), 0u) << "the last one stays";
  for (int i = 1; i <= 3; ++i) put("a" + std::to_string(i), kNow + i, end_s, false);
  EXPECT_EQ(prune(2), 2u) << "in steps";
  EXPECT_EQ(prune(2), 1u);
  EXPECT_EQ(left(), 1u);
  EXPECT_EQ(must(must(db->read(kNet))->audit_rows(0, 1)).front().action, "certificate.pruned");
  // Revoked, and a later one has the same key: that must get nothing by its absence.
  put("b1", kNow + 10, end_s, true);
  put("b2", kNow + 11, end_s + 30 * 86'400, false);
  EXPECT_EQ(prune(9), 1u) << "a3 alone";
  EXPECT_EQ(left(), 2u);
  // Newer than one that ended later: without it the older one would be current.
  put("c0", kNow + 5, end_s + 30 * 86'400, false);
  put("c1", kNow + 6, end_s, false);
  EXPECT_EQ(prune(9), 0u);
  at(now + 60 * kDayMs);
  EXPECT_EQ(prune(9), 3u) << "all ended long ago";
  EXPECT_EQ(left(), 1u);
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

// Stolen with its key, and revoked: the certificate before it, which was only superseded, opens
// nothing.
TEST_F(RecoveryTest, AnOlderCertificateOfARevokedKeyOpensNothing) {
  at(kNow + 20 * kDayMs);
  const auto second = must(take(sealed(), first)).issued->leaf.serial_hex();
  const auto csr = request.csr;
  request.csr.clear();
  request.serial = second;
  ASSERT_EQ(must(take(sealed(), first)).superseded, 1u);
  request.csr = csr;
  request.serial = first;
  at(now + 1'000);
  EXPECT_EQ(code(), "none") << "superseded alone is no reason";
  revoke(second, false);
  EXPECT_EQ(code(), "pki.certificate_revoked");
}

// Revoked while it slept, after its certificate had ended, and resumed later: the old key stays
// out.
TEST_F(RecoveryTest, ResumingRevivesNoCertificateThatHadEnded) {
  at(kNow + 100 * kDayMs);
  {
    auto tx = must(db->begin(kNet, now));
    ok([&]() -> Status {
      TRY_ASSIGN(const auto done, revoke_identity(*tx, *must(tx->identity("dev-1")),
                                                  store::Reason::kKeyCompromise, now));
      EXPECT_EQ(done.certificates, 0u) << "none that a router would take";
      return {};
    }());
    ok(tx->audit("t", "revoke", "dev-1"));
    ok(tx->commit());
  }
  EXPECT_EQ(code(), "pki.identity_inactive");
  {
    auto tx = must(db->begin(kNet, now));
    ok(resume_identity(*tx, *must(tx->identity("dev-1")), now));
    ok(tx->audit("t", "resume", "dev-1"));
    ok(tx->commit());
  }
  EXPECT_EQ(code(), "pki.certificate_revoked");
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

}  // namespace
}  // namespace sally::pki
