// SPDX-License-Identifier: Apache-2.0
#include "controller/init.h"

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>

#include "base/fs.h"
#include "base/text.h"
#include "controller/errc.h"
#include "crypto/open_key.h"
#include "identity/identity.h"
#include "pki/authority.h"
#include "pki/publish.h"
#include "store/store.h"

namespace sally::controller {
namespace {

namespace json = boost::json;

void add_name(pki::Subject& subject, const std::string& host) {
  const bool ip = host.find(':') != std::string::npos ||
                  host.find_first_not_of("0123456789.") == std::string::npos;
  auto& to = ip ? subject.ips : subject.dns;
  if (std::find(to.begin(), to.end(), host) == to.end()) to.push_back(host);
}

struct Build {
  const std::vector<std::string>& router_addresses;
  store::Transaction& tx;
  pki::AuthorityPtr authority;
  std::int64_t now_ms;
  Random& random;
  std::string url;

  Result<store::Identity> identity(const std::string& id, const std::string& name,
                                   store::Kind kind) {
    store::Identity i;
    i.id = id;
    i.name = name;
    i.kind = kind;
    i.created_ms = now_ms;
    TRY(tx.put_identity(i));
    TRY(tx.audit("system", std::string(store::kind_name(kind)) + ".add", id,
                 "{\"name\":" + json_quote(name) + "}"));
    return i;
  }

  // A leaf, and its audit row: every issue has one.
  Result<pki::Issued> issue(const pki::Subject& subject, const crypto::PublicKey& key,
                            pki::Profile profile) {
    TRY_ASSIGN(auto issued, authority->issue(tx, subject, key, profile, now_ms, random));
    TRY(tx.audit("system", "certificate.issue", subject.id,
                 "{\"door\":\"init\",\"serial\":\"" + issued.leaf.serial_hex() + "\",\"key\":\"" +
                     key.hash_hex() + "\"}"));
    return issued;
  }

