// SPDX-License-Identifier: Apache-2.0
#include "api/api.h"

#include <set>

#include "api/test_api.h"
#include "pki/publish.h"
#include "trust/records.h"

namespace sally::api {
namespace {

TEST_F(ApiTest, FleetIsForActiveAdminsOfThisNetworkOnly) {
  EXPECT_EQ(code(call(401, "GET", "/fleet/v1/status")), "api.no_certificate");
  as_admin();
  const Caller good = *caller;
  EXPECT_EQ(text(call(200, "GET", "/fleet/v1/status"), "network"), "n-1.sally");
  caller->network = "n-2.sally";
  EXPECT_EQ(code(call(403, "GET", "/fleet/v1/status")), "api.not_admin");
  caller = good;
  caller->role = crypto::Role::kDevice;
  EXPECT_EQ(code(call(403, "GET", "/fleet/v1/nothing")), "api.not_admin");
  caller = good;
  caller->id = "a2";
  EXPECT_EQ(code(call(403, "DELETE", "/fleet/v1/devices/x")), "api.not_admin");
  caller = good;
  caller->serial = "00";
  EXPECT_EQ(code(call(403, "GET", "/fleet/v1/status")), "api.not_admin");
  caller = good;
  EXPECT_EQ(code(call(404, "GET", "/fleet/v1/nothing")), "api.no_route");
  EXPECT_EQ(code(call(405, "PUT", "/fleet/v1/devices")), "api.method");
  EXPECT_EQ(raw("POST", "/fleet/v1/devices", "[1]").status, 400);
  EXPECT_EQ(raw("POST", "/fleet/v1/devices", "{").status, 400);
  EXPECT_EQ(raw("POST", "/fleet/v1/devices", std::string(100, '[')).status, 400);
  EXPECT_EQ(code(call(409, "DELETE", "/fleet/v1/admins/root")), "api.last_admin");
  // A revoked admin certificate opens nothing.
  {
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    ok(pki::revoke_certificate(*tx, *must(tx->certificate(admin_serial)), clock.unix_ms()));
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
  }
  EXPECT_EQ(code(call(403, "GET", "/fleet/v1/status")), "api.not_admin");
}

TEST_F(ApiTest, DeviceFromAddToRemoval) {
  as_admin();
  const auto added =
      call(201, "POST", "/fleet/v1/devices", {{"name", "pump-17"}, {"tags", {"#sensors", "west"}}});
  EXPECT_EQ(code(call(409, "POST", "/fleet/v1/devices", {{"name", "pump-17"}})), "api.taken");
  for (const char* bad : {"", "a b", "-x", "../x"})
    EXPECT_EQ(raw("POST", "/fleet/v1/devices", json::serialize(json::object{{"name", bad}})).status,
              400)
        << bad;
  EXPECT_EQ(call(200, "GET", "/fleet/v1/devices").at("total"), 1);
  EXPECT_FALSE(call(200, "GET", "/fleet/v1/devices/pump-17").at("enrolled").as_bool());

  // Enrolment needs no certificate: the token is the proof.
  caller.reset();
  const std::string token = text(added, "token");
  const auto data =
      call(200, "POST", "/edge/client/v1/enroll/ott", {{"token", token}, {"clientCsr", csr()}})
          .at("data")
          .as_object();
  const auto chain = must(crypto::Certificate::list_from_pem(text(data, "cert")));
  ASSERT_EQ(chain.size(), 2u);
  EXPECT_EQ(chain[0].subject_cn(), text(added, "id"));
  EXPECT_EQ(chain[1], authority->devices());
  EXPECT_EQ(data.at("sally").at("network").as_string(), "n-1.sally");
  EXPECT_EQ(data.at("sally").at("name").as_string(), "pump-17");

  as_admin();
  EXPECT_TRUE(call(200, "GET", "/fleet/v1/devices/" + text(added, "id")).at("enrolled").as_bool());
  const auto tags = call(200, "PUT", "/fleet/v1/devices/pump-17/tags", {{"tags", {"east"}}});
  EXPECT_EQ(tags.at("tags").as_array().size(), 1u);
  call(200, "POST", "/fleet/v1/devices/pump-17/suspend");
  EXPECT_EQ(code(call(409, "POST", "/fleet/v1/tokens", {{"identity", "pump-17"}})),
            "pki.identity_inactive");
  call(200, "POST", "/fleet/v1/devices/pump-17/activate");
  const auto gone = call(200, "DELETE", "/fleet/v1/devices/pump-17?wait_ms=100");
  EXPECT_EQ(gone.at("enforced").at("flows_cut"), 7);
  EXPECT_EQ(code(call(404, "GET", "/fleet/v1/devices/pump-17")), "api.unknown");
  call(201, "POST", "/fleet/v1/devices", {{"name", "pump-17"}});

  auto tx = must(db->read(kNet));
  const auto row = *must(tx->identity(text(added, "id")));
  EXPECT_EQ(row.standing, store::Standing::kRevoked);
  EXPECT_EQ(row.credential_epoch, 2u);
  EXPECT_EQ(must(tx->revoked_certificates(clock.unix_s())).front().serial, chain[0].serial_hex());
  // attr, suspend, activate, remove
  EXPECT_EQ(must(tx->log_head()).version, 4u);
  EXPECT_TRUE(tx->verify_chains());
  EXPECT_GT(live.changes, 5);
}

TEST_F(ApiTest, ExposeAllowDeny) {
  as_admin();
  call(201, "POST", "/fleet/v1/devices", {{"name", "server"}});
  call(201, "POST", "/fleet/v1/devices", {{"name", "pump"}, {"tags", {"sensors"}}});
  EXPECT_EQ(code(call(404, "POST", "/fleet/v1/expose",
                      {{"name", "mqtt"},
                       {"address", "127.0.0.1:1883"},
                       {"allow", {"nobody"}},
                       {"host", {"server"}}})),
            "api.unknown");
  EXPECT_EQ(
      code(call(
          400, "POST", "/fleet/v1/expose",
          {{"name", "mqtt"}, {"address", "127.0.0.1"}, {"allow", {"*"}}, {"host", {"server"}}})),
      "api.bad_field");
  EXPECT_EQ(code(call(400, "POST", "/fleet/v1/expose",
                      {{"name", "mqtt"},
                       {"address", "127.0.0.1:1883"},
                       {"allow", {"#"}},
                       {"host", {"server"}}})),
            "policy.syntax");
  const auto s = call(201, "POST", "/fleet/v1/expose",
                      {{"name", "mqtt"},
                       {"address", "127.0.0.1:1883"},
                       {"allow", {"#sensors"}},
                       {"host", {"server"}}});
  EXPECT_EQ(s.at("configs").at("host.v1").at("port"), 1883);
  EXPECT_EQ(s.at("allow").as_array().at(0).as_string(), "#sensors");
  EXPECT_EQ(s.at("host").as_array().at(0).as_string(), "server");
  call(201, "POST", "/fleet/v1/grants", {{"service", "mqtt"}, {"selector", "pump"}});
  EXPECT_EQ(call(201, "POST", "/fleet/v1/grants", {{"service", "mqtt"}, {"selector", "pump"}})
                .at("added"),
            0);
  EXPECT_EQ(call(200, "GET", "/fleet/v1/grants?service=mqtt").at("items").as_array().size(), 3u);
  EXPECT_EQ(call(200, "POST", "/fleet/v1/deny", {{"service", "mqtt"}, {"selector", "#sensors"}})
                .at("removed"),
            1);
  EXPECT_EQ(
      code(call(404, "POST", "/fleet/v1/deny", {{"service", "mqtt"}, {"selector", "#sensors"}})),
      "api.unknown");
  // A removed device leaves no grant behind.
  call(200, "DELETE", "/fleet/v1/devices/pump");
  EXPECT_TRUE(call(200, "GET", "/fleet/v1/services/mqtt").at("allow").as_array().empty());
  call(200, "DELETE", "/fleet/v1/services/mqtt");
  EXPECT_TRUE(call(200, "GET", "/fleet/v1/grants").at("items").as_array().empty());
  call(201, "POST", "/fleet/v1/services",
       {{"name", "sdk"}, {"host", {"#srv"}}, {"allow", {"*"}}, {"e2e", "none"}});
  EXPECT_TRUE(call(200, "GET", "/fleet/v1/audit/verify").at("ok").as_bool());
  EXPECT_GT(call(200, "GET", "/fleet/v1/audit").at("items").as_array().size(), 8u);
}

TEST_F(ApiTest, RouterNamesComeFromTheRegistry) {
  as_admin();
  EXPECT_EQ(code(call(400, "POST", "/fleet/v1/routers", {{"name", "r1"}})), "api.bad_field");
  const auto r = call(201, "POST", "/fleet/v1/routers",
                      {{"name", "r1"},
                       {"addresses", {"r1.example:3022", "10.0.0.1:3022"}},
                       {"names", {"localhost"}}});
  caller.reset();
  const auto data =
      call(200, "POST", "/enroll/ott?token=" + jti(text(r, "token")), {{"certCsr", csr()}})
          .at("data")
          .as_object();
  const auto leaf = must(crypto::Certificate::list_from_pem(text(data, "cert")))[0];
  EXPECT_EQ(leaf.dns_sans(), (std::vector<std::string>{"r1.example", "localhost"}));
  EXPECT_EQ(leaf.ip_sans(), std::vector<std::string>{"10.0.0.1"});
  EXPECT_EQ(leaf.uri_sans().front(), "spiffe://n-1.sally/router/" + text(r, "id"));
  EXPECT_EQ(data.at("sally").at("routers").as_array().size(), 2u);
}

TEST_F(ApiTest, EnrolmentFormsAndRefusals) {
  as_admin();
  const auto token = [&](const std::string& name) {
    return text(call(201, "POST", "/fleet/v1/devices", {{"name", name}}), "token");
  };
  const std::string jwt = token("d1");
  const std::string other = token("d2");
  const std::string third = token("d3");
  caller.reset();
  const auto enroll = [&](const std::string& tok, const std::string& body, const std::string& type,
                          std::vector<std::pair<std::string, std::string>> more = {}) {
    if (!type.empty()) more.emplace_back("Content-Type", type);
    return raw("POST", "//edge/client/v1//enroll/?method=ott&token=" + tok, body, more);
  };
  const auto cause = [&](const Response& r) {
    return std::string(json::parse(r.body).at("error").at("cause").at("code").as_string());
  };
  const auto outer = [&](const Response& r) { return code(json::parse(r.body).as_object()); };
  auto r = enroll(jti(jwt), csr(), "application/x-pem-file");
  ASSERT_EQ(r.status, 200) << r.body;
  EXPECT_EQ(r.headers.front(),
            (std::pair<std::string, std::string>{"content-type", "application/json"}));
  EXPECT_EQ(enroll(jti(other), csr(), "text/plain", {{"Accept", "application/json"}}).status, 200);

  r = enroll(jti(jwt), csr(), "text/plain");
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(outer(r), "INVALID_ENROLLMENT_TOKEN");
  EXPECT_EQ(cause(r), "pki.token_used");
  EXPECT_EQ(cause(enroll("00000000-0000-0000-0000-000000000000", csr(), "")), "pki.token_unknown");
  EXPECT_EQ(enroll("", csr(), "").status, 400);
  // The whole JWT, changed in its payload and in its signature.
  std::string altered = third;
  altered[altered.size() - 10] = altered[altered.size() - 10] == 'A' ? 'B' : 'A';
  EXPECT_EQ(cause(enroll(altered, csr(), "")), "pki.token_altered");
  const auto parts = split(third, '.');
  auto claims = must(crypto::split_jws(third)).payload;
  const auto swap = [&](std::string p) {
    return std::string(parts[0]) + "." + to_base64url(as_bytes(p)) + "." + std::string(parts[2]);
  };
  std::string longer = claims;
  longer.replace(longer.find("\"exp\":18"), 8, "\"exp\":19");
  EXPECT_EQ(cause(enroll(swap(longer), csr(), "")), "pki.token_altered");
  const auto thief = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  EXPECT_EQ(cause(enroll(must(crypto::sign_jws(R"({"alg":"ES256"})", claims, *thief)), csr(), "")),
            "pki.token_altered");
  EXPECT_EQ(
      cause(enroll(to_base64url(as_bytes(R"({"alg":"none"})")) + "." + std::string(parts[1]) + ".",
                   csr(), "")),
      "pki.token_altered");
  std::string foreign = claims;
  foreign.replace(foreign.find("n-1.sally"), 9, "n-2.sally");
  EXPECT_EQ(
      cause(enroll(must(crypto::sign_jws(R"({"alg":"ES256"})", foreign, *rest->key)), csr(), "")),
      "pki.token_foreign");
  r = enroll(jti(third), "not a request", "text/plain");
  EXPECT_EQ(outer(r), "COULD_NOT_PROCESS_CSR");
  EXPECT_EQ(enroll(jti(third), csr(), "text/plain", {{"Accept", "text/html"}}).status, 415);
  EXPECT_EQ(enroll(jti(third), csr(), "image/png").status, 415);
  EXPECT_EQ(outer(raw("POST", "/enroll?method=updb&token=x", csr())), "INVALID_ENROLL_METHOD");
  clock.advance_ms(pki::kTokenLifeMs);
  r = enroll(jti(third), csr(), "");
  EXPECT_EQ(outer(r), "ENROLLMENT_EXPIRED");
  EXPECT_EQ(cause(r), "pki.token_expired");
}

TEST_F(ApiTest, UsageLiveAndMetricsAreForAdmins) {
  for (const char* path : {"/fleet/v1/usage", "/fleet/v1/live", "/metrics"})
    EXPECT_EQ(code(call(401, "GET", path)), "api.no_certificate");
  as_admin();
  const auto today = static_cast<std::uint32_t>(clock.unix_s() / 86'400);
  {
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    EXPECT_TRUE(must(tx->add_usage(
        "r", Bytes(16, 1), 1,
        {{today, "gone", "s-1", 5, 6, 1, 7}, {today - 1, "gone", "s-1", 1, 1, 0, 0}})));
    ok(tx->commit());
  }
  const auto total = call(200, "GET", "/fleet/v1/usage").at("items").as_array();
  ASSERT_EQ(total.size(), 1u);
  EXPECT_EQ(total[0].at("sent").to_number<int>(), 6);
  EXPECT_EQ(total[0].at("device_name").as_string(), "gone");
  const auto days = call(200, "GET", "/fleet/v1/usage?by=day").at("items").as_array();
  ASSERT_EQ(days.size(), 2u);
  EXPECT_EQ(days[1].at("day").as_string(), format_time(clock.unix_ms()).substr(0, 10));
  EXPECT_EQ(call(200, "GET", "/fleet/v1/usage?to=2000-01-01").at("items").as_array().size(), 0u);
  for (const char* bad : {"from=yesterday", "from=2026-02-31x", "to=1", "by=hour"})
    EXPECT_EQ(code(call(400, "GET", std::string("/fleet/v1/usage?") + bad)), "api.bad_field");
  EXPECT_EQ(code(call(404, "GET", "/fleet/v1/usage?device=nobody")), "api.unknown");
  const auto now = call(200, "GET", "/fleet/v1/live?limit=1");
  EXPECT_EQ(now.at("services").as_array().size(), 1u);
  EXPECT_EQ(now.at("devices").as_array()[0].at("sent_per_s").to_number<double>(), 71);
  EXPECT_EQ(raw("GET", "/metrics").status, 200);
  EXPECT_EQ(code(call(405, "POST", "/metrics")), "api.method");
  metrics::Text out;
  api->write_metrics(out);
  const std::string text = out.take();
  EXPECT_NE(text.find("{route=\"/fleet/v1/usage\",status=\"400\"} 4\n"), std::string::npos) << text;
  call(404, "GET", "/fleet/v1/evil\"name");
  raw("GET", "/evil");
  api->write_metrics(out);
  EXPECT_EQ(out.take().find("evil"), std::string::npos);
}

TEST_F(ApiTest, CompatiblePages) {
  for (const char* path :
       {"/version", "/", "/edge/client/v1/version", "/edge/v1/version", "/edge/client/v1/"}) {
    const auto v = call(200, "GET", path).at("data").as_object();
    EXPECT_EQ(v.at("apiVersions").at("edge").at("v1").at("path").as_string(), "/edge/client/v1");
    EXPECT_TRUE(v.at("capabilities").as_array().empty());
  }
  const auto r = raw("GET", "/edge/client/v1/.well-known/est/cacerts");
  EXPECT_EQ(r.body.find('\n'), 64u);
  EXPECT_NE(r.body.back(), '\n');
  const auto root = raw("GET", "/.well-known/est/cacerts");
  EXPECT_EQ(root.body.find('\n'), root.body.size() - 1);
  EXPECT_EQ(*from_base64(r.body), *from_base64(root.body));
  EXPECT_EQ(*from_base64(r.body), crypto::to_pkcs7(authority->bundle()));
  bool instance = false;
  for (const auto& [k, v] : r.headers)
    instance = instance || (k == "ziti-instance-id" && v == "i-1");
  EXPECT_TRUE(instance);
  EXPECT_EQ(code(call(404, "GET", "/edge/client/v1/nothing")), "NOT_FOUND");
  EXPECT_EQ(code(call(405, "GET", "/enroll")), "METHOD_NOT_ALLOWED");
  EXPECT_EQ(call(200, "GET", "/network-jwts").at("data").as_array().size(), 1u);
  EXPECT_EQ(raw("GET", "/%zz").status, 404);
  EXPECT_EQ(raw("GET", "").status, 404);
}

}  // namespace
}  // namespace sally::api
