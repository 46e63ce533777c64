// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace sally::agent {

/// Where a hosted service lives: the part of host.v1 that we serve today, one TCP address.
struct HostTarget {
  HostPort address;
  std::int64_t connect_ms = 5'000;
};

/// host.v1: {"protocol":"tcp","address":"127.0.0.1","port":1883}, optional
/// {"listenOptions":{"connectTimeoutSeconds":n}}. What asks for more than we do (forwarding of
/// addresses, UDP) is refused, never half served. kHostConfig names the member.
Result<HostTarget> parse_host_config(std::string_view json);

}  // namespace sally::agent
