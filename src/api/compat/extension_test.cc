// SPDX-License-Identifier: Apache-2.0
// The next certificate for a foreign end (H15).
#include "api/compat/test_foreign.h"

namespace sally::api {
namespace {

class ExtensionTest : public ForeignTest {
 protected:
  std::string way(const std::string& step, const std::string& id) {
    return "/current-identity/authenticators/" + id + "/" + step;
  }
  Response extend(const std::string& token, const std::string& csr) {
    return ask(token, "POST", way("extend", sensor.id),
               json::serialize(json::object{{"clientCertCsr", csr}}));
  }
  Response verify(const std::string& token, const std::string& pem) {
    return ask(token, "POST", way("extend-verify", sensor.id),
               json::serialize(json::object{{"clientCert", pem}}));
  }
  /// The chain of a new certificate for `key`.
  std::string extended(const std::string& token, const crypto::FileKey& key) {
    const auto r = extend(token, must(crypto::make_csr(key, sensor.id)));
    EXPECT_EQ(r.status, 200) << r.body;
    const auto data = json::parse(r.body).at("data").as_object();
    EXPECT_EQ(text(data, "ca"), crypto::to_pem(authority->bundle()));  // H15
    return text(data, "clientCert");
  }
  static crypto::Certificate leaf_of(const std::string& chain) {
    return must(crypto::Certificate::list_from_pem(chain)).front();
  }
  Caller with(const crypto::Certificate& leaf) {
    Caller c = sensor;
    c.serial = leaf.serial_hex();
    return c;
  }
  store::CertificateRow row(const std::string& serial) {
    return *must(must(db->read(kNet))->certificate(serial));
  }
  std::size_t supersede() {
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    const auto n = must(pki::supersede_unproven(*tx, clock.unix_ms()));
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
    return n;
  }
  int status(const Caller& who, const std::string& token) {
    caller = who;
    return ask(token, "GET", "/current-identity").status;
  }
};

TEST_F(ExtensionTest, H15TheOlderOneEndsWithTheFirstProvenUseOfTheNewOne) {
  const auto token = login(sensor);
  clock.advance_ms(1'000);
  // A C SDK keeps its key.
  const auto chain = extended(token, *device_key);
  const auto leaf = leaf_of(chain);
  EXPECT_TRUE(leaf.public_key() == device_key->public_key());
  EXPECT_EQ(leaf.uri_sans(),
            must(crypto::Certificate::from_der(row(sensor.serial).der)).uri_sans());
  EXPECT_EQ(row(leaf.serial_hex()).not_after_s - clock.unix_ms() / 1000,
            row(sensor.serial).not_after_s - row(sensor.serial).issued_ms / 1000);
  // An answer that never arrived ends nothing, however long nobody asks again.
  clock.advance_ms(25 * 3'600'000);
  EXPECT_EQ(supersede(), 0u);
  auto session = login(sensor);
  EXPECT_EQ(verify(session, chain).status, 200);
  EXPECT_EQ(verify(session, chain).status, 200) << "an answer that was lost";
  EXPECT_EQ(row(sensor.serial).revoked_ms, 0);
  EXPECT_EQ(status(sensor, session), 200) << "until the new one is used";
  live.changes = 0;
  EXPECT_EQ(status(with(leaf), session), 200) << "the session goes on";
  EXPECT_EQ(live.changes, 1) << "routers hear of it";
  EXPECT_TRUE(row(sensor.serial).superseded) << "what is up with it lives on";
  EXPECT_NE(row(leaf.serial_hex()).used_ms, 0);
  EXPECT_EQ(status(sensor, session), 401);
  caller = sensor;
  EXPECT_EQ(error_of(raw("POST", "/authenticate?method=cert")), "INVALID_AUTH");
  EXPECT_EQ(status(with(leaf), session), 200);
  EXPECT_EQ(live.changes, 1);
  EXPECT_TRUE(must(db->read(kNet))->verify_chains());
}

TEST_F(ExtensionTest, ALoginIsAUseAndSoIsADay) {
  const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  auto token = login(sensor);
  clock.advance_ms(1'000);
  const auto first = leaf_of(extended(token, *key));
  EXPECT_TRUE(first.public_key() == key->public_key());
  // Without extend-verify: who makes a handshake with it has it.
  login(with(first));
  EXPECT_TRUE(row(sensor.serial).superseded);
  EXPECT_EQ(
      data(token, "/current-identity/authenticators/" + sensor.id).at("fingerprint").as_string(),
      first.sha1_hex());
  EXPECT_EQ(verify(token, first.pem()).status, 200) << "after the fact";
  // Received and not used for a day: the older one ends all the same.
  clock.advance_ms(1'000);
  const auto chain = extended(token, *device_key);
  EXPECT_EQ(verify(token, chain).status, 200);
  clock.advance_ms(pki::kUnprovenMs - 1);
  EXPECT_EQ(supersede(), 0u);
  clock.advance_ms(2);
  EXPECT_EQ(supersede(), 1u);
  EXPECT_TRUE(row(first.serial_hex()).superseded);
}

TEST_F(ExtensionTest, NeverMoreThanTwoAreValid) {
  const auto token = login(sensor);
  clock.advance_ms(1'000);
  const auto lost = extended(token, *device_key);
  clock.advance_ms(1'000);
  const auto kept = extended(token, *device_key);
  EXPECT_TRUE(row(leaf_of(lost).serial_hex()).superseded);
  EXPECT_EQ(error_of(verify(token, lost)), "INVALID_CLIENT_CERT");
  EXPECT_EQ(status(with(leaf_of(lost)), token), 401);
  EXPECT_EQ(status(sensor, token), 200);
  EXPECT_EQ(verify(token, kept).status, 200);
  // A new token from the admin ends all of it.
  int refused = 0;
  for (int i = 0; i < 70; ++i)
    refused += extend(token, must(crypto::make_csr(*device_key, "x"))).status == 429;
  EXPECT_GT(refused, 5);
}

TEST_F(ExtensionTest, OnlyForOneselfAndOnlyWhatWasIssued) {
  const auto token = login(sensor);
  clock.advance_ms(1'000);
  const auto csr = must(crypto::make_csr(*device_key, sensor.id));
  const auto chain = extended(token, *device_key);
  for (const char* step : {"extend", "extend-verify"}) {
    EXPECT_EQ(ask(token, "POST", way(step, other.id), "{}").status, 404);
    EXPECT_EQ(ask(token, "GET", way(step, sensor.id)).status, 405);
    EXPECT_EQ(ask(token, "POST", way(step, sensor.id), "{").status, 400);
    EXPECT_EQ(ask("x", "POST", way(step, sensor.id), "{}").status, 401);
  }
  EXPECT_EQ(error_of(extend(token, "")), "COULD_NOT_VALIDATE");
  EXPECT_EQ(error_of(extend(token, "x")), "COULD_NOT_PROCESS_CSR");
  EXPECT_EQ(error_of(extend(token, csr.substr(0, csr.size() / 2))), "COULD_NOT_PROCESS_CSR");
  EXPECT_EQ(error_of(verify(token, "x")), "INVALID_CERT_PEM");
  EXPECT_EQ(error_of(verify(token, csr)), "INVALID_CERT_PEM");
  const auto pem = [&](const std::string& serial) {
    return must(crypto::Certificate::from_der(row(serial).der)).pem();
  };
  for (const std::string& not_it :
       {pem(sensor.serial), pem(other.serial), pem(admin_serial), rest->leaf.pem()})
    EXPECT_EQ(error_of(verify(token, not_it)), "INVALID_CLIENT_CERT");
  // The token alone extends nothing, and another's leaf neither extends nor takes.
  caller.reset();
  EXPECT_EQ(extend(token, csr).status, 401);
  caller = other;
  EXPECT_EQ(extend(token, csr).status, 401);
  EXPECT_EQ(verify(token, chain).status, 401);
  const auto theirs = login(other);
  EXPECT_EQ(ask(theirs, "POST", way("extend-verify", other.id),
                json::serialize(json::object{{"clientCert", chain}}))
                .status,
            400);
  caller = sensor;
  EXPECT_EQ(verify(token, chain).status, 200);
}

}  // namespace
}  // namespace sally::api
