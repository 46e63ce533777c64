// SPDX-License-Identifier: Apache-2.0
// Ziti SDKs that are logged in at the client API.
#include "cli/commands.h"
#include "cli/fleet.h"
#include "http/message.h"

namespace sally::cli {

Status session_list(const Common& c, const std::string& name) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  std::string path = "/fleet/v1/sessions";
  if (!name.empty()) path += "?device=" + http::percent_encode(name);
  TRY_ASSIGN(const auto all, fleet.list(path));
  c.out.list(all, {{"NAME", "name"},
                   {"FROM", "address"},
                   {"SINCE", "created_at"},
                   {"LAST USE", "active_at"},
                   {"UNTIL", "expires_at", true},
                   {"ID", "id"},
                   {"DEVICE", "identity", true}});
  return {};
}

Status session_end(const Common& c, const std::string& id) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.remove("/fleet/v1/sessions/" + http::percent_encode(id)));
  c.out.done("session " + id + " has ended", v.get_object());
  return {};
}

}  // namespace sally::cli
