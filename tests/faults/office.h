// SPDX-License-Identifier: Apache-2.0
// A controller without sockets: the real store, PKI and REST handlers over one folder.
#pragma once

#include <boost/json.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "api/api.h"
#include "base/fs.h"
#include "controller/init.h"
#include "crypto/csr.h"
#include "crypto/test_pki.h"
#include "identity/identity.h"
#include "pki/publish.h"
#include "replica/writer.h"

namespace sally::faults {

namespace json = boost::json;
using crypto::must;

class QuietLive final : public api::Live {
 public:
  Router router(const std::string&) const override { return {}; }
  std::vector<Host> hosts() const override { return {}; }
  Load traffic() override { return {}; }
  void changed() override {}
  Enforced await(std::uint64_t, std::int64_t) override { return {}; }
  void renew_now(const std::string&, std::int64_t) override {}
};

/// A folder for one test, gone with it. In memory where possible: hundreds of syncs wait for
/// nothing.
struct TempDir {
  TempDir()
      : path((fs::exists("/dev/shm") ? "/dev/shm" : "/tmp") + std::string("/sally-faults-XXXXXX")) {
    if (::mkdtemp(path.data()) == nullptr) std::abort();
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string path;
};

inline controller::InitOptions init_options(const std::string& root) {
  controller::InitOptions o;
  o.dir = root + "/controller";
  o.name = "test";
  o.hosts = {"127.0.0.1"};
  o.router_addresses = {"127.0.0.1:3022"};
  o.router_identity = root + "/router/identity.json";
  o.admin_identity = root + "/admin.json";
  return o;
}

/// What Network::load does, without lanes and threads.
class Office {
 public:
  static Result<std::unique_ptr<Office>> open(const std::string& root, const Clock& clock,
                                              Random& random) {
    std::unique_ptr<Office> o(new Office);
    const std::string dir = root + "/controller";
    const pki::KeyDir keys(dir + "/keys");
    TRY_ASSIGN(o->store,
               store::open_sqlite(dir + "/" + controller::kDatabaseFile, pki::store_hooks()));
    TRY_ASSIGN(const auto networks, o->store->networks());
    if (networks.size() != 1) return fail(store::Errc::kNotFound, "no network");
    o->network = networks.front();
    std::string url;
    {
      TRY_ASSIGN(const auto tx, o->store->read(o->network));
      TRY(tx->verify_chains());
      TRY_ASSIGN(const auto row, tx->network());
      url = row.controller_url;
      TRY_ASSIGN(o->authority, pki::Authority::load(*tx, o->network, keys));
    }
    TRY_ASSIGN(o->signer, keys.load("signer"));
    TRY_ASSIGN(auto mac, keys.secret("tokens", random));
    o->door = std::make_unique<pki::TokenDoor>(o->authority, std::move(mac));
    TRY_ASSIGN(const auto rest_pem, fs::read_text(dir + "/" + controller::kRestFile));
    TRY_ASSIGN(const auto rest_chain, crypto::Certificate::list_from_pem(rest_pem));
    TRY_ASSIGN(const auto rest_key, keys.load("rest"));
    o->rest = std::make_shared<const pki::RestIdentity>(
        pki::RestIdentity{rest_chain[0], rest_chain[1], rest_key});
    TRY_ASSIGN(const auto signer_pem, fs::read_text(dir + "/" + controller::kSignerFile));
    TRY_ASSIGN(o->signer_chain, crypto::Certificate::list_from_pem(signer_pem));
    TRY_ASSIGN(const auto admin, identity::load(root + "/admin.json"));
    o->caller =
        api::Caller{admin.network.str(), crypto::Role::kAdmin, admin.id, admin.leaf().serial_hex()};
    o->api = std::make_unique<api::Api>(
        api::Deps{o->network, *o->store, o->authority, *o->door, [p = o.get()] { return p->rest; },
                  [p = o.get()] { return p->signer; }, [] { return std::int64_t{1'900'000'000}; },
                  o->live, clock, random, url, "i-1"});
    return o;
  }

  struct Answer {
    int status = 0;
    json::object body;
    std::uint64_t version = 0;
    [[nodiscard]] bool ok() const { return status >= 200 && status < 300; }
    [[nodiscard]] std::string text(std::string_view member) const {
      return std::string(body.at(member).as_string());
    }
    [[nodiscard]] std::string text_of_error(std::string_view member) const {
      return std::string(body.at("error").at(member).as_string());
    }
    [[nodiscard]] std::string code() const { return text_of_error("code"); }
  };
  Answer call(const std::string& method, const std::string& path, const json::object& body = {}) {
    api::Request r;
    r.method = method;
    r.path = path;
    if (!body.empty()) r.body = json::serialize(body);
    r.caller = caller;
    return take(api->handle(r));
  }
  /// With the token as a device sends it.
  Answer enroll(const std::string& token, const std::string& csr) {
    api::Request r;
    r.method = "POST";
    r.path = "/edge/client/v1/enroll";
    r.query = "method=ott&token=" + token;
    r.headers = {{"content-type", "text/plain"}};
    r.body = csr;
    Answer a = take(api->handle(r));
    if (a.ok()) a.body = a.body.at("data").as_object();
    return a;
  }

  std::unique_ptr<store::Store> store;
  NetworkId network;
  pki::AuthorityPtr authority;
  crypto::SignerPtr signer;
  std::vector<crypto::Certificate> signer_chain;
  std::unique_ptr<pki::TokenDoor> door;
  std::shared_ptr<const pki::RestIdentity> rest;
  QuietLive live;
  api::Caller caller;
  std::unique_ptr<api::Api> api;

 private:
  Office() = default;
  static Answer take(const api::Response& r) {
    Answer a;
    a.status = r.status;
    boost::system::error_code ec;
    if (auto v = json::parse(r.body, ec); !ec && v.is_object()) a.body = v.as_object();
    for (const auto& [name, value] : r.headers)
      if (name == "sally-state-version") a.version = std::stoull(value);
    return a;
  }
};

}  // namespace sally::faults
