// SPDX-License-Identifier: Apache-2.0
#include "identity/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/fs.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/csr.h"
#include "crypto/jws.h"
#include "crypto/pkcs7.h"
#include "http/server.h"
#include "identity/enroll.h"
#include "identity/token.h"
#include "tls/acceptor.h"
#include "tls/test_tls.h"

namespace sally::identity {
namespace {

using crypto::must;
using crypto::Role;

Identity make_identity(const crypto::TestPki& pki) {
  const auto leaf = pki.leaf(Role::kDevice, "dev-1");
  Identity i;
  i.controller = "https://ctrl.example:1280";
  i.key = leaf.key;
  i.chain = {leaf.cert, pki.devices};
  i.anchors = {pki.root};
  i.issuing = {pki.devices, pki.infrastructure};
  i.network = NetworkId(pki.network);
  i.id = "dev-1";
  i.name = "pump 17";
  i.routers = {"r1.example:3022", "[::1]:3022"};
  i.card = {1, 2, 3};
  return i;
}

std::string code(const Result<Identity>& r) {
  return r ? "ok" : std::string(r.error().code());
}

std::string replace(std::string text, std::string_view what, std::string_view with) {
  const std::size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  if (at != std::string::npos) text.replace(at, what.size(), with);
  return text;
}

TEST(IdentityFile, RoundTripPrivateAndComplete) {
  const crypto::TestPki pki;
  const Identity one = make_identity(pki);
  char dir[] = "/tmp/sally-identity-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  const std::string path = std::string(dir) + "/id.json";
  ASSERT_TRUE(save(one, path));
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
  const auto two = load(path);
  ASSERT_TRUE(two) << two.error().text();
  EXPECT_EQ(two->controller, one.controller);
  EXPECT_EQ(two->key->public_key(), one.key->public_key());
  EXPECT_EQ(two->chain, one.chain);
  EXPECT_EQ(two->anchors, one.anchors);
  EXPECT_EQ(two->issuing, one.issuing);
  EXPECT_EQ(two->network, one.network);
  EXPECT_EQ(two->role, Role::kDevice);
  EXPECT_EQ(two->id, one.id);
  EXPECT_EQ(two->name, one.name);
  EXPECT_EQ(two->routers, one.routers);
  EXPECT_EQ(two->card, one.card);
  EXPECT_EQ(two->client_options({"sally-edge/1"}, false).chain.size(), 1u);
  EXPECT_EQ(two->client_options({"sally-edge/1"}, true).chain.size(), 2u);
  const auto missing = load(std::string(dir) + "/none.json");
  EXPECT_EQ(code(missing), "fs.not_found");
  ::unlink(path.c_str());
  ::rmdir(dir);
}

TEST(IdentityFile, NoChangeOfTwoThatWriteIsLost) {
  const crypto::TestPki pki;
  char dir[] = "/tmp/sally-identity-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  const std::string path = std::string(dir) + "/id.json";
  ASSERT_TRUE(save(make_identity(pki), path));
  constexpr std::int64_t kEach = 25;
  std::vector<std::thread> two(2);
  for (auto& t : two) {
    t = std::thread([&] {
      for (int i = 0; i < kEach; ++i) {
        const auto count = [](Identity& file) -> Result<bool> {
          ++file.time_ms;
          return true;
        };
        EXPECT_TRUE(change(path, count));
      }
    });
  }
  for (auto& t : two) t.join();
  EXPECT_EQ(must(load(path)).time_ms, 2 * kEach);
  ::unlink(path.c_str());
  ::rmdir(dir);
}

TEST(IdentityFile, FormsOfOtherClientsAndRefusals) {
  const crypto::TestPki pki;
  const Identity one = make_identity(pki);
  const std::string good = must(to_json(one));
  EXPECT_EQ(code(from_json(good)), "ok");
  // Go form: "pem:" prefixes, a path in ztAPI, leaf not first.
  std::string go = replace(good, "\"key\":\"-----", "\"key\":\"pem:-----");
  go = replace(go, "\"cert\":\"-----", "\"cert\":\"pem:-----");
  go = replace(go, "\"ca\":\"-----", "\"ca\":\"pem:-----");
  go = replace(go, "https://ctrl.example:1280\"", "https://ctrl.example:1280/edge/client/v1\"");
  const auto read = from_json(go);
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(read->controller, "https://ctrl.example:1280");
  Identity turned = one;
  std::swap(turned.chain[0], turned.chain[1]);
  EXPECT_EQ(from_json(must(to_json(turned)))->chain, one.chain);

  Identity other_key = one;
  other_key.key = pki.leaf(Role::kDevice, "dev-1").key;
  EXPECT_EQ(code(from_json(must(to_json(other_key)))), "identity.mismatch");
  EXPECT_EQ(code(from_json(replace(good, "\"id\":\"dev-1\"", "\"id\":\"dev-2\""))),
            "identity.mismatch");
  EXPECT_EQ(code(from_json(replace(good, "\"network\":\"net-a", "\"network\":\"net-b"))),
            "identity.mismatch");
  EXPECT_EQ(code(from_json(replace(good, "\"kind\":\"device", "\"kind\":\"admin"))),
            "identity.mismatch");
  Identity no_root = one;
  no_root.anchors.clear();
  EXPECT_EQ(code(from_json(must(to_json(no_root)))), "identity.mismatch");
  EXPECT_EQ(code(from_json(replace(good, "r1.example:3022", "r1.example"))), "identity.bad_file");
  EXPECT_EQ(code(from_json(replace(good, "https://", "http://"))), "identity.bad_file");
  for (const char* bad :
       {"", "{}", "[]", "{\"id\":3}", "{\"ztAPI\":\"https://a\",\"id\":{}}", "\xff"})
    EXPECT_EQ(code(from_json(bad)), "identity.bad_file") << bad;
  const std::size_t key_at = good.find("\"key\":\"") + 7;
  const std::size_t key_end = good.find('"', key_at);
  std::string hardware = good;
  hardware.replace(key_at, key_end - key_at, "pkcs11:///usr/lib/x.so?pin=1234");
  const auto refused = from_json(hardware);
  EXPECT_EQ(code(refused), "crypto.bad_key_name");
  EXPECT_EQ(refused.error().text().find("1234"), std::string::npos);
  hardware.replace(key_at, hardware.find('"', key_at) - key_at, "tpm:/k?device=/nowhere/tpm");
  EXPECT_EQ(code(from_json(hardware)), "crypto.key_missing");
  EXPECT_EQ(code(from_json(hardware, Files::kRefuse)), "identity.key_unavailable");
  const auto whose = from_json(hardware, Files::kLeaveHardware);
  ASSERT_TRUE(whose) << whose.error().text();
  EXPECT_EQ(whose->id, "dev-1");
  EXPECT_EQ(whose->key, nullptr);
  EXPECT_NE(must(from_json(good, Files::kLeaveHardware)).key, nullptr);
}

// ---- enrolment against a small controller on src/http --------------------------

/// What a test breaks.
struct Faults {
  bool foreign_root = false;    // bundle without the root of the token
  bool foreign_bundle = false;  // bundle of another network
  bool other_key = false;       // certificate for another key
  bool other_subject = false;
  int status = 200;
  std::string body;  // with status
};

class Enrol : public testing::Test {
 protected:
  Enrol() : clock(pki.now_s * 1000), controller(pki.leaf(Role::kController, "controller-1")) {
    log::set_sink([](std::string_view) {});
    listen(controller);
  }
  ~Enrol() override { log::set_sink(nullptr); }

