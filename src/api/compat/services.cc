// SPDX-License-Identifier: Apache-2.0
// What a foreign end may use, and through whom.
#include <algorithm>
#include <array>
#include <map>

#include "api/compat/compat.h"
#include "api/compat/lists.h"
#include "base/text.h"
#include "policy/policy.h"

namespace sally::api::compat {
namespace {

constexpr std::size_t kRows = 1'000;
constexpr std::size_t kMaxRouters = 25;
constexpr std::string_view kStrategy = "smartrouting";

/// By type; the text is empty where there is none.
std::array<std::pair<std::string_view, const std::string&>, 2> configs_of(const store::Service& s) {
  return {{{"host.v1", s.host_config}, {"intercept.v1", s.intercept_config}}};
}
std::string config_id(const store::Service& s, std::string_view type) {
  return s.id + "." + std::string(type);
}

json::array permissions(const Rights& r) {
  json::array out;
  if (r.dial) out.emplace_back("Dial");
  if (r.bind) out.emplace_back("Bind");
  return out;
}

// SDKs walk them without looking (H12).
json::array no_posture(const Rights& r) {
  json::array out;
  for (const auto& type : permissions(r)) {
    const std::string id = type == "Dial" ? "no-dial-checks" : "no-bind-checks";
    out.push_back(json::object{{"policyId", id},
                               {"policyType", type},
                               {"isPassing", true},
                               {"postureQueries", json::array()}});
  }
  return out;
}

// The types asked for in the query, or else at login; "all" is all there are.
std::vector<std::string> wanted_types(const Client& c) {
  const auto query = query_value(c.request.query, "configTypes");
  if (!query) return c.session.config_types;
  std::vector<std::string> out;
  for (const auto t : split(*query, ',')) out.emplace_back(trim(t));
  return out;
}

json::object service_json(const store::Service& s, const Rights& r,
                          const std::vector<std::string>& types) {
  const std::string href = "./services/" + s.id;
  auto o = entity(href, s.id, s.created_ms);
  auto& links = o["_links"].as_object();
  for (const char* more :
       {"configs", "service-edge-router-policies", "service-policies", "terminators"})
    links[more] = json::object{{"href", href + "/" + more}};
  json::array ids;
  json::object configs;
  for (const auto& [type, text] : configs_of(s)) {
    if (text.empty()) continue;
    ids.emplace_back(config_id(s, type));
    if (!std::ranges::contains(types, "all") && !std::ranges::contains(types, type)) continue;
    boost::system::error_code ec;
    json::value v = json::parse(text, ec);
    if (!ec && v.is_object()) configs[type] = std::move(v);
  }
  const json::object more{{"name", s.name},
                          {"encryptionRequired", s.e2e == store::E2e::kCompatible},
                          {"permissions", permissions(r)},
                          {"terminatorStrategy", kStrategy},
                          {"maxIdleTimeMillis", 0},
                          {"roleAttributes", json::array()},
                          {"configs", std::move(ids)},
                          {"config", std::move(configs)},
                          {"postureQueries", no_posture(r)}};
  for (const auto& [name, value] : more) o[name] = value;
  return o;
}

using store::filter::Type;
constexpr store::filter::Symbol kServiceSymbols[] = {{"id"},
                                                     {"createdAt", Type::kTime},
                                                     {"updatedAt", Type::kTime},
                                                     {"isSystem", Type::kBool},
                                                     {"name"},
                                                     {"tags", Type::kTags},
                                                     {"terminatorStrategy"},
                                                     {"configs", Type::kStrings},
                                                     {"roleAttributes", Type::kStrings}};
constexpr store::filter::Schema kServiceSchema{kServiceSymbols};

/// A service as its list is asked for it, and what its caller may do with it.
struct ServiceRow final : store::filter::Row {
  ServiceRow(store::Service s, Rights r) : service(std::move(s)), rights(r) {}
  store::Service service;
  Rights rights;

