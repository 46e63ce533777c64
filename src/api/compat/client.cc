// SPDX-License-Identifier: Apache-2.0
// Which path is whose, and who is logged in.
#include <algorithm>
#include <array>

#include "api/call.h"
#include "api/compat/compat.h"
#include "api/compat/lists.h"
#include "base/log.h"
#include "base/text.h"
#include "pki/renew.h"

namespace sally::api {
namespace {

constexpr std::string_view kTokenHeader = "zt-session";
constexpr std::size_t kMaxConfigTypes = 32;

const std::vector<compat::Route>& table() {
  static const std::vector<compat::Route> all = [] {
    std::vector<compat::Route> out;
    for (auto part :
         {compat::identity_routes(), compat::service_routes(), compat::session_routes()})
      out.insert(out.end(), part.begin(), part.end());
    return out;
  }();
  return all;
}

// Every reason looks alike but the end of its time (H19: with a body).
Response unauthorized(const Deps& d, std::string_view token, const Error& why) {
  const std::string_view error = token.empty()                   ? "missing"
                                 : why.is(Errc::kSessionExpired) ? "expired"
                                                                 : "invalid";
  Response r = compat::refuse(d, 401, "UNAUTHORIZED",
                              "the request could not be completed: the session is not authorized");
  r.headers.emplace_back("www-authenticate", "zt-session realm=\"zt-session\" error=\"" +
                                                 std::string(error) +
                                                 "\" error_description=\"log in again\"");
  return r;
}

// A certificate that followed another one is in use: the older ends, what is up with it lives on. A
// failure waits for the next request.
void note_first_use(const Deps& d, const Sessions::Proven& who, std::int64_t now_ms) {
  const auto run = [&]() -> Status {
    TRY_ASSIGN(auto tx, d.store.begin(d.network, now_ms));
    // Another request may have been quicker, and what this one changed is in the row.
    TRY_ASSIGN(auto row, tx->certificate(who.certificate.serial));
    if (!row || row->used_ms != 0 || row->revoked_ms != 0) return {};
    TRY(pki::prove_use(*tx, who.identity, std::move(*row), now_ms));
    return tx->commit();
  };
  if (const auto ok = run(); !ok)
    log::warn("api.older_certificates_left", {{"why", ok.error().text()}});
  else
    d.live.changed();
}

Result<json::object> body_of(const Request& r) {
  if (r.body.empty()) return json::object();
  boost::system::error_code ec;
  json::value v = json::parse(r.body, ec);
  if (ec || !v.is_object()) return fail(Errc::kBadJson, "body is not a JSON object");
  return std::move(v.get_object());
}

}  // namespace

Response Api::login(const Request& r) const {
  const Caller* caller = r.caller ? &*r.caller : nullptr;
  const auto method = query_value(r.query, "method");
  if (!method || *method != "cert")
    return compat::refuse(deps_, 400, "INVALID_AUTH_METHOD",
                          "only the method cert is known: nobody here has a password");
  const auto refused = [&](const Error& why) {
    log::warn("api.login_refused",
              {{"code", why.code()}, {"context", why.context()}, {"remote", r.remote}});
    if (why.is(Errc::kTooMany))
      return compat::refuse(deps_, 429, "SERVER_TOO_MANY_REQUESTS", "try again later");
    if (!why.is(Errc::kNoSession)) return compat::broken(deps_, why);
    note_denied(r, "/authenticate", why.code());
    return compat::refuse(deps_, 401, "INVALID_AUTH", "the authentication request failed");
  };
  if (deps_.sessions == nullptr || caller == nullptr)
    return refused(Error(Errc::kNoSession, "no client certificate"));
  if (r.body.size() > kMaxBody)
    return compat::refuse(deps_, 413, "REQUEST_ENTITY_TOO_LARGE", "request is too large");
  const auto run = [&]() -> Result<Response> {
    const std::int64_t now = deps_.clock.unix_ms();
    {
      TRY_ASSIGN(const auto read, deps_.store.read(deps_.network));
      TRY(deps_.sessions->prove(*read, caller, now));
    }
    TRY(deps_.sessions->admit(caller->id, deps_.clock.mono_us()));
    TRY_ASSIGN(auto tx, deps_.store.begin(deps_.network, now));
    TRY_ASSIGN(const auto who, deps_.sessions->prove(*tx, caller, now));
    const auto body = body_of(r);
    if (!body)
      return compat::refuse(deps_, 400, "COULD_NOT_PARSE_BODY", "body is not a JSON object");
    const auto types = opt_texts(*body, "configTypes", kMaxConfigTypes, 64);
    if (!types) return compat::refuse_field(deps_, "configTypes", types.error().context(), "");
    TRY_ASSIGN(const auto opened, deps_.sessions->open(*tx, who, *types, r.remote, *deps_.signer(),
                                                       deps_.clock, deps_.random));
    TRY(tx->commit());
    tx.reset();
    if (who.first_use) note_first_use(deps_, who, now);
    auto data = compat::session_json(deps_, opened.row, who.identity);
    data["token"] = opened.token;
    Response out = compat::envelope(std::move(data));
    out.headers.emplace_back(kTokenHeader, opened.token);
    return out;
  };
  auto done = run();
  return done ? std::move(*done) : refused(done.error());
}

Response Api::client(const Request& r, const std::string& path, RouteName& name) const {
  auto found = find_route(table(), r.method, path);
  const compat::Route* route = found.route;
  if (found.path == nullptr)
    return compat::refuse(deps_, 404, "NOT_FOUND", "the resource requested was not found");
  name = found.path->path;
  if (r.body.size() > kMaxBody)
    return compat::refuse(deps_, 413, "REQUEST_ENTITY_TOO_LARGE", "request is too large");
  const std::string_view token = r.header(kTokenHeader);
  // Who proves nothing begins no change.
  if (deps_.sessions == nullptr || !r.caller)
    return unauthorized(deps_, token, Error(Errc::kNoSession, "no client certificate"));
  if (!deps_.sessions->admit_request(r.caller->id, deps_.clock.mono_us()))
    return compat::refuse(deps_, 429, "SERVER_TOO_MANY_REQUESTS", "try again later");
  const auto run = [&]() -> Result<Response> {
    const std::int64_t now = deps_.clock.unix_ms();
    std::unique_ptr<store::Transaction> write;
    std::unique_ptr<const store::Transaction> read;
    if (route != nullptr && route->write) {
      TRY_ASSIGN(write, deps_.store.begin(deps_.network, now));
    } else {
      TRY_ASSIGN(read, deps_.store.read(deps_.network));
    }
    const store::Transaction& tx = write ? *write : *read;
    const auto who = deps_.sessions->find(tx, token, &*r.caller, now);
    if (!who) {
      if (who.error().is(Errc::kNoSession) || who.error().is(Errc::kSessionExpired))
        return unauthorized(deps_, token, who.error());
      return fail(who.error());
    }
    if (route == nullptr)
      return compat::refuse(deps_, 405, "METHOD_NOT_ALLOWED", "the method is not allowed here");
    auto body = body_of(r);
    if (!body)
      return compat::refuse(deps_, 400, "COULD_NOT_PARSE_BODY", "body is not a JSON object");
    compat::Client c{.deps = deps_,
                     .request = r,
                     .tx = tx,
                     .read = &read,
                     .write = write.get(),
                     .session = who->row,
                     .identity = who->identity,
                     .certificate = who->certificate,
                     .params = std::move(found.params),
                     .body = std::move(*body),
                     .now_ms = now};
    TRY_ASSIGN(Response out, route->handler(c));
    const bool changed = write != nullptr && out.status < 300;
    if (changed) TRY(write->commit());
    write.reset();
    read.reset();  // what follows may want to write
    if (changed) deps_.live.changed();
    if (route->write && !out.refused.empty()) note_denied(r, route->path, out.refused);
    if (who->first_use) note_first_use(deps_, *who, now);
    return out;
  };
  auto done = run();
  return done ? std::move(*done) : compat::broken(deps_, done.error());
}

Response Api::compatible(const Request& r, const std::string& path, bool prefixed,
                         RouteName& name) const {
  const bool get = r.method == "GET";
  const bool post = r.method == "POST";
  constexpr std::array<std::string_view, 10> kPaths = {
      "/",           "/version",      "/.well-known/est/cacerts", "/enroll",
      "/enroll/ott", "/network-jwts", "/external-jwt-signers",    "/enumerated-capabilities",
      "/protocols",  "/authenticate"};
  if (const auto at = std::find(kPaths.begin(), kPaths.end(), path); at != kPaths.end()) name = *at;
  const auto enrolled = [&](bool json_only) {
    std::string_view result = "api.bad_request";
    Response response =
        compat::enroll_request(deps_, r, json_only, [this] { return may_audit_denial(); }, result);
    const std::scoped_lock lock(stats_mutex_);
    ++enrolments_[result];
    return response;
  };
  if (path == "/" || path == "/version") {
    if (get) return compat::version(deps_);
  } else if (path == "/.well-known/est/cacerts") {
    if (get) return compat::cacerts(deps_, r, prefixed);
  } else if (path == "/enroll") {
    if (post) return enrolled(false);
  } else if (path == "/enroll/ott") {
    if (post) return enrolled(true);
  } else if (path == "/network-jwts") {
    if (get) return compat::network_jwts(deps_);
  } else if (path == "/external-jwt-signers") {
    if (get) return compat::list_envelope({}, compat::Paging(), 0);
  } else if (path == "/enumerated-capabilities") {
    if (get) return compat::envelope(json::array());
  } else if (path == "/protocols") {
    if (get) return compat::protocols(deps_);
  } else if (path == "/authenticate") {
    if (post) return login(r);
  } else {
    return client(r, path, name);
  }
  return compat::refuse(deps_, 405, "METHOD_NOT_ALLOWED", "the method is not allowed here");
}

}  // namespace sally::api
