// SPDX-License-Identifier: Apache-2.0
// Permission to dial or to host, as a token that a router can verify.
#include <algorithm>

#include "api/compat/compat.h"
#include "api/compat/lists.h"
#include "trust/records.h"

namespace sally::api::compat {
namespace {

constexpr std::uint64_t kMaxOfOne = 1'000;

std::string_view type_of(store::GrantKind kind) {
  return kind == store::GrantKind::kDial ? "Dial" : "Bind";
}

Result<json::object> show(const Client& c, const store::ServiceSession& s,
                          const store::Service& service, const json::array& routers) {
  TRY_ASSIGN(auto token, trust::make_session_token(
                             {.network = c.deps.network.str(),
                              .identity = c.identity.id,
                              .credential_epoch = c.identity.credential_epoch,
                              .session = c.session.id,
                              .use = s.kind == store::GrantKind::kDial ? wire::SessionUse::kDial
                                                                       : wire::SessionUse::kBind,
                              .service = s.service,
                              .issued_ms = c.now_ms,
                              .not_after_ms = c.deps.sessions->token_ends_ms(c.session)},
                             *c.deps.signer()));
  auto o = entity("./sessions/" + s.id, s.id, s.created_ms);
  const json::object more{{"type", type_of(s.kind)},
                          {"token", std::move(token)},
                          {"apiSessionId", c.session.id},
                          {"apiSession", reference("api-sessions", c.session.id, "")},
                          {"identityId", c.identity.id},
                          {"serviceId", s.service},
                          {"service", reference("services", service.id, service.name)},
                          {"edgeRouters", routers}};
  for (const auto& [name, value] : more) o[name] = value;
  return o;
}

Result<Response> open(Client& c) {
  const std::string_view id = text_of(c.body, "serviceId");
  const std::string_view type = text_of(c.body, "type");
  if (id.empty() || id.size() > 128)
    return refuse_field(c.deps, "serviceId", "serviceId is missing", id);
  if (!type.empty() && type != "Dial" && type != "Bind")
    return refuse_field(c.deps, "type", "type is Dial or Bind", type);
  const auto kind = type == "Bind" ? store::GrantKind::kBind : store::GrantKind::kDial;
  TRY_ASSIGN(auto service, c.tx.service(id));
  if (!service) return not_found(c);
  TRY_ASSIGN(const auto grants, c.tx.grants(service->id));
  if (!granted(c.identity, *service, grants).any()) return not_found(c);
  // Who has the grant is told why it is of no use.
  const Rights rights = usable(c.identity, *service, grants);
  if (!rights.any())
    return refuse_field(c.deps, "serviceId",
                        "the service is end to end TLS between Sallyport's own clients; for others "
                        "its e2e must be compatible or none",
                        id);
  if (!rights.of(kind))
    return refuse_field(c.deps, "serviceId", "no access of that type to the service", id);
  TRY_ASSIGN(const auto routers, routers_json(c.deps, c.tx));
  if (routers.empty())
    return refuse(c.deps, 400, "NO_EDGE_ROUTERS_AVAILABLE", "there is no router");
  TRY_ASSIGN(const auto have, c.tx.service_sessions(c.session.id, kMaxOfOne));
  // The same request again is the same session.
  auto s = std::ranges::find_if(have, [&](const store::ServiceSession& x) {
    return x.service == service->id && x.kind == kind;
  });
  store::ServiceSession fresh{c.deps.random.hex(12), c.session.id, service->id, kind, c.now_ms};
  if (s == have.end()) {
    if (have.size() >= kMaxOfOne)
      return refuse(c.deps, 429, "SERVER_TOO_MANY_REQUESTS", "too many sessions; delete some");
    TRY(c.write->put_service_session(fresh));
  }
  TRY_ASSIGN(auto data, show(c, s != have.end() ? *s : fresh, *service, routers));
  return envelope(std::move(data), 201);
}

struct Mine {
  store::ServiceSession session;
  store::Service service;
};
// Only among those of this API session: another's id is no id. What is not granted any more is
// gone.
Result<std::vector<Mine>> mine(const Client& c, std::string_view id) {
  TRY_ASSIGN(const auto all, c.tx.service_sessions(c.session.id, kMaxOfOne));
  std::vector<Mine> out;
  for (const auto& s : all) {
    if (!id.empty() && s.id != id) continue;
    TRY_ASSIGN(auto service, c.tx.service(s.service));
    if (!service) continue;
    TRY_ASSIGN(const auto grants, c.tx.grants(s.service));
    if (!usable(c.identity, *service, grants).of(s.kind)) continue;
    out.push_back({s, std::move(*service)});
  }
  return out;
}

Result<Response> list(Client& c) {
  const auto p = paging(c.deps, c.request.query);
  if (!p) return p.error();
  TRY_ASSIGN(const auto found, mine(c, ""));
  TRY_ASSIGN(const auto routers, routers_json(c.deps, c.tx));
  c.let_go();  // each token is a signature
  json::array page;
  for (auto i = p->offset; std::cmp_less(i, found.size()) && std::cmp_less(page.size(), p->limit);
       ++i) {
    const Mine& one = found[static_cast<std::size_t>(i)];
    TRY_ASSIGN(auto o, show(c, one.session, one.service, routers));
    page.push_back(std::move(o));
  }
  return list_envelope(std::move(page), *p, found.size());
}

Result<Response> get(Client& c) {
  TRY_ASSIGN(const auto found, mine(c, c.params[0]));
  if (found.empty()) return not_found(c);
  TRY_ASSIGN(const auto routers, routers_json(c.deps, c.tx));
  TRY_ASSIGN(auto data, show(c, found.front().session, found.front().service, routers));
  return envelope(std::move(data));
}

Result<Response> remove(Client& c) {
  TRY_ASSIGN(const auto all, c.tx.service_sessions(c.session.id, kMaxOfOne));
  const auto s = std::ranges::find(all, c.params[0], &store::ServiceSession::id);
  if (s == all.end()) return not_found(c);
  TRY(c.write->remove_service_session(s->id));
  return envelope(json::object());
}

}  // namespace

std::vector<Route> session_routes() {
  return {{"GET", "/sessions", false, list},
          {"POST", "/sessions", true, open},
          {"GET", "/sessions/{id}", false, get},
          {"DELETE", "/sessions/{id}", true, remove}};
}

}  // namespace sally::api::compat
