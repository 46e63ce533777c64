// SPDX-License-Identifier: Apache-2.0
// The controller's figures in the Prometheus text format: docs/metrics.md.
#include <future>

#include "controller/network.h"
#include "controller/server.h"

namespace sally::controller {
namespace {

constexpr std::int64_t kFiguresMs = 10'000;
constexpr std::size_t kMaxRouters = 64;  // series of one router each
constexpr auto kLoopAnswers = std::chrono::seconds(2);

}  // namespace

// Not at every scrape: it reads every identity.
Result<store::Figures> Network::figures() const {
  const std::int64_t now = clock_.unix_ms();
  {
    const std::scoped_lock lock(mutex_);
    if (figures_at_ms_ != 0 && now - figures_at_ms_ < kFiguresMs && now >= figures_at_ms_)
      return figures_;
  }
  TRY_ASSIGN(const auto tx, store_->read(id_));
  TRY_ASSIGN(auto fresh, tx->figures(now / 1000));
  const std::scoped_lock lock(mutex_);
  figures_ = fresh;
  figures_at_ms_ = now;
  return fresh;
}

void Network::write_metrics(metrics::Text& out) const {
  std::map<std::string, std::string> service_names;
  if (const auto f = figures()) {
    out.gauge("sally_controller_identities", "Devices, routers and admins by state.");
    for (const auto& s : f->identities) {
      if (s.kind != store::Kind::kDevice && s.kind != store::Kind::kRouter &&
          s.kind != store::Kind::kAdmin)
        continue;
      const auto kind = store::kind_name(s.kind);
      out.value(s.active, {{"kind", kind}, {"state", "active"}});
      out.value(s.expired, {{"kind", kind}, {"state", "expired"}});
      out.value(s.waiting, {{"kind", kind}, {"state", "waiting"}});
      out.value(s.suspended, {{"kind", kind}, {"state", "suspended"}});
      out.value(s.revoked, {{"kind", kind}, {"state", "revoked"}});
    }
    out.gauge("sally_controller_certificates",
              "Certificates in use by the days until they end; each is in one window.");
    constexpr std::array kWindows = {"1", "7", "30", "90", "more"};
    for (std::size_t i = 0; i < kWindows.size(); ++i)
      out.value(f->ending[i], {{"ends_within_days", kWindows[i]}});
    out.gauge("sally_controller_certificates_due",
              "Certificates that end soon and do not renew themselves, or should have; 0: ended.");
    constexpr std::array kDue = {"0", "7", "30", "90"};
    for (std::size_t i = 0; i < kDue.size(); ++i)
      out.value(f->due[i], {{"ends_within_days", kDue[i]}});
    out.gauge("sally_controller_services", "Services.").value(f->services);
    out.gauge("sally_controller_audit_sequence", "Number of the last audit row.")
        .value(f->audit_seq);
    out.gauge("sally_controller_state_version", "Version of the replicated state.")
        .value(f->log_version);
    out.gauge("sally_controller_database_size_bytes", "Size of the database.")
        .value(f->database_bytes);
  }
  {
    const auto seconds = [](std::int64_t s) { return static_cast<double>(s); };
    out.gauge("sally_controller_own_certificate_expiry_time_seconds",
              "When a certificate of the controller ends, in Unix time.");
    const auto leaf = rest();
    out.real(seconds(leaf->leaf.not_after()), {{"certificate", "controller"}});
    out.real(seconds(authority_->root().not_after()), {{"certificate", "root"}});
    out.real(seconds(authority_->devices().not_after()), {{"certificate", "devices"}});
    out.real(seconds(authority_->infrastructure().not_after()),
             {{"certificate", "infrastructure"}});
    const std::scoped_lock lock(mutex_);
    out.real(seconds(signer_chain_.front().not_after()), {{"certificate", "signer"}});
  }
  if (const auto tx = store_->read(id_)) {
    if (const auto rows = (*tx)->services({1000, 0}))
      for (const auto& s : *rows) service_names[s.id] = s.name;
  }
  const std::scoped_lock lock(mutex_);
  std::uint64_t online = 0;
  for (const auto& [id, r] : routers_) online += r.lane != 0 ? 1 : 0;
  out.gauge("sally_controller_routers_connected", "Routers with a control lane.").value(online);
  out.gauge("sally_controller_router_confirmed_version",
            "Version of the state that a connected router has enforced.");
  std::size_t shown = 0;
  for (const auto& [id, r] : routers_)
    if (r.lane != 0 && shown++ < kMaxRouters)
      out.value(r.acks.empty() ? 0 : r.acks.back().version, {{"router", id}});
  out.gauge("sally_controller_router_seen_time_seconds",
            "When a router was last heard, in Unix time.");
  shown = 0;
  for (const auto& [id, r] : routers_)
    if (r.seen_ms != 0 && shown++ < kMaxRouters)
      out.real(static_cast<double>(r.seen_ms) / 1e3, {{"router", id}});
  out.counter("sally_controller_router_events_total", "Denials that routers told, by code.");
  for (const auto& [code, n] : event_counts_) out.value(n, {{"code", code}});
  out.counter("sally_controller_usage_refused_total",
              "Batches of usage that could not be stored; they are sent again.")
      .value(usage_refused_);
  const auto name = [&](const std::string& id) -> std::string {
    if (id.empty()) return "other";
    const auto it = service_names.find(id);
    return it == service_names.end() ? id : it->second;
  };
  out.counter("sally_usage_bytes_total",
              "Bytes that circuits carried, by service, since the controller started.");
  for (const auto& [id, c] : carried_) {
    const std::string service = name(id);
    out.value(c.sent, {{"service", service}, {"direction", "sent"}});
    out.value(c.received, {{"service", service}, {"direction", "received"}});
  }
  out.counter("sally_usage_circuits_total",
              "Circuits opened, by service, since the controller started.");
  for (const auto& [id, c] : carried_) out.value(c.circuits, {{"service", name(id)}});
  api_->write_metrics(out);
}

Server::LoopFigures Server::loop_figures() const {
  return {.accepted = acceptor_->counters(),
          .handshakes = acceptor_->handshakes_in_flight(),
          .requests = http_->counters(),
          .connections = http_->connections()};
}

std::string Server::metrics_text(const std::optional<LoopFigures>& loop) const {
  metrics::Text out;
  metrics::write_process(out, "sally-controller", SALLY_VERSION);
  network_->write_metrics(out);
  if (loop) {
    const auto& a = loop->accepted;
    out.counter("sally_controller_handshakes_total", "TLS handshakes, by result.")
        .value(a.established, {{"result", "established"}})
        .value(a.refused_limit, {{"result", "refused_by_limit"}})
        .value(a.failed_certificate, {{"result", "certificate"}})
        .value(a.failed_other, {{"result", "failed"}})
        .value(a.timed_out, {{"result", "timeout"}});
    out.gauge("sally_controller_handshakes_in_flight", "Handshakes under way.")
        .value(loop->handshakes);
    out.gauge("sally_controller_http_connections", "Open connections of the API.")
        .value(loop->connections);
    const auto& h = loop->requests;
    out.counter("sally_controller_http_refused_total",
                "Requests refused before they reached a handler, by reason.")
        .value(h.refused, {{"reason", "refused"}})
        .value(h.timed_out, {{"reason", "timeout"}})
        .value(h.dropped, {{"reason", "connections"}});
  }
  return out.take();
}

// From a thread of the pool. A loop that is busy or ending does not answer: then without its part.
std::string Server::metrics_from_pool() const {
  const auto promise = std::make_shared<std::promise<LoopFigures>>();
  auto figures = promise->get_future();
  const bool posted = loop_.post([this, alive = alive_, promise] {
    if (*alive) promise->set_value(loop_figures());
  });
  if (posted && figures.wait_for(kLoopAnswers) == std::future_status::ready)
    return metrics_text(figures.get());
  return metrics_text(std::nullopt);
}

// On the loop; what waits for the database goes to the pool.
void Server::collect_metrics(std::move_only_function<void(std::string)> done) {
  const auto reply = std::make_shared<std::move_only_function<void(std::string)>>(std::move(done));
  const auto figures = loop_figures();
  const bool ok = pool_->submit([this, alive = alive_, figures, reply] {
    (void)loop_.post([alive, reply, text = metrics_text(figures)]() mutable {
      if (*alive) (*reply)(std::move(text));
    });
  });
  if (!ok) (*reply)(metrics_text(std::nullopt));
}

}  // namespace sally::controller
