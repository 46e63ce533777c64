// SPDX-License-Identifier: Apache-2.0
// People who manage the network.
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

}  // namespace sally::cli
