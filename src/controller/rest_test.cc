// SPDX-License-Identifier: Apache-2.0
// The process over real sockets: REST with and without certificates, and kill -9 under load.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <set>
#include <thread>

#include "base/fs.h"
#include "controller/init.h"
#include "controller/server.h"
#include "controller/test_identity.h"
#include "crypto/csr.h"
#include "crypto/test_pki.h"
#include "http/client.h"
#include "pki/publish.h"

namespace sally::controller {
namespace {

using crypto::must;
namespace json = boost::json;

/// A controller in a process of its own, so that it can be killed.
class Process {
 public:
  explicit Process(const std::string& dir) {
    int fds[2];
    if (pipe(fds) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(fds[0]);
      loop::Loop loop;
      auto server = Server::create(loop, system_clock(), system_random(),
                                   {.dir = dir, .host = "127.0.0.1", .port = 0, .threads = 2});
      if (!server) {
        std::fprintf(stderr, "%s\n", server.error().text().c_str());
        _exit(1);
      }
      const std::uint16_t port = (*server)->port();
      if (write(fds[1], &port, sizeof port) != sizeof port) _exit(1);
      loop.run();
      _exit(0);
    }
    close(fds[1]);
    if (read(fds[0], &port_, sizeof port_) != sizeof port_) port_ = 0;
    close(fds[0]);
  }
  ~Process() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  [[nodiscard]] std::uint16_t port() const { return port_; }

 private:
  pid_t pid_ = -1;
  std::uint16_t port_ = 0;
};

class RestTest : public testing::Test {
 protected:
  RestTest() {
    char name[] = "/tmp/sally_rest_XXXXXX";
    dir = mkdtemp(name);
    InitOptions o;
    o.dir = dir + "/controller";
    o.name = "test";
    o.hosts = {"127.0.0.1"};
    o.router_addresses = {"127.0.0.1:3022"};
    o.router_identity = dir + "/router.json";
    o.admin_identity = dir + "/admin.json";
    made = must(init_network(o, system_clock(), system_random()));
    as_admin = client(dir + "/admin.json", true);
    as_nobody = client(dir + "/admin.json", false);
  }
  ~RestTest() override { std::filesystem::remove_all(dir); }

  static std::shared_ptr<const tls::Context> client(const std::string& file, bool show) {
    const TestIdentity i(file);
    if (!show) return must(http::client_context({i.ca[0]}, NetworkId(i.network)));
    return must(http::client_context({i.ca[0]}, NetworkId(i.network), i.chain, i.key));
  }
  Result<http::ClientResponse> call(std::uint16_t port, const std::string& method,
                                    const std::string& target, const std::string& body,
                                    const std::shared_ptr<const tls::Context>& as) {
    http::RequestOptions o;
    o.method = method;
    o.body = body;
    o.context = as;
    o.timeout_ms = 5'000;
    if (!body.empty()) o.headers.add("content-type", "application/json");
    return http::blocking_request("https://127.0.0.1:" + std::to_string(port) + target,
                                  std::move(o));
  }
  std::shared_ptr<const tls::Context> context(std::vector<crypto::Certificate> chain,
                                              crypto::SignerPtr key) const {
    const TestIdentity admin(dir + "/admin.json");
    return must(http::client_context({admin.ca[0]}, NetworkId(admin.network), std::move(chain),
                                     std::move(key)));
  }
  /// A device as a foreign client enrols it: its chain.
  std::vector<crypto::Certificate> enrol(std::uint16_t port, const std::string& name,
                                         const crypto::Signer& key) {
    const auto added =
        json::parse(must(call(port, "POST", "/fleet/v1/devices",
                              json::serialize(json::object{{"name", name}}), as_admin))
                        .body);
    const auto e = json::parse(
        must(call(port, "POST", "/enroll/ott",
                  json::serialize(json::object{{"token", added.at("token")},
                                               {"clientCsr", must(crypto::make_csr(key, "x"))}}),
                  as_nobody))
            .body);
    return must(
        crypto::Certificate::list_from_pem(std::string(e.at("data").at("cert").as_string())));
  }
  /// Whose session it is, as `as` asks.
  static http::ClientResponse whoami(std::uint16_t port, const std::string& token,
                                     const std::shared_ptr<const tls::Context>& as) {
    http::RequestOptions o;
    o.method = "GET";
    o.context = as;
    o.timeout_ms = 5'000;
    o.headers.add("zt-session", token);
    return must(http::blocking_request(
        "https://127.0.0.1:" + std::to_string(port) + "/edge/client/v1/current-identity",
        std::move(o)));
  }

