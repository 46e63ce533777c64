// SPDX-License-Identifier: Apache-2.0
// Sessions of foreign ends as admins see them.
#include "api/compat/test_foreign.h"

namespace sally::api {
namespace {

TEST_F(ForeignTest, AdminsSeeWhoIsLoggedInAndEndIt) {
  const auto token = login(sensor);
  const auto theirs = login(other);
  clock.advance_ms(5'000);
  caller = sensor;
  EXPECT_EQ(ask(token, "GET", "/services").status, 200);
  as_admin();
  const auto all = call(200, "GET", "/fleet/v1/sessions").at("items").as_array();
  ASSERT_EQ(all.size(), 2U);
  const auto mine = call(200, "GET", "/fleet/v1/sessions?device=sensor").at("items").as_array();
  ASSERT_EQ(mine.size(), 1U);
  const auto s = mine.front().as_object();
  EXPECT_EQ(text(s, "name"), "sensor");
  EXPECT_EQ(text(s, "identity"), sensor.id);
  EXPECT_EQ(ms(s, "active_at") - ms(s, "created_at"), 5'000) << "not only what is written";
  EXPECT_EQ(ms(s, "expires_at") - ms(s, "active_at"), Sessions::kLifeS * 1000);
  EXPECT_TRUE(
      call(200, "GET", "/fleet/v1/sessions?device=sensor&offset=1").at("items").as_array().empty());
  EXPECT_EQ(json::serialize(all).find(token), std::string::npos);
  call(404, "GET", "/fleet/v1/sessions?device=nobody");
  call(404, "DELETE", "/fleet/v1/sessions/nothing");
  call(200, "DELETE", "/fleet/v1/sessions/" + text(s, "id"));
  call(404, "DELETE", "/fleet/v1/sessions/" + text(s, "id"));
  caller = sensor;
  EXPECT_EQ(ask(token, "GET", "/services").status, 401);
  caller = other;
  EXPECT_EQ(ask(theirs, "GET", "/services").status, 200);
  EXPECT_EQ(raw("GET", "/fleet/v1/sessions").status, 403) << "a device is no admin";
  login(sensor);
}

TEST_F(ForeignTest, ASessionLivesAsLongAsItsNetworkSays) {
  sessions = std::make_unique<Sessions>(kNet, Bytes(32, 9), 300);
  make_api();
  const auto token = login(sensor);
  EXPECT_EQ(data(token, "/current-api-session").at("expirationSeconds").as_int64(), 300);
  clock.advance_ms(299'999);
  EXPECT_EQ(ask(token, "GET", "/services").status, 200);
  clock.advance_ms(300'000 + Sessions::kSlackMs);
  EXPECT_EQ(ask(token, "GET", "/services").status, 401);
  sessions = std::make_unique<Sessions>(kNet, Bytes(32, 9), 1);
  make_api();
  EXPECT_EQ(data(login(sensor), "/current-api-session").at("expirationSeconds").as_int64(),
            Sessions::kLeastLifeS);
}

}  // namespace
}  // namespace sally::api
