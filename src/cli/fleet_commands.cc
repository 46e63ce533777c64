// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <boost/json/serialize.hpp>
#include <cstdio>

#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/enrolling.h"
#include "cli/errors.h"
#include "cli/fleet.h"
#include "cli/qr.h"
#include "http/message.h"
#include "identity/identity.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

const std::vector<Column> device_columns{{"NAME", "name"},
                                         {"STANDING", "standing"},
                                         {"TAGS", "tags"},
                                         {"ENROLLED", "enrolled"},
                                         {"CERTIFICATE UNTIL", "expires_at"},
                                         {"BATCH", "batch", true},
                                         {"ID", "id", true},
                                         {"CREATED", "created_at", true}};
const std::vector<Column> service_columns{{"NAME", "name"}, {"ALLOW", "allow"},
                                          {"HOST", "host"}, {"HOSTED NOW", "hosted_by"},
                                          {"E2E", "e2e"},   {"ID", "id", true}};

json::array selectors(const std::string& text) {
  json::array out;
  for (const auto part : split(text, ',')) {
    if (!trim(part).empty()) out.push_back(json::string(trim(part)));
  }
  return out;
}

Status change_grant(const Common& c, const std::string& verb, const std::string& selector,
                    const std::string& service) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.post("/fleet/v1/" + verb + std::string(kWait),
                                      json::object{{"service", service}, {"selector", selector}}));
  const std::string now = cell(v.get_object(), "selectors");
  c.out.done(service + " may now be dialed by " + (now == "-" ? "nobody" : now) + "; " +
                 enforced(v.get_object()),
             v.get_object());
  return verb == "deny" ? confirmed(v.get_object()) : Status();
}

json::array tag_list(const std::vector<std::string>& tags) {
  json::array list;
  for (const auto& tag : tags) {
    for (const auto part : split(tag, ',')) {
      const auto t = trim(part);
      if (!t.empty()) list.push_back(json::string(t.starts_with('#') ? t.substr(1) : t));
    }
  }
  return list;
}

Result<json::object> new_device(const Fleet& fleet, const std::string& name,
                                const std::vector<std::string>& tags,
                                const std::string& batch = {}) {
  json::object body{{"name", name}, {"tags", tag_list(tags)}};
  if (!batch.empty()) body["batch"] = batch;
  TRY_ASSIGN(auto v, fleet.post("/fleet/v1/devices", body));
  return std::move(v.get_object());
}

// Takes back what was made for a device that could not be finished; who is told of the failure has
// nothing to clean.
void take_back(const Fleet& fleet, const std::string& device, const std::string& service) {
  if (!service.empty()) (void)fleet.remove(at("services", service));
  (void)fleet.remove(at("devices", device));
}

}  // namespace

std::string at(const std::string& collection, const std::string& name) {
  return "/fleet/v1/" + collection + "/" + http::percent_encode(name);
}

Status confirm(const std::string& what, bool yes) {
  if (yes) return {};
  if (::isatty(STDIN_FILENO) == 0)
    return fail(Errc::kUsage, what + " needs --yes when nobody can be asked", Source::kConfig);
  std::fprintf(stderr, "%s? [y/N] ", what.c_str());
  char answer[16] = {};
  if (std::fgets(answer, sizeof answer, stdin) == nullptr || (answer[0] != 'y' && answer[0] != 'Y'))
    return fail(Errc::kFailed, "not done", Source::kConfig);
  return {};
}

std::string enforced(const json::object& o) {
  return "enforced by " + cell(o, "enforced.routers") + " of " + cell(o, "enforced.of") +
         " routers, " + cell(o, "enforced.flows_cut") + " flows cut, " +
         cell(o, "enforced.took_ms") + " ms";
}

Status confirmed(const json::object& o) {
  if (cell(o, "enforced.routers") == cell(o, "enforced.of")) return {};
  return fail(Errc::kUnreachable,
              "stored, but only " + cell(o, "enforced.routers") + " of " + cell(o, "enforced.of") +
                  " routers have confirmed it: flows through the others go on until they hear of it"
                  "\nsally router list shows which one is off line",
              Source::kPeer, true);
}

Status show_token(const Common& c, const json::object& made, Token of, bool qr) {
  if (!c.out.for_people()) {
    c.out.item(made, {});
    return {};
  }
  c.out.say(cell(made, "token"));
  if (qr) {
    TRY_ASSIGN(const auto code, qr_code(text_of(made, "token")));
    std::fputs(code.c_str(), stderr);  // standard output stays the token alone
  }
  const bool device = of == Token::kDevice;
  std::fprintf(stderr, "%s may %s once until %s. %s:\n  sally %s TOKEN\n",
               cell(made, "name").c_str(), device ? "enrol" : "log in",
               cell(made, "expires_at").c_str(), device ? "On the device" : "On the other machine",
               device ? "join" : "login");
  return {};
}

Status device_add(const Common& c, const std::string& name, const std::vector<std::string>& tags,
                  const std::string& batch, bool qr) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto device, new_device(fleet, name, tags, batch));
  return show_token(c, device, Token::kDevice, qr);
}

