// SPDX-License-Identifier: Apache-2.0
#include "api/compat/compat.h"

#include "api/compat/test_foreign.h"
#include "trust/records.h"

namespace sally::api {
namespace {

TEST_F(ForeignTest, H1EveryPathUnderEveryBase) {
  const auto token = login(sensor);
  for (const std::string base : {"", "/edge/v1", "/edge/client/v1"}) {
    EXPECT_EQ(raw("GET", base + "/version").status, 200);
    EXPECT_EQ(raw("GET", base + "/protocols").status, 200);
    EXPECT_EQ(raw("POST", base + "/authenticate?method=cert").status, 200);
    for (const char* path :
         {"/current-api-session", "/current-identity", "/current-identity/edge-routers",
          "/services", "/controllers", "/sessions", "/current-api-session/service-updates",
          "/current-api-session/certificates", "/current-identity/authenticators"}) {
      const auto r = raw("GET", base + path, "", {{"zt-session", token}});
      EXPECT_EQ(r.status, 200) << base << path << r.body;
      EXPECT_EQ(header(r, "ziti-instance-id"), "i-1");  // H3
      EXPECT_EQ(header(r, "content-type"), "application/json");
    }
  }
  EXPECT_EQ(raw("GET", "//edge//client/v1/current-identity/", "", {{"zt-session", token}}).status,
            200);
}

TEST_F(ForeignTest, H8H9ASessionEndsLateEnoughAndInTheFormThatIsParsed) {
  const auto token = login(sensor, R"({"sdkInfo":{"appID":"x"},"envInfo":{},"more":1})");
  const auto s = data(token, "/current-api-session").as_object();
  EXPECT_EQ(text(s, "token"), token);
  const auto until = text(s, "expiresAt");
  ASSERT_EQ(until.size(), 24U) << until;
  EXPECT_EQ(until[19], '.');
  EXPECT_EQ(until.back(), 'Z');
  EXPECT_EQ(s.at("expirationSeconds").as_int64(), Sessions::kLifeS);
  EXPECT_TRUE(s.at("isCertExtendable").as_bool());
  for (const char* list : {"authQueries", "configTypes"}) EXPECT_TRUE(s.at(list).is_array());
  // Busy to the end of its day: what is left is never told to be less than two minutes.
  std::string now_until;
  for (std::int64_t left = 0;; ++left) {
    clock.advance_ms(60'000);
    const auto r = ask(token, "GET", "/current-api-session");
    if (r.status == 401) {
      EXPECT_GT(left, 1'400);
      break;
    }
    ASSERT_LT(left, 1'440);
    const auto d = json::parse(r.body).at("data");
    EXPECT_GE(d.at("expirationSeconds").as_int64(), 120);
  }
}

TEST_F(ForeignTest, H10ListsSayHowManyThereAreAndPage) {
  const auto token = login(sensor);
  for (const char* path :
       {"/services", "/current-identity/edge-routers", "/controllers", "/sessions",
        "/current-identity/authenticators", "/current-api-session/certificates"}) {
    const auto r = json::parse(ask(token, "GET", path).body);
    EXPECT_TRUE(r.at("meta").at("pagination").at("totalCount").is_int64() ||
                r.at("meta").at("pagination").at("totalCount").is_uint64())
        << path;
    EXPECT_EQ(ask(token, "GET", std::string(path) + "?limit=x").status, 400) << path;
  }
  const auto page = json::parse(ask(token, "GET", "/services?limit=1&offset=1").body);
  EXPECT_EQ(page.at("data").as_array().size(), 1U);
  EXPECT_EQ(page.at("data").at(0).at("name").as_string(), "plain");
  EXPECT_EQ(page.at("meta").at("pagination").at("totalCount"), 2);
  EXPECT_TRUE(json::parse(ask(token, "GET", "/services?offset=99999999999").body)
                  .at("data")
                  .as_array()
                  .empty());
  const auto terminators = json::parse(
      ask(token, "GET", "/services/" + ids["echo"] + "/terminators?limit=25&offset=0").body);
  EXPECT_EQ(terminators.at("meta").at("pagination").at("totalCount"), 0);
}

TEST_F(ForeignTest, H11H12ServicesAsAnSdkReadsThem) {
  const auto token = login(sensor);
  const auto list = data(token, "/services?configTypes=all&limit=500").as_array();
  ASSERT_EQ(list.size(), 2U);  // not those of others, not ours
  const auto& echo = list[0].as_object();
  EXPECT_EQ(text(echo, "name"), "echo");
  EXPECT_TRUE(echo.at("encryptionRequired").as_bool());
  EXPECT_FALSE(list[1].at("encryptionRequired").as_bool());
  EXPECT_EQ(echo.at("permissions"), json::value(json::array{"Dial", "Bind"}));
  EXPECT_EQ(list[1].at("permissions"), json::value(json::array{"Dial"}));
  ASSERT_EQ(echo.at("postureQueries").as_array().size(), 2U);
  EXPECT_TRUE(echo.at("postureQueries").at(0).at("postureQueries").is_array());
  EXPECT_EQ(echo.at("config").at("host.v1").at("port"), 7);
  // Only what was asked for; at login counts where the list does not say.
  EXPECT_TRUE(data(token, "/services").at(0).at("config").as_object().empty());
  EXPECT_TRUE(
      data(token, "/services?configTypes=intercept.v1").at(0).at("config").as_object().empty());
  const auto typed = login(sensor, R"({"configTypes":["host.v1"]})");
  EXPECT_EQ(data(typed, "/services").at(0).at("config").as_object().size(), 1U);
  EXPECT_EQ(data(typed, "/services/" + ids["echo"]).at("name").as_string(), "echo");
}

TEST_F(ForeignTest, H17TheQueryAsSdksWriteIt) {
  const auto token = login(sensor);
  for (const char* q : {"filter=name=%22echo%22", "filter=name%3D%22echo%22",
                        "filter=name+%3D+%22echo%22", "filter=name=\"echo\"&limit=25"})
    EXPECT_EQ(data(token, std::string("/services?") + q).as_array().size(), 1U) << q;
  EXPECT_EQ(data(token, "/services?filter=true").as_array().size(), 2U);
  EXPECT_EQ(data(token, "/services?filter=id=%22" + ids["echo"] + "%22").as_array().size(), 1U);
  EXPECT_TRUE(data(token, "/services?filter=name=%22theirs%22").as_array().empty());
  EXPECT_EQ(error_of(ask(token, "GET", "/services?filter=bogus")), "INVALID_FILTER");
  EXPECT_EQ(error_of(ask(token, "GET", "/services?filter=name=echo")), "INVALID_FILTER");
  EXPECT_EQ(error_of(ask(token, "GET", "/services?sort=tags.x")), "INVALID_SORT_IDENTIFIER");
  EXPECT_EQ(error_of(ask(token, "GET", "/services?limit=x")), "INVALID_PAGINATION");
}

// One device, or a token that everybody may know by now, takes nothing from the others.
TEST_F(ForeignTest, LoginsRequestsAndRefusalsHaveARate) {
  const auto try_login = [&](const Caller& who) {
    caller = who;
    return raw("POST", std::string(kBase) + "/authenticate?method=cert", "").status;
  };
  int taken = 0;
  for (int i = 0; i < 30; ++i) taken += try_login(sensor) == 200 ? 1 : 0;
  EXPECT_EQ(taken, 20);
  EXPECT_EQ(try_login(sensor), 429);
  const auto token = login(other);
  int answered = 0;
  for (int i = 0; i < 600; ++i) answered += ask(token, "GET", "/current-api-session").status == 200;
  EXPECT_EQ(answered, 500);
  // Refusals: of who has a certificate, and of a token that was used.
  const auto audited = [&](std::string_view action) {
    return std::ranges::count(must(must(db->read(kNet))->audit_rows(0, 2'000)), action,
                              &store::AuditRow::action);
  };
  as_admin();
  const auto used = jti(text(call(201, "POST", "/fleet/v1/devices", {{"name", "once"}}), "token"));
  caller.reset();
  const auto enrol_again = [&] {
    return raw("POST", "/edge/client/v1/enroll?method=ott&token=" + used,
               must(crypto::make_csr(*device_key, "x")), {{"content-type", "text/plain"}})
        .status;
  };
  EXPECT_EQ(enrol_again(), 200);
  for (int i = 0; i < 250; ++i) EXPECT_EQ(enrol_again(), 400);
  EXPECT_EQ(audited("enroll.refused"), 200);
  clock.advance_ms(3'000);
  EXPECT_EQ(enrol_again(), 400);
  EXPECT_EQ(try_login({kNet.str(), crypto::Role::kDevice, "d-none", "00"}), 401);
  EXPECT_EQ(audited("enroll.refused") + audited("api.denied"), 202);
  clock.advance_ms(60'000);
  const auto again = login(other);
  EXPECT_EQ(error_of(session(again, "echo", "Dial")), "NOT_FOUND");
  const auto last = must(must(db->read(kNet))->audit_rows(0, 1)).front();
  EXPECT_EQ(last.action, "api.denied");
  EXPECT_NE(last.detail.find(R"("code":"NOT_FOUND","route":"/sessions")"), std::string::npos)
      << last.detail;
}

TEST_F(ForeignTest, ListsAreFilteredSortedAndPaged) {
  const auto token = login(sensor);
  const auto all = data(token, "/services?sort=name").as_array();
  ASSERT_EQ(all.size(), 2U);
  const auto names = [&](const char* q) {
    std::string out;
    const auto list = data(token, std::string("/services?") + q);
    for (const auto& s : list.as_array()) out += std::string(s.at("name").as_string()) + " ";
    return out;
  };
  const std::string first(all[0].at("name").as_string());
  const std::string second(all[1].at("name").as_string());
  EXPECT_LT(first, second);
  EXPECT_EQ(names("sort=name%20desc"), second + " " + first + " ");
  EXPECT_EQ(names("sort=name&limit=1&offset=1"), second + " ");
  EXPECT_EQ(names("filter=sort%20by%20name%20skip%200%20limit%201&offset=1"), first + " ");
  EXPECT_EQ(names(("filter=not%20(name=%22" + first + "%22)").c_str()), second + " ");
  EXPECT_EQ(names("filter=name%20icontains%20%22ECHO%22%20and%20not%20isEmpty(configs)"), "echo ");
  const auto r = ask(token, "GET", "/services?filter=true%20limit%20none");
  EXPECT_EQ(json::parse(r.body).at("meta").at("pagination").at("limit").as_int64(), INT64_MAX);
  EXPECT_EQ(json::parse(r.body).at("meta").at("pagination").at("totalCount").as_int64(), 2);
}

TEST_F(ForeignTest, H13SessionsAreTokensThatARouterCanVerify) {
  const auto token = login(sensor);
  const auto r = session(token, "echo", "Dial");
  ASSERT_EQ(r.status, 201) << r.body;
  const auto s = json::parse(r.body).at("data").as_object();
  EXPECT_EQ(text(s, "serviceId"), ids["echo"]);
  const auto& router = s.at("edgeRouters").at(0);
  EXPECT_EQ(router.at("name").as_string(), "er-1");
  EXPECT_EQ(router.at("supportedProtocols").at("tls").as_string(), "tls://127.0.0.1:3022");
  // What is signed: for this identity, this use, this service, and no longer than the session.
  const auto payload = [&](const std::string& t) {
    const auto e = must(wire::decode_envelope(
        *from_base64url(std::string_view(t).substr(trust::kSessionPrefix.size()))));
    EXPECT_EQ(must(trust::open(wire::encode(e), wire::EnvelopeType::kSession, kNet.str(),
                               signer->public_key())),
              e.payload);
    return must(wire::decode_session_token(e.payload));
  };
  EXPECT_FALSE(text(s, "token").starts_with("ey"));
  const auto dial = payload(text(s, "token"));
  const auto api_token = payload(token);
  EXPECT_EQ(dial.identity, sensor.id);
  EXPECT_EQ(dial.use, wire::SessionUse::kDial);
  EXPECT_EQ(dial.service, ids["echo"]);
  EXPECT_EQ(dial.session, api_token.session);
  EXPECT_EQ(dial.not_after_ms, api_token.not_after_ms);
  EXPECT_EQ(api_token.use, wire::SessionUse::kApi);
  EXPECT_EQ(api_token.not_after_ms - api_token.issued_ms, Sessions::kMaxAgeMs);
  // The same request is the same session; another type is another.
  const auto again = json::parse(session(token, "echo", "Dial").body).at("data").as_object();
  EXPECT_EQ(text(again, "id"), text(s, "id"));
  const auto bind = json::parse(session(token, "echo", "Bind").body).at("data").as_object();
  EXPECT_NE(text(bind, "id"), text(s, "id"));
  EXPECT_EQ(payload(text(bind, "token")).use, wire::SessionUse::kBind);
  EXPECT_EQ(data(token, "/sessions").as_array().size(), 2U);
  EXPECT_EQ(data(token, "/sessions/" + text(s, "id")).at("serviceId").as_string(), ids["echo"]);
  EXPECT_EQ(ask(token, "DELETE", "/sessions/" + text(s, "id")).status, 200);
  EXPECT_EQ(error_of(ask(token, "GET", "/sessions/" + text(s, "id"))), "NOT_FOUND");
  // A grant that is gone takes the session with it.
  as_admin();
  call(200, "DELETE", "/fleet/v1/services/" + ids["echo"]);
  caller = sensor;
  EXPECT_EQ(ask(token, "GET", "/sessions/" + text(bind, "id")).status, 404);
}

TEST_F(ForeignTest, SessionsOnlyForWhatIsGrantedAndForeign) {
  const auto token = login(sensor);
  EXPECT_EQ(error_of(session(token, "theirs", "Dial")), "NOT_FOUND");
  EXPECT_EQ(error_of(session(token, "plain", "Bind")), "COULD_NOT_VALIDATE");
  const auto ours = session(token, "ours", "Dial");
  EXPECT_EQ(error_of(ours), "COULD_NOT_VALIDATE");
  EXPECT_NE(ours.body.find("compatible or none"), std::string::npos);
  EXPECT_EQ(ask(token, "GET", "/services/" + ids["ours"]).status, 404);
  EXPECT_EQ(ask(token, "GET", "/services/" + ids["theirs"]).status, 404);
  EXPECT_EQ(ask(token, "GET", "/services/" + ids["theirs"] + "/edge-routers").status, 404);
  EXPECT_EQ(ask(token, "GET", "/services/" + ids["theirs"] + "/terminators").status, 404);
  for (const char* body :
       {"{", "[]", "{}", R"({"serviceId":5})", R"({"serviceId":"x","type":"Own"})"})
    EXPECT_EQ(ask(token, "POST", "/sessions", body).status, 400) << body;
  EXPECT_EQ(ask(token, "POST", "/sessions", std::string(kMaxBody + 1, ' ')).status, 413);
}

TEST_F(ForeignTest, H14H19PostureCodesAndRefusalsWithABody) {
  const auto token = login(sensor);
  EXPECT_EQ(ask(token, "POST", "/posture-response-bulk", "{}").status, 200);
  EXPECT_EQ(ask(token, "POST", "/posture-response", "{}").status, 201);
  EXPECT_EQ(error_of(ask(token, "PUT", "/services")), "METHOD_NOT_ALLOWED");
  EXPECT_EQ(error_of(ask(token, "GET", "/nothing")), "NOT_FOUND");
  for (const std::string& bad :
       {std::string(), std::string("x"), token + "x", token.substr(1), std::string(5'000, 'a')}) {
    const auto r = ask(bad, "GET", "/services");
    EXPECT_EQ(r.status, 401);
    EXPECT_EQ(error_of(r), "UNAUTHORIZED");
    EXPECT_NE(
        header(r, "www-authenticate").find(bad.empty() ? "error=\"missing\"" : "error=\"invalid\""),
        std::string::npos);
    // What nobody may have says nothing of what there is.
    EXPECT_EQ(ask(bad, "PUT", "/services").status, 401);
  }
  for (const char* method : {"", "?method=password", "?method=ext-jwt"})
    EXPECT_EQ(error_of(raw("POST", "/authenticate" + std::string(method))), "INVALID_AUTH_METHOD");
  EXPECT_EQ(error_of(raw("POST", "/authenticate?method=cert", "[")), "COULD_NOT_PARSE_BODY");
  EXPECT_EQ(raw("GET", "/authenticate?method=cert").status, 405);
}

TEST_F(ForeignTest, ATokenIsWorthNothingWithoutItsOwnLeaf) {
  const auto token = login(sensor);
  const auto refused = [&] { return ask(token, "GET", "/current-identity").status == 401; };
  EXPECT_FALSE(refused());
  caller.reset();
  EXPECT_TRUE(refused());
  caller = other;
  EXPECT_TRUE(refused());
  caller = sensor;
  caller->network = "n-2.sally";
  EXPECT_TRUE(refused());
  caller = sensor;
  caller->role = crypto::Role::kRouter;
  EXPECT_TRUE(refused());
  caller = sensor;
  caller->serial = other.serial;
  EXPECT_TRUE(refused());
  as_admin();
  EXPECT_TRUE(refused());
  EXPECT_EQ(error_of(raw("POST", "/authenticate?method=cert")), "INVALID_AUTH");
  caller.reset();
  EXPECT_EQ(error_of(raw("POST", "/authenticate?method=cert")), "INVALID_AUTH");
  caller = sensor;
  EXPECT_FALSE(refused());
}

// GHSA-6v5r-p2wr-q492: lists on "current ..." endpoints were not scoped to their caller.
TEST_F(ForeignTest, Ghsa6v5rP2wrQ492EverythingCurrentIsTheCallers) {
  const auto mine = login(sensor);
  const auto session_id =
      text(json::parse(session(mine, "echo", "Dial").body).at("data").as_object(), "id");
  const auto theirs = login(other);
  SeededRandom dice{11};
  for (const auto& [who, token] : {std::pair{sensor, mine}, std::pair{other, theirs}}) {
    caller = who;
    const auto& foe = who.id == sensor.id ? other : sensor;
    for (int i = 0; i < 200; ++i) {
      static const std::array<std::string, 9> kPaths = {
          "/current-api-session",
          "/current-identity",
          "/current-identity/authenticators",
          "/sessions",
          "/services",
          "/current-api-session/certificates",
          "/current-identity/authenticators/" + foe.id,
          "/current-identity/edge-routers",
          "/controllers"};
      static const std::array<std::string, 8> kQueries = {"",
                                                          "filter=true",
                                                          "filter=id=%22" + foe.id + "%22",
                                                          "limit=500&offset=0",
                                                          "id=" + foe.id,
                                                          "filter=identity=%22" + foe.id + "%22",
                                                          "identityId=" + foe.id,
                                                          "filter=true%20limit%20none"};
      const auto r =
          ask(token, "GET",
              kPaths[dice.below(kPaths.size())] + "?" + kQueries[dice.below(kQueries.size())]);
      if (r.status == 200) {
        EXPECT_EQ(r.body.find(foe.id), std::string::npos) << r.body;
      }
      EXPECT_EQ(r.body.find(foe.serial), std::string::npos);
    }
    EXPECT_EQ(data(token, "/current-identity").at("id").as_string(), who.id);
  }
  EXPECT_TRUE(data(theirs, "/sessions").as_array().empty());
  EXPECT_EQ(ask(theirs, "GET", "/sessions/" + session_id).status, 404);
  EXPECT_EQ(ask(theirs, "DELETE", "/sessions/" + session_id).status, 404);
  EXPECT_EQ(ask(theirs, "GET", "/current-identity/authenticators/" + sensor.id).status, 404);
}

TEST_F(ForeignTest, ASessionSlidesInMemoryEndsAndSurvivesARestart) {
  const auto token = login(sensor);
  const auto alive = [&] { return ask(token, "GET", "/current-identity").status == 200; };
  const auto stored = [&] {
    return must(must(db->read(kNet))->api_sessions({})).front().active_ms;
  };
  const auto begun = stored();
  clock.advance_ms(25 * 60'000);
  EXPECT_TRUE(alive());
  EXPECT_EQ(stored(), begun);  // a heartbeat is no write
  ok(sessions->flush(*db, clock.unix_ms()));
  EXPECT_EQ(stored(), clock.unix_ms());
  clock.advance_ms(25 * 60'000);
  EXPECT_TRUE(alive());
  // Killed before this use was written: what its owner was told still holds.
  ok(sessions->flush(*db, clock.unix_ms()));
  clock.advance_ms(Sessions::kSlackMs - 1);
  EXPECT_TRUE(alive());
  sessions = std::make_unique<Sessions>(kNet, Bytes(32, 9));
  make_api();
  clock.advance_ms(Sessions::kLifeS * 1000 - 1);
  EXPECT_TRUE(alive());
  clock.advance_ms(Sessions::kLifeS * 1000 + Sessions::kSlackMs);
  const auto r = ask(token, "GET", "/current-identity");
  EXPECT_EQ(r.status, 401);
  EXPECT_NE(header(r, "www-authenticate").find("error=\"expired\""), std::string::npos);
  ok(sessions->flush(*db, clock.unix_ms()));
  EXPECT_TRUE(must(must(db->read(kNet))->api_sessions({})).empty());
  // Another key turns the same token into nobody's.
  const auto fresh = login(sensor);
  sessions = std::make_unique<Sessions>(kNet, Bytes(32, 8));
  make_api();
  EXPECT_EQ(ask(fresh, "GET", "/current-identity").status, 401);
}

// 3927: revoked sessions went on.
TEST_F(ForeignTest, Issue3927WhatDiesEndsItsSessionsAtOnce) {
  auto token = login(sensor);
  const auto status = [&] { return ask(token, "GET", "/services").status; };
  as_admin();
  call(200, "POST", "/fleet/v1/devices/sensor/suspend");
  caller = sensor;
  EXPECT_EQ(status(), 401);
  EXPECT_EQ(error_of(raw("POST", "/authenticate?method=cert")), "INVALID_AUTH");
  as_admin();
  call(200, "POST", "/fleet/v1/devices/sensor/activate");
  token = login(sensor);
  EXPECT_EQ(status(), 200);
  // A tag edit ends nothing, but what may be seen is what is granted now.
  as_admin();
  call(200, "PUT", "/fleet/v1/devices/sensor/tags", {{"tags", {"east"}}});
  caller = sensor;
  EXPECT_TRUE(data(token, "/services").as_array().empty());
  EXPECT_EQ(error_of(session(token, "echo", "Dial")), "NOT_FOUND");
  change([&](store::Transaction& tx) {
    ok(pki::revoke_certificate(tx, *must(tx.certificate(sensor.serial)), clock.unix_ms()));
  });
  EXPECT_EQ(status(), 401);
  EXPECT_EQ(error_of(raw("POST", "/authenticate?method=cert")), "INVALID_AUTH");
}

TEST_F(ForeignTest, SessionsOfOneAreBoundedAndItsOwnerEndsThem) {
  const auto first = login(sensor);
  for (std::size_t i = 0; i < Sessions::kPerIdentity; ++i) {
    clock.advance_ms(1'000);
    login(sensor);
  }
  EXPECT_EQ(must(must(db->read(kNet))->api_sessions_of(sensor.id)).size(), Sessions::kPerIdentity);
  EXPECT_EQ(ask(first, "GET", "/services").status, 401);
  const auto last = login(sensor);
  EXPECT_EQ(ask(last, "DELETE", "/current-api-session").status, 200);
  EXPECT_EQ(ask(last, "GET", "/services").status, 401);
  // Beyond the rate nobody is logged in.
  int refused = 0;
  for (int i = 0; i < 1'100; ++i) refused += raw("POST", "/authenticate?method=cert").status == 429;
  EXPECT_GT(refused, 0);
}

TEST_F(ForeignTest, EveryChangeOfWhatIsSeenIsAnUpdate) {
  const auto token = login(sensor);
  const auto last = [&] {
    return text(data(token, "/current-api-session/service-updates").as_object(), "lastChangeAt");
  };
  auto before = last();
  EXPECT_EQ(before, last());
  const auto changed = [&](const char* what) {
    caller = sensor;
    const auto now = last();
    EXPECT_GT(now, before) << what;
    before = now;
    as_admin();
  };
  as_admin();
  service("new", "none", {"#sensors"}, {"#sensors"});
  changed("a service");
  call(200, "PUT", "/fleet/v1/devices/sensor/tags", {{"tags", {"sensors", "x"}}});
  changed("tags");
  call(200, "DELETE", "/fleet/v1/services/" + ids["new"]);
  changed("a service that went");
}

}  // namespace
}  // namespace sally::api
