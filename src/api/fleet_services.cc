// SPDX-License-Identifier: Apache-2.0
// Services and grants.
#include <algorithm>

#include "api/call.h"
#include "base/text.h"
#include "pki/publish.h"

namespace sally::api {
namespace {

constexpr std::size_t kMaxConfig = 8'192;

json::value parsed(const std::string& text) {
  if (text.empty()) return nullptr;
  boost::system::error_code ec;
  json::value v = json::parse(text, ec);
  return ec ? json::value(nullptr) : v;
}

Result<json::object> show(const Call& c, const store::Service& s) {
  TRY_ASSIGN(const auto grants, c.tx.grants(s.id));
  json::array dial;
  json::array bind;
  for (const auto& g : grants)
    (g.kind == store::GrantKind::kDial ? dial : bind).emplace_back(show_selector(c, g.selector));
  json::array hosts;
  for (const auto& h : c.deps.live.hosts()) {
    if (h.service != s.id) continue;
    const auto device = c.tx.identity(h.device);
    hosts.push_back(json::object{{"device", device && *device ? (*device)->name : h.device},
                                 {"router", h.router},
                                 {"since", time_text(h.since_ms)}});
  }
  return json::object{{"id", s.id},
                      {"name", s.name},
                      {"e2e", store::e2e_name(s.e2e)},
                      {"allow", std::move(dial)},
                      {"host", std::move(bind)},
                      {"hosted_by", std::move(hosts)},
                      {"configs", json::object{{"host.v1", parsed(s.host_config)},
                                               {"intercept.v1", parsed(s.intercept_config)}}},
                      {"record_until", time_text(s.record_until_ms)},
                      {"created_at", time_text(s.created_ms)}};
}

Result<json::value> list(Call& c) {
  TRY_ASSIGN(const auto rows, c.tx.services(page_of(c.request)));
  json::array items;
  for (const auto& s : rows) {
    TRY_ASSIGN(auto o, show(c, s));
    items.push_back(std::move(o));
  }
  return json::object{{"items", std::move(items)}};
}

Result<json::value> get(Call& c) {
  TRY_ASSIGN(const auto s, find_service(c, c.params[0]));
  TRY_ASSIGN(auto o, show(c, s));
  return json::value(std::move(o));
}

Result<std::string> config(const json::object& body, std::string_view name) {
  const json::value* v = body.if_contains(name);
  if (v == nullptr || v->is_null()) return std::string();
  if (!v->is_object()) return fail(Errc::kBadField, std::string(name) + " must be an object");
  std::string text = json::serialize(*v);
  if (text.size() > kMaxConfig)
    return fail(Errc::kBadField, std::string(name) + " is larger than 8 KiB");
  return text;
}

Status add_grants(Call& c, const std::string& service, store::GrantKind kind,
                  const std::vector<std::string>& expressions) {
  for (const auto& e : expressions) {
    store::Grant g;
    g.id = new_id(c);
    g.service = service;
    g.kind = kind;
    g.selector = e;
    g.created_ms = c.now_ms;
    TRY(c.write->put_grant(g));
  }
  return {};
}

// Service, configs, grants: one transaction. `address` is the shorthand for host.v1 and
// intercept.v1.
Result<json::value> create(Call& c, bool with_address) {
  store::Service s;
  TRY_ASSIGN(s.name, need_name(c.body));
  TRY_ASSIGN(const auto taken, c.tx.service_named(s.name));
  if (taken) return fail(Errc::kTaken, "service '" + s.name + "' exists");
  TRY_ASSIGN(const auto e2e, opt_text(c.body, "e2e", 16));
  if (e2e == "compatible")
    s.e2e = store::E2e::kCompatible;
  else if (e2e == "none")
    s.e2e = store::E2e::kNone;
  else if (!e2e.empty() && e2e != "tls")
    return fail(Errc::kBadField, "e2e is tls, compatible or none");
  TRY_ASSIGN(s.host_config, config(c.body, "host_config"));
  TRY_ASSIGN(s.intercept_config, config(c.body, "intercept_config"));
  if (with_address) {
    TRY_ASSIGN(const auto address, need_text(c.body, "address", 260));
    const auto hp = parse_host_port(address);
    if (!hp) return fail(Errc::kBadField, "'" + address + "' is not host:port");
    if (s.host_config.empty())
      s.host_config = json::serialize(
          json::object{{"protocol", "tcp"}, {"address", hp->host}, {"port", hp->port}});
    if (s.intercept_config.empty())
      s.intercept_config = json::serialize(json::object{
          {"protocols", json::array{"tcp"}},
          {"addresses", json::array{lower(s.name) + ".sally"}},
          {"portRanges", json::array{json::object{{"low", hp->port}, {"high", hp->port}}}}});
  }
  TRY_ASSIGN(const auto allow_text, opt_texts(c.body, "allow", policy::kMaxSelectors));
  TRY_ASSIGN(const auto host_text, opt_texts(c.body, "host", policy::kMaxSelectors));
  if (host_text.empty()) return fail(Errc::kBadField, "host is missing: who offers the service");
  TRY_ASSIGN(const auto allow, resolve_selectors(c, allow_text));
  TRY_ASSIGN(const auto host, resolve_selectors(c, host_text));
  s.id = new_id(c);
  s.created_ms = c.now_ms;
  TRY(c.write->put_service(s));
  TRY(add_grants(c, s.id, store::GrantKind::kDial, allow));
  TRY(add_grants(c, s.id, store::GrantKind::kBind, host));
  TRY(pki::publish_service(*c.write, c.deps.network, s, *c.deps.signer(), c.now_ms));
  TRY(c.audit(with_address ? "service.expose" : "service.add", s.id,
              {{"name", s.name}, {"allow", texts(allow)}, {"host", texts(host)}}));
  TRY_ASSIGN(const auto stored, c.tx.service(s.id));
  TRY_ASSIGN(auto o, show(c, stored.value_or(s)));
  c.status = 201;
  return json::value(std::move(o));
}

Result<json::value> add(Call& c) {
  return create(c, false);
}
Result<json::value> expose(Call& c) {
  return create(c, true);
}

Result<json::value> remove(Call& c) {
  TRY_ASSIGN(const auto s, find_service(c, c.params[0]));
  TRY(c.write->remove_service(s.id));
  TRY(pki::publish_service_removed(*c.write, s.id));
  TRY(c.audit("service.remove", s.id, {{"name", s.name}}));
  return json::object{{"id", s.id}, {"name", s.name}, {"removed", true}};
}

// ---- grants

json::object show_grant(const Call& c, const store::Grant& g) {
  const auto s = c.tx.service(g.service);
  return json::object{{"id", g.id},
                      {"service", s && *s ? (*s)->name : g.service},
                      {"kind", g.kind == store::GrantKind::kDial ? "dial" : "bind"},
                      {"selector", show_selector(c, g.selector)},
                      {"created_at", time_text(g.created_ms)}};
}

Result<json::value> list_grants(Call& c) {
  std::string service;
  if (const auto ref = query_value(c.request.query, "service")) {
    TRY_ASSIGN(const auto s, find_service(c, *ref));
    service = s.id;
  }
  TRY_ASSIGN(const auto rows, c.tx.grants(service));
  json::array items;
  for (const auto& g : rows) items.push_back(show_grant(c, g));
  return json::object{{"items", std::move(items)}};
}

Result<store::GrantKind> kind_of(const json::object& body) {
  TRY_ASSIGN(const auto text, opt_text(body, "kind", 16));
  if (text.empty() || text == "dial") return store::GrantKind::kDial;
  if (text == "bind") return store::GrantKind::kBind;
  return fail(Errc::kBadField, "kind is dial or bind");
}

// Who has a grant of that kind now, as people write it.
Result<json::array> granted(const Call& c, const store::Service& s, store::GrantKind kind) {
  TRY_ASSIGN(const auto grants, c.tx.grants(s.id));
  json::array out;
  for (const auto& g : grants)
    if (g.kind == kind) out.emplace_back(show_selector(c, g.selector));
  return out;
}

// Allow: adds what is missing; what exists already is fine.
Result<json::value> add_grant(Call& c) {
  TRY_ASSIGN(const auto ref, need_text(c.body, "service", 128));
  TRY_ASSIGN(const auto s, find_service(c, ref));
  TRY_ASSIGN(const auto kind, kind_of(c.body));
  TRY_ASSIGN(const auto selector, need_text(c.body, "selector", 1024));
  TRY_ASSIGN(const auto wanted, resolve_selectors(c, {selector}));
  TRY_ASSIGN(const auto have, c.tx.grants(s.id));
  std::vector<std::string> missing;
  for (const auto& e : wanted)
    if (std::none_of(have.begin(), have.end(),
                     [&](const store::Grant& g) { return g.kind == kind && g.selector == e; }))
      missing.push_back(e);
  if (have.size() + missing.size() > 2 * policy::kMaxSelectors)
    return fail(policy::Errc::kTooMany, "grants of service '" + s.name + "'");
  TRY(add_grants(c, s.id, kind, missing));
  if (!missing.empty())
    TRY(pki::publish_service(*c.write, c.deps.network, s, *c.deps.signer(), c.now_ms));
  TRY(c.audit("grant.add", s.id, {{"service", s.name}, {"selectors", texts(missing)}}));
  c.status = 201;
  TRY_ASSIGN(auto now, granted(c, s, kind));
  return json::object{
      {"service", s.name}, {"added", missing.size()}, {"selectors", std::move(now)}};
}

// Deny: takes exactly that selector away; one that was never granted is an error, so that nobody
// believes in a denial that is none.
Result<json::value> deny(Call& c) {
  TRY_ASSIGN(const auto ref, need_text(c.body, "service", 128));
  TRY_ASSIGN(const auto s, find_service(c, ref));
  TRY_ASSIGN(const auto kind, kind_of(c.body));
  TRY_ASSIGN(const auto selector, need_text(c.body, "selector", 1024));
  TRY_ASSIGN(const auto unwanted, resolve_selectors(c, {selector}));
  TRY_ASSIGN(const auto have, c.tx.grants(s.id));
  std::size_t removed = 0;
  for (const auto& g : have) {
    if (g.kind != kind || std::find(unwanted.begin(), unwanted.end(), g.selector) == unwanted.end())
      continue;
    TRY(c.write->remove_grant(g.id));
    ++removed;
  }
  if (removed == 0) {
    TRY_ASSIGN(const auto now, granted(c, s, kind));
    std::string list;
    for (const auto& g : now) list += (list.empty() ? "" : ", ") + std::string(g.get_string());
    return fail(Errc::kUnknown, "service '" + s.name + "' has no grant '" + selector +
                                    "'; it has: " + (list.empty() ? "none" : list));
  }
  TRY(pki::publish_service(*c.write, c.deps.network, s, *c.deps.signer(), c.now_ms));
  TRY(c.audit("grant.remove", s.id, {{"service", s.name}, {"selectors", texts(unwanted)}}));
  TRY_ASSIGN(auto now, granted(c, s, kind));
  return json::object{{"service", s.name}, {"removed", removed}, {"selectors", std::move(now)}};
}

Result<json::value> remove_grant(Call& c) {
  TRY_ASSIGN(const auto g, c.tx.grant(c.params[0]));
  if (!g) return fail(Errc::kUnknown, "no grant '" + c.params[0] + "'");
  TRY(c.write->remove_grant(g->id));
  TRY_ASSIGN(const auto s, c.tx.service(g->service));
  if (s) TRY(pki::publish_service(*c.write, c.deps.network, *s, *c.deps.signer(), c.now_ms));
  TRY(c.audit("grant.remove", g->service, {{"selector", g->selector}}));
  return json::object{{"id", g->id}, {"removed", true}};
}

}  // namespace

std::vector<Route> service_routes() {
  return {
      {"GET", "/fleet/v1/services", false, list},
      {"POST", "/fleet/v1/services", true, add},
      {"GET", "/fleet/v1/services/{service}", false, get},
      {"DELETE", "/fleet/v1/services/{service}", true, remove},
      {"POST", "/fleet/v1/expose", true, expose},
      {"GET", "/fleet/v1/grants", false, list_grants},
      {"POST", "/fleet/v1/grants", true, add_grant},
      {"DELETE", "/fleet/v1/grants/{grant}", true, remove_grant},
      {"POST", "/fleet/v1/deny", true, deny},
  };
}

}  // namespace sally::api
