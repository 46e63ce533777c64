// SPDX-License-Identifier: Apache-2.0
#include "api/test_api.h"

namespace sally::api {
namespace {

class CertificatesTest : public ApiTest {
 protected:
  CertificatesTest() {
    as_admin();
    const auto made = call(201, "POST", "/fleet/v1/devices", {{"name", "pump"}});
    id = text(made, "id");
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    leaf = std::make_unique<crypto::Certificate>(
        must(authority->issue(*tx, {id, {}, {}}, device_key->public_key(), pki::Profile::kDevice,
                              clock.unix_ms(), random, pki::kRenewingLifeS))
            .leaf);
    ok(tx->audit("t", "enroll", id));
    ok(tx->commit());
  }
  /// At the recovery door; the answer, or nothing where the status says all.
  std::optional<wire::Renewed> recover(const crypto::Signer& key, int status = 200,
                                       std::int64_t time_ms = 0) {
    wire::RenewalRequest r{.network = kNet.str(),
                           .id = id,
                           .serial = leaf->serial_hex(),
                           .csr = to_bytes(as_bytes(must(crypto::make_csr(*device_key, id)))),
                           .time_ms = time_ms != 0 ? time_ms : clock.unix_ms()};
    const Bytes body = wire::encode(wire::Control{
        wire::Renew{.request = 7, .id = id, .envelope = must(trust::make_renewal(r, key))}});
    caller.reset();
    const auto response = raw("POST", "/identity/v1/renew", {body.begin(), body.end()});
    as_admin();
    EXPECT_EQ(response.status, status);
    bool told = false;
    for (const auto& [k, v] : response.headers)
      told |= k == "sally-time-ms" && v == std::to_string(clock.unix_ms());
    EXPECT_TRUE(told);
    if (response.body.empty()) return std::nullopt;
    return std::get<wire::Renewed>(must(wire::decode_control(as_bytes(response.body))).member);
  }
  std::string newest_audit() {
    const auto row = must(must(db->read(kNet))->audit_rows(0, 1)).front();
    return row.action + " " + row.detail;
  }
  std::string id;
  std::unique_ptr<crypto::Certificate> leaf;
};

TEST_F(CertificatesTest, AreListedShownAndRenewedOnWish) {
  const auto mine = call(200, "GET", "/fleet/v1/certificates?identity=pump").at("items").as_array();
  ASSERT_EQ(mine.size(), 1u);
  EXPECT_EQ(text(mine[0].as_object(), "serial"), leaf->serial_hex());
  EXPECT_EQ(text(mine[0].as_object(), "state"), "active");
  EXPECT_EQ(text(mine[0].as_object(), "name"), "pump");
  EXPECT_EQ(code(call(404, "GET", "/fleet/v1/certificates?identity=nobody")), "api.unknown");
  EXPECT_EQ(
      call(200, "GET", "/fleet/v1/certificates?identity=ctrl-1").at("items").as_array().size(), 1u);
  EXPECT_EQ(call(200, "GET", "/fleet/v1/certificates?identity=pump&ends_within_s=86400")
                .at("items")
                .as_array()
                .size(),
            0u);
  EXPECT_EQ(call(200, "GET", "/fleet/v1/certificates?identity=pump&ends_within_s=2678400")
                .at("items")
                .as_array()
                .size(),
            1u);
  EXPECT_EQ(code(call(400, "GET", "/fleet/v1/certificates?ends_within_s=x")), "api.bad_field");
  const auto one = call(200, "GET", "/fleet/v1/certificates/" + leaf->serial_hex());
  EXPECT_EQ(text(one, "pem"), leaf->pem());
  EXPECT_EQ(text(one, "key"), device_key->public_key().hash_hex());
  EXPECT_EQ(code(call(404, "GET", "/fleet/v1/certificates/77")), "api.unknown");

  const auto asked = call(200, "POST", "/fleet/v1/devices/pump/renew", {{"within_s", 60}});
  EXPECT_EQ(text(asked, "serial"), leaf->serial_hex());
  EXPECT_EQ(live.wished, std::vector<std::string>{id + " 60000"});
  EXPECT_NE(newest_audit().find("certificate.renew_asked"), std::string::npos);
  EXPECT_EQ(code(call(404, "POST", "/fleet/v1/routers/pump/renew")), "api.unknown");
  EXPECT_EQ(code(call(400, "POST", "/fleet/v1/devices/pump/renew", {{"within_s", -1}})),
            "api.bad_field");
  (void)call(200, "POST", "/fleet/v1/devices/pump/suspend");
  EXPECT_EQ(code(call(409, "POST", "/fleet/v1/devices/pump/renew")), "api.in_use");
  EXPECT_EQ(live.wished.size(), 1u);
}

TEST_F(CertificatesTest, TheRecoveryDoorBelievesTheRequestAloneAndTellsTheTime) {
  clock.set_unix_ms(leaf->not_after() * 1000 + 86'400'000);
  const auto late = recover(*device_key, 200, 1);
  EXPECT_EQ(late->error, "pki.request_time");
  EXPECT_EQ(late->retry_after_ms, 0u) << "at once, with the time that came along";
  const auto other = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  EXPECT_EQ(recover(*other)->error, "trust.unknown_key");
  EXPECT_NE(newest_audit().find("certificate.renew_refused"), std::string::npos);
  const auto done = recover(*device_key);
  EXPECT_EQ(done->error, "");
  EXPECT_EQ(done->request, 7u);
  const auto fresh = must(crypto::Certificate::from_der(done->leaf));
  EXPECT_TRUE(fresh.public_key() == device_key->public_key());
  EXPECT_NE(newest_audit().find("\"door\":\"recovery\""), std::string::npos);
  EXPECT_EQ(raw("GET", "/identity/v1/renew").status, 405);
  EXPECT_EQ(raw("POST", "/identity/v1/renew", "x").status, 400);
  EXPECT_EQ(raw("POST", "/identity/v1/renew", std::string(70'000, 'x')).status, 413);
}

TEST_F(CertificatesTest, StrangersDoNotFillTheAudit) {
  const auto other = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  const auto before = must(must(db->read(kNet))->audit_rows(0, 1)).front().seq;
  for (int i = 0; i < 100; ++i) (void)recover(*other);
  EXPECT_EQ(must(must(db->read(kNet))->audit_rows(0, 1)).front().seq, before + 20);
}

TEST_F(CertificatesTest, JunkAtTheRecoveryDoorStarvesOnlyItsOwnSource) {
  clock.set_unix_ms(leaf->not_after() * 1000 + 86'400'000);
  const auto other = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  source = {1};
  for (int i = 0; i < 200; ++i) (void)recover(*other);
  (void)recover(*other, 503);
  EXPECT_EQ(raw("POST", "/identity/v1/renew", "x").status, 503) << "before anything is parsed";
  // Many sources: nobody's signature is good, so nothing is taken from who has one.
  for (std::uint8_t n = 2; n < 22; ++n) {
    source = {n};
    for (int i = 0; i < 200; ++i) (void)recover(*other);
  }
  source = {99};
  const auto done = recover(*device_key);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->error, "");
}

TEST_F(CertificatesTest, TheAuditNamesWhoUsedTheApiAndWhoWasDenied) {
  const auto count = [&](const std::string& action) {
    int n = 0;
    for (const auto& r : must(must(db->read(kNet))->audit_rows(0, 1000)))
      n += r.action == action ? 1 : 0;
    return n;
  };
  (void)call(200, "GET", "/fleet/v1/status");
  (void)call(200, "GET", "/fleet/v1/status");
  EXPECT_EQ(count("admin.login"), 1) << "once a day";
  clock.advance_ms(86'400'000);
  (void)call(200, "GET", "/fleet/v1/status");
  EXPECT_EQ(count("admin.login"), 2);
  caller = Caller{kNet.str(), crypto::Role::kDevice, id, leaf->serial_hex()};
  EXPECT_EQ(code(call(403, "GET", "/fleet/v1/devices")), "api.not_admin");
  EXPECT_EQ(count("api.denied"), 1);
  EXPECT_NE(newest_audit().find(leaf->serial_hex()), std::string::npos);
  caller.reset();
  EXPECT_EQ(code(call(401, "GET", "/fleet/v1/devices")), "api.no_certificate");
  EXPECT_EQ(count("api.denied"), 1);
}

TEST_F(CertificatesTest, TheAuditIsExportedWithItsHashesAndPruned) {
  auto page = call(200, "GET", "/fleet/v1/audit/export?limit=2");
  EXPECT_EQ(page.at("after").to_number<int>(), 0);
  EXPECT_EQ(text(page, "hash"), std::string(64, '0'));
  EXPECT_EQ(page.at("items").as_array().size(), 2u);
  const std::string second = text(page.at("items").as_array()[1].as_object(), "hash");
  page = call(200, "GET", "/fleet/v1/audit/export?after=2");
  EXPECT_EQ(text(page, "hash"), second);
  EXPECT_EQ(page.at("items").as_array()[0].as_object().at("seq").to_number<int>(), 3);
  EXPECT_EQ(code(call(404, "GET", "/fleet/v1/audit/export?after=9999")), "api.unknown");

  EXPECT_EQ(code(call(400, "POST", "/fleet/v1/audit/prune", {{"before", "now"}})), "api.bad_field");
  EXPECT_EQ(
      code(call(400, "POST", "/fleet/v1/audit/prune", {{"before", format_time(clock.unix_ms())}})),
      "api.bad_field");
  clock.advance_ms(10 * 86'400'000LL);
  const auto pruned = call(200, "POST", "/fleet/v1/audit/prune",
                           {{"before", format_time(clock.unix_ms() - 2 * 86'400'000LL)}});
  EXPECT_GT(pruned.at("pruned").to_number<int>(), 2);
  page = call(200, "GET", "/fleet/v1/audit/export");
  EXPECT_EQ(page.at("after"), pruned.at("through"));
  EXPECT_EQ(page.at("hash"), pruned.at("hash"));
  EXPECT_TRUE(call(200, "GET", "/fleet/v1/audit/verify").at("ok").as_bool());
}

}  // namespace
}  // namespace sally::api