  void listen(const crypto::TestLeaf& leaf) {
    auto o = tls::test_options(pki, tls::Side::kServer, &leaf, &clock, {"http/1.1"});
    o.chain.push_back(pki.infrastructure);
    o.alpn_optional = true;
    o.peer_certificate = tls::PeerCertificate::kOptional;
    tls::AcceptorOptions ao;
    ao.host = "127.0.0.1";
    ao.context = tls::test_context(std::move(o));
    acceptor.reset();
    server = std::make_unique<http::Server>(loop, http::ServerOptions{},
                                            [this](const http::Request& r) { return handle(r); });
    acceptor =
        must(tls::Acceptor::create(loop, std::move(ao), [this](std::unique_ptr<tls::Stream> s) {
          server->adopt(std::move(s));
        }));
  }

  http::Response handle(const http::Request& r) {
    if (r.path == "/edge/client/v1/.well-known/est/cacerts") {
      const crypto::TestPki other(pki.network);
      const auto& from = faults.foreign_bundle || faults.foreign_root ? other : pki;
      return http::Response::text(
          200, to_base64(crypto::to_pkcs7({from.root, from.devices, from.infrastructure})));
    }
    if (r.path == "/edge/client/v1/enroll" && r.method == "POST") {
      ++enrolments;
      last_query = r.query;
      if (faults.status != 200) return http::Response::json(faults.status, faults.body);
      auto csr = must(crypto::parse_csr(r.body));
      if (faults.other_key) csr.key = pki.leaf(Role::kDevice, "x").key->public_key();
      const auto cert = must(crypto::sign_certificate(
          pki.leaf_spec(Role::kDevice, faults.other_subject ? "dev-2" : "dev-1"), csr.key,
          &pki.devices, *pki.devices_key, system_random()));
      return http::Response::json(
          200, "{\"data\":{\"cert\":" + json_quote(crypto::to_pem({cert, pki.devices})) +
                   ",\"sally\":{\"name\":\"pump-17\",\"routers\":[\"10.0.0.1:3022\",\"bad\"],"
                   "\"card\":\"AQID\"}}}");
    }
    return http::Response::text(404, "");
  }