  static constexpr char kLogin[] = "/edge/client/v1/authenticate?method=cert";
  std::string dir;
  InitResult made;
  std::shared_ptr<const tls::Context> as_admin, as_nobody;
};

TEST_F(RestTest, AdminByCertificateOnly) {
  Process p(dir + "/controller");
  ASSERT_NE(p.port(), 0);
  EXPECT_EQ(must(call(p.port(), "GET", "/version", "", as_nobody)).status, 200);
  EXPECT_EQ(must(call(p.port(), "GET", "/fleet/v1/status", "", as_nobody)).status, 401);
  const auto status = must(call(p.port(), "GET", "/fleet/v1/status", "", as_admin));
  EXPECT_EQ(status.status, 200);
  EXPECT_EQ(json::parse(status.body).at("network").as_string(), made.network);
  EXPECT_EQ(status.headers.get("content-type"), "application/json");
  EXPECT_FALSE(status.headers.get("ziti-instance-id").empty());
  // A router's certificate is no admin's.
  const auto as_router = client(dir + "/router.json", true);
  EXPECT_EQ(must(call(p.port(), "GET", "/fleet/v1/status", "", as_router)).status, 403);
  // The body limit of the listener or of the handlers: either way no 2xx.
  const auto big = call(p.port(), "POST", "/fleet/v1/devices", std::string(2 << 20, ' '), as_admin);
  EXPECT_TRUE(!big || big->status >= 400);
}

// Devices are added and enrolled while the controller is killed at 20 moments.
TEST_F(RestTest, KilledUnderEnrolmentsKeepsEveryAcknowledgedId) {
  SeededRandom random(11);
  std::set<std::string> added;
  std::set<std::string> serials;
  const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  const std::string csr = must(crypto::make_csr(*key, "x"));
  for (int round = 0; round < 20; ++round) {
    Process p(dir + "/controller");
    ASSERT_NE(p.port(), 0) << "round " << round;
    std::thread killer([&p, us = 20'000 + random.below(60'000)] {
      usleep(static_cast<useconds_t>(us));  // NOLINT(sally-sleep): the moment of the kill
      p.kill();
    });
    for (int i = 0;; ++i) {
      const std::string name = "d-" + std::to_string(round) + "-" + std::to_string(i);
      const auto r =
          call(p.port(), "POST", "/fleet/v1/devices", "{\"name\":\"" + name + "\"}", as_admin);
      if (!r) break;
      ASSERT_EQ(r->status, 201) << r->body;
      const auto o = json::parse(r->body).as_object();
      added.emplace(o.at("id").as_string());
      const auto e = call(
          p.port(), "POST", "/enroll/ott",
          json::serialize(json::object{{"token", o.at("token")}, {"clientCsr", csr}}), as_nobody);
      if (!e) break;
      ASSERT_EQ(e->status, 200) << e->body;
      const auto chain = must(crypto::Certificate::list_from_pem(
          std::string(json::parse(e->body).at("data").at("cert").as_string())));
      serials.insert(chain[0].serial_hex());
    }
    killer.join();
  }
  const auto store =
      must(store::open_sqlite(dir + "/controller/controller.db", pki::store_hooks()));
  const auto tx = must(store->read(NetworkId(made.network)));
  EXPECT_GT(added.size(), 5u) << "slow programs are killed earlier in what they do";
  for (const auto& id : added) EXPECT_TRUE(must(tx->identity(id))) << id;
  for (const auto& s : serials) EXPECT_TRUE(must(tx->certificate(s))) << s;
  EXPECT_TRUE(tx->verify_chains());
}

// A foreign end logs in over TLS with its enrolled leaf; its session outlives the controller.
TEST_F(RestTest, AForeignSessionSurvivesAKilledController) {
  const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  std::shared_ptr<const tls::Context> as_device;
  std::string token;
  {
    Process p(dir + "/controller");
    as_device = context(enrol(p.port(), "sensor", *key), key);
    EXPECT_EQ(must(call(p.port(), "POST", kLogin, "{}", as_nobody)).status, 401);
    EXPECT_EQ(must(call(p.port(), "POST", kLogin, "{}", as_admin)).status, 401);
    const auto in = must(call(p.port(), "POST", kLogin, "{}", as_device));
    ASSERT_EQ(in.status, 200) << in.body;
    token = in.headers.get("zt-session");
    EXPECT_EQ(whoami(p.port(), token, as_device).status, 200);
  }
  Process p(dir + "/controller");
  const auto me = whoami(p.port(), token, as_device);
  ASSERT_EQ(me.status, 200) << me.body;
  EXPECT_EQ(json::parse(me.body).at("data").at("name").as_string(), "sensor");
  EXPECT_EQ(whoami(p.port(), token, as_nobody).status, 401);
  EXPECT_EQ(whoami(p.port(), token, as_admin).status, 401);
}

// A session certificate is for lanes and circuits: whoever reads it out of a device's memory has
// nothing at the controller, not even with the device's own token.
TEST_F(RestTest, ASessionCertificateOpensNothing) {
  Process p(dir + "/controller");
  const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  const auto chain = enrol(p.port(), "sensor", *key);
  const auto as_device = context(chain, key);
  const auto hours_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  const auto hours = must(crypto::sign_certificate(
      {.organization = {},
       .common_name = chain[0].subject_cn(),
       .not_before_s = chain[0].not_before(),
       .not_after_s = system_clock().unix_s() + 3'600,
       .eku = *chain[0].eku(),
       .session_parent = chain[0].serial_hex(),
       .uris = chain[0].uri_sans(),
       .dns = {},
       .ips = {}},
      hours_key->public_key(), &chain[1],
      *must(pki::KeyDir(dir + "/controller/keys").load("devices-1")), system_random()));
  const auto as_session = context({hours, chain[1]}, hours_key);
  const std::string token(
      must(call(p.port(), "POST", kLogin, "{}", as_device)).headers.get("zt-session"));
  ASSERT_EQ(whoami(p.port(), token, as_device).status, 200);
  EXPECT_EQ(must(call(p.port(), "POST", kLogin, "{}", as_session)).status, 401);
  EXPECT_EQ(whoami(p.port(), token, as_session).status, 401);
  EXPECT_EQ(must(call(p.port(), "GET", "/fleet/v1/status", "", as_session)).status, 403);
  // It falls with its device's: from then on inside the handshake.
  const std::string serial = chain[0].serial_hex();
  ASSERT_EQ(
      must(call(p.port(), "POST", "/fleet/v1/certificates/" + serial + "/revoke", "{}", as_admin))
          .status,
      200);
  for (const auto& as : {as_device, as_session})
    EXPECT_FALSE(call(p.port(), "GET", "/version", "", as));
}

}  // namespace
}  // namespace sally::controller
