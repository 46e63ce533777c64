// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside api/ only: what the handlers share.
#include <boost/json.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "api/api.h"
#include "policy/policy.h"

namespace sally::api {

namespace json = boost::json;

/// One fleet request on its way: who asks, what, and the transaction it happens in.
struct Call {
  const Deps& deps;
  const Request& request;
  const store::Transaction& tx;
  store::Transaction* write;  ///< null in read routes
  std::vector<std::string> params;
  json::object body;
  std::int64_t now_ms;
  std::string actor;  ///< "admin/<id>"
  int status = 200;
  std::move_only_function<void()> on_commit = {};  ///< once the change is committed

  Status audit(std::string_view action, std::string_view subject, const json::object& detail = {}) {
    return write->audit(actor, action, subject,
                        detail.empty() ? std::string() : json::serialize(detail));
  }
};
using Handler = Result<json::value> (*)(Call&);
struct Route {
  std::string_view method;
  std::string_view path;
  bool write;
  Handler handler;
};

/// Serials and key hashes of the certificates of an identity that had not ended: what the audit of
/// its end must be able to tell years later.
Result<json::array> keys_of(const Call& c, std::string_view identity);

/// A refusal as HTTP has it.
Response error_response(const Error& e);
/// Where identity/recovery.h knocks.
inline constexpr std::string_view kRecoveryPath = "/identity/v1/renew";

// One table per file; api.cc joins them.
std::vector<Route> device_routes();
std::vector<Route> service_routes();
std::vector<Route> network_routes();
std::vector<Route> revocation_routes();
std::vector<Route> usage_routes();
std::vector<Route> certificate_routes();
std::vector<Route> api_session_routes();

/// Whether a pattern with {name} is that path; what stands for the names, each of 1 to 128 bytes.
bool match_path(std::string_view pattern, std::string_view path, std::vector<std::string>& params);
/// The row of a table that a request means.
template <typename R>
struct Match {
  const R* route = nullptr;  ///< null: no such path, or not with this method
  const R* path = nullptr;   ///< a row of that path
  std::vector<std::string> params;
};
template <typename R>
Match<R> find_route(const std::vector<R>& table, std::string_view method, std::string_view path) {
  Match<R> m;
  std::vector<std::string> params;
  for (const auto& row : table) {
    if (!match_path(row.path, path, params)) continue;
    m.path = &row;
    if (row.method != method) continue;
    m.route = &row;
    m.params = std::move(params);
    break;
  }
  return m;
}

// ---- members of a body; kBadField names the member
Result<std::string> need_text(const json::object& o, std::string_view name, std::size_t max = 256);
Result<std::string> opt_text(const json::object& o, std::string_view name, std::size_t max = 256);
Result<std::int64_t> opt_int(const json::object& o, std::string_view name, std::int64_t otherwise,
                             std::int64_t low, std::int64_t high);
Result<std::vector<std::string>> opt_texts(const json::object& o, std::string_view name,
                                           std::size_t count, std::size_t max = 256);
Result<std::string> need_name(const json::object& o);
store::Page page_of(const Request& request);

// ---- lookups by name or id; kUnknown says what to try
Result<store::Identity> find_identity(const Call& c, store::Kind kind, std::string_view ref);
Result<store::Service> find_service(const Call& c, std::string_view ref);
/// What people write -> what records hold: names become @id. Sorted, without duplicates.
Result<std::vector<std::string>> resolve_selectors(const Call& c,
                                                   const std::vector<std::string>& texts);
/// Record form -> what people read.
std::string show_selector(const Call& c, const std::string& expression);

std::string new_id(const Call& c);
json::value time_text(std::int64_t ms);  ///< RFC 3339, or null for 0
json::array texts(const std::vector<std::string>& list);

// ---- shared between the files
/// A token for the identity as {"token","expires_at","enrollment"}.
Result<json::object> issue_token(Call& c, const store::Identity& identity);
/// Removes an identity of any kind: tombstone, epochs, certificates, its grants; everything
/// published.
Status remove_identity(Call& c, store::Identity identity);

}  // namespace sally::api