  std::string token(const std::function<void(std::string& payload)>& change = {},
                    const crypto::Signer* signer = nullptr) {
    std::string payload =
        "{\"iss\":\"https://localhost:" + std::to_string(acceptor->port()) +
        "\",\"sub\":\"dev-1\",\"aud\":[\"\"],\"exp\":" + std::to_string(pki.now_s + 600) +
        ",\"jti\":\"9c1d2c0e\",\"em\":\"ott\",\"sally\":{\"network\":\"" + pki.network +
        "\",\"root\":\"" + pki.root.sha256_hex() + "\",\"kind\":\"device\"}}";
    if (change) change(payload);
    return must(crypto::sign_jws("{\"alg\":\"ES256\",\"typ\":\"JWT\"}", payload,
                                 signer != nullptr ? *signer : *controller.key));
  }
  Result<Identity> run(const std::string& jwt, EnrollOptions o = {}) {
    o.clock = &clock;
    o.timeout_ms = 10'000;
    std::optional<Result<Identity>> out;
    auto enrolling = enroll(loop, jwt, o, [&](Result<Identity> r) { out = std::move(r); });
    EXPECT_TRUE(loop.run_until([&] { return out.has_value(); }, 20'000));
    return std::move(*out);
  }

  crypto::TestPki pki;
  FakeClock clock;
  crypto::TestLeaf controller;
  loop::Loop loop;
  Faults faults;
  std::atomic<int> enrolments = 0;
  std::string last_query;
  std::unique_ptr<http::Server> server;
  std::unique_ptr<tls::Acceptor> acceptor;
};

TEST_F(Enrol, TokenToIdentity) {
  const std::string jwt = token();
  const auto i = run("  " + jwt + "\n");
  ASSERT_TRUE(i) << i.error().text();
  EXPECT_EQ(i->id, "dev-1");
  EXPECT_EQ(i->name, "pump-17");
  EXPECT_EQ(i->network.str(), pki.network);
  EXPECT_EQ(i->role, Role::kDevice);
  EXPECT_EQ(i->routers, std::vector<std::string>{"10.0.0.1:3022"});
  EXPECT_EQ(i->card, (Bytes{1, 2, 3}));
  EXPECT_EQ(i->anchors, std::vector<crypto::Certificate>{pki.root});
  EXPECT_EQ(i->leaf().public_key(), i->key->public_key());
  EXPECT_EQ(last_query, "method=ott&token=" + jwt);
  EXPECT_EQ(code(from_json(must(to_json(*i)))), "ok");
  // A token of a compatible controller carries no "sally": only its id is sent.
  const auto plain =
      run(token([](std::string& p) { p = p.substr(0, p.find(",\"sally\"")) + "}"; }));
  ASSERT_TRUE(plain) << plain.error().text();
  EXPECT_EQ(last_query, "method=ott&token=9c1d2c0e");
  EnrollOptions p384;
  p384.key_type = crypto::KeyType::kP384;
  EXPECT_EQ(run(jwt, p384)->key->public_key().type(), crypto::KeyType::kP384);
}

TEST_F(Enrol, TokensThatAreNotBelieved) {
  const auto refused = [&](const std::string& jwt) {
    const auto r = run(jwt);
    EXPECT_FALSE(r);
    return code(r);
  };
  EXPECT_EQ(refused(""), "identity.bad_token");
  EXPECT_EQ(refused("a.b.c"), "identity.bad_token");
  EXPECT_EQ(refused(token() + "x"), "identity.bad_token");
  EXPECT_EQ(refused(token([](auto& p) { p = replace(p, "\"ott\"", "\"ca\""); })),
            "identity.method");
  EXPECT_EQ(refused(token([](auto& p) { p = replace(p, "https", "http"); })), "identity.bad_token");
  EXPECT_EQ(refused(token([](auto& p) { p = replace(p, "\"exp\":", "\"exq\":"); })),
            "identity.bad_token");
  EXPECT_EQ(
      refused(token([](auto& p) { p = replace(p, "\"kind\":\"device\"", "\"kind\":\"god\""); })),
      "identity.bad_token");
  // Every part altered after signing.
  const std::string good = token();
  const std::size_t dot = good.find('.');
  std::string other_payload = token([](auto& p) { p = replace(p, "dev-1", "dev-2"); });
  other_payload = other_payload.substr(0, other_payload.rfind('.')) + good.substr(good.rfind('.'));
  EXPECT_EQ(refused(other_payload), "identity.token_altered");
  EXPECT_EQ(refused(to_base64url(as_bytes("{\"alg\":\"none\"}")) +
                    good.substr(dot, good.rfind('.') - dot) + ".AA"),
            "identity.token_altered");
  // Signed by somebody else.
  const auto other = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  EXPECT_EQ(refused(token({}, other.get())), "identity.token_altered");
  EXPECT_EQ(refused(token([&](auto& p) {
              p = replace(p, std::to_string(pki.now_s + 600), std::to_string(pki.now_s - 1));
            })),
            "identity.token_expired");
  EXPECT_EQ(refused(token([&](auto& p) { p = replace(p, "net-a.sally", "net-b.sally"); })),
            "identity.not_believed");
  EXPECT_EQ(refused(token([&](auto& p) { p = replace(p, "localhost", "127.0.0.2"); })),
            "loop.connect");
  EXPECT_EQ(enrolments, 0);  // no request and no key left the device
}

TEST_F(Enrol, ControllersThatAreNotBelieved) {
  const auto refused = [&] { return code(run(token())); };
  faults.foreign_root = true;
  EXPECT_EQ(refused(), "identity.not_believed");
  faults = {};
  faults.foreign_bundle = true;
  EXPECT_EQ(code(run(token([](auto& p) { p = p.substr(0, p.find(",\"sally\"")) + "}"; }))),
            "identity.not_believed");
  EXPECT_EQ(enrolments, 0);
  faults = {};
  faults.other_key = true;
  EXPECT_EQ(refused(), "identity.mismatch");
  faults = {};
  faults.other_subject = true;
  EXPECT_EQ(refused(), "identity.mismatch");
  faults = {};
  faults.status = 400;
  faults.body = "{\"error\":{\"code\":\"INVALID_ENROLLMENT_TOKEN\",\"message\":\"not valid\"}}";
  EXPECT_EQ(refused(), "identity.token_refused");
  faults.body = "{\"error\":{\"code\":\"ENROLLMENT_EXPIRED\",\"message\":\"gone\"}}";
  EXPECT_EQ(refused(), "identity.token_expired");
  faults.body = "garbage";
  EXPECT_EQ(refused(), "identity.refused");
  faults.status = 503;
  EXPECT_EQ(refused(), "identity.busy");
}

TEST_F(Enrol, AnotherServersLeafIsNotAController) {
  // Its key signs the token, its certificate is valid, but it is a router.
  controller = pki.leaf(Role::kRouter, "router-1");
  listen(controller);
  EXPECT_EQ(code(run(token())), "identity.controller");
  // A controller whose certificate names another host.
  auto spec = pki.leaf_spec(Role::kController, "controller-1");
  spec.dns = {"elsewhere.example"};
  controller = pki.leaf(spec, false);
  listen(controller);
  EXPECT_EQ(code(run(token())), "identity.not_believed");
  EXPECT_EQ(enrolments, 0);
}

TEST_F(Enrol, CancelLeavesNothing) {
  auto enrolling =
      enroll(loop, token(), {.clock = &clock}, [](Result<Identity>) { ADD_FAILURE(); });
  loop.run_once(false);
  enrolling.reset();
  loop.run_until([] { return false; }, 20);
}

}  // namespace
}  // namespace sally::identity
