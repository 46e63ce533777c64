// SPDX-License-Identifier: Apache-2.0
// Status and audit.
#include "api/call.h"
#include "base/text.h"

namespace sally::api {
namespace {

constexpr std::int64_t kWarnMs = 30LL * 86'400 * 1000;
constexpr std::uint64_t kWarnings = 100;

Result<json::value> status(Call& c) {
  TRY_ASSIGN(const auto network, c.tx.network());
  TRY_ASSIGN(const auto head, c.tx.log_head());
  TRY_ASSIGN(const auto devices, c.tx.count_identities(store::Kind::kDevice));
  TRY_ASSIGN(const auto services, c.tx.services({1000, 0}));
  TRY_ASSIGN(const auto routers, c.tx.identities(store::Kind::kRouter, {1000, 0}));

  json::array certificates;
  json::array warnings;
  const auto certificate = [&](const std::string& what, std::int64_t not_after_s) {
    certificates.push_back(
        json::object{{"what", what}, {"expires_at", time_text(not_after_s * 1000)}});
    if (not_after_s * 1000 - c.now_ms < kWarnMs)
      warnings.emplace_back(what + " expires at " + format_time(not_after_s * 1000));
  };
  certificate("root", c.deps.authority->root().not_after());
  certificate("issuing CA devices", c.deps.authority->devices().not_after());
  certificate("issuing CA infrastructure", c.deps.authority->infrastructure().not_after());
  certificate("controller", c.deps.rest()->leaf.not_after());
  certificate("signer", c.deps.signer_not_after_s());

  // Whoever must do something before a date is named here: devices and routers that should
  // have renewed themselves, those that cannot, and admins, who do only when they are used.
  TRY_ASSIGN(const auto ending,
             c.tx.expiring(c.now_ms / 1000, (c.now_ms + kWarnMs) / 1000, kWarnings));
  for (const auto& e : ending) {
    certificate(std::string(store::kind_name(e.kind)) + " " + e.name, e.not_after_s);
  }

  json::array list;
  for (const auto& r : routers) {
    const auto live = c.deps.live.router(r.id);
    list.push_back(json::object{{"id", r.id},
                                {"name", r.name},
                                {"online", live.online},
                                {"version", live.version},
                                {"terminators", live.terminators},
                                {"seen_at", time_text(live.seen_ms)}});
    if (!live.online) warnings.emplace_back("router " + r.name + " is not connected");
  }
  return json::object{{"network", network.id},
                      {"name", network.name},
                      {"url", c.deps.url},
                      {"software", SALLY_VERSION},
                      {"time", time_text(c.now_ms)},
                      {"version", head.version},
                      {"devices", devices},
                      {"services", services.size()},
                      {"routers", std::move(list)},
                      {"hosted", c.deps.live.hosts().size()},
                      {"certificates", std::move(certificates)},
                      {"warnings", std::move(warnings)}};
}

Result<json::value> audit(Call& c) {
  const auto before = query_value(c.request.query, "before");
  TRY_ASSIGN(const auto rows, c.tx.audit_rows(before ? parse_u64(*before).value_or(0) : 0,
                                              page_of(c.request).limit));
  json::array items;
  for (const auto& r : rows) {
    json::value detail = nullptr;
    if (!r.detail.empty()) {
      boost::system::error_code ec;
      detail = json::parse(r.detail, ec);
      if (ec) detail = r.detail;
    }
    items.push_back(json::object{{"seq", r.seq},
                                 {"at", time_text(r.at_ms)},
                                 {"actor", r.actor},
                                 {"action", r.action},
                                 {"subject", r.subject},
                                 {"detail", std::move(detail)},
                                 {"hash", to_hex(r.hash)}});
  }
  return json::object{{"items", std::move(items)}};
}

Result<json::value> verify(Call& c) {
  const auto rows = c.tx.verify_chains();
  if (rows) {
    // Rows cut off the end leave a shorter chain that is whole: who notes the head elsewhere sees
    // it.
    TRY_ASSIGN(const auto last, c.tx.audit_rows(0, 1));
    return json::object{{"ok", true},
                        {"rows", *rows},
                        {"seq", last.empty() ? 0 : last.front().seq},
                        {"head", last.empty() ? std::string() : to_hex(last.front().hash)}};
  }
  const Error& e = rows.error();
  if (!e.is(store::Errc::kAuditTampered) && !e.is(store::Errc::kLogTampered)) return fail(e);
  return json::object{{"ok", false}, {"code", e.code()}, {"where", e.context()}};
}

}  // namespace

std::vector<Route> network_routes() {
  return {
      {"GET", "/fleet/v1/status", false, status},
      {"GET", "/fleet/v1/audit", false, audit},
      {"GET", "/fleet/v1/audit/verify", false, verify},
  };
}

}  // namespace sally::api