  [[nodiscard]] store::filter::Value value(std::string_view symbol) const override {
    if (symbol == "id") return service.id;
    if (symbol == "name") return service.name;
    if (symbol == "terminatorStrategy") return std::string(kStrategy);
    if (symbol.ends_with("At")) return store::filter::Time{service.created_ms};
    return {};
  }
  [[nodiscard]] std::vector<std::string> set(std::string_view symbol) const override {
    std::vector<std::string> out;
    if (symbol != "configs") return out;
    for (const auto& [type, text] : configs_of(service)) {
      if (!text.empty()) out.push_back(config_id(service, type));
    }
    return out;
  }
};

Result<Response> services(Client& c) {
  auto query = list_query(c.deps, c.request.query, kServiceSchema);
  if (!query) return std::move(query).error();
  TRY_ASSIGN(const auto grants, c.tx.grants(""));
  std::map<std::string_view, std::vector<store::Grant>> by_service;
  for (const auto& g : grants) by_service[g.service].push_back(g);
  std::vector<ServiceRow> all;
  for (store::Page page{kRows, 0};; page.offset += kRows) {
    TRY_ASSIGN(auto rows, c.tx.services(page));
    const bool last = rows.size() < kRows;
    for (auto& s : rows) {
      const Rights r = usable(c.identity, s, by_service[s.id]);
      if (r.any()) all.emplace_back(std::move(s), r);
    }
    if (last) break;
  }
  c.let_go();
  const auto types = wanted_types(c);
  return list_of(std::move(*query), std::move(all), [&](const ServiceRow& row) {
    return service_json(row.service, row.rights, types);
  });
}

struct Visible {
  store::Service service;
  Rights rights;
};
// Not there and not for you look the same.
Result<std::optional<Visible>> find_visible(const Client& c) {
  TRY_ASSIGN(auto s, c.tx.service(c.params[0]));
  if (!s) return std::optional<Visible>();
  TRY_ASSIGN(const auto grants, c.tx.grants(s->id));
  const Rights r = usable(c.identity, *s, grants);
  if (!r.any()) return std::optional<Visible>();
  return std::optional(Visible{std::move(*s), r});
}

Result<Response> service(Client& c) {
  TRY_ASSIGN(const auto v, find_visible(c));
  if (!v) return not_found(c);
  return envelope(service_json(v->service, v->rights, wanted_types(c)));
}

Result<Response> service_routers(Client& c) {
  TRY_ASSIGN(const auto v, find_visible(c));
  if (!v) return not_found(c);
  TRY_ASSIGN(auto routers, routers_json(c.deps, c.tx));
  return envelope(json::object{{"edgeRouters", std::move(routers)}});
}

// Who hosts it now, as far as routers told; on one page, since a C SDK loses the path of a second.
Result<Response> terminators(Client& c) {
  const auto p = paging(c.deps, c.request.query, kMaxPage);
  if (!p) return p.error();
  TRY_ASSIGN(const auto v, find_visible(c));
  if (!v) return not_found(c);
  json::array all;
  for (const auto& h : c.deps.live.hosts()) {
    if (h.service != v->service.id) continue;
    const std::string id = h.router + "." + h.device;
    auto o = entity("./terminators/" + id, id, h.since_ms);
    o["serviceId"] = h.service;
    o["service"] = reference("services", v->service.id, v->service.name);
    o["routerId"] = h.router;
    o["identity"] = "";
    all.push_back(std::move(o));
  }
  return page_of_all(std::move(all), *p);
}

Result<Response> my_routers(Client& c) {
  const auto p = paging(c.deps, c.request.query);
  if (!p) return p.error();
  TRY_ASSIGN(auto routers, routers_json(c.deps, c.tx));
  return page_of_all(std::move(routers), *p);
}

// Every change of the network counts: one that is not about the asker costs it a list, no more.
Result<Response> updates(Client& c) {
  TRY_ASSIGN(const auto head, c.tx.log_head());
  std::string text = format_time(std::max(head.at_ms, c.session.created_ms));
  // Two changes in one millisecond are two.
  const std::string micros = std::to_string(1'000 + head.version % 1'000).substr(1);
  if (text.ends_with('Z')) text.insert(text.size() - 1, micros);
  return envelope(json::object{{"lastChangeAt", text}});
}

Result<Response> controllers(Client& c) {
  const auto p = paging(c.deps, c.request.query);
  if (!p) return p.error();
  TRY_ASSIGN(const auto network, c.tx.network());
  const auto rest = c.deps.rest();
  const std::string id = rest->leaf.subject_cn();
  auto o = entity("./controllers/" + id, id, network.created_ms);
  o["name"] = id;
  o["certPem"] = rest->leaf.pem();
  o["fingerprint"] = rest->leaf.sha1_hex();
  o["isOnline"] = true;
  o["lastJoinedAt"] = format_time(network.created_ms);
  o["apiAddresses"] = json::object{
      {"edge-client",
       json::array{json::object{{"url", c.deps.url + "/edge/client/v1"}, {"version", "v1"}}}}};
  return page_of_all({std::move(o)}, *p);
}

}  // namespace

Rights granted(const store::Identity& who, const store::Service& s,
               const std::vector<store::Grant>& grants) {
  Rights r;
  const policy::Subject subject{who.id, who.tags};
  for (const auto& g : grants) {
    if (g.service != s.id || !policy::matches(g.selector, subject)) continue;
    (g.kind == store::GrantKind::kDial ? r.dial : r.bind) = true;
  }
  return r;
}

Rights usable(const store::Identity& who, const store::Service& s,
              const std::vector<store::Grant>& grants) {
  return s.e2e == store::E2e::kTls ? Rights() : granted(who, s, grants);
}

Result<json::array> routers_json(const Deps& d, const store::Transaction& tx) {
  TRY_ASSIGN(const auto rows, tx.identities(store::Kind::kRouter, {kRows, 0}));
  json::array online;
  json::array offline;
  for (const auto& row : rows) {
    if (row.standing != store::Standing::kActive) continue;
    TRY_ASSIGN(const auto info, tx.router_info(row.id));
    if (!info || info->addresses.empty()) continue;
    const bool up = d.live.router(row.id).online;
    auto o = entity("./edge-routers/" + row.id, row.id, row.created_ms);
    const json::object urls{{"tls", "tls://" + info->addresses.front()}};
    const json::object more{{"name", row.name},  {"hostname", info->addresses.front()},
                            {"isOnline", up},    {"syncStatus", up ? "SYNC_DONE" : "SYNC_UNKNOWN"},
                            {"cost", 0},         {"noTraversal", false},
                            {"disabled", false}, {"supportedProtocols", urls},
                            {"urls", urls}};
    for (const auto& [name, value] : more) o[name] = value;
    (up ? online : offline).push_back(std::move(o));
  }
  for (auto& o : offline) online.push_back(std::move(o));
  while (online.size() > kMaxRouters) online.pop_back();
  return online;
}

std::vector<Route> service_routes() {
  return {{"GET", "/services", false, services},
          {"GET", "/services/{id}", false, service},
          {"GET", "/services/{id}/edge-routers", false, service_routers},
          {"GET", "/services/{id}/terminators", false, terminators},
          {"GET", "/current-identity/edge-routers", false, my_routers},
          {"GET", "/current-api-session/service-updates", false, updates},
          {"GET", "/controllers", false, controllers}};
}

}  // namespace sally::api::compat
