// SPDX-License-Identifier: Apache-2.0
#include "identity/identity.h"
#include "sdk/core.h"

namespace sally::sdk {

Result<Material> load_material(const std::string& path) {
  auto identity = identity::load(path);
  if (!identity) {
    return fail(Errc::kIdentity, path + ": " + identity.error().text(), Source::kConfig);
  }
  if (identity->role != crypto::Role::kDevice) {
    return fail(Errc::kIdentity,
                path + ": an identity of role " + std::string(crypto::role_name(identity->role)) +
                    ", not of a device. Make one with `sally join TOKEN`",
                Source::kConfig);
  }
  Material m{
      .network = identity->network.str(),
      .id = identity->id,
      .name = identity->name,
      .chain = identity->chain,
      .key = identity->key,
      .anchors = {.network = identity->network.str(),
                  .roots = identity->anchors,
                  .issuing = identity->issuing},
      .routers = {},
      .card = identity->card,
      .keep =
          [path](const identity::Credential& fresh) { return identity::keep_in_file(path, fresh); },
      .kept = [path] { return identity::kept_in_file(path); },
      .controller = identity->controller,
      .time_floor_ms = identity->time_floor_ms(),
      .keep_time = [path](std::int64_t ms) { return identity::keep_time_in_file(path, ms); }};
  for (const auto& text : identity->routers) {
    if (const auto address = parse_host_port(text)) m.routers.push_back(*address);
  }
  if (m.routers.empty()) {
    return fail(Errc::kIdentity, path + ": names no router (sally.routers)", Source::kConfig);
  }
  return m;
}

}  // namespace sally::sdk
