// SPDX-License-Identifier: Apache-2.0
#include "api/api.h"

#include <algorithm>

#include "api/call.h"
#include "base/log.h"
#include "base/text.h"
#include "pki/publish.h"
#include "pki/revoke.h"

namespace sally::api {
namespace {

const std::vector<Route>& table() {
  static const std::vector<Route> all = [] {
    std::vector<Route> out;
    for (auto part : {device_routes(), service_routes(), network_routes(), revocation_routes(),
                      usage_routes(), certificate_routes(), api_session_routes()})
      out.insert(out.end(), part.begin(), part.end());
    return out;
  }();
  return all;
}

struct Meaning {
  std::string_view code;
  int status;
  std::string_view fix;
};
// What an error means over HTTP and what to do about it. Whatever is not here is ours: 500.
constexpr Meaning kMeanings[] = {
    {"api.no_certificate", 401, "use an admin context: sally login TOKEN"},
    {"api.not_admin", 403, "use an admin context: sally login TOKEN"},
    {"api.no_route", 404, "see openapi/fleet.yaml"},
    {"api.method", 405, "see openapi/fleet.yaml"},
    {"api.bad_json", 400, "send a JSON object"},
    {"api.bad_field", 400, "the message names the member; openapi/fleet.yaml has all of them"},
    {"api.bad_name", 400, "1 to 64 of A-Z a-z 0-9 . _ -, first a letter or digit"},
    {"api.unknown", 404, "list what there is: sally device|service|router|admin|cert list"},
    {"api.taken", 409, "choose another name, or remove the old one first"},
    {"api.in_use", 409, "the message names what is in the way"},
    {"api.last_admin", 409, "add another admin first: sally admin add NAME"},
    {"store.not_found", 404, "list what there is"},
    {"store.conflict", 409, "it exists already"},
    {"store.busy", 503, "try again"},
    {"store.audit_tampered", 409,
     "sally audit verify says more; keep a copy of the database for whoever looks into it"},
    {"store.io", 503, "check the controller's disk"},
    {"store.full", 507, "free some space on the controller's disk; nothing else needs to be done"},
    {"store.disk_read_only", 503, "the controller's disk is read-only: mount it for writing"},
    {"policy.empty", 400, "give a selector: '*', '#tag' or a device name"},
    {"policy.syntax", 400, "give a selector: '*', '#tag' or a device name"},
    {"policy.too_many", 400, "use tags instead of many names"},
    {"policy.duplicate", 400, "name each selector once"},
    {"pki.identity_inactive", 409, "put it back into service first: sally resume NAME"},
    {"pki.no_authority", 404, "the message names what there is"},
    {"pki.no_successor", 503,
     "the next CA needs the root's key: bring it back and give sally revoke ca NAME again"},
    {"pki.infrastructure", 409,
     "certificates of single routers and admins: sally revoke cert SERIAL"},
};

}  // namespace

Response error_response(const Error& e) {
  const auto* m = std::find_if(std::begin(kMeanings), std::end(kMeanings),
                               [&](const Meaning& x) { return x.code == e.code(); });
  const bool known = m != std::end(kMeanings);
  if (!known || m->status >= 500)
    log::error("api.request_failed", {{"code", e.code()}, {"context", e.context()}});
  json::object error;
  error["code"] = e.code();
  // The text of an internal failure is for our log.
  // Who failed may know better what to do: after the first line.
  const auto line = e.context().find('\n');
  error["message"] = known ? e.context().substr(0, line) : "internal error";
  error["fix"] = !known                      ? "look into the controller's log"
                 : line == std::string::npos ? std::string(m->fix)
                                             : e.context().substr(line + 1);
  Response r;
  r.status = known ? m->status : 500;
  r.headers.emplace_back("content-type", "application/json");
  r.body = json::serialize(json::object{{"error", std::move(error)}});
  return r;
}

namespace {

// Before a transaction: strangers hold up nobody.
Status check_shown(const Request& r) {
  if (!r.caller) return fail(Errc::kNoCertificate, "this needs an admin's client certificate");
  return {};
}

Status check_admin(const Deps& d, const Request& r, const store::Transaction& tx) {
  TRY(check_shown(r));
  const Caller& c = *r.caller;
  if (c.network != d.network.str() || c.role != crypto::Role::kAdmin)
    return fail(Errc::kNotAdmin, "this needs an admin of this network");
  TRY_ASSIGN(const auto admin, tx.identity(c.id));
  if (!admin || admin->kind != store::Kind::kAdmin || admin->removed_ms != 0 ||
      admin->standing != store::Standing::kActive)
    return fail(Errc::kNotAdmin, "admin " + c.id + " is not active");
  TRY_ASSIGN(const auto cert, tx.certificate(c.serial));
  if (!cert || cert->identity != c.id || cert->revoked_ms != 0)
    return fail(Errc::kNotAdmin, "certificate of admin " + c.id + " is not valid any more");
  return {};
}

// A renewed certificate is used: what came before it ends now. Not earlier: until then nobody knows
// that the new one arrived.
Result<std::size_t> retire_older(const Deps& d, const Caller& caller) {
  const std::int64_t now = d.clock.unix_ms();
  TRY_ASSIGN(auto tx, d.store.begin(d.network, now));
  TRY_ASSIGN(const auto older, pki::older_certificates(*tx, caller.id, caller.serial, now));
  for (const auto& row : older)
    TRY(pki::revoke_certificate(*tx, row, now, false, store::Reason::kSuperseded));
  if (older.empty()) return 0;
  TRY(tx->audit("admin/" + caller.id, "admin.renewed", caller.id,
                "{\"serial\":\"" + caller.serial + "\"}"));
  TRY(tx->commit());
  return older.size();
}

Result<std::uint64_t> enrolled_routers(const store::Transaction& tx, std::int64_t now_ms) {
  std::uint64_t n = 0;
  TRY_ASSIGN(const auto rows, tx.identities(store::Kind::kRouter, {1'000, 0}));
  for (const auto& row : rows) {
    TRY_ASSIGN(const auto certs, tx.certificates_of(row.id));
    if (std::any_of(certs.begin(), certs.end(), [&](const store::CertificateRow& c) {
          return c.revoked_ms == 0 && c.not_after_s * 1000 > now_ms;
        }))
      ++n;
  }
  return n;
}

Result<json::object> parse_body(const Request& r) {
  if (r.body.empty()) return json::object();
  if (r.body.size() > kMaxBody) return fail(Errc::kBadJson, "body is larger than 256 KiB");
  boost::system::error_code ec;
  json::value v = json::parse(r.body, ec);
  if (ec || !v.is_object()) return fail(Errc::kBadJson, "body is not a JSON object");
  return std::move(v.get_object());
}

}  // namespace

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kNoCertificate:
      return "api.no_certificate";
    case Errc::kNotAdmin:
      return "api.not_admin";
    case Errc::kNoRoute:
      return "api.no_route";
    case Errc::kMethod:
      return "api.method";
    case Errc::kBadJson:
      return "api.bad_json";
    case Errc::kBadField:
      return "api.bad_field";
    case Errc::kBadName:
      return "api.bad_name";
    case Errc::kUnknown:
      return "api.unknown";
    case Errc::kTaken:
      return "api.taken";
    case Errc::kInUse:
      return "api.in_use";
    case Errc::kLastAdmin:
      return "api.last_admin";
    case Errc::kNoSession:
      return "api.no_session";
    case Errc::kSessionExpired:
      return "api.session_expired";
    case Errc::kTooMany:
      return "api.too_many";
  }
  return "api.unknown_error";
}

std::vector<Api::RouteInfo> Api::fleet_routes() {
  std::vector<RouteInfo> out;
  for (const auto& r : table()) out.push_back({std::string(r.method), std::string(r.path)});
  out.push_back({"GET", "/metrics"});
  return out;
}

Response Api::handle(const Request& request) const {
  const std::int64_t start = deps_.clock.mono_us();
  RouteName name = "other";
  Response response = answer(request, name);
  response.headers.emplace_back("ziti-instance-id", deps_.instance);
  response.headers.emplace_back("server", "sally-controller/" SALLY_VERSION);
  response.headers.emplace_back("cache-control", "no-store");
  latency_[request.method == "GET" ? 0 : 1].observe_us(deps_.clock.mono_us() - start);
  const std::scoped_lock lock(stats_mutex_);
  ++answered_[{name, response.status}];
  return response;
}

Response Api::answer(const Request& request, RouteName& name) const {
  const auto path = clean_path(request.path);
  if (!path) return error_response(Error(Errc::kNoRoute, "bad path"));
  if (*path == "/metrics") {
    name = "/metrics";
    return metrics_text(request);
  }
  if (*path == kRecoveryPath && deps_.renewals != nullptr) {
    name = kRecoveryPath;
    return recover(request);
  }
  if (path->starts_with("/fleet/")) return fleet(request, *path, name);
  if (path->starts_with("/crl/")) {
    name = "/crl";
    return revocation_list(request, *path);
  }
  if (*path == "/ocsp" || path->starts_with("/ocsp/")) {
    name = "/ocsp";
    return certificate_status(request);
  }
  bool prefixed = false;
  std::string rest = *path;
  for (const std::string_view prefix : {"/edge/client/v1", "/edge/v1"}) {
    if (*path != prefix && !path->starts_with(std::string(prefix) + "/")) continue;
    rest = path->substr(prefix.size());
    prefixed = true;
    break;
  }
  return compatible(request, rest.empty() ? "/" : rest, prefixed, name);
}

Response Api::metrics_text(const Request& request) const {
  if (request.method != "GET") return error_response(Error(Errc::kMethod, "/metrics"));
  {
    const auto tx = deps_.store.read(deps_.network);
    if (!tx) return error_response(tx.error());
    if (const Status may = check_admin(deps_, request, **tx); !may)
      return error_response(may.error());
  }
  Response r;
  r.headers.emplace_back("content-type", std::string(metrics::Text::kContentType));
  r.body = deps_.metrics ? deps_.metrics() : std::string();
  return r;
}

void Api::write_metrics(metrics::Text& out) const {
  {
    const std::scoped_lock lock(stats_mutex_);
    out.counter("sally_controller_api_requests_total", "Requests answered, by route and status.");
    for (const auto& [key, n] : answered_)
      out.value(n, {{"route", key.first}, {"status", std::to_string(key.second)}});
    out.counter("sally_controller_enrolments_total", "Enrolments, by result: done or a code.");
    for (const auto& [code, n] : enrolments_) out.value(n, {{"result", code}});
    out.counter("sally_controller_recoveries_total",
                "Requests at the recovery door, by result: done or a code.");
    for (const auto& [code, n] : recoveries_) out.value(n, {{"result", code}});
  }
  out.histogram("sally_controller_api_request_duration_seconds",
                "Time from a request to its answer, without the network.");
  out.latency(latency_[0].values(), {{"kind", "read"}});
  out.latency(latency_[1].values(), {{"kind", "write"}});
}

Response Api::fleet(const Request& request, const std::string& path, RouteName& name) const {
  auto found = find_route(table(), request.method, path);
  const Route* route = found.route;
  if (found.path != nullptr) name = found.path->path;
  bool renewed = false;
  bool admitted = false;
  const auto run = [&]() -> Result<Response> {
    const std::int64_t now = deps_.clock.unix_ms();
    TRY(check_shown(request));
    std::unique_ptr<store::Transaction> write;
    std::unique_ptr<const store::Transaction> read;
    if (route != nullptr && route->write) {
      TRY_ASSIGN(write, deps_.store.begin(deps_.network, now));
    } else {
      TRY_ASSIGN(read, deps_.store.read(deps_.network));
    }
    const store::Transaction& tx = write ? *write : *read;
    // Before anything else, so that who may not ask learns nothing of what there is.
    TRY(check_admin(deps_, request, tx));
    admitted = true;
    TRY_ASSIGN(const auto older,
               pki::older_certificates(tx, request.caller->id, request.caller->serial, now));
    renewed = !older.empty();
    if (found.path == nullptr) return fail(Errc::kNoRoute, path);
    if (route == nullptr) return fail(Errc::kMethod, request.method + " " + path);
    TRY_ASSIGN(auto body, parse_body(request));
    Call call{.deps = deps_,
              .request = request,
              .tx = tx,
              .write = write.get(),
              .params = std::move(found.params),
              .body = std::move(body),
              .now_ms = now,
              .actor = "admin/" + request.caller->id};
    TRY_ASSIGN(json::value out, route->handler(call));
    Response r;
    r.status = call.status;
    r.headers.emplace_back("content-type", "application/json");
    if (write) {
      TRY_ASSIGN(const auto head, write->log_head());
      // All that there are, not those that happen to be connected: the others go on by what they
      // know.
      TRY_ASSIGN(const auto routers, enrolled_routers(*write, now));
      TRY(write->commit());
      write.reset();
      if (call.on_commit) call.on_commit();
      deps_.live.changed();
      r.headers.emplace_back("sally-state-version", std::to_string(head.version));
      const auto wait = query_value(request.query, "wait_ms");
      if (out.is_object()) {
        out.get_object()["version"] = head.version;
        if (const auto ms = wait ? parse_u64(*wait) : std::nullopt) {
          const auto e = deps_.live.await(
              head.version, static_cast<std::int64_t>(std::min<std::uint64_t>(*ms, 10'000)));
          out.get_object()["enforced"] = json::object{{"routers", e.routers},
                                                      {"of", routers},
                                                      {"flows_cut", e.flows_cut},
                                                      {"took_ms", e.took_ms}};
        }
      }
    }
    r.body = json::serialize(out);
    return r;
  };
  auto r = run();
  note_caller(request, name, admitted ? nullptr : &r.error());
  if (renewed) {
    if (const auto n = retire_older(deps_, *request.caller); !n) {
      log::warn("api.older_certificates_left", {{"why", n.error().text()}});
    } else {
      deps_.live.changed();
    }
  }
  return r ? std::move(*r) : error_response(r.error());
}

bool Api::may_audit_denial() const {
  const std::scoped_lock lock(stats_mutex_);
  return denial_rate_.take(deps_.clock.mono_us());
}

void Api::note_denied(const Request& request, RouteName route, std::string_view code) const {
  if (!request.caller || !may_audit_denial()) return;
  audit_caller(request, "api.denied", route, code);
}

// Who used the API: an admin's certificate once a day, and whoever has one that is not an admin's.
void Api::note_caller(const Request& request, RouteName route, const Error* refused) const {
  if (!request.caller) return;
  if (refused != nullptr) {
    if (refused->is(Errc::kNotAdmin)) note_denied(request, route, refused->code());
    return;
  }
  const Caller& c = *request.caller;
  {
    const std::scoped_lock lock(stats_mutex_);
    const std::int64_t today = deps_.clock.unix_ms() / 86'400'000;
    if (logins_.size() >= kMaxLogins) logins_.clear();
    if (std::exchange(logins_[c.serial], today) == today) return;
  }
  audit_caller(request, "admin.login", {}, {});
}

void Api::audit_caller(const Request& request, std::string_view action, RouteName route,
                       std::string_view code) const {
  const Caller& c = *request.caller;
  const auto write = [&]() -> Status {
    TRY_ASSIGN(auto tx, deps_.store.begin(deps_.network, deps_.clock.unix_ms()));
    json::object detail{{"serial", c.serial}, {"from", request.remote}};
    if (!code.empty()) detail["code"] = code;
    if (!route.empty()) detail["route"] = route;
    if (const auto row = tx->certificate(c.serial); row && *row) detail["key"] = (*row)->key_hash;
    TRY(tx->audit(std::string(crypto::role_name(c.role)) + "/" + c.id, action, c.id,
                  json::serialize(detail)));
    return tx->commit();
  };
  if (const Status s = write(); !s)
    log::error("api.caller_not_audited", {{"why", s.error().text()}});
}

// ---- helpers of call.h

bool match_path(std::string_view pattern, std::string_view path, std::vector<std::string>& params) {
  params.clear();
  const auto a = split(pattern, '/');
  const auto b = split(path, '/');
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].starts_with('{')) {
      if (b[i].empty() || b[i].size() > 128) return false;
      params.emplace_back(b[i]);
    } else if (a[i] != b[i]) {
      return false;
    }
  }
  return true;
}

Result<std::string> opt_text(const json::object& o, std::string_view name, std::size_t max) {
  const json::value* v = o.if_contains(name);
  if (v == nullptr || v->is_null()) return std::string();
  if (!v->is_string() || v->get_string().size() > max)
    return fail(Errc::kBadField,
                std::string(name) + " must be text of at most " + std::to_string(max) + " bytes");
  std::string text(v->get_string());
  if (!printable_utf8(text))
    return fail(Errc::kBadField, std::string(name) + " has control characters");
  return text;
}

Result<std::string> need_text(const json::object& o, std::string_view name, std::size_t max) {
  TRY_ASSIGN(auto text, opt_text(o, name, max));
  if (text.empty()) return fail(Errc::kBadField, std::string(name) + " is missing");
  return text;
}

Result<std::int64_t> opt_int(const json::object& o, std::string_view name, std::int64_t otherwise,
                             std::int64_t low, std::int64_t high) {
  const json::value* v = o.if_contains(name);
  if (v == nullptr || v->is_null()) return otherwise;
  if (!v->is_int64() || v->get_int64() < low || v->get_int64() > high)
    return fail(Errc::kBadField, std::string(name) + " must be a number from " +
                                     std::to_string(low) + " to " + std::to_string(high));
  return v->get_int64();
}

Result<std::vector<std::string>> opt_texts(const json::object& o, std::string_view name,
                                           std::size_t count, std::size_t max) {
  std::vector<std::string> out;
  const json::value* v = o.if_contains(name);
  if (v == nullptr || v->is_null()) return out;
  if (!v->is_array() || v->get_array().size() > count)
    return fail(Errc::kBadField,
                std::string(name) + " must be a list of at most " + std::to_string(count));
  for (const auto& e : v->get_array()) {
    if (!e.is_string() || e.get_string().empty() || e.get_string().size() > max)
      return fail(Errc::kBadField,
                  std::string(name) + " must hold texts of 1 to " + std::to_string(max) + " bytes");
    out.emplace_back(e.get_string());
    if (!printable_utf8(out.back()))
      return fail(Errc::kBadField, std::string(name) + " has control characters");
  }
  return out;
}

Result<std::string> need_name(const json::object& o) {
  TRY_ASSIGN(auto name, need_text(o, "name", 64));
  if (!valid_name(name)) return fail(Errc::kBadName, "'" + name + "' is no name");
  return name;
}

store::Page page_of(const Request& request) {
  store::Page page;
  if (const auto v = query_value(request.query, "limit"))
    if (const auto n = parse_u64(*v)) page.limit = std::clamp<std::size_t>(*n, 1, 1000);
  if (const auto v = query_value(request.query, "offset"))
    if (const auto n = parse_u64(*v)) page.offset = std::min<std::size_t>(*n, 100'000'000);
  return page;
}

Result<store::Identity> find_identity(const Call& c, store::Kind kind, std::string_view ref) {
  TRY_ASSIGN(auto by_name, c.tx.identity_named(kind, ref));
  if (by_name) return std::move(*by_name);
  TRY_ASSIGN(auto by_id, c.tx.identity(ref));
  if (by_id && by_id->kind == kind && by_id->removed_ms == 0) return std::move(*by_id);
  return fail(Errc::kUnknown,
              "no " + std::string(store::kind_name(kind)) + " '" + std::string(ref) + "'");
}

Result<store::Service> find_service(const Call& c, std::string_view ref) {
  TRY_ASSIGN(auto by_name, c.tx.service_named(ref));
  if (by_name) return std::move(*by_name);
  TRY_ASSIGN(auto by_id, c.tx.service(ref));
  if (by_id) return std::move(*by_id);
  return fail(Errc::kUnknown, "no service '" + std::string(ref) + "'");
}

Result<std::vector<std::string>> resolve_selectors(const Call& c,
                                                   const std::vector<std::string>& list) {
  std::vector<std::string> out;
  for (const auto& text : list) {
    TRY_ASSIGN(const auto selectors, policy::parse_selectors(text));
    for (const auto& s : selectors) {
      if (s.kind != policy::Selector::Kind::kName) {
        out.push_back(s.str());
        continue;
      }
      const auto found = find_identity(c, store::Kind::kDevice, s.value);
      if (!found && found.error().is(Errc::kUnknown)) {
        return fail(Errc::kUnknown, found.error().context() + "; the tag is '#" + s.value + "'");
      }
      TRY_ASSIGN(const auto device, found);
      out.push_back(policy::Selector{policy::Selector::Kind::kId, device.id}.str());
    }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  if (out.size() > policy::kMaxSelectors) return fail(policy::Errc::kTooMany, "selectors");
  return out;
}

std::string show_selector(const Call& c, const std::string& expression) {
  if (!expression.starts_with('@')) return expression;
  const auto device = c.tx.identity(std::string_view(expression).substr(1));
  return device && *device ? (*device)->name : expression;
}

std::string new_id(const Call& c) {
  return c.deps.random.hex(8);
}

json::value time_text(std::int64_t ms) {
  if (ms == 0) return nullptr;
  return json::value(format_time(ms));
}

json::array texts(const std::vector<std::string>& list) {
  json::array out;
  for (const auto& t : list) out.emplace_back(t);
  return out;
}

}  // namespace sally::api
