// SPDX-License-Identifier: Apache-2.0
// Our own client against the real controller: token to identity, and what is refused.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/json.hpp>
#include <filesystem>
#include <optional>

#include "controller/init.h"
#include "controller/server.h"
#include "crypto/test_pki.h"
#include "http/client.h"
#include "identity/enroll.h"
#include "loop/net.h"

namespace sally::controller {
namespace {

using crypto::must;

class EnrollTest : public testing::Test {
 protected:
  EnrollTest() {
    char name[] = "/tmp/sally_enroll_XXXXXX";
    dir = mkdtemp(name);
    // The token names the port, so it has to be known before the network is made.
    const auto port =
        must(loop::Listener::tcp(loop, "127.0.0.1", 0, [](loop::Fd, const loop::Address&) {
        }))->port();
    InitOptions o;
    o.dir = dir + "/controller";
    o.name = "test";
    o.hosts = {"127.0.0.1"};
    o.port = port;
    o.router_addresses = {"127.0.0.1:3022"};
    o.router_identity = dir + "/router.json";
    o.admin_identity = dir + "/admin.json";
    made = must(init_network(o, system_clock(), system_random()));
    server = must(Server::create(
        loop, system_clock(), system_random(),
        {.dir = dir + "/controller", .host = "127.0.0.1", .port = port, .threads = 2}));
  }
  ~EnrollTest() override {
    server.reset();
    std::filesystem::remove_all(dir);
  }

  std::string token(const std::string& name) {
    const auto admin = must(identity::load(dir + "/admin.json"));
    http::RequestOptions o;
    o.method = "POST";
    o.body = "{\"name\":\"" + name + "\"}";
    o.headers.add("content-type", "application/json");
    o.context = must(tls::Context::create(admin.client_options({"http/1.1"}, true)));
    std::optional<Result<http::ClientResponse>> out;
    auto call = http::request(loop, admin.controller + "/fleet/v1/devices", std::move(o),
                              [&](Result<http::ClientResponse> r) { out = std::move(r); });
    EXPECT_TRUE(loop.run_until([&] { return out.has_value(); }, 20'000));
    const auto response = must(std::move(*out));
    EXPECT_EQ(response.status, 201) << response.body;
    return std::string(boost::json::parse(response.body).at("token").as_string());
  }
  Result<identity::Identity> enroll(const std::string& jwt) {
    std::optional<Result<identity::Identity>> out;
    auto enrolling =
        identity::enroll(loop, jwt, {}, [&](Result<identity::Identity> r) { out = std::move(r); });
    EXPECT_TRUE(loop.run_until([&] { return out.has_value(); }, 20'000));
    return std::move(*out);
  }

  loop::Loop loop;
  std::string dir;
  InitResult made;
  std::unique_ptr<Server> server;
};

TEST_F(EnrollTest, OnceAndOnlyOnce) {
  const std::string jwt = token("pump-17");
  const auto mine = enroll(jwt);
  ASSERT_TRUE(mine) << mine.error().text();
  EXPECT_EQ(mine->name, "pump-17");
  EXPECT_EQ(mine->network.str(), made.network);
  EXPECT_EQ(mine->role, crypto::Role::kDevice);
  EXPECT_EQ(mine->routers, std::vector<std::string>{"127.0.0.1:3022"});
  EXPECT_FALSE(mine->card.empty());
  ASSERT_EQ(mine->anchors.size(), 1u);
  EXPECT_EQ(mine->anchors.front().sha256_hex(), made.root_sha256);
  ASSERT_TRUE(identity::save(*mine, dir + "/device.json"));
  EXPECT_EQ(must(identity::load(dir + "/device.json")).id, mine->id);

  const auto again = enroll(jwt);
  ASSERT_FALSE(again);
  EXPECT_TRUE(again.error().is(identity::Errc::kTokenUsed)) << again.error().text();
  std::string altered = token("pump-18");
  altered[altered.size() - 5] = altered[altered.size() - 5] == 'A' ? 'B' : 'A';
  const auto refused = enroll(altered);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(identity::Errc::kTokenAltered)) << refused.error().text();
}

TEST_F(EnrollTest, ATokenOfAnotherNetworkIsRefused) {
  const std::string foreign = token("pump-17");
  server.reset();
  const auto url = must(identity::parse_token(foreign)).issuer;
  // Another network takes over the same address.
  InitOptions o;
  o.dir = dir + "/other";
  o.name = "other";
  o.hosts = {"127.0.0.1"};
  o.port = must(http::parse_url(url)).port;
  o.admin_identity = dir + "/other-admin.json";
  must(init_network(o, system_clock(), system_random()));
  server = must(
      Server::create(loop, system_clock(), system_random(),
                     {.dir = dir + "/other", .host = "127.0.0.1", .port = o.port, .threads = 2}));
  const auto refused = enroll(foreign);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(identity::Errc::kTokenAltered)) << refused.error().text();
}

TEST_F(EnrollTest, FilesOfInitAreIdentities) {
  const auto router = identity::load(dir + "/router.json");
  ASSERT_TRUE(router) << router.error().text();
  EXPECT_EQ(router->role, crypto::Role::kRouter);
  EXPECT_EQ(router->id, made.router_id);
  const auto admin = identity::load(dir + "/admin.json");
  ASSERT_TRUE(admin) << admin.error().text();
  EXPECT_EQ(admin->role, crypto::Role::kAdmin);
}

}  // namespace
}  // namespace sally::controller
