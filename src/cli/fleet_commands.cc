// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <boost/json/serialize.hpp>
#include <cstdio>

#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/fleet.h"
#include "cli/qr.h"
#include "http/message.h"
#include "identity/enroll.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr char kWait[] = "?wait_ms=5000";

const std::vector<Column> kDevices{{"NAME", "name"},
                                   {"STANDING", "standing"},
                                   {"TAGS", "tags"},
                                   {"ENROLLED", "enrolled"},
                                   {"CERTIFICATE UNTIL", "expires_at"},
                                   {"ID", "id", true},
                                   {"CREATED", "created_at", true}};
const std::vector<Column> kServices{{"NAME", "name"}, {"ALLOW", "allow"},
                                    {"HOST", "host"}, {"HOSTED NOW", "hosted_by"},
                                    {"E2E", "e2e"},   {"ID", "id", true}};

std::string at(const std::string& collection, const std::string& name) {
  return "/fleet/v1/" + collection + "/" + http::percent_encode(name);
}

json::array selectors(const std::string& text) {
  json::array out;
  for (const auto part : split(text, ',')) {
    if (!trim(part).empty()) out.push_back(json::string(trim(part)));
  }
  return out;
}

// Destructive verbs ask a person, and want --yes from a program.
Status confirm(const std::string& what, bool yes) {
  if (yes) return {};
  if (::isatty(STDIN_FILENO) == 0)
    return fail(Errc::kUsage, what + " needs --yes when nobody can be asked", Source::kConfig);
  std::fprintf(stderr, "%s? [y/N] ", what.c_str());
  char answer[16] = {};
  if (std::fgets(answer, sizeof answer, stdin) == nullptr || (answer[0] != 'y' && answer[0] != 'Y'))
    return fail(Errc::kUsage, "not done", Source::kConfig);
  return {};
}

// "enforced by N of N routers, M flows cut, T ms"
std::string enforced(const json::object& o) {
  return "enforced by " + cell(o, "enforced.routers") + " of " + cell(o, "enforced.of") +
         " routers, " + cell(o, "enforced.flows_cut") + " flows cut, " +
         cell(o, "enforced.took_ms") + " ms";
}

Status remove(const Common& c, const std::string& collection, const std::string& kind,
              const std::string& name, bool yes) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY(confirm("Remove " + kind + " " + name + " and cut its connections", yes));
  TRY_ASSIGN(const auto v, fleet.remove(at(collection, name) + kWait));
  if (!c.out.for_people()) {
    c.out.item(v.get_object(), {});
  } else {
    c.out.say(kind + " " + name + " removed; " + enforced(v.get_object()));
  }
  return {};
}

Status change_grant(const Common& c, const std::string& verb, const std::string& selector,
                    const std::string& service) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.post("/fleet/v1/" + verb + std::string(kWait),
                                      json::object{{"service", service}, {"selector", selector}}));
  if (!c.out.for_people()) {
    c.out.item(v.get_object(), {});
    return {};
  }
  c.out.say(service + " may now be dialed by: " + cell(v.get_object(), "selectors") + "; " +
            enforced(v.get_object()));
  return {};
}

Result<json::object> new_device(const Fleet& fleet, const std::string& name,
                                const std::vector<std::string>& tags) {
  json::array list;
  for (const auto& tag : tags) {
    for (const auto part : split(tag, ',')) {
      const auto t = trim(part);
      list.push_back(json::string(t.starts_with('#') ? t.substr(1) : t));
    }
  }
  TRY_ASSIGN(auto v, fleet.post("/fleet/v1/devices",
                                json::object{{"name", name}, {"tags", std::move(list)}}));
  return std::move(v.get_object());
}

}  // namespace

Status device_add(const Common& c, const std::string& name, const std::vector<std::string>& tags,
                  bool qr) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto device, new_device(fleet, name, tags));
  if (!c.out.for_people()) {
    c.out.item(device, {});
    return {};
  }
  c.out.say(cell(device, "token"));
  if (qr) {
    TRY_ASSIGN(const auto code, qr_code(cell(device, "token")));
    std::fputs(code.c_str(), stderr);  // standard output stays the token alone
  }
  std::fprintf(stderr, "%s may enrol once until %s. On the device:\n  sally join TOKEN\n",
               cell(device, "name").c_str(), cell(device, "expires_at").c_str());
  return {};
}

Status device_list(const Common& c, const std::string& selector) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto all, fleet.list("/fleet/v1/devices"));
  json::array found;
  for (const auto& v : all) {
    const auto& o = v.get_object();
    bool match = selector.empty() || selector == "*" || cell(o, "name") == selector ||
                 cell(o, "id") == selector;
    if (selector.starts_with('#')) {
      for (const auto& tag : o.at("tags").get_array())
        match = match || tag.get_string() == selector.substr(1);
    }
    if (match) found.push_back(v);
  }
  c.out.list(found, kDevices);
  return {};
}

