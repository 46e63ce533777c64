// SPDX-License-Identifier: Apache-2.0
// People who manage the network, and what was done to it.
#include "cli/commands.h"
#include "cli/enrolling.h"
#include "cli/errors.h"
#include "cli/fleet.h"

namespace sally::cli {
namespace json = boost::json;

Status admin_add(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.post("/fleet/v1/admins", json::object{{"name", name}}));
  return show_token(c, v.get_object(), Token::kAdmin);
}

Status admin_token(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v,
             fleet.post("/fleet/v1/tokens", json::object{{"kind", "admin"}, {"identity", name}}));
  return show_token(c, v.get_object(), Token::kAdmin);
}

Status admin_list(const Common& c) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto all, fleet.list("/fleet/v1/admins"));
  c.out.list(all, {{"NAME", "name"},
                   {"ENROLLED", "enrolled"},
                   {"CERTIFICATE UNTIL", "expires_at"},
                   {"ID", "id"},
                   {"CREATED", "created_at", true}});
  return {};
}

Status admin_remove(const Common& c, const std::string& name, bool yes) {
  return remove_from(c, "admins", "admin", name, yes);
}

Status login(const Common& c, const std::string& token, const std::string& dir_option) {
  const std::string dir = dir_option.empty() ? context_dir(c.context) : dir_option;
  TRY_ASSIGN(const auto identity, enroll_into(dir, "admin.json", token, crypto::Role::kAdmin));
  // The first use of a new certificate ends an older one of the same admin.
  if (const auto fleet = Fleet::open(dir)) (void)fleet->get("/fleet/v1/status");
  c.out.done("logged in to " + identity.network.str() + " as " + identity.name + "; context " + dir,
             {{"network", identity.network.str()}, {"name", identity.name}, {"dir", dir}});
  return {};
}

Status audit_list(const Common& c, std::uint64_t limit) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get("/fleet/v1/audit?limit=" + std::to_string(limit)));
  c.out.list(v.at("items").get_array(), {{"TIME", "at"},
                                         {"ACTOR", "actor"},
                                         {"ACTION", "action"},
                                         {"SUBJECT", "subject"},
                                         {"DETAIL", "detail"},
                                         {"SEQ", "seq", true}});
  return {};
}

Status audit_verify(const Common& c) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.get("/fleet/v1/audit/verify"));
  c.out.item(
      v.get_object(),
      {{"OK", "ok"}, {"ROWS", "rows"}, {"NEWEST", "seq"}, {"HEAD", "head"}, {"WHERE", "where"}});
  if (!is_true(v.get_object(), "ok"))
    return fail(Errc::kVerify, "the audit chain is broken at " + cell(v.get_object(), "where"));
  return {};
}

}  // namespace sally::cli
