// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of this folder.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "api/api.h"
#include "base/clock.h"
#include "base/text.h"
#include "crypto/csr.h"
#include "crypto/jws.h"
#include "crypto/test_pki.h"
#include "crypto/test_status.h"
#include "pki/publish.h"
#include "pki/revoke.h"
#include "trust/records.h"
#include "trust/renewal.h"

namespace sally::api {

using crypto::must;
namespace json = boost::json;
inline const NetworkId kNet("n-1.sally");

/// What is alive, as the test says; remembers what it was asked for.
class FakeLive final : public Live {
 public:
  Router router(const std::string&) const override { return {true, 1, 2, 3}; }
  std::vector<Host> hosts() const override { return {}; }
  Load traffic() override {
    return {.routers = {{.router = "r-1", .at_ms = 5, .lanes = 2, .circuits = 1, .in_per_s = 100}},
            .flows = {{.device = "gone", .service = "s-1", .sent_per_s = 70, .received_per_s = 5},
                      {.device = "gone", .service = "s-2", .sent_per_s = 1, .received_per_s = 0}}};
  }
  void changed() override { ++changes; }
  Enforced await(std::uint64_t version, std::int64_t) override {
    return {version == 0 ? 0u : 1u, 1, 7, 3};
  }
  void renew_now(const std::string& id, std::int64_t within_ms) override {
    wished.push_back(id + " " + std::to_string(within_ms));
  }
  int changes = 0;
  std::vector<std::string> wished;
};

inline void ok(const Status& s) {
  if (!s) {
    ADD_FAILURE() << s.error().text();
    std::abort();
  }
}

/// The API of a network in memory, asked as `caller`.
class ApiTest : public testing::Test {
 protected:
  ApiTest() {
    char name[] = "/tmp/sally_api_XXXXXX";
    dir = mkdtemp(name);
    const pki::KeyDir keys(dir + "/keys");
    db = must(store::open_sqlite(":memory:", pki::store_hooks()));
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    ok(tx->put_network({kNet.str(), "test", "https://c:1280", clock.unix_ms()}));
    authority = must(pki::Authority::create(*tx, kNet, keys, clock.unix_ms(), random));
    const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    auto leaf = must(authority->issue(*tx, {"ctrl-1", {"localhost"}, {}}, key->public_key(),
                                      pki::Profile::kController, clock.unix_ms(), random));
    rest =
        std::make_shared<const pki::RestIdentity>(pki::RestIdentity{leaf.leaf, leaf.issuing, key});
    signer = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    store::Identity a;
    a.id = "a1";
    a.name = "root";
    a.kind = store::Kind::kAdmin;
    ok(tx->put_identity(a));
    admin_serial = must(authority->issue(*tx, {"a1", {}, {}}, key->public_key(),
                                         pki::Profile::kAdmin, clock.unix_ms(), random))
                       .leaf.serial_hex();
    ok(tx->commit());
    door = std::make_unique<pki::TokenDoor>(authority, must(keys.secret("tokens", random)));
    renewals = std::make_unique<pki::RenewalDoor>(authority);
    desk = std::make_unique<pki::StatusDesk>(authority, keys);
    {
      auto write = must(db->begin(kNet, clock.unix_ms()));
      EXPECT_TRUE(must(desk->renew(*write, clock.unix_ms(), random)));
      ok(write->audit("t", "t", "t"));
      ok(write->commit());
    }
    ok(desk->use(*must(db->read(kNet))));
    ok(desk->refresh(must(db->read(kNet)), clock.unix_ms()));
    sessions = std::make_unique<Sessions>(kNet, Bytes(32, 9));
    make_api();
  }
  void make_api() {
    api = std::make_unique<Api>(Deps{kNet,
                                     *db,
                                     authority,
                                     *door,
                                     [this] { return rest; },
                                     [this]() -> crypto::SignerPtr { return signer; },
                                     [] { return 1'900'000'000; },
                                     live,
                                     clock,
                                     random,
                                     "https://c:1280",
                                     "i-1",
                                     {},
                                     pki::kRenewingLifeS,
                                     renewals.get(),
                                     desk.get(),
                                     sessions.get()});
  }
  ~ApiTest() override { std::filesystem::remove_all(dir); }

  Response raw(const std::string& method, const std::string& target, const std::string& body = "",
               std::vector<std::pair<std::string, std::string>> headers = {}) {
    Request r;
    r.method = method;
    const auto q = target.find('?');
    r.path = target.substr(0, q);
    if (q != std::string::npos) r.query = target.substr(q + 1);
    r.body = body;
    r.headers = std::move(headers);
    r.caller = caller;
    r.source = source;
    return api->handle(r);
  }
  json::object call(int status, const std::string& method, const std::string& target,
                    const json::object& body = {}) {
    const auto r = raw(method, target, body.empty() ? "" : json::serialize(body));
    EXPECT_EQ(r.status, status) << method << " " << target << ": " << r.body;
    return json::parse(r.body).as_object();
  }
  std::string code(const json::object& o) {
    return std::string(o.at("error").at("code").as_string());
  }
  static std::string text(const json::object& o, std::string_view k) {
    return std::string(o.at(k).as_string());
  }
  std::string csr() { return must(crypto::make_csr(*device_key, "x")); }
  std::string jti(const std::string& jwt) {
    return std::string(json::parse(must(crypto::split_jws(jwt)).payload).at("jti").as_string());
  }

  FakeClock clock;
  SeededRandom random{3};
  FakeLive live;
  std::string dir, admin_serial;
  std::unique_ptr<store::Store> db;
  pki::AuthorityPtr authority;
  std::shared_ptr<const pki::RestIdentity> rest;
  crypto::FileKeyPtr signer;
  std::unique_ptr<pki::TokenDoor> door;
  std::unique_ptr<pki::RenewalDoor> renewals;
  std::unique_ptr<pki::StatusDesk> desk;
  std::unique_ptr<Sessions> sessions;
  std::unique_ptr<Api> api;
  crypto::FileKeyPtr device_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
  std::optional<Caller> caller;
  std::array<std::uint8_t, 16> source{};
  void as_admin() { caller = Caller{kNet.str(), crypto::Role::kAdmin, "a1", admin_serial}; }
};

}  // namespace sally::api
