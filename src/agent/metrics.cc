// SPDX-License-Identifier: Apache-2.0
// The agent's figures in the Prometheus text format: docs/metrics.md.
#include <map>
#include <utility>

#include "agent/agent.h"
#include "base/metrics.h"

namespace sally::agent {

Status Agent::serve_metrics(const http::PlainAddress& at) {
  TRY_ASSIGN(plain_, http::serve_metrics(loop_, at,
                                         [this](std::move_only_function<void(std::string)> done) {
                                           done(metrics_text());
                                         }));
  return {};
}

std::string Agent::metrics_text() const {
  metrics::Text out;
  metrics::write_process(out, "sally-agent", SALLY_VERSION);
  sally_status s{};
  s.size = sizeof s;
  if (sally_get_status(ctx_, &s) == SALLY_OK) {
    out.gauge("sally_agent_online", "1 with a router.").value(s.online != 0 ? 1 : 0);
    out.gauge("sally_agent_refused", "1 where the network does not want this device.")
        .value(s.refused != 0 ? 1 : 0);
    out.gauge("sally_agent_round_trip_seconds", "To the router, smoothed; 0: not known.")
        .real(static_cast<double>(s.round_trip_us) / 1e6);
    out.gauge("sally_agent_state_change_time_seconds",
              "When it last came on line or went off line, in Unix time.")
        .real(static_cast<double>(s.since_ms) / 1e3);
    out.gauge("sally_agent_certificate_expiry_time_seconds",
              "When the device's certificate ends, in Unix time.")
        .real(static_cast<double>(s.leaf_not_after));
    out.gauge("sally_agent_circuits", "Open now.").value(s.streams);
    out.counter("sally_agent_connects_total", "Times it came on line.").value(s.connects);
    out.counter("sally_agent_lane_bytes_total", "Bytes of its lane inside TLS.")
        .value(s.bytes_in, {{"direction", "in"}})
        .value(s.bytes_out, {{"direction", "out"}});
  }
  const auto hosts = hosting_->counts();
  out.gauge("sally_agent_hosted_services", "Services that this machine is granted to host.")
      .value(hosts.bound, {{"state", "bound"}})
      .value(hosts.services - hosts.bound, {{"state", "waiting"}});
  out.counter("sally_agent_callers_total", "Callers of hosted services, by result.")
      .value(hosts.callers, {{"result", "connected"}})
      .value(hosts.target_failed, {{"result", "target_failed"}});
  // Several forwards may lead to one service: one series each service, at most Forwards::kMax.
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> forwards;
  for (const auto& f : forwards_->list()) {
    auto& sum = forwards[f.service];
    sum.first += f.connections;
    sum.second += f.failures;
  }
  out.gauge("sally_agent_forwards", "Local ports that lead to services.")
      .value(forwards_->list().size());
  out.counter("sally_agent_forward_connections_total", "Connections to forwards, by service.");
  for (const auto& [service, n] : forwards) out.value(n.first, {{"service", service}});
  out.counter("sally_agent_forward_failures_total", "Those that found no way, by service.");
  for (const auto& [service, n] : forwards) out.value(n.second, {{"service", service}});
  return out.take();
}

}  // namespace sally::agent
