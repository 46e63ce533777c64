// SPDX-License-Identifier: Apache-2.0
// What the Router tells of traffic: usage to the controller, figures to who scrapes it.
#include <algorithm>
#include <utility>

#include "base/fs.h"
#include "base/log.h"
#include "router/router.h"

namespace sally::router {
namespace {

constexpr std::uint64_t kLeastPeriodMs = 1'000;
constexpr std::uint64_t kMostPeriodMs = 60'000;

}  // namespace

// From every worker; the last one's makes it a report.
void Router::collect_usage() {
  const auto waiting = std::make_shared<std::size_t>(seats_.size());
  for (unsigned i = 0; i < seats_.size(); ++i) {
    on_worker(i, [this, i, waiting, w = seats_[i].worker.get()] {
      at_desk(i, [this, waiting, entries = w->take_usage()] {
        usage_.add(entries);
        if (--*waiting != 0) return;
        report_usage();
        keep_usage();
      });
    });
  }
  usage_timer_.arm(static_cast<std::int64_t>(usage_period_ms_));
}

void Router::report_usage() {
  if (reports_usage_ && control_->up()) control_->send({usage_.next(loop_.now_ms(), live())});
}

void Router::on_usage_ack(const wire::UsageAck& ack) {
  if (ack.period_ms != 0) {
    const auto period = std::clamp(ack.period_ms, kLeastPeriodMs, kMostPeriodMs);
    if (period < std::exchange(usage_period_ms_, period))
      usage_timer_.arm(static_cast<std::int64_t>(period));
  }
  if (!usage_.acknowledged(ack)) return;
  if (usage_.empty() && std::exchange(usage_kept_, false)) (void)fs::remove_file(usage_path());
  if (usage_.more()) report_usage();
}

// On disk whenever the controller has not taken it: a crash then costs one period.
void Router::keep_usage() {
  if (usage_.empty() || (control_ != nullptr && control_->up() && !usage_kept_ && !ending_)) return;
  usage_kept_ = true;
  if (const Status s = fs::write_file_atomic(usage_path(), usage_.save(), 0600); !s)
    log::warn("router.usage_not_kept", {{"path", usage_path()}, {"why", s.error().text()}});
}

wire::RouterLive Router::live() const {
  const auto process = metrics::process_figures();
  wire::RouterLive out{.time_ms = now_ms(),
                       .lanes = shared_.lanes.load(),
                       .circuits = shared_.circuits.size(),
                       .cpu_us = process.cpu_us,
                       .rss_bytes = process.rss_bytes};
  for (const Seat& seat : seats_) {
    out.bytes_in += seat.worker->counters().lanes.bytes_in.value();
    out.bytes_out += seat.worker->counters().lanes.bytes_out.value();
  }
  return out;
}

void Router::collect_metrics(std::move_only_function<void(std::string)> done) {
  struct Scrape {
    std::vector<Worker::Figures> workers;
    std::size_t waiting = 0;
    std::move_only_function<void(std::string)> done;
  };
  const auto scrape = std::make_shared<Scrape>();
  scrape->workers.resize(seats_.size());
  scrape->waiting = seats_.size();
  scrape->done = std::move(done);
  for (unsigned i = 0; i < seats_.size(); ++i) {
    on_worker(i, [this, i, scrape, w = seats_[i].worker.get()] {
      at_desk(i, [this, i, scrape, figures = w->figures()] {
        scrape->workers[i] = figures;
        if (--scrape->waiting == 0) scrape->done(metrics_text(scrape->workers));
      });
    });
  }
}

std::string Router::metrics_text(const std::vector<Worker::Figures>& workers) const {
  metrics::Text out;
  metrics::write_process(out, "sally-router", SALLY_VERSION);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < workers.size(); ++i) names.push_back(std::to_string(i));
  const auto each = [&](const auto& write) {
    for (std::size_t i = 0; i < workers.size(); ++i)
      write(std::string_view(names[i]), seats_[i].worker->counters(), workers[i]);
  };
  using C = const Counters&;
  using F = const Worker::Figures&;
  using N = std::string_view;

  out.gauge("sally_router_workers", "Workers.").value(workers.size());
  out.gauge("sally_router_lanes", "Connections of devices, by worker.");
  each([&](N n, C, F f) { out.value(f.lanes, {{"worker", n}}); });
  out.gauge("sally_router_circuits",
            "Circuits by worker and state; hosting: the host's half of one between two workers.");
  each([&](N n, C, F f) {
    out.value(f.open, {{"worker", n}, {"state", "open"}});
    out.value(f.opening, {{"worker", n}, {"state", "opening"}});
    out.value(f.hosted, {{"worker", n}, {"state", "hosting"}});
  });
  out.gauge("sally_router_circuits_waiting",
            "Circuits with bytes that wait for credit or for their lane.");
  each([&](N n, C, F f) { out.value(f.waiting, {{"worker", n}}); });
  out.gauge("sally_router_queued_bytes", "Those bytes.");
  each([&](N n, C, F f) { out.value(f.queued_bytes, {{"worker", n}}); });
  out.gauge("sally_router_chunk_memory_bytes", "Memory of the chunks that payload travels in.");
  each([&](N n, C, F f) {
    out.value(f.chunks_used * sizeof(Chunk), {{"worker", n}, {"state", "used"}});
    out.value(f.chunks_idle * sizeof(Chunk), {{"worker", n}, {"state", "idle"}});
  });
  out.gauge("sally_router_waiting_memory_bytes", "Chunks in use in all workers and between them.")
      .value(shared_.budget.used());
  out.gauge("sally_router_waiting_memory_limit_bytes",
            "What they may hold; beyond it the largest stalled circuits are reset.")
      .value(shared_.budget.limit());
  out.counter("sally_router_lane_bytes_total",
              "Bytes of lanes, and of the channels of Ziti SDKs, inside TLS.");
  each([&](N n, C c, F) {
    out.value(c.lanes.bytes_in.value(), {{"worker", n}, {"direction", "in"}});
    out.value(c.lanes.bytes_out.value(), {{"worker", n}, {"direction", "out"}});
  });
  out.counter("sally_router_frames_total",
              "Frames of lanes: all that came, those of circuits that left.");
  each([&](N n, C c, F) {
    out.value(c.lanes.frames_in.value(), {{"worker", n}, {"direction", "in"}});
    out.value(c.lanes.frames_out.value(), {{"worker", n}, {"direction", "out"}});
  });

