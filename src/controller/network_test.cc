// SPDX-License-Identifier: Apache-2.0
#include "controller/network.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>
#include <thread>

#include "base/fs.h"
#include "base/text.h"
#include "controller/init.h"
#include "controller/server.h"
#include "controller/test_identity.h"
#include "crypto/test_pki.h"
#include "pki/publish.h"
#include "pki/revoke.h"
#include "replica/replica.h"

namespace sally::controller {
namespace {

using crypto::must;
namespace json = boost::json;

/// As much of a router as the control lane sees.
class TestRouter final : public lane::LaneOwner {
 public:
  TestRouter(loop::Loop& loop, const TestIdentity& who, std::uint16_t port)
      : loop_(loop), replica({who.network, {who.ca[0]}, {who.ca[1], who.ca[2]}}) {
    dialing_ = tls::dial(
        loop, who.context(std::string(lane::kAlpnControl)), {.host = "127.0.0.1", .port = port},
        [this, network = who.network](Result<std::unique_ptr<tls::Stream>> s) {
          if (!s) {
            failed = s.error().text();
            return;
          }
          lane::LaneOptions o;
          o.hello.network = network;
          o.hello.software = "test";
          o.hello.features = wire::kFeatureUsage;
          o.hello.state_version = replica.state()->version();
          o.hello.state_hash = replica.state()->hash();
          o.tell_time = true;
          o.max_control = wire::kMaxControlMessage;
          lane = std::make_unique<lane::Lane>(loop_, pool_, std::move(*s), *this, std::move(o));
        });
  }
  void on_lane_up(lane::Lane&, const wire::Hello&) override { up = true; }
  void on_lane_control(lane::Lane& l, wire::Control&& m) override {
    if (const auto* u = std::get_if<wire::StateUpdate>(&m.member)) {
      const auto diff = replica.apply(*u, system_clock().unix_ms());
      if (!diff) failed = diff.error().text();
      if (diff && diff->identities.size() > 0) flows += 3;
      l.send_control({wire::StateAck{replica.state()->version(), flows}});
    } else if (auto* c = std::get_if<wire::CardReply>(&m.member)) {
      reply = std::move(*c);
    } else if (const auto* a = std::get_if<wire::UsageAck>(&m.member)) {
      acked = *a;
    }
  }
  void on_lane_setup(lane::Lane&, std::uint32_t, ByteView) override {}
  void on_lane_down(lane::Lane&, const Error& why) override {
    down = why.text();
    lane.reset();
  }
  std::uint64_t version() const { return replica.state()->version(); }

 private:
  loop::Loop& loop_;
  ChunkPool pool_;
  std::unique_ptr<tls::Dialing> dialing_;

