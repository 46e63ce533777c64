// SPDX-License-Identifier: Apache-2.0
// Sessions of foreign ends at the client API: who is logged in, and ending one.
#include "api/call.h"

namespace sally::api {
namespace {

Result<json::object> show(const Call& c, const store::ApiSession& row) {
  TRY_ASSIGN(const auto of, c.tx.identity(row.identity));
  return json::object{{"id", row.id},
                      {"identity", row.identity},
                      {"name", of ? json::value(of->name) : json::value(nullptr)},
                      {"address", row.address},
                      {"created_at", time_text(row.created_ms)},
                      {"active_at", time_text(row.active_ms)},
                      {"expires_at", time_text(c.deps.sessions->expires_ms(row))}};
}

Result<json::value> list(Call& c) {
  json::array items;
  if (c.deps.sessions == nullptr) return json::object{{"items", std::move(items)}};
  const auto page = page_of(c.request);
  std::vector<store::ApiSession> rows;
  if (const auto of = query_value(c.request.query, "device")) {
    TRY_ASSIGN(const auto device, find_identity(c, store::Kind::kDevice, *of));
    // Of one there are few (Sessions::kPerIdentity).
    TRY_ASSIGN(rows, c.tx.api_sessions_of(device.id));
    rows.erase(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(
                                                std::min<std::uint64_t>(page.offset, rows.size())));
    if (rows.size() > page.limit) rows.resize(page.limit);
  } else {
    TRY_ASSIGN(rows, c.tx.api_sessions(page));
  }
  for (auto& row : rows) {
    row = c.deps.sessions->current(std::move(row));
    TRY_ASSIGN(auto o, show(c, row));
    items.push_back(std::move(o));
  }
  return json::object{{"items", std::move(items)}};
}

// Its owner's SDK logs in again where it may: who is to stay out is suspended or revoked.
Result<json::value> end(Call& c) {
  const std::string& id = c.params[0];
  TRY_ASSIGN(const auto row, c.tx.api_session(id));
  if (!row || c.deps.sessions == nullptr) return fail(Errc::kUnknown, "no session '" + id + "'");
  TRY(c.deps.sessions->close(*c.write, *row, c.actor));
  return json::object{{"id", row->id}, {"identity", row->identity}};
}

}  // namespace

std::vector<Route> api_session_routes() {
  return {{"GET", "/fleet/v1/sessions", false, list},
          {"DELETE", "/fleet/v1/sessions/{session}", true, end}};
}

}  // namespace sally::api
