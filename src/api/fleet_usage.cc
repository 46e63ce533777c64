// SPDX-License-Identifier: Apache-2.0
// What flowed and what flows.
#include <algorithm>
#include <map>

#include "api/call.h"
#include "base/text.h"

namespace sally::api {
namespace {

constexpr std::int64_t kDayMs = 86'400'000;
constexpr std::uint32_t kMaxDay = 100'000;  // the year 2243

/// "2026-01-31" as a day; what is no date is refused.
Result<std::uint32_t> day_of(const Call& c, std::string_view name, std::int64_t otherwise) {
  const auto text = query_value(c.request.query, name);
  if (!text) return static_cast<std::uint32_t>(otherwise);
  const auto ms = text->size() == 10 ? parse_time(*text + "T00:00:00Z") : std::nullopt;
  if (!ms || *ms < 0 || *ms / kDayMs > kMaxDay)
    return fail(Errc::kBadField, std::string(name) + " must be a date: 2026-01-31");
  return static_cast<std::uint32_t>(*ms / kDayMs);
}

std::string date_text(std::uint32_t day) {
  return format_time(std::int64_t{day} * kDayMs).substr(0, 10);
}

std::string device_name(const Call& c, const std::string& id) {
  if (id.empty()) return "other";
  const auto device = c.tx.identity(id);
  return device && *device ? (*device)->name : id;
}
std::string service_name(const Call& c, const std::string& id) {
  if (id.empty()) return "other";
  const auto service = c.tx.service(id);
  return service && *service ? (*service)->name : id;
}

Result<json::value> usage(Call& c) {
  store::UsageQuery q;
  const std::int64_t today = c.now_ms / kDayMs;
  TRY_ASSIGN(q.from, day_of(c, "from", std::max<std::int64_t>(0, today - 30)));
  TRY_ASSIGN(q.to, day_of(c, "to", today + 1));
  // What is removed was used once: its id still finds it.
  if (const auto ref = query_value(c.request.query, "device"); ref && !ref->empty()) {
    TRY_ASSIGN(const auto named, c.tx.identity_named(store::Kind::kDevice, *ref));
    TRY_ASSIGN(const auto by_id, c.tx.identity(*ref));
    if (!named && !by_id) return fail(Errc::kUnknown, "no device '" + *ref + "'");
    q.device = named ? named->id : by_id->id;
  }
  if (const auto ref = query_value(c.request.query, "service"); ref && !ref->empty()) {
    TRY_ASSIGN(const auto named, c.tx.service_named(*ref));
    q.service = named ? named->id : *ref;
  }
  if (const auto by = query_value(c.request.query, "by")) {
    if (*by != "day") return fail(Errc::kBadField, "by must be day");
    q.by_day = *by == "day";
  }
  TRY_ASSIGN(const auto rows, c.tx.usage(q, page_of(c.request)));
  json::array items;
  for (const auto& u : rows) {
    json::object o{{"device", u.device},     {"device_name", device_name(c, u.device)},
                   {"service", u.service},   {"service_name", service_name(c, u.service)},
                   {"sent", u.sent},         {"received", u.received},
                   {"circuits", u.circuits}, {"open_ms", u.open_ms}};
    if (q.by_day) o["day"] = date_text(u.day);
    items.push_back(std::move(o));
  }
  return json::object{
      {"from", date_text(q.from)}, {"to", date_text(q.to)}, {"items", std::move(items)}};
}

struct Rate {
  double sent = 0;
  double received = 0;
};

json::array top(const std::map<std::string, Rate>& rates, std::size_t limit,
                const std::function<std::string(const std::string&)>& name) {
  std::vector<std::pair<std::string, Rate>> order(rates.begin(), rates.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.second.sent + a.second.received > b.second.sent + b.second.received;
  });
  if (order.size() > limit) order.resize(limit);
  json::array out;
  for (const auto& [id, rate] : order)
    out.push_back(json::object{{"id", id},
                               {"name", name(id)},
                               {"sent_per_s", rate.sent},
                               {"received_per_s", rate.received}});
  return out;
}

Result<json::value> live(Call& c) {
  const auto load = c.deps.live.traffic();
  TRY_ASSIGN(const auto rows, c.tx.identities(store::Kind::kRouter, {1000, 0}));
  json::array routers;
  for (const auto& r : rows) {
    const auto state = c.deps.live.router(r.id);
    json::object o{{"id", r.id},
                   {"name", r.name},
                   {"online", state.online},
                   {"terminators", state.terminators}};
    const auto at = std::find_if(load.routers.begin(), load.routers.end(),
                                 [&](const Live::RouterLoad& l) { return l.router == r.id; });
    if (at != load.routers.end() && state.online) {
      o["lanes"] = at->lanes;
      o["circuits"] = at->circuits;
      o["in_per_s"] = at->in_per_s;
      o["out_per_s"] = at->out_per_s;
      o["cpu"] = at->cpu;
      o["rss_bytes"] = at->rss_bytes;
      o["at"] = time_text(at->at_ms);
    }
    routers.push_back(std::move(o));
  }
  std::map<std::string, Rate> devices;
  std::map<std::string, Rate> services;
  for (const auto& f : load.flows) {
    for (Rate* r : {&devices[f.device], &services[f.service]}) {
      r->sent += f.sent_per_s;
      r->received += f.received_per_s;
    }
  }
  const std::size_t limit = std::min<std::size_t>(page_of(c.request).limit, 100);
  return json::object{
      {"time", time_text(c.now_ms)},
      {"routers", std::move(routers)},
      {"devices", top(devices, limit, [&](const std::string& id) { return device_name(c, id); })},
      {"services",
       top(services, limit, [&](const std::string& id) { return service_name(c, id); })}};
}

}  // namespace

std::vector<Route> usage_routes() {
  return {
      {"GET", "/fleet/v1/usage", false, usage},
      {"GET", "/fleet/v1/live", false, live},
  };
}

}  // namespace sally::api
