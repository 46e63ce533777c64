// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/enrolling.h"
#include "cli/errors.h"
#include "cli/fleet.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

// One of 30 days is renewed before less than this is left.
constexpr std::int64_t kWarnDays = 6;

void list_of(const Common& c, const json::object& of, const char* member,
             const std::vector<Column>& columns) {
  const auto* list = of.if_contains(member);
  if (list != nullptr && list->is_array() && !list->get_array().empty())
    c.out.list(list->get_array(), columns);
}

void show_network(const Common& c, const json::object& n) {
  if (n.contains("error")) return c.out.item(n, {{"NETWORK", "error"}});
  c.out.item(n, {{"NETWORK", "network"},
                 {"URL", "url"},
                 {"DEVICES", "devices"},
                 {"SERVICES", "services"},
                 {"HOSTED NOW", "hosted"},
                 {"CHANGES", "version"}});
  list_of(c, n, "routers",
          {{"ROUTER", "name"}, {"ONLINE", "online"}, {"HOSTED HERE", "terminators"}, {"ID", "id"}});
  list_of(c, n, "certificates", {{"CERTIFICATE", "what"}, {"UNTIL", "expires_at"}});
  if (const auto* warnings = n.if_contains("warnings");
      warnings != nullptr && warnings->is_array()) {
    for (const auto& w : warnings->get_array())
      c.out.say("warning: " + cell(json::object{{"w", w}}, "w"));
  }
}

void show_agent(const Common& c, const json::object& a) {
  if (a.contains("error")) return c.out.item(a, {{"AGENT", "error"}});
  c.out.item(a, {{"DEVICE", "name"},
                 {"ONLINE", "online"},
                 {"ROUTER", "router"},
                 {"SINCE", "since"},
                 {"CERTIFICATE UNTIL", "certificate_expires"},
                 {"STREAMS", "streams"},
                 {"LAST ERROR", "last_error"}});
  list_of(c, a, "hosts",
          {{"HOSTS", "service"},
           {"TARGET", "target"},
           {"BOUND", "bound"},
           {"TARGET ANSWERS", "target_ok"},
           {"WHY NOT", "why"}});
  list_of(c, a, "forwards",
          {{"FORWARD", "listen"},
           {"TO", "service"},
           {"CONNECTIONS", "connections"},
           {"FAILED", "failures"},
           {"LAST ERROR", "last_error"}});
  const auto expires = parse_time(text_of(a, "certificate_expires"));
  if (!expires) return;
  const std::int64_t days = (*expires - system_clock().unix_ms()) / 86'400'000;
  if (days < kWarnDays)
    c.out.say("warning: this device's certificate ends in " + std::to_string(days) +
              " days and was not renewed: see agent.log. A new one: sally device token " +
              cell(a, "name") + ", then sally join TOKEN here");
}

}  // namespace

Status network_status(const Common& c, const std::string& dir_option) {
  const std::string dir = dir_option.empty() ? context_dir(c.context) : dir_option;
  json::object all;
  std::optional<Error> wrong;
  // What cannot be asked is part of the answer; the exit code is that of the first.
  const auto take = [&](const char* part, Result<json::object> status) {
    if (status) {
      all[part] = std::move(*status);
    } else {
      all[part] = json::object{{"error", to_failure(status.error()).message}};
      if (!wrong) wrong = std::move(status).error();
    }
  };
  if (fs::exists(dir + "/admin.json")) {
    take("network", [&]() -> Result<json::object> {
      TRY_ASSIGN(const auto fleet, Fleet::open(dir));
      TRY_ASSIGN(auto status, fleet.get("/fleet/v1/status"));
      return std::move(status.get_object());
    }());
  }
  const std::string agent = device_dir({}, dir);
  if (fs::exists(agent + "/" + kIdentityFile)) {
    take("agent", ask_agent(agent, {{"request", "status"}}));
    const auto& a = all.at("agent").get_object();
    if (!wrong && is_true(a, "refused")) wrong = refused_device();
    if (!wrong && !is_true(a, "online"))
      wrong = Error(Errc::kUnreachable, "this device reaches no router: " + cell(a, "last_error"));
  }
  if (all.empty())
    return fail(Errc::kNoContext,
                "neither a network nor a device in " + dir +
                    "\nname another folder with --dir, or start with `sally up` or `sally join "
                    "TOKEN`",
                Source::kConfig);
  if (!c.out.for_people()) {
    c.out.item(all, {});
  } else {
    if (const auto* n = all.if_contains("network"); n != nullptr) show_network(c, n->get_object());
    if (const auto* a = all.if_contains("agent"); a != nullptr) show_agent(c, a->get_object());
  }
  if (wrong) return fail(std::move(*wrong));
  return {};
}

}  // namespace sally::cli