Status device_token(const Common& c, const std::string& name, bool qr) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.post("/fleet/v1/tokens", json::object{{"identity", name}}));
  return show_token(c, v.get_object(), Token::kDevice, qr);
}

Status device_list(const Common& c, const std::string& selector) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto all, fleet.list("/fleet/v1/devices"));
  json::array found;
  for (const auto& v : all) {
    const auto& o = v.get_object();
    bool match = selector.empty() || selector == "*" || text_of(o, "name") == selector ||
                 text_of(o, "id") == selector;
    if (selector.starts_with('#')) {
      for (const auto& tag : o.at("tags").get_array())
        match = match || tag.get_string() == selector.substr(1);
    }
    if (match) found.push_back(v);
  }
  c.out.list(found, device_columns);
  return {};
}

Status device_show(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get(at("devices", name)));
  auto lines = device_columns;
  for (auto& l : lines) l.wide = false;
  c.out.item(v.get_object(), lines);
  if (!c.out.for_people()) return {};
  if (const auto* certificates = v.get_object().if_contains("certificates");
      certificates != nullptr && certificates->is_array() && !certificates->get_array().empty()) {
    c.out.list(certificates->get_array(), {{"SERIAL", "serial"},
                                           {"PROFILE", "profile"},
                                           {"ISSUED", "issued_at"},
                                           {"UNTIL", "expires_at"},
                                           {"REVOKED", "revoked_at"},
                                           {"REASON", "reason"}});
  }
  return {};
}

Status remove_from(const Common& c, const std::string& collection, const std::string& kind,
                   const std::string& name, bool yes) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY(fleet.get(at(collection, name)));  // nobody is asked about what is not there
  TRY(confirm("Remove " + kind + " " + name + " and cut its connections", yes));
  TRY_ASSIGN(const auto v, fleet.remove(at(collection, name) + kWait));
  c.out.done(kind + " " + name + " removed; " + enforced(v.get_object()), v.get_object());
  return confirmed(v.get_object());
}

Status device_remove(const Common& c, const std::string& name, bool yes) {
  return remove_from(c, "devices", "device", name, yes);
}
Status service_remove(const Common& c, const std::string& name, bool yes) {
  return remove_from(c, "services", "service", name, yes);
}

Status device_tag(const Common& c, const std::string& name, const std::vector<std::string>& tags) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.put(at("devices", name) + "/tags" + kWait,
                                     json::object{{"tags", tag_list(tags)}}));
  c.out.done(
      name + " has the tags " + cell(v.get_object(), "tags") + "; " + enforced(v.get_object()),
      v.get_object());
  return confirmed(v.get_object());
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
  c.out.list(all, service_columns);
  return {};
}

Status service_show(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get(at("services", name)));
  auto lines = service_columns;
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
  c.out.item(v.get_object(), service_columns);
  return {};
}

Status expose(const Common& c, const ServiceOptions& o) {
  const auto address = parse_host_port(o.address);
  if (!address)
    return fail(Errc::kUsage, "\"" + o.address + "\" is not HOST:PORT", Source::kConfig);
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  std::string host = o.host;
  // Without --host this machine's own agent hosts it, which joins here when it has not yet: after
  // the service is there. What is refused on the way takes back what was made.
  const std::string dir = device_dir(o.dir, c.context);
  std::string new_token;
  if (host.empty()) {
    if (fs::exists(dir + "/" + kIdentityFile)) {
      TRY_ASSIGN(const auto identity,
                 identity::load(dir + "/" + kIdentityFile, identity::Files::kLeaveHardware));
      host = identity.name;
    } else {
      char name[256] = {};
      ::gethostname(name, sizeof name - 1);
      host = valid_name(name) ? name : "this-machine";
      const auto device = new_device(fleet, host, {});
      if (!device && device.error().code() == "api.taken")
        return fail(
            Errc::kConflict,
            "another device has the name of this machine, " + host +
                "\nmake this one a device of another name (sally device add NAME, sally join "
                "TOKEN --dir " +
                dir + "), or name a host with --host",
            Source::kConfig);
      TRY(device);
      new_token = text_of(*device, "token");
    }
  }
  const auto v = fleet.post(std::string("/fleet/v1/expose") + kWait,
                            json::object{{"name", o.name},
                                         {"address", address->str()},
                                         {"host", selectors(host)},
                                         {"allow", selectors(o.allow)},
                                         {"e2e", o.e2e}});
  if (!new_token.empty()) {
    const auto joined = v ? enroll_into(dir, kIdentityFile, new_token, crypto::Role::kDevice)
                          : Result<identity::Identity>(fail(v.error()));
    if (!joined) {
      take_back(fleet, host, v ? o.name : "");
      return fail(joined.error());
    }
    std::fprintf(stderr, "this machine is device %s\n", host.c_str());
    if (const auto up = start_agent(dir); !up)
      std::fprintf(stderr, "sally: warning: %s\n", to_failure(up.error()).message.c_str());
  }
  if (!v) return fail(v.error());
  if (!c.out.for_people()) {
    c.out.item(v->get_object(), {});
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
