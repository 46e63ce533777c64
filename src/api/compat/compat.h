// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside api/ only: what the handlers of the compatible client API share. H1 to H19 are the rules
// of docs/compatible-api.md.
#include <boost/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "api/api.h"
#include "api/compat/sessions.h"

namespace sally::api::compat {

namespace json = boost::json;

// ---- bodies
Response json_response(int status, json::value body);
Response envelope(json::value data, int status = 200);
Response created(std::string_view collection, std::string_view id);
Response refuse(const Deps& d, int status, std::string_view code, std::string_view message,
                const Error* cause = nullptr);
/// One member of the body is wrong.
Response refuse_field(const Deps& d, std::string_view field, std::string_view reason,
                      std::string_view value);
/// A failure of ours: 503 where trying again helps, 500 otherwise; only the log hears why.
Response broken(const Deps& d, const Error& e);

/// What every entity has.
json::object entity(std::string_view href, std::string_view id, std::int64_t created_ms,
                    std::int64_t changed_ms = 0);
json::object reference(std::string_view collection, std::string_view id, std::string_view name);

/// A member of a request's body; empty where there is no such text.
std::string_view text_of(const json::object& o, std::string_view name);

// ---- enrolment.cc: what anybody may ask
Response version(const Deps& d);
Response cacerts(const Deps& d, const Request& request, bool prefixed);
Response network_jwts(const Deps& d);
Response protocols(const Deps& d);
/// Takes from the rate at which refusals go into the audit.
using MayAudit = std::function<bool()>;
/// `result`: "done", or the code of the refusal.
Response enroll_request(const Deps& d, const Request& r, bool json_only, const MayAudit& may_audit,
                        std::string_view& result);

// ---- with a proven leaf
/// A request of somebody who is logged in; every lookup is about `identity`, the proven leaf's.
struct Client {
  const Deps& deps;
  const Request& request;
  const store::Transaction& tx;
  std::unique_ptr<const store::Transaction>* read;
  store::Transaction* write;  ///< null in read routes
  const store::ApiSession& session;
  const store::Identity& identity;
  const store::CertificateRow& certificate;  ///< the one that was proven
  std::vector<std::string> params;
  json::object body;
  std::int64_t now_ms;
  /// In a read route: `tx` is not used any more, and nobody waits for what is worked out of it.
  void let_go() const { read->reset(); }
};
/// Not there and not for you look the same.
Response not_found(const Client& c);
using Handler = Result<Response> (*)(Client&);
struct Route {
  std::string_view method;
  std::string_view path;
  bool write;
  Handler handler;
};
std::vector<Route> identity_routes();  // identity.cc
std::vector<Route> service_routes();   // services.cc
std::vector<Route> session_routes();   // service_sessions.cc

json::object session_json(const Deps& d, const store::ApiSession& s, const store::Identity& who);
/// Of routers a foreign end may connect to, those online first, at most 25.
Result<json::array> routers_json(const Deps& d, const store::Transaction& tx);
/// Who may do what with a service.
struct Rights {
  bool dial = false;
  bool bind = false;
  [[nodiscard]] bool any() const { return dial || bind; }
  [[nodiscard]] bool of(store::GrantKind kind) const {
    return kind == store::GrantKind::kDial ? dial : bind;
  }
};
/// What policy says.
Rights granted(const store::Identity& who, const store::Service& s,
               const std::vector<store::Grant>& grants);
/// What is left of it for a foreign end: nothing where e2e is `tls`.
Rights usable(const store::Identity& who, const store::Service& s,
              const std::vector<store::Grant>& grants);

}  // namespace sally::api::compat
