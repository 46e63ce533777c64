// SPDX-License-Identifier: Apache-2.0
// Devices, routers, admins and their tokens.
#include <algorithm>

#include "api/call.h"
#include "base/text.h"
#include "pki/publish.h"
#include "pki/revoke.h"

namespace sally::api {
namespace {

constexpr std::size_t kMaxTags = 64;

Result<std::vector<std::string>> tags_of(const json::object& body) {
  TRY_ASSIGN(auto tags, opt_texts(body, "tags", kMaxTags, 64));
  for (auto& t : tags) {
    if (t.starts_with('#')) t.erase(0, 1);
    if (!valid_name(t))
      return fail(Errc::kBadField, "'" + t + "' is no tag: 1 to 64 of A-Z a-z 0-9 . _ -");
  }
  std::sort(tags.begin(), tags.end());
  tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
  return tags;
}

Result<json::object> show(const Call& c, const store::Identity& i, bool full) {
  json::object o{{"id", i.id},
                 {"name", i.name},
                 {"standing", store::standing_name(i.standing)},
                 {"tags", texts(i.tags)},
                 {"created_at", time_text(i.created_ms)}};
  if (!i.batch.empty()) o["batch"] = i.batch;
  TRY_ASSIGN(const auto certs, c.tx.certificates_of(i.id));
  const auto live = std::find_if(certs.begin(), certs.end(), [&](const store::CertificateRow& r) {
    return r.revoked_ms == 0 && r.not_after_s * 1000 > c.now_ms;
  });
  o["enrolled"] = live != certs.end();
  o["expires_at"] =
      live != certs.end() ? time_text(live->not_after_s * 1000) : json::value(nullptr);
  if (i.kind == store::Kind::kRouter) {
    TRY_ASSIGN(const auto info, c.tx.router_info(i.id));
    if (info) {
      o["addresses"] = texts(info->addresses);
      json::array names = texts(info->dns);
      for (const auto& ip : info->ips) names.emplace_back(ip);
      o["names"] = std::move(names);
    }
    const auto live_router = c.deps.live.router(i.id);
    o["online"] = live_router.online;
    o["version"] = live_router.version;
    o["seen_at"] = time_text(live_router.seen_ms);
    o["terminators"] = live_router.terminators;
  }
  if (!full) return o;
  json::array list;
  for (const auto& r : certs)
    list.push_back(
        json::object{{"serial", r.serial},
                     {"profile", r.profile},
                     {"key", r.key_hash},
                     {"issued_at", time_text(r.issued_ms)},
                     {"expires_at", time_text(r.not_after_s * 1000)},
                     {"revoked_at", time_text(r.revoked_ms)},
                     {"reason", r.revoked_ms == 0 ? json::value(nullptr)
                                                  : json::value(store::reason_name(r.reason))}});
  o["certificates"] = std::move(list);
  o["credential_epoch"] = i.credential_epoch;
  o["attr_epoch"] = i.attr_epoch;
  return o;
}

template <store::Kind kind>
Result<json::value> list(Call& c) {
  TRY_ASSIGN(const auto rows, c.tx.identities(kind, page_of(c.request)));
  TRY_ASSIGN(const auto total, c.tx.count_identities(kind));
  json::array items;
  for (const auto& r : rows) {
    TRY_ASSIGN(auto o, show(c, r, false));
    items.push_back(std::move(o));
  }
  return json::object{{"items", std::move(items)}, {"total", total}};
}

template <store::Kind kind>
Result<json::value> get(Call& c) {
  TRY_ASSIGN(const auto i, find_identity(c, kind, c.params[0]));
  TRY_ASSIGN(auto o, show(c, i, true));
  return json::value(std::move(o));
}

Result<store::Identity> add(Call& c, store::Kind kind) {
  store::Identity i;
  TRY_ASSIGN(i.name, need_name(c.body));
  TRY_ASSIGN(i.tags, tags_of(c.body));
  TRY_ASSIGN(i.batch, opt_text(c.body, "batch", 64));
  if (!i.batch.empty() && !valid_name(i.batch))
    return fail(Errc::kBadName, "'" + i.batch + "' is no name of a batch");
  TRY_ASSIGN(const auto taken, c.tx.identity_named(kind, i.name));
  if (taken)
    return fail(Errc::kTaken, std::string(store::kind_name(kind)) + " '" + i.name + "' exists");
  i.id = new_id(c);
  i.kind = kind;
  i.created_ms = c.now_ms;
  TRY(c.write->put_identity(i));
  TRY(c.audit(std::string(store::kind_name(kind)) + ".add", i.id,
              {{"name", i.name}, {"tags", texts(i.tags)}}));
  return i;
}

Result<json::value> added(Call& c, const store::Identity& i) {
  TRY_ASSIGN(json::object o, issue_token(c, i));
  o["id"] = i.id;
  o["name"] = i.name;
  c.status = 201;
  return json::value(std::move(o));
}

Result<json::value> add_device(Call& c) {
  TRY_ASSIGN(const auto i, add(c, store::Kind::kDevice));
  return added(c, i);
}

Result<json::value> add_admin(Call& c) {
  TRY_ASSIGN(const auto i, add(c, store::Kind::kAdmin));
  return added(c, i);
}

Result<json::value> add_router(Call& c) {
  store::RouterInfo info;
  TRY_ASSIGN(info.addresses, opt_texts(c.body, "addresses", 8));
  if (info.addresses.empty())
    return fail(Errc::kBadField, "addresses is missing: host:port as devices dial it");
  TRY_ASSIGN(const auto names, opt_texts(c.body, "names", 16));
  const auto name = [&](const std::string& host) {
    const bool ip = host.find(':') != std::string::npos ||
                    host.find_first_not_of("0123456789.") == std::string::npos;
    auto& to = ip ? info.ips : info.dns;
    if (std::find(to.begin(), to.end(), host) == to.end()) to.push_back(host);
  };
  for (const auto& a : info.addresses) {
    const auto hp = parse_host_port(a);
    if (!hp) return fail(Errc::kBadField, "'" + a + "' is not host:port");
    name(hp->host);
  }
  for (const auto& n : names) name(n);
  TRY_ASSIGN(const auto i, add(c, store::Kind::kRouter));
  info.id = i.id;
  TRY(c.write->put_router_info(info));
  TRY(pki::publish_router(*c.write, i, info));
  return added(c, i);
}

template <store::Kind kind>
Result<json::value> remove(Call& c) {
  TRY_ASSIGN(auto i, find_identity(c, kind, c.params[0]));
  if (kind == store::Kind::kAdmin) {
    TRY_ASSIGN(const auto n, c.tx.count_identities(kind));
    if (n <= 1) return fail(Errc::kLastAdmin, "'" + i.name + "' is the only admin");
  }
  const json::object out{{"id", i.id}, {"name", i.name}, {"removed", true}};
  TRY(remove_identity(c, std::move(i)));
  return json::value(out);
}

Result<json::value> put_tags(Call& c) {
  TRY_ASSIGN(auto i, find_identity(c, store::Kind::kDevice, c.params[0]));
  if (!c.body.contains("tags")) return fail(Errc::kBadField, "tags is missing");
  TRY_ASSIGN(i.tags, tags_of(c.body));
  ++i.attr_epoch;
  TRY(c.write->put_identity(i));
  TRY(pki::publish_identity(*c.write, i, c.now_ms));
  TRY(c.audit("device.tags", i.id, {{"tags", texts(i.tags)}}));
  return json::object{{"id", i.id}, {"name", i.name}, {"tags", texts(i.tags)}};
}

// ---- tokens

Result<json::value> list_tokens(Call& c) {
  TRY_ASSIGN(const auto rows, c.tx.enrollments(page_of(c.request)));
  json::array items;
  for (const auto& r : rows) {
    TRY_ASSIGN(const auto i, c.tx.identity(r.identity));
    items.push_back(json::object{{"enrollment", r.id},
                                 {"kind", store::kind_name(r.kind)},
                                 {"identity", r.identity},
                                 {"name", i ? json::value(i->name) : json::value(nullptr)},
                                 {"created_at", time_text(r.created_ms)},
                                 {"expires_at", time_text(r.expires_ms)},
                                 {"used_at", time_text(r.used_ms)},
                                 {"revoked_at", time_text(r.revoked_ms)}});
  }
  return json::object{{"items", std::move(items)}};
}

Result<json::value> add_token(Call& c) {
  TRY_ASSIGN(const auto kind_text, opt_text(c.body, "kind", 16));
  const store::Kind kind = kind_text == "router"  ? store::Kind::kRouter
                           : kind_text == "admin" ? store::Kind::kAdmin
                                                  : store::Kind::kDevice;
  if (!kind_text.empty() && kind_text != store::kind_name(kind))
    return fail(Errc::kBadField, "kind is device, router or admin");
  TRY_ASSIGN(const auto ref, need_text(c.body, "identity", 128));
  TRY_ASSIGN(const auto i, find_identity(c, kind, ref));
  return added(c, i);
}

Result<json::value> revoke_token(Call& c) {
  TRY_ASSIGN(auto row, c.tx.enrollment(c.params[0]));
  if (!row) return fail(Errc::kUnknown, "no token '" + c.params[0] + "'");
  if (row->used_ms != 0) return fail(Errc::kInUse, "the token was used");
  if (row->revoked_ms == 0) {
    row->revoked_ms = c.now_ms;
    TRY(c.write->put_enrollment(*row));
  }
  TRY(c.audit("token.revoke", row->identity, {{"token", row->id}}));
  return json::object{{"enrollment", row->id}, {"revoked", true}};
}

}  // namespace

Result<json::object> issue_token(Call& c, const store::Identity& identity) {
  TRY_ASSIGN(const auto life_s,
             opt_int(c.body, "life_s", pki::kTokenLifeMs / 1000, 300, 30LL * 86'400));
  const auto rest = c.deps.rest();
  TRY_ASSIGN(const auto t, c.deps.door.create(*c.write, c.actor, identity, *rest, c.deps.url,
                                              c.now_ms, life_s * 1000, c.deps.random));
  return json::object{
      {"token", t.jwt}, {"expires_at", time_text(t.expires_ms)}, {"enrollment", t.enrollment}};
}

Status remove_identity(Call& c, store::Identity identity) {
  // Grants that name it go; services that had one are signed again.
  const std::string expression = "@" + identity.id;
  TRY_ASSIGN(const auto grants, c.tx.grants(""));
  std::vector<std::string> touched;
  for (const auto& g : grants) {
    if (g.selector != expression) continue;
    TRY(c.write->remove_grant(g.id));
    if (touched.empty() || touched.back() != g.service) touched.push_back(g.service);
  }
  TRY_ASSIGN(auto keys, keys_of(c, identity.id));
  TRY(pki::revoke_identity(*c.write, identity, store::Reason::kCessationOfOperation, c.now_ms,
                           true));
  if (identity.kind == store::Kind::kRouter) {
    TRY(c.write->remove_router_info(identity.id));
    TRY(pki::publish_router_removed(*c.write, identity.id));
  }
  for (const auto& id : touched) {
    TRY_ASSIGN(const auto s, c.tx.service(id));
    if (s) TRY(pki::publish_service(*c.write, c.deps.network, *s, *c.deps.signer(), c.now_ms));
  }
  return c.audit(
      std::string(store::kind_name(identity.kind)) + ".remove", identity.id,
      {{"name", identity.name}, {"certificates", std::move(keys)}, {"services", touched.size()}});
}

std::vector<Route> device_routes() {
  using store::Kind;
  return {
      {"GET", "/fleet/v1/devices", false, list<Kind::kDevice>},
      {"POST", "/fleet/v1/devices", true, add_device},
      {"GET", "/fleet/v1/devices/{device}", false, get<Kind::kDevice>},
      {"DELETE", "/fleet/v1/devices/{device}", true, remove<Kind::kDevice>},
      {"PUT", "/fleet/v1/devices/{device}/tags", true, put_tags},
      {"GET", "/fleet/v1/routers", false, list<Kind::kRouter>},
      {"POST", "/fleet/v1/routers", true, add_router},
      {"GET", "/fleet/v1/routers/{router}", false, get<Kind::kRouter>},
      {"DELETE", "/fleet/v1/routers/{router}", true, remove<Kind::kRouter>},
      {"GET", "/fleet/v1/admins", false, list<Kind::kAdmin>},
      {"POST", "/fleet/v1/admins", true, add_admin},
      {"GET", "/fleet/v1/admins/{admin}", false, get<Kind::kAdmin>},
      {"DELETE", "/fleet/v1/admins/{admin}", true, remove<Kind::kAdmin>},
      {"GET", "/fleet/v1/tokens", false, list_tokens},
      {"POST", "/fleet/v1/tokens", true, add_token},
      {"DELETE", "/fleet/v1/tokens/{enrollment}", true, revoke_token},
  };
}

}  // namespace sally::api
