// SPDX-License-Identifier: Apache-2.0
// Certificates: what there is, what ends, and renewing one now.
#include <algorithm>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/errors.h"
#include "cli/fleet.h"
#include "http/message.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr std::int64_t kRenewWaitMs = 20'000;

const std::vector<Column> columns{{"NAME", "name"},
                                  {"PROFILE", "profile"},
                                  {"STATE", "state"},
                                  {"UNTIL", "expires_at"},
                                  {"DAYS", "days_left"},
                                  {"SERIAL", "serial"},
                                  {"ISSUED", "issued_at", true},
                                  {"USED", "used_at", true},
                                  {"KEY", "key", true},
                                  {"ID", "identity", true}};

std::string query(const std::string& name, const std::string& of) {
  return name + "=" + http::percent_encode(of);
}

// The certificate that followed `before`, once its owner has told that it is in use; null until
// then.
Result<json::value> in_use_after(const Fleet& fleet, const std::string& id,
                                 const std::string& before) {
  TRY_ASSIGN(auto all, fleet.list("/fleet/v1/certificates?" + query("identity", id)));
  for (auto& c : all) {
    const auto& o = c.get_object();
    if (text_of(o, "serial") != before && !text_of(o, "used_at").empty()) return std::move(c);
  }
  return json::value(nullptr);
}

// By its serial, or the newest of whoever has the name.
Result<json::value> find(const Fleet& fleet, const std::string& which) {
  const std::string one = "/fleet/v1/certificates/";
  auto found = fleet.get(one + http::percent_encode(which));
  if (found || exit_of(found.error().code()) != kNotFound) return found;
  TRY_ASSIGN(const auto theirs,
             fleet.list("/fleet/v1/certificates?all=1&" + query("identity", which)));
  const auto newest = std::ranges::max_element(
      theirs, {}, [](const json::value& c) { return text_of(c.get_object(), "issued_at"); });
  if (newest == theirs.end())
    return fail(Errc::kNotFound,
                "no certificate with that serial, and nobody with that name: " + which +
                    "\nlist them: sally cert list",
                Source::kConfig);
  return fleet.get(one + text_of(newest->get_object(), "serial"));
}

}  // namespace

Status cert_list(const Common& c, const CertOptions& o) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  std::string path = "/fleet/v1/certificates?";
  if (!o.of.empty()) path += query("identity", o.of) + "&";
  if (o.all) path += "all=1&";
  if (o.within_s > 0) path += "ends_within_s=" + std::to_string(o.within_s) + "&";
  path.pop_back();
  TRY_ASSIGN(const auto all, fleet.list(path));
  c.out.list(all, columns);
  return {};
}

Status cert_show(const Common& c, const std::string& which) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, find(fleet, which));
  c.out.item(v.get_object(), {{"SERIAL", "serial"},
                              {"OF", "name"},
                              {"ID", "identity"},
                              {"PROFILE", "profile"},
                              {"STATE", "state"},
                              {"FROM", "not_before"},
                              {"UNTIL", "expires_at"},
                              {"ISSUED", "issued_at"},
                              {"FIRST USED", "used_at"},
                              {"REVOKED", "revoked_at"},
                              {"KEY SHA-256", "key"}});
  if (c.out.for_people()) c.out.say(text_of(v.get_object(), "pem"));
  return {};
}

Status cert_renew(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  const std::string of = "/" + http::percent_encode(name) + "/renew";
  auto asked = fleet.post("/fleet/v1/devices" + of, json::object());
  if (!asked && exit_of(asked.error().code()) == kNotFound)
    asked = fleet.post("/fleet/v1/routers" + of, json::object());
  if (!asked && exit_of(asked.error().code()) == kNotFound)
    return fail(Errc::kNotFound,
                "no device or router '" + name + "'\nlist what there is: sally device|router list");
  if (!asked) return fail(asked.error());
  const std::string id = text_of(asked->get_object(), "id");
  const std::string before = text_of(asked->get_object(), "serial");
  json::object fresh;
  std::optional<Error> wrong;
  const bool renewed = wait_until(
      [&] {
        auto now = in_use_after(fleet, id, before);
        if (!now) {
          wrong = now.error();
          return true;
        }
        if (!now->is_object()) return false;
        fresh = std::move(now->get_object());
        return true;
      },
      kRenewWaitMs);
  if (wrong) return fail(std::move(*wrong));
  if (!renewed)
    return fail(Errc::kUnreachable,
                name +
                    " was asked and has not renewed: it is off line, its client cannot, or it did "
                    "so less than a minute ago"
                    "\na device whose certificate has ended needs: sally device token " +
                    name,
                Source::kPeer, true);
  c.out.done(name + " has a new certificate, " + text_of(fresh, "serial") + ", until " +
                 cell(fresh, "expires_at"),
             fresh);
  return {};
}

}  // namespace sally::cli