 public:
  std::unique_ptr<lane::Lane> lane;
  replica::Replica replica;
  bool up = false;
  std::uint64_t flows = 0;
  std::string failed, down;
  std::optional<wire::CardReply> reply;
  std::optional<wire::UsageAck> acked;
};

class ControllerTest : public testing::Test {
 protected:
  ControllerTest() {
    char name[] = "/tmp/sally_ctrl_XXXXXX";
    dir = mkdtemp(name);
    InitOptions o;
    o.dir = dir + "/controller";
    o.name = "test";
    o.hosts = {"127.0.0.1"};
    o.router_addresses = {"127.0.0.1:3022"};
    o.router_identity = dir + "/router/identity.json";
    o.admin_identity = dir + "/admin.json";
    made = must(init_network(o, system_clock(), system_random()));
    EXPECT_TRUE(init_network(o, system_clock(), system_random()).error().is(Errc::kExists));
    start();
  }
  ~ControllerTest() override {
    server.reset();
    std::filesystem::remove_all(dir);
  }
  void start() {
    server = must(Server::create(
        loop, system_clock(), system_random(),
        {.dir = dir + "/controller",
         .host = "127.0.0.1",
         .port = 0,
         .threads = 2,
         .metrics = http::PlainAddress{.path = {}, .host = "127.0.0.1", .port = 0}}));
  }
  /// The figures without TLS, as Prometheus reads them.
  std::string scrape() {
    std::string got;
    loop::Fd fd;
    const auto connecting =
        loop::connect_tcp(loop, "127.0.0.1", server->metrics_port(), 2000,
                          [&](Result<loop::Fd> done) { fd = must(std::move(done)); });
    EXPECT_TRUE(until([&] { return fd.valid(); }));
    const std::string request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    EXPECT_GT(::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
    bool over = false;
    loop::Watcher watcher(loop, fd.get(), [&](loop::Watcher::Ready) {
      char buffer[65536];
      const auto n = ::recv(fd.get(), buffer, sizeof buffer, 0);
      if (n > 0) got.append(buffer, static_cast<std::size_t>(n));
      over = n <= 0;
      if (over) watcher.want(false, false);
    });
    watcher.want(true, false);
    EXPECT_TRUE(until([&] { return over; }));
    return got;
  }
  /// One admin request on a thread of its own, while the loop runs.
  json::object call(const std::string& method, const std::string& path,
                    const json::object& body = {}) {
    const TestIdentity admin(dir + "/admin.json");
    api::Request r;
    r.method = method;
    const auto q = path.find('?');
    r.path = path.substr(0, q);
    if (q != std::string::npos) r.query = path.substr(q + 1);
    if (!body.empty()) r.body = json::serialize(body);
    r.caller =
        api::Caller{admin.network, crypto::Role::kAdmin, admin.id, admin.chain[0].serial_hex()};
    std::atomic<bool> done = false;
    api::Response response;
    std::thread t([&] {
      response = server->network().api().handle(r);
      done = true;
      loop.post([] {});  // wakes the loop
    });
    EXPECT_TRUE(loop.run_until([&] { return done.load(); }, 5000));
    t.join();
    EXPECT_LT(response.status, 300) << response.body;
    return json::parse(response.body).as_object();
  }
  bool until(const std::function<bool()>& done) { return loop.run_until(done, 5000); }
  /// Whether this router does not come in.
  bool refused(const TestIdentity& who) {
    TestRouter again(loop, who, server->port());
    EXPECT_TRUE(until([&] { return !again.failed.empty() || !again.down.empty() || again.up; }));
    return !again.up;
  }
  /// Another certificate of the same owner, by the CA whose key has this name.
  crypto::Certificate sign_like(const crypto::Certificate& of, const crypto::Signer& key,
                                const std::string& ca, const crypto::Certificate& issuing) const {
    return must(crypto::sign_certificate({.organization = {},
                                          .common_name = of.subject_cn(),
                                          .not_before_s = of.not_before(),
                                          .not_after_s = of.not_after(),
                                          .eku = *of.eku(),
                                          .session_parent = {},
                                          .uris = of.uri_sans(),
                                          .dns = of.dns_sans(),
                                          .ips = of.ip_sans()},
                                         key.public_key(), &issuing,
                                         *must(pki::KeyDir(dir + "/controller/keys").load(ca)),
                                         system_random()));
  }

  std::string dir;
  InitResult made;
  loop::Loop loop;
  std::unique_ptr<Server> server;
};

TEST_F(ControllerTest, InitMakesPrivateFiles) {
  for (const char* f :
       {"/controller/controller.db", "/controller/keys/root.key", "/controller/keys/rest.key",
        "/controller/keys/signer.key", "/controller/keys/tokens.key", "/router/identity.json",
        "/admin.json", "/controller/signer.pem"}) {
    struct stat st{};
    ASSERT_EQ(stat((dir + f).c_str(), &st), 0) << f;
    EXPECT_EQ(st.st_mode & 0777u, 0600u) << f;
  }
  const TestIdentity router(dir + "/router/identity.json");
  EXPECT_EQ(router.id, made.router_id);
  EXPECT_EQ(router.ca[0].sha256_hex(), made.root_sha256);
}

TEST_F(ControllerTest, RouterIsBroughtUpToDateAndConfirms) {
  const TestIdentity who(dir + "/router/identity.json");
  TestRouter router(loop, who, server->port());
  ASSERT_TRUE(until([&] { return router.version() == 1; })) << router.failed << router.down;
  EXPECT_TRUE(router.replica.state()->router_known(made.router_id));
  EXPECT_GT(router.replica.state()->head_time_ms(), 0);
  EXPECT_EQ(call("GET", "/fleet/v1/routers/router-1").at("online"), true);

  const auto device = call("POST", "/fleet/v1/devices", {{"name", "pump"}, {"tags", {"sensors"}}});
  call("POST", "/fleet/v1/expose",
       {{"name", "mqtt"},
        {"address", "127.0.0.1:1883"},
        {"host", {"pump"}},
        {"allow", {"#sensors"}}});
  ASSERT_TRUE(until([&] { return router.version() == 2; }));
  EXPECT_NE(router.replica.state()->service_named("mqtt", system_clock().unix_ms()), nullptr);

  const std::string id(device.at("id").as_string());
  router.lane->send_control({wire::CardRequest{7, id}});
  ASSERT_TRUE(until([&] { return router.reply.has_value(); }));
  EXPECT_EQ(router.reply->request, 7u);
  EXPECT_FALSE(router.reply->card.empty());

  router.lane->send_control({wire::Terminators{{{"t1", "s1", id, {}, made.router_id, 5, {1}}}}});
  ASSERT_TRUE(until([&] { return server->network().hosts().size() == 1; }));

  const auto gone = call("DELETE", "/fleet/v1/devices/pump?wait_ms=4000");
  EXPECT_EQ(gone.at("enforced").at("routers"), 1);
  EXPECT_EQ(gone.at("enforced").at("of"), 1);
  EXPECT_EQ(gone.at("enforced").at("flows_cut"), 3);
  EXPECT_FALSE(router.replica.state()->identity_alive(id, 0));
  router.reply.reset();
  router.lane->send_control({wire::CardRequest{8, id}});
  ASSERT_TRUE(until([&] { return router.reply.has_value(); }));
  EXPECT_EQ(router.reply->error, "pki.identity_inactive");

  router.lane->send_control({wire::Events{{{1, "router.dial_denied", id, "s1", "no grant"}}}});
  ASSERT_TRUE(until([&] {
    const auto rows = call("GET", "/fleet/v1/audit?limit=1").at("items").as_array();
    return rows.at(0).at("action").as_string() == "router.dial_denied";
  }));

  // A restart of the controller: the router's state still continues.
  const auto version = router.version();
  server.reset();
  ASSERT_TRUE(until([&] { return router.lane == nullptr; }));
  start();
  TestRouter again(loop, who, server->port());
  ASSERT_TRUE(until([&] { return again.version() == version; })) << again.failed << again.down;
}

TEST_F(ControllerTest, UsageIsStoredOnceAndShown) {
  const TestIdentity who(dir + "/router/identity.json");
  auto router = std::make_unique<TestRouter>(loop, who, server->port());
  ASSERT_TRUE(until([&] { return router->version() == 1; }));
  const auto device = call("POST", "/fleet/v1/devices", {{"name", "pump-17"}});
  const std::string id(device.at("id").as_string());
  const auto today = static_cast<std::uint32_t>(system_clock().unix_s() / 86'400);
  wire::Usage batch;
  batch.epoch[0] = 7;
  batch.sequence = 1;
  batch.interval_ms = 2'000;
  batch.entries = {{today, id, "s-1", 1000, 500, 1, 10},
                   {1, id, "s-2", 1, 1, 0, 0},  // a day long gone is moved, not lost
                   {today, "", "", 4, 4, 1, 1}};
  batch.live = {.time_ms = system_clock().unix_ms(), .lanes = 3, .circuits = 2, .bytes_in = 1};
  const auto report = [&] {
    router->acked.reset();
    router->lane->send_control({batch});
    return until([&] { return router->acked && router->acked->sequence == batch.sequence; });
  };
  ASSERT_TRUE(report());
  EXPECT_EQ(router->acked->epoch, batch.epoch);
  EXPECT_EQ(router->acked->period_ms, 10'000U);
  ASSERT_TRUE(report());  // the acknowledgement was lost: counted once
  // Across a restart of the controller too.
  server.reset();
  ASSERT_TRUE(until([&] { return router->lane == nullptr; }));
  start();
  router = std::make_unique<TestRouter>(loop, who, server->port());
  ASSERT_TRUE(until([&] { return router->version() == 1; })) << router->failed;
  ASSERT_TRUE(report());
  const auto sum = [&] {
    std::int64_t n = 0;
    const auto usage = call("GET", "/fleet/v1/usage?device=pump-17&from=2020-01-01");
    for (const auto& u : usage.at("items").as_array())
      n += u.at("sent").as_int64() + u.at("received").as_int64();
    return n;
  };
  EXPECT_EQ(sum(), 1502);
  batch.sequence = 2;
  batch.live.time_ms += 2'000;
  batch.live.bytes_in += 4'000;
  batch.entries.resize(1);
  ASSERT_TRUE(report());
  EXPECT_EQ(sum(), 3002);

  const auto live = call("GET", "/fleet/v1/live");
  const auto& r = live.at("routers").as_array().at(0);
  EXPECT_EQ(r.at("lanes").to_number<int>(), 3);
  EXPECT_EQ(r.at("in_per_s").to_number<double>(), 2000);
  const auto& top = live.at("devices").as_array().at(0);
  EXPECT_EQ(top.at("name").as_string(), "pump-17");
  EXPECT_EQ(top.at("sent_per_s").to_number<double>(), 500);
  // Somebody watches: the router hears it at once.
  ASSERT_TRUE(until([&] { return router->acked->period_ms == 2'000; }));

  const std::string text = scrape();
  for (const char* line :
       {"HTTP/1.1 200 ", "\nsally_controller_identities{kind=\"device\",state=\"waiting\"} 1\n",
        "\nsally_controller_state_version 1\n", "\nsally_controller_routers_connected 1\n",
        "\nsally_usage_bytes_total{service=\"s-1\",direction=\"sent\"} 1000\n",
        "sally_controller_api_requests_total{route=\"/fleet/v1/usage\",status=\"200\"} ",
        "\nsally_controller_handshakes_total{result=\"established\"} 1\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  EXPECT_EQ(text.find(id), std::string::npos);  // devices are no series

  // A report in no order ends its lane.
  batch.sequence = 0;
  router->lane->send_control({batch});
  ASSERT_TRUE(until([&] { return router->lane == nullptr; }));
}

TEST_F(ControllerTest, RemovedRouterIsCutAndStaysOut) {
  const TestIdentity who(dir + "/router/identity.json");
  TestRouter router(loop, who, server->port());
  ASSERT_TRUE(until([&] { return router.version() == 1; })) << router.failed;
  call("DELETE", "/fleet/v1/routers/router-1");
  ASSERT_TRUE(until([&] { return !router.down.empty(); }));
  TestRouter again(loop, who, server->port());
  ASSERT_TRUE(until([&] { return !again.failed.empty() || !again.down.empty(); }));
  EXPECT_FALSE(again.up);
}

TEST_F(ControllerTest, ARouterOfARevokedCertificateIsCutAndStaysOut) {
  const TestIdentity who(dir + "/router/identity.json");
  TestRouter router(loop, who, server->port());
  ASSERT_TRUE(until([&] { return router.version() == 1; })) << router.failed;
  const std::string serial = who.chain[0].serial_hex();
  call("POST", "/fleet/v1/certificates/" + serial + "/revoke");
  ASSERT_TRUE(until([&] { return !router.down.empty(); }));
  EXPECT_NE(router.down.find("controller.removed"), std::string::npos) << router.down;
  EXPECT_TRUE(refused(who));
  server.reset();
  start();
  EXPECT_TRUE(refused(who)) << "by a controller that read it from its store";
  // The router itself is in service: another certificate of it is good.
  TestIdentity fresh = who;
  fresh.key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  fresh.chain[0] = sign_like(who.chain[0], *fresh.key, "infrastructure-1", who.chain[1]);
  TestRouter back(loop, fresh, server->port());
  EXPECT_TRUE(until([&] { return back.version() == 2; })) << back.failed << back.down;
}

TEST_F(ControllerTest, ASupersededCertificateKeepsItsLaneAndGetsNoOther) {
  const TestIdentity who(dir + "/router/identity.json");
  TestRouter router(loop, who, server->port());
  ASSERT_TRUE(until([&] { return router.version() == 1; })) << router.failed;
  {
    const auto store =
        must(store::open_sqlite(dir + "/controller/controller.db", pki::store_hooks()));
    auto tx = must(store->begin(server->network().id(), system_clock().unix_ms()));
    const auto row = must(tx->certificate(who.chain[0].serial_hex()));
    ASSERT_TRUE(pki::revoke_certificate(*tx, *row, system_clock().unix_ms(), true));
    ASSERT_TRUE(tx->audit("t", "t", "t"));
    ASSERT_TRUE(tx->commit());
  }
  server->network().changed();
  ASSERT_TRUE(until([&] { return router.version() == 2; }));
  EXPECT_TRUE(refused(who));
  EXPECT_EQ(router.down, "");
  EXPECT_EQ(call("GET", "/fleet/v1/routers/router-1").at("online"), true);
}

TEST_F(ControllerTest, NewerLaneReplacesTheOlder) {
  const TestIdentity who(dir + "/router/identity.json");
  TestRouter first(loop, who, server->port());
  ASSERT_TRUE(until([&] { return first.version() == 1; }));
  TestRouter second(loop, who, server->port());
  ASSERT_TRUE(until([&] { return second.version() == 1 && !first.down.empty(); }));
  EXPECT_EQ(call("GET", "/fleet/v1/routers/router-1").at("online"), true);
}

TEST_F(ControllerTest, AdminIsNoRouter) {
  const TestIdentity admin(dir + "/admin.json");
  TestRouter wrong(loop, admin, server->port());
  ASSERT_TRUE(until([&] { return !wrong.failed.empty() || !wrong.down.empty(); }));
  EXPECT_FALSE(wrong.up);
}

}  // namespace
}  // namespace sally::controller