  tls::AcceptorCounters a;
  std::uint64_t in_flight = 0;
  std::uint64_t refused = 0;
  std::uint64_t up = 0;
  std::uint64_t opened = 0;
  std::uint64_t crossing = 0;
  std::uint64_t shed = 0;
  std::uint64_t binds = 0;
  std::array<std::uint64_t, kSetupCodes> dials_refused{};
  std::array<std::uint64_t, kSetupCodes> binds_refused{};
  metrics::Latency::Values dial;
  each([&](N, C c, F f) {
    a.established += f.accepted.established;
    a.refused_limit += f.accepted.refused_limit;
    a.failed_certificate += f.accepted.failed_certificate;
    a.failed_other += f.accepted.failed_other;
    a.timed_out += f.accepted.timed_out;
    in_flight += f.handshakes;
    refused += c.devices_refused.value();
    up += c.devices_up.value();
    opened += c.circuits_opened.value();
    crossing += c.circuits_crossing.value();
    shed += c.circuits_shed.value();
    binds += c.binds.value();
    for (std::size_t i = 0; i < kSetupCodes; ++i) {
      dials_refused[i] += c.dials_refused[i].value();
      binds_refused[i] += c.binds_refused[i].value();
    }
    dial.add(c.dial.values());
  });
  out.counter("sally_router_handshakes_total", "TLS handshakes of devices, by result.")
      .value(a.established, {{"result", "established"}})
      .value(a.refused_limit, {{"result", "refused_by_limit"}})
      .value(a.failed_certificate, {{"result", "certificate"}})
      .value(a.failed_other, {{"result", "failed"}})
      .value(a.timed_out, {{"result", "timeout"}});
  out.gauge("sally_router_handshakes_in_flight", "Handshakes under way.").value(in_flight);
  out.counter("sally_router_devices_total", "Connections of devices after their handshake.")
      .value(up, {{"result", "up"}})
      .value(refused, {{"result", "refused"}});
  out.counter("sally_router_circuits_opened_total", "Circuits opened, by where the host's lane is.")
      .value(opened - std::min(opened, crossing), {{"worker", "same"}})
      .value(crossing, {{"worker", "other"}});
  const auto codes = [&out](const std::array<std::uint64_t, kSetupCodes>& all) {
    for (std::size_t i = 1; i < kSetupCodes; ++i)
      out.value(all[i], {{"code", wire::setup_code_name(static_cast<wire::SetupCode>(i))}});
  };
  out.counter("sally_router_dials_refused_total", "Circuits that were not opened, by code.");
  codes(dials_refused);
  out.counter("sally_router_binds_total", "Services that a device began to host.").value(binds);
  out.counter("sally_router_binds_refused_total", "Those that it may not or cannot, by code.");
  codes(binds_refused);
  out.counter("sally_router_circuits_cut_total", "Circuits cut by a new version of the state.")
      .value(flows_cut_);
  out.counter("sally_router_circuits_shed_total", "Circuits reset because memory was used up.")
      .value(shed);
  out.histogram("sally_router_dial_duration_seconds",
                "From a device's set-up to the answer of the host.")
      .latency(dial);
  out.gauge("sally_router_terminators", "Services hosted here, by host.")
      .value(shared_.terminators.size());

  const std::int64_t now = now_ms();
  out.gauge("sally_router_controller_up", "1 with a control lane.")
      .value(control_ != nullptr && control_->up() ? 1 : 0);
  out.gauge("sally_router_state_version", "Version of the state that all workers enforce.")
      .value(enforced_->version());
  // Past it no new session is let in.
  const std::int64_t head = state().head_time_ms();
  out.gauge("sally_router_grace_seconds", "Seconds that this state may still be used.")
      .real(head == 0
                ? 0
                : static_cast<double>(std::max<std::int64_t>(0, head + options_.grace_ms - now)) /
                      1e3);
  out.gauge("sally_router_certificate_expiry_time_seconds",
            "When the router's certificate ends, in Unix time.")
      .real(static_cast<double>(renewer_.current().chain.front().not_after()));
  return out.take();
}

}  // namespace sally::router
