// SPDX-License-Identifier: Apache-2.0
// Revocation over REST, and what anybody may ask about it.
#include <algorithm>

#include "api/test_api.h"
#include "crypto/test_status.h"

namespace sally::api {
namespace {

TEST_F(ApiTest, RevokedForGoodAndBackWithoutWhatItHad) {
  as_admin();
  const auto added = call(201, "POST", "/fleet/v1/devices", {{"name", "pump"}, {"batch", "b-1"}});
  EXPECT_EQ(code(call(400, "POST", "/fleet/v1/devices", {{"name", "x"}, {"batch", "a b"}})),
            "api.bad_name");
  const auto spare = call(201, "POST", "/fleet/v1/tokens", {{"identity", "pump"}});
  const auto enrol = [&](const json::object& token, int status) {
    caller.reset();
    call(status, "POST", "/edge/client/v1/enroll/ott",
         {{"token", text(token, "token")}, {"clientCsr", csr()}});
    clock.advance_ms(1'000);  // what is newest is told by the time of its issue
    as_admin();
  };
  const auto serial = [&] {
    const auto rows = call(200, "GET", "/fleet/v1/devices/pump").at("certificates").as_array();
    return text(rows.at(0).as_object(), "serial");
  };
  const auto revoke = [&](int status, const std::string& what, const json::object& body = {}) {
    return call(status, "POST", "/fleet/v1/" + what + "/revoke", body);
  };
  enrol(added, 200);
  const std::string first = serial();

  EXPECT_EQ(code(revoke(400, "devices/pump", {{"reason", "certificate-hold"}})), "api.bad_field");
  const auto gone =
      call(200, "POST", "/fleet/v1/devices/pump/revoke?wait_ms=1", {{"reason", "key-compromise"}});
  EXPECT_EQ(gone.at("certificates"), 1);
  EXPECT_EQ(gone.at("enforced").at("flows_cut"), 7);
  // Again is no error: whoever was not told that all routers have it asks again.
  EXPECT_EQ(revoke(200, "devices/pump").at("certificates"), 0);
  const auto shown = call(200, "GET", "/fleet/v1/devices/pump");
  EXPECT_EQ(text(shown.at("certificates").as_array().at(0).as_object(), "reason"),
            "key-compromise");
  const auto revoked = call(409, "POST", "/fleet/v1/devices/pump/suspend");
  EXPECT_EQ(code(revoked), "api.in_use");
  EXPECT_EQ(text(revoked.at("error").as_object(), "fix"), "put it back first: sally resume pump");
  EXPECT_EQ(code(call(409, "POST", "/fleet/v1/tokens", {{"identity", "pump"}})),
            "pki.identity_inactive");

  // Back: with nothing of what it had, the token that nobody used included.
  EXPECT_FALSE(call(200, "POST", "/fleet/v1/devices/pump/activate").at("enrolled").as_bool());
  enrol(spare, 400);
  enrol(call(201, "POST", "/fleet/v1/tokens", {{"identity", "pump"}}), 200);
  EXPECT_NE(serial(), first);

  // One certificate; then all with its key.
  EXPECT_EQ(code(revoke(404, "certificates/00ff")), "api.unknown");
  EXPECT_EQ(code(revoke(409, "certificates/" + admin_serial)), "api.in_use");
  EXPECT_EQ(code(revoke(409, "certificates/" + rest->leaf.serial_hex())), "api.in_use");
  const std::string second = serial();
  EXPECT_EQ(revoke(200, "certificates/" + second).at("certificates"), 1);
  enrol(call(201, "POST", "/fleet/v1/tokens", {{"identity", "pump"}}), 200);
  EXPECT_NE(serial(), second);
  EXPECT_TRUE(call(200, "GET", "/fleet/v1/devices/pump").at("enrolled").as_bool());
  revoke(200, "certificates/" + first, {{"reason", "key-compromise"}});
  EXPECT_FALSE(call(200, "GET", "/fleet/v1/devices/pump").at("enrolled").as_bool());

  // A batch.
  call(201, "POST", "/fleet/v1/devices", {{"name", "pump-2"}, {"batch", "b-1"}});
  call(201, "POST", "/fleet/v1/devices", {{"name", "other"}, {"batch", "b-2"}});
  EXPECT_EQ(code(revoke(404, "batches/none")), "api.unknown");
  EXPECT_EQ(revoke(200, "batches/b-1").at("devices"), 2);
  EXPECT_EQ(text(call(200, "GET", "/fleet/v1/devices/other"), "standing"), "active");
  EXPECT_EQ(text(call(200, "GET", "/fleet/v1/devices/pump-2"), "standing"), "revoked");

  // The audit names who, which certificate, which key.
  const auto audit = call(200, "GET", "/fleet/v1/audit").at("items").as_array();
  const auto row = std::ranges::find_if(audit, [](const json::value& v) {
    return v.at("action").as_string() == "device.revoke" &&
           v.at("detail").at("reason").as_string() == "key-compromise";
  });
  ASSERT_NE(row, audit.end());
  EXPECT_EQ(row->at("actor").as_string(), "admin/a1");
  const auto of_batch = std::ranges::count_if(audit, [](const json::value& v) {
    return v.at("action").as_string() == "device.revoke" && v.at("detail").is_object() &&
           v.at("detail").as_object().contains("batch");
  });
  EXPECT_EQ(of_batch, 2) << "a row for each of its devices";
  const auto& named = row->at("detail").at("certificates").as_array().at(0);
  EXPECT_EQ(named.at("serial").as_string(), first);
  EXPECT_EQ(named.at("key").as_string(), device_key->public_key().hash_hex());
}

TEST_F(ApiTest, ARevokedCaHasASuccessor) {
  as_admin();
  const auto device = [&](const std::string& name) {
    const auto added = call(201, "POST", "/fleet/v1/devices", {{"name", name}});
    caller.reset();
    const auto data = call(200, "POST", "/edge/client/v1/enroll/ott",
                           {{"token", text(added, "token")}, {"clientCsr", csr()}})
                          .at("data")
                          .as_object();
    as_admin();
    return must(crypto::Certificate::list_from_pem(text(data, "cert")));
  };
  const auto before = device("pump");
  EXPECT_EQ(code(call(404, "POST", "/fleet/v1/cas/devices-9/revoke")), "pki.no_authority");
  for (const char* name : {"root", "infrastructure-1"})
    EXPECT_EQ(code(call(409, "POST", "/fleet/v1/cas/" + std::string(name) + "/revoke")),
              "pki.infrastructure");
  // The device's, and that of the CA's own responder.
  EXPECT_EQ(call(200, "POST", "/fleet/v1/cas/devices-1/revoke").at("certificates"), 2);
  EXPECT_EQ(authority->devices_name(), "devices-2");
  EXPECT_EQ(call(200, "POST", "/fleet/v1/cas/devices-1/revoke").at("certificates"), 0);
  EXPECT_EQ(authority->devices_name(), "devices-2");
  EXPECT_FALSE(call(200, "GET", "/fleet/v1/devices/pump").at("enrolled").as_bool());
  const auto after = device("pump-2");
  EXPECT_NE(after[1], before[1]);
  EXPECT_TRUE(
      validate_path(after[0], {}, authority->policy(crypto::Purpose::kTlsClient, clock.unix_s())));
  // One op for the whole CA, and a controller that starts again goes on with the new one.
  auto tx = must(db->read(kNet));
  EXPECT_EQ(must(tx->log_head()).version, 1u);
  const auto again = must(pki::Authority::load(*tx, kNet, pki::KeyDir(dir + "/keys")));
  EXPECT_EQ(again->devices(), after[1]);
  EXPECT_EQ(must(tx->certificate(before[0].serial_hex()))->reason, store::Reason::kCaCompromise);
}

// The root's key is kept elsewhere, as it should be: what was stolen ends all the same.
TEST_F(ApiTest, ACaIsRevokedWithoutTheRootsKeyAndGetsItsSuccessorWhenThatIsBack) {
  as_admin();
  const std::string key = dir + "/keys/root.key";
  std::filesystem::rename(key, dir + "/root.key");
  const auto revoked = call(200, "POST", "/fleet/v1/cas/devices-1/revoke");
  EXPECT_TRUE(revoked.at("successor").is_null());
  EXPECT_NE(text(revoked, "why").find("root.key"), std::string::npos);
  EXPECT_EQ(must(must(db->read(kNet))->log_head()).version, 1u) << "routers hear of it";

  const auto token = text(call(201, "POST", "/fleet/v1/devices", {{"name", "pump"}}), "token");
  caller.reset();
  const json::object asked{{"token", token}, {"clientCsr", csr()}};
  EXPECT_EQ(raw("POST", "/edge/client/v1/enroll/ott", json::serialize(asked)).status, 503);
  as_admin();
  std::filesystem::rename(dir + "/root.key", key);
  EXPECT_EQ(text(call(200, "POST", "/fleet/v1/cas/devices-1/revoke"), "successor"), "devices-2");
  caller.reset();
  call(200, "POST", "/edge/client/v1/enroll/ott", asked);  // the token was not used up
}

TEST_F(ApiTest, AnybodyMayAskWhetherACertificateIsRevoked) {
  const auto list = raw("GET", "/crl/infrastructure-1.crl");
  EXPECT_EQ(list.status, 200);
  EXPECT_TRUE(crypto::crl_rows(as_bytes(list.body), authority->infrastructure()).believed);
  for (const char* none : {"/crl/none.crl", "/crl/", "/crl/../keys/root.key"})
    EXPECT_EQ(raw("GET", none).status, 404) << none;
  EXPECT_EQ(raw("POST", "/crl/root.crl").status, 405);

  const crypto::CertAndIssuer controller{rest->leaf, authority->infrastructure()};
  const Bytes request = crypto::ocsp_request({controller});
  const auto says = [&](const Response& r) {
    EXPECT_EQ(r.status, 200);
    return crypto::ocsp_says(as_bytes(r.body), request, controller, authority->root(),
                             clock.unix_s());
  };
  const auto post = [&](ByteView body) { return raw("POST", "/ocsp", std::string(as_text(body))); };
  EXPECT_EQ(says(post(request)), "good");
  std::string escaped;
  for (const char c : to_base64(request)) {
    static constexpr std::string_view kSpecial = "+/=";
    static constexpr const char* kEscapes[] = {"%2B", "%2f", "%3D"};
    const auto at = kSpecial.find(c);
    escaped += at == std::string_view::npos ? std::string(1, c) : kEscapes[at];
  }
  EXPECT_EQ(says(raw("GET", "/ocsp/" + escaped)), "good");
  EXPECT_EQ(says(raw("GET", "/ocsp/" + to_base64(request))), "good");  // slashes and all
  EXPECT_EQ(says(post({})), "failure 1");
  EXPECT_EQ(says(raw("GET", "/ocsp")), "failure 1");
  EXPECT_EQ(says(raw("GET", "/ocsp/!!!")), "failure 1");
  EXPECT_EQ(raw("DELETE", "/ocsp").status, 405);
}

}  // namespace
}  // namespace sally::api
