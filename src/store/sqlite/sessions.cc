// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite/rows.h"
#include "store/sqlite/transaction.h"

namespace sally::store {

Result<std::optional<ApiSession>> SessionRows::api_session_by_mac(ByteView mac) const {
  auto s =
      query("SELECT " API_SESSION_COLUMNS " FROM api_sessions WHERE network=? AND token_mac=?");
  s << mac;
  return one<ApiSession>(s, read_api_session);
}

Result<std::optional<ApiSession>> SessionRows::api_session(std::string_view id) const {
  auto s = query("SELECT " API_SESSION_COLUMNS " FROM api_sessions WHERE network=? AND id=?");
  s << id;
  return one<ApiSession>(s, read_api_session);
}

Result<std::vector<ApiSession>> SessionRows::api_sessions_of(std::string_view identity) const {
  auto s = query("SELECT " API_SESSION_COLUMNS
                 " FROM api_sessions WHERE network=? AND identity=? ORDER BY created_ms, id");
  s << identity;
  return all<ApiSession>(s, read_api_session);
}

Result<std::vector<ApiSession>> SessionRows::api_sessions(Page page) const {
  auto s =
      query("SELECT " API_SESSION_COLUMNS
            " FROM api_sessions WHERE network=? ORDER BY identity, created_ms LIMIT ? OFFSET ?");
  s << std::uint64_t{page.limit} << std::uint64_t{page.offset};
  return all<ApiSession>(s, read_api_session);
}

Result<std::vector<ServiceSession>> SessionRows::service_sessions(std::string_view api_session,
                                                                  std::uint64_t limit) const {
  auto s = query(
      "SELECT id, api_session, service, kind, created_ms FROM service_sessions WHERE network=? "
      "AND api_session=? ORDER BY created_ms, id LIMIT ?");
  s << api_session << limit;
  return all<ServiceSession>(s, read_service_session);
}

Status SessionRows::touch_api_session(std::string_view id, std::int64_t active_ms) {
  auto s =
      query("UPDATE api_sessions SET active_ms=?3 WHERE network=?1 AND id=?2 AND active_ms < ?3");
  s << id << active_ms;
  return run(s);
}

Result<std::uint64_t> SessionRows::expire_api_sessions(std::int64_t active_ms,
                                                       std::int64_t created_ms) {
  auto s =
      query("DELETE FROM api_sessions WHERE network=? AND (active_ms <= ? OR created_ms <= ?)");
  s << active_ms << created_ms;
  return run_many(s);
}

Status SessionRows::put_service_session(const ServiceSession& r) {
  auto s = query(
      "INSERT INTO service_sessions(network, id, api_session, service, kind, created_ms) "
      "VALUES(?,?,?,?,?,?)");
  s << r.id << r.api_session << r.service << static_cast<std::int64_t>(r.kind) << r.created_ms;
  return run(s);
}

Status SessionRows::remove_service_session(std::string_view id) {
  auto s = query("DELETE FROM service_sessions WHERE network=? AND id=?");
  s << id;
  return run_one(s);
}

Status SessionRows::put_api_session(const ApiSession& r) {
  auto s = change(
      "INSERT INTO api_sessions(network, id, token_mac, identity, credential_epoch, "
      "config_types, address, created_ms, active_ms) VALUES(?,?,?,?,?,?,?,?,?)");
  s << r.id << ByteView(r.token_mac) << r.identity << r.credential_epoch << join(r.config_types)
    << r.address << r.created_ms << r.active_ms;
  return run(s);
}

Status SessionRows::remove_api_session(std::string_view id) {
  auto s = change("DELETE FROM api_sessions WHERE network=? AND id=?");
  s << id;
  return run_one(s);
}

}  // namespace sally::store