Status device_show(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get(at("devices", name)));
  auto lines = kDevices;
  for (auto& l : lines) l.wide = false;
  c.out.item(v.get_object(), lines);
  if (!c.out.for_people()) return {};
  if (const auto* certificates = v.get_object().if_contains("certificates");
      certificates != nullptr && certificates->is_array()) {
    c.out.list(certificates->get_array(), {{"SERIAL", "serial"},
                                           {"PROFILE", "profile"},
                                           {"ISSUED", "issued_at"},
                                           {"UNTIL", "expires_at"},
                                           {"REVOKED", "revoked_at"}});
  }
  return {};
}

Status device_remove(const Common& c, const std::string& name, bool yes) {
  return remove(c, "devices", "device", name, yes);
}
Status service_remove(const Common& c, const std::string& name, bool yes) {
  return remove(c, "services", "service", name, yes);
}

Status router_list(const Common& c) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto all, fleet.list("/fleet/v1/routers"));
  c.out.list(all, {{"NAME", "name"},
                   {"ONLINE", "online"},
                   {"ADDRESSES", "addresses"},
                   {"HOSTED HERE", "terminators"},
                   {"CERTIFICATE UNTIL", "expires_at"},
                   {"SEEN", "seen_at", true},
                   {"ID", "id", true}});
  return {};
}

Status service_list(const Common& c) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto all, fleet.list("/fleet/v1/services"));
  c.out.list(all, kServices);
  return {};
}

Status service_show(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get(at("services", name)));
  auto lines = kServices;
  for (auto& l : lines) l.wide = false;
  c.out.item(v.get_object(), lines);
  if (!c.out.for_people()) return {};
  if (const auto* hosts = v.get_object().if_contains("hosted_by");
      hosts != nullptr && hosts->is_array() && !hosts->get_array().empty()) {
    c.out.list(hosts->get_array(),
               {{"HOSTED BY", "device"}, {"AT ROUTER", "router"}, {"SINCE", "since"}});
  }
  return {};
}

Status service_add(const Common& c, const ServiceOptions& o) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v,
             fleet.post("/fleet/v1/services", json::object{{"name", o.name},
                                                           {"host", selectors(o.host)},
                                                           {"allow", selectors(o.allow)},
                                                           {"e2e", o.e2e}}));
  c.out.item(v.get_object(), kServices);
  return {};
}

Status expose(const Common& c, const ServiceOptions& o) {
  const auto address = parse_host_port(o.address);
  if (!address)
    return fail(Errc::kUsage, "\"" + o.address + "\" is not HOST:PORT", Source::kConfig);
  const std::string context = context_dir(c.context);
  TRY_ASSIGN(const auto fleet, Fleet::open(context));
  std::string host = o.host;
  if (host.empty()) {
    // This machine's own agent; it joins here and now when it has not yet. `sally up` starts it as
    // soon as its identity is there.
    const std::string dir = o.dir.empty() ? context + "/agent" : o.dir;
    const std::string file = dir + "/identity.json";
    if (fs::exists(file)) {
      TRY_ASSIGN(const auto identity, identity::load(file));
      host = identity.name;
    } else {
      char name[256] = {};
      ::gethostname(name, sizeof name - 1);
      host = valid_name(name) ? name : "this-machine";
      TRY_ASSIGN(const auto device, new_device(fleet, host, {}));
      TRY_ASSIGN(const auto identity, identity::blocking_enroll(cell(device, "token")));
      TRY(fs::make_dirs(dir));
      TRY(identity::save(identity, file));
      std::fprintf(stderr, "joined this machine as device %s\n", host.c_str());
      // A supervisor of this context starts the agent within a moment; without one it is started
      // here.
      if (!wait_until([&] { return ask_agent(dir, {{"request", "status"}}).has_value(); }, 3'000)) {
        TRY(spawn_detached({sibling("sally"), "supervise", "--dir", dir}, dir + "/supervisor.log"));
      }
    }
  }
  TRY_ASSIGN(const auto v, fleet.post(std::string("/fleet/v1/expose") + kWait,
                                      json::object{{"name", o.name},
                                                   {"address", address->str()},
                                                   {"host", selectors(host)},
                                                   {"allow", selectors(o.allow)},
                                                   {"e2e", o.e2e}}));
  if (!c.out.for_people()) {
    c.out.item(v.get_object(), {});
    return {};
  }
  c.out.say("service " + o.name + ": " + address->str() + " at " + host + ", for " +
            (o.allow.empty() ? std::string("nobody yet (sally allow)") : o.allow));
  return {};
}

Status allow(const Common& c, const std::string& selector, const std::string& service) {
  return change_grant(c, "grants", selector, service);
}
Status deny(const Common& c, const std::string& selector, const std::string& service) {
  return change_grant(c, "deny", selector, service);
}

}  // namespace sally::cli
