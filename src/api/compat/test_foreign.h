// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of this folder.
#include <functional>
#include <map>

#include "api/test_api.h"

namespace sally::api {

inline constexpr std::string_view kBase = "/edge/client/v1";

/// Two enrolled devices, one router, a service of every kind; asks as a foreign SDK does.
class ForeignTest : public ApiTest {
 protected:
  ForeignTest() {
    sensor = enrol("sensor", {"sensors"});
    other = enrol("other", {"others"});
    as_admin();
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    store::Identity r;
    r.id = "r-1";
    r.name = "er-1";
    r.kind = store::Kind::kRouter;
    ok(tx->put_identity(r));
    ok(tx->put_router_info({"r-1", {"127.0.0.1:3022"}, {}, {"127.0.0.1"}}));
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
    service("echo", "compatible", {"#sensors"}, {"#sensors"});
    service("plain", "none", {"#sensors"}, {"#others"});
    service("ours", "tls", {"#sensors"}, {"#sensors"});
    service("theirs", "compatible", {"#others"}, {"#others"});
    caller.reset();
  }
  Caller enrol(const std::string& name, const json::array& tags) {
    as_admin();
    const auto added = call(201, "POST", "/fleet/v1/devices", {{"name", name}, {"tags", tags}});
    caller.reset();
    const auto r =
        raw("POST", "/edge/client/v1/enroll?method=ott&token=" + jti(text(added, "token")),
            must(crypto::make_csr(*device_key, "x")), {{"content-type", "application/x-pem-file"}});
    EXPECT_EQ(r.status, 200) << r.body;
    const auto chain = must(crypto::Certificate::list_from_pem(
        std::string(json::parse(r.body).at("data").at("cert").as_string())));
    return {kNet.str(), crypto::Role::kDevice, text(added, "id"), chain[0].serial_hex()};
  }
  void service(const std::string& name, const std::string& e2e, const json::array& allow,
               const json::array& host) {
    const json::object host_config{{"protocol", "tcp"}, {"address", "127.0.0.1"}, {"port", 7}};
    ids[name] = text(call(201, "POST", "/fleet/v1/services",
                          {{"name", name},
                           {"e2e", e2e},
                           {"allow", allow},
                           {"host", host},
                           {"host_config", host_config}}),
                     "id");
  }
  /// Logs in; the token.
  std::string login(const Caller& who, const std::string& body = "") {
    caller = who;
    const auto r = raw("POST", std::string(kBase) + "/authenticate?method=cert", body);
    EXPECT_EQ(r.status, 200) << r.body;
    if (r.status != 200) return {};
    const auto data = json::parse(r.body).at("data").as_object();
    EXPECT_EQ(header(r, "zt-session"), text(data, "token"));
    return text(data, "token");
  }
  static std::string header(const Response& r, std::string_view name) {
    for (const auto& [n, v] : r.headers)
      if (n == name) return v;
    return {};
  }
  Response ask(const std::string& token, const std::string& method, const std::string& path,
               const std::string& body = "") {
    return raw(method, std::string(kBase) + path, body, {{"zt-session", token}});
  }
  json::value data(const std::string& token, const std::string& path) {
    const auto r = ask(token, "GET", path);
    EXPECT_EQ(r.status, 200) << path << ": " << r.body;
    return json::parse(r.body).at("data");
  }
  static std::string error_of(const Response& r) {
    return std::string(json::parse(r.body).at("error").at("code").as_string());
  }
  Response session(const std::string& token, const std::string& name, const std::string& type) {
    return ask(token, "POST", "/sessions",
               json::serialize(json::object{{"serviceId", ids[name]}, {"type", type}}));
  }
  static std::int64_t ms(const json::value& o, std::string_view name) {
    // Times of one day compare as text; the tests below need no more.
    const std::string t(o.at(name).as_string());
    return ((std::stoll(t.substr(11, 2)) * 60 + std::stoll(t.substr(14, 2))) * 60 +
            std::stoll(t.substr(17, 2))) *
               1000 +
           std::stoll(t.substr(20, 3));
  }
  void change(const std::function<void(store::Transaction&)>& fn) {
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    fn(*tx);
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
  }

  Caller sensor, other;
  std::map<std::string, std::string> ids;
};

}  // namespace sally::api
