// SPDX-License-Identifier: Apache-2.0
// Status and audit.
#include "api/call.h"
#include "base/text.h"

namespace sally::api {
namespace {

constexpr std::int64_t kDayMs = 86'400'000;
constexpr std::int64_t kWarnMs = 90 * kDayMs;
constexpr std::uint64_t kWarnings = 100;

// As it is said to people: the days that are left, and what mends it.
std::string ends(const std::string& what, std::int64_t left_ms, std::string_view fix) {
  const std::int64_t days = left_ms / kDayMs;
  std::string text = what;
  if (left_ms <= 0) {
    text += " has ended";
  } else {
    text += " ends in " + std::to_string(days) + (days == 1 ? " day" : " days");
  }
  return fix.empty() ? text : text + ": " + std::string(fix);
}

std::string_view fix_of(store::Kind kind) {
  switch (kind) {
    case store::Kind::kDevice:
      return "sally cert renew NAME, or sally device token NAME where it never renews";
    case store::Kind::kRouter:
      return "see the router's log";
    case store::Kind::kAdmin:
      return "using it renews it; sally admin token NAME makes a new one";
    default:
      return "see the controller's log";
  }
}

/// The least of 7, 30, 90 days that the end lies within; 0 = it is over. For who filters.
std::int64_t window(std::int64_t left_ms) {
  if (left_ms <= 0) return 0;
  return left_ms <= 7 * kDayMs ? 7 : left_ms <= 30 * kDayMs ? 30 : 90;
}

Result<json::value> status(Call& c) {
  TRY_ASSIGN(const auto network, c.tx.network());
  TRY_ASSIGN(const auto head, c.tx.log_head());
  TRY_ASSIGN(const auto devices, c.tx.count_identities(store::Kind::kDevice));
  TRY_ASSIGN(const auto services, c.tx.services({1000, 0}));
  TRY_ASSIGN(const auto routers, c.tx.identities(store::Kind::kRouter, {1000, 0}));

  json::array certificates;
  json::array warnings;
  const auto certificate = [&](const std::string& what, std::int64_t not_after_s,
                               std::int64_t warn_ms, std::string_view fix) {
    const std::int64_t left = not_after_s * 1000 - c.now_ms;
    json::object o{{"what", what}, {"expires_at", time_text(not_after_s * 1000)}};
    if (left < warn_ms) {
      o["within_days"] = window(left);
      warnings.emplace_back(ends(what, left, fix));
    }
    certificates.push_back(std::move(o));
  };
  constexpr std::string_view kCaFix = "new CAs are not built: docs/pki.md";
  certificate("root", c.deps.authority->root().not_after(), kWarnMs, kCaFix);
  certificate("issuing CA devices", c.deps.authority->devices().not_after(), kWarnMs, kCaFix);
  certificate("issuing CA infrastructure", c.deps.authority->infrastructure().not_after(), kWarnMs,
              kCaFix);
  // These two renew themselves while a third of their life is left.
  certificate("controller", c.deps.rest()->leaf.not_after(), kWarnMs,
              fix_of(store::Kind::kController));
  certificate("signer", c.deps.signer_not_after_s(), 18 * kDayMs, fix_of(store::Kind::kSigner));

  // Whoever must do something before a date is named here: devices and routers that should
  // have renewed themselves, those that cannot, and admins, who do only when they are used.
  TRY_ASSIGN(const auto ending,
             c.tx.expiring(c.now_ms / 1000, (c.now_ms + kWarnMs) / 1000, kWarnings));
  for (const auto& e : ending) {
    if (e.kind == store::Kind::kController || e.kind == store::Kind::kSigner) continue;  // above
    certificate(std::string(store::kind_name(e.kind)) + " " + e.name, e.not_after_s, kWarnMs,
                fix_of(e.kind));
  }
  if (ending.size() == kWarnings)
    warnings.emplace_back("more certificates end soon: sally cert expiring");

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

// As the hashes cover them, so that whoever has them can check them.
Result<json::value> export_rows(Call& c) {
  const auto asked = query_value(c.request.query, "after");
  TRY_ASSIGN(const auto base, c.tx.audit_base());
  std::uint64_t after = asked ? parse_u64(*asked).value_or(0) : 0;
  store::Hash hash = base.hash;
  if (after > base.seq) {
    TRY_ASSIGN(const auto row, c.tx.audit_after(after - 1, 1));
    if (row.empty()) return fail(Errc::kUnknown, "no audit row " + std::to_string(after));
    hash = row.front().hash;
  } else {
    after = base.seq;
  }
  TRY_ASSIGN(const auto rows, c.tx.audit_after(after, page_of(c.request).limit));
  json::array items;
  for (const auto& r : rows)
    items.push_back(json::object{{"seq", r.seq},
                                 {"at_ms", r.at_ms},
                                 {"actor", r.actor},
                                 {"action", r.action},
                                 {"subject", r.subject},
                                 {"detail", r.detail},
                                 {"hash", to_hex(r.hash)}});
  return json::object{{"network", c.deps.network.str()},
                      {"after", after},
                      {"hash", to_hex(hash)},
                      {"items", std::move(items)}};
}

Result<json::value> prune(Call& c) {
  TRY_ASSIGN(const auto text, need_text(c.body, "before", 64));
  const auto before = parse_time(text);
  if (!before || *before > c.now_ms - kDayMs)
    return fail(Errc::kBadField, "before is a time (RFC 3339) at least a day ago");
  // What is not whole stays for whoever looks into it.
  TRY(c.tx.verify_chains());
  TRY_ASSIGN(const auto n, c.write->prune_audit(c.actor, *before));
  if (n == 0) TRY(c.audit("audit.prune_nothing", "", {{"before", text}}));
  TRY_ASSIGN(const auto base, c.tx.audit_base());
  return json::object{{"pruned", n}, {"through", base.seq}, {"hash", to_hex(base.hash)}};
}

Result<json::value> verify(Call& c) {
  const auto rows = c.tx.verify_chains();
  if (rows) {
    // Rows cut off the end leave a shorter chain that is whole: who notes the head elsewhere sees
    // it.
    TRY_ASSIGN(const auto last, c.tx.audit_rows(0, 1));
    TRY_ASSIGN(const auto base, c.tx.audit_base());
    const auto seq = last.empty() ? base.seq : last.front().seq;
    return json::object{{"ok", true},
                        {"rows", seq - base.seq},
                        {"after", base.seq},
                        {"seq", seq},
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
      {"GET", "/fleet/v1/audit/export", false, export_rows},
      {"POST", "/fleet/v1/audit/prune", true, prune},
  };
}

}  // namespace sally::api