  // Key, leaf and the file that the other program reads.
  Status identity_file(const std::string& path, const store::Identity& i,
                       const pki::Subject& subject, const std::string& hardware = {}) {
    const auto parent = std::filesystem::path(path).parent_path().string();
    if (!parent.empty() && !fs::exists(parent)) TRY(fs::make_dirs(parent, 0700));
    crypto::SignerPtr key;
    if (hardware.empty()) {
      TRY_ASSIGN(key, crypto::FileKey::generate(crypto::KeyType::kP256));
    } else {
      TRY_ASSIGN(const auto name, crypto::hardware_name(hardware, parent));
      TRY_ASSIGN(key, crypto::open_or_make_key(name, crypto::KeyType::kP256));
    }
    TRY_ASSIGN(const auto issued, issue(subject, key->public_key(), pki::profile_of(i.kind)));
    TRY_ASSIGN(std::string pem, key->stored());
    json::array routers;
    for (const auto& a : router_addresses) routers.emplace_back(a);
    const json::object file{{"ztAPI", url},
                            {"ztAPIs", json::array{json::value(url)}},
                            {"id", json::object{{"key", pem},
                                                {"cert", issued.chain_pem()},
                                                {"ca", crypto::to_pem(authority->bundle())}}},
                            {"sally", json::object{{"network", authority->network().str()},
                                                   {"id", i.id},
                                                   {"name", i.name},
                                                   {"kind", store::kind_name(i.kind)},
                                                   {"controller", url},
                                                   {"routers", std::move(routers)}}}};
    wipe(pem);
    std::string text = json::serialize(file) + "\n";
    const auto written = fs::write_file_atomic(path, as_bytes(text), 0600);
    wipe(text);
    return written;
  }
};

Status check(const InitOptions& o) {
  const auto usage = [](const std::string& text) {
    return fail(Errc::kUsage, text, Source::kConfig);
  };
  if (o.dir.empty() || o.hosts.empty() || o.hosts.front().empty())
    return usage("need a folder and a host name or address");
  if (!valid_name(o.name)) return usage("'" + o.name + "' is no name for a network");
  if (!valid_name(o.admin_name) || o.admin_identity.empty())
    return usage("need the first admin's name and file");
  if (!o.router_addresses.empty() && (o.router_identity.empty() || !valid_name(o.router_name)))
    return usage("need the first router's name and file");
  for (const auto& h : o.hosts)
    if (!valid_host(h)) return usage("'" + h + "' is neither a host name nor an IP address");
  for (const auto& a : o.router_addresses)
    if (!parse_host_port(a)) return usage("'" + a + "' is not host:port");
  return {};
}

Result<InitResult> make_in(const std::string& work, const InitOptions& options, const Clock& clock,
                           Random& random) {
  TRY(fs::make_dirs(work, 0700));

  const std::int64_t now_ms = clock.unix_ms();
  const NetworkId network("n-" + random.hex(5) + ".sally");
  const pki::KeyDir keys(work + "/keys");
  InitResult result;
  result.network = network.str();
  result.url = "https://" + HostPort{options.hosts.front(), options.port}.str();
  {
    TRY_ASSIGN(const auto store,
               store::open_sqlite(work + "/" + kDatabaseFile, pki::store_hooks()));
    TRY_ASSIGN(auto tx, store->begin(network, now_ms));
    TRY(tx->put_network({network.str(), options.name, result.url, now_ms}));
    TRY(tx->audit("system", "network.create", network.str(),
                  "{\"name\":" + json_quote(options.name) + "}"));
    TRY_ASSIGN(auto authority,
               pki::Authority::create(*tx, network, keys, now_ms, random, options.ca_key));
    result.root_sha256 = authority->root().sha256_hex();
    Build b{options.router_addresses, *tx, authority, now_ms, random, result.url};
    TRY(keys.secret("tokens", random));

    pki::Subject rest;
    rest.id = "ctrl-" + random.hex(4);
    for (const auto& h : options.hosts) add_name(rest, h);
    for (const char* h : {"localhost", "127.0.0.1", "::1"}) add_name(rest, h);
    TRY(b.identity(rest.id, "controller", store::Kind::kController));
    TRY_ASSIGN(const auto rest_key, keys.create("rest", options.rest_key));
    TRY_ASSIGN(const auto rest_issued,
               b.issue(rest, rest_key->public_key(), pki::Profile::kController));
    TRY(fs::write_file_atomic(work + "/" + kRestFile, as_bytes(rest_issued.chain_pem()), 0600));

    const pki::Subject signer{"1", {}, {}};
    TRY(b.identity("1", "signer", store::Kind::kSigner));
    TRY_ASSIGN(const auto signer_key, keys.create("signer", crypto::KeyType::kP256));
    TRY_ASSIGN(const auto signer_issued,
               b.issue(signer, signer_key->public_key(), pki::Profile::kSigner));
    TRY(fs::write_file_atomic(work + "/" + kSignerFile, as_bytes(signer_issued.chain_pem()), 0600));

    if (!options.router_addresses.empty()) {
      TRY_ASSIGN(const auto router,
                 b.identity(random.hex(8), options.router_name, store::Kind::kRouter));
      pki::Subject subject;
      subject.id = router.id;
      for (const auto& a : options.router_addresses) add_name(subject, parse_host_port(a)->host);
      for (const char* h : {"localhost", "127.0.0.1"}) add_name(subject, h);
      const store::RouterInfo info{router.id, options.router_addresses, subject.dns, subject.ips};
      TRY(tx->put_router_info(info));
      TRY(pki::publish_router(*tx, router, info));
      TRY(b.identity_file(options.router_identity, router, subject, options.router_key));
      result.router_id = router.id;
    }
    TRY_ASSIGN(const auto admin,
               b.identity(random.hex(8), options.admin_name, store::Kind::kAdmin));
    TRY(b.identity_file(options.admin_identity, admin, {admin.id, {}, {}}));
    result.admin_id = admin.id;
    TRY(tx->commit());
  }
  return result;
}

}  // namespace

Result<InitResult> init_network(const InitOptions& options, const Clock& clock, Random& random) {
  TRY(check(options));
  if (fs::exists(options.dir)) return fail(Errc::kExists, options.dir + " exists", Source::kConfig);
  const std::string work = options.dir + ".new";
  std::error_code ec;
  std::filesystem::remove_all(work, ec);
  auto result = make_in(work, options, clock, random);
  if (result) {
    if (auto moved = fs::move(work, options.dir); !moved) result = fail(std::move(moved).error());
  }
  if (!result) std::filesystem::remove_all(work, ec);
  return result;
}

Result<bool> ensure_admin(const std::string& dir, const std::string& admin_name,
                          const std::string& identity_path, const Clock& clock, Random& random) {
  constexpr std::int64_t kLeftS = 30LL * 86'400;
  const std::int64_t now_ms = clock.unix_ms();
  TRY_ASSIGN(const auto store, store::open_sqlite(dir + "/" + kDatabaseFile, pki::store_hooks()));
  TRY_ASSIGN(const auto networks, store->networks());
  if (networks.size() != 1) return fail(Errc::kNoNetwork, dir, Source::kConfig);
  TRY_ASSIGN(auto tx, store->begin(networks.front(), now_ms));
  const auto file = identity::load(identity_path);
  if (file && file->role == crypto::Role::kAdmin && file->expires_s() > now_ms / 1000 + kLeftS &&
      file->leaf().not_before() <= now_ms / 1000) {
    TRY_ASSIGN(const auto row, tx->identity(file->id));
    TRY_ASSIGN(const auto certificate, tx->certificate(file->chain.front().serial_hex()));
    if (row && row->removed_ms == 0 && row->standing == store::Standing::kActive && certificate &&
        certificate->revoked_ms == 0)
      return false;
  }
  const std::string& name = file ? file->name : admin_name;
  TRY_ASSIGN(const auto network, tx->network());
  TRY_ASSIGN(auto authority,
             pki::Authority::load(*tx, networks.front(), pki::KeyDir(dir + "/keys")));
  const std::vector<std::string> no_routers;
  Build b{no_routers, *tx, authority, now_ms, random, network.controller_url};
  TRY_ASSIGN(auto admin, tx->identity_named(store::Kind::kAdmin, name));
  if (!admin) {
    TRY_ASSIGN(admin, b.identity(random.hex(8), name, store::Kind::kAdmin));
  }
  TRY(b.identity_file(identity_path, *admin, {admin->id, {}, {}}));
  TRY(tx->commit());
  return true;
}

}  // namespace sally::controller
