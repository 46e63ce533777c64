// SPDX-License-Identifier: Apache-2.0
#include "agent/host_config.h"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include "agent/errors.h"

namespace sally::agent {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kHostConfig:
      return "agent.host_config";
    case Errc::kForward:
      return "agent.forward";
    case Errc::kNoForward:
      return "agent.no_forward";
    case Errc::kRefused:
      return "agent.refused";
    case Errc::kNoService:
      return "agent.no_service";
    case Errc::kRunning:
      return "agent.running";
    case Errc::kState:
      return "agent.state";
    case Errc::kRequest:
      return "agent.request";
    case Errc::kSdk:
      return "agent.sdk";
  }
  return "agent.unknown";
}

Result<HostTarget> parse_host_config(std::string_view json) {
  const auto bad = [](std::string what) {
    return fail(Errc::kHostConfig, "host.v1: " + std::move(what), Source::kConfig);
  };
  boost::system::error_code ec;
  boost::json::parse_options options;
  options.max_depth = 8;
  const auto parsed = boost::json::parse({json.data(), json.size()}, ec, {}, options);
  if (ec || !parsed.is_object()) return bad("not a JSON object");
  const auto& o = parsed.get_object();
  for (const char* member : {"forwardProtocol", "forwardAddress", "forwardPort"}) {
    if (const auto* v = o.if_contains(member); v != nullptr && !(v->is_bool() && !v->get_bool()))
      return bad(std::string(member) + " is not served yet");
  }
  const auto* protocol = o.if_contains("protocol");
  if (protocol == nullptr || !protocol->is_string() || protocol->get_string() != "tcp")
    return bad("protocol must be \"tcp\"");
  const auto* address = o.if_contains("address");
  if (address == nullptr || !address->is_string() || address->get_string().empty() ||
      address->get_string().size() > 253)
    return bad("address must be a host name or IP");
  const auto* port = o.if_contains("port");
  const auto number = [](const boost::json::value& v) -> std::int64_t {
    return v.is_int64() ? v.get_int64() : -1;
  };
  if (port == nullptr || number(*port) < 1 || number(*port) > 65'535)
    return bad("port must be 1 to 65535");
  HostTarget target;
  target.address.host = std::string(address->get_string());
  target.address.port = static_cast<std::uint16_t>(number(*port));
  if (!printable_utf8(target.address.host)) return bad("address must be a host name or IP");
  if (const auto* listen = o.if_contains("listenOptions");
      listen != nullptr && listen->is_object()) {
    if (const auto* seconds = listen->get_object().if_contains("connectTimeoutSeconds");
        seconds != nullptr) {
      if (number(*seconds) < 1 || number(*seconds) > 60)
        return bad("connectTimeoutSeconds must be 1 to 60");
      target.connect_ms = number(*seconds) * 1'000;
    }
  }
  return target;
}

}  // namespace sally::agent
