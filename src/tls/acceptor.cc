// SPDX-License-Identifier: Apache-2.0
#include "tls/acceptor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/random.h"

namespace sally::tls {

// ---- AcceptGate ------------------------------------------------------------

std::size_t AcceptGate::Hash::operator()(const Source& s) const noexcept {
  // Keyed, so that a peer with many addresses cannot aim at one bucket.
  static const std::uint64_t key = system_random().u64() | 1;
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  std::memcpy(&a, s.data(), 8);
  std::memcpy(&b, s.data() + 8, 8);
  std::uint64_t h = (a ^ key) * 0x9E3779B97F4A7C15ULL;
  h = (h ^ (h >> 29) ^ b) * (key ^ 0xBF58476D1CE4E5B9ULL);
  return static_cast<std::size_t>(h ^ (h >> 32));
}

bool AcceptGate::Bucket::take(double rate, double burst, std::int64_t now_us) {
  if (!started) {
    started = true;
    tokens = burst;
    at_us = now_us;
  }
  tokens = std::min(burst, tokens + rate * static_cast<double>(now_us - at_us) / 1e6);
  at_us = now_us;
  if (tokens < 1) return false;
  tokens -= 1;
  return true;
}

bool AcceptGate::make_room() {
  if (table_.size() < limits_.sources) return true;
  int looked = 0;
  for (auto it = order_.begin(); it != order_.end() && looked < 16; ++it, ++looked) {
    if (it->in_flight != 0) continue;
    table_.erase(it->source);
    order_.erase(it);
    return true;
  }
  return false;
}

AcceptGate::Verdict AcceptGate::admit(const Source& source) {
  const std::int64_t now = clock_.mono_us();
  const std::lock_guard lock(mutex_);
  // The source first: one that floods must not use up everybody's tokens.
  auto found = table_.find(source);
  if (found == table_.end()) {
    if (!make_room()) return Verdict::kTableFull;
    order_.push_back({source, {}, 0});
    found = table_.emplace(source, std::prev(order_.end())).first;
  } else {
    order_.splice(order_.end(), order_, found->second);
  }
  Entry& entry = *found->second;
  if (!entry.bucket.take(limits_.rate_per_source, limits_.burst_per_source, now))
    return Verdict::kRateSource;
  if (entry.in_flight >= limits_.handshakes_per_source) return Verdict::kBusySource;
  if (in_flight_ >= limits_.handshakes_total) return Verdict::kBusyTotal;
  if (!total_.take(limits_.rate_total, limits_.burst_total, now)) return Verdict::kRateTotal;
  ++entry.in_flight;
  ++in_flight_;
  return Verdict::kAdmit;
}

void AcceptGate::finished(const Source& source) {
  const std::lock_guard lock(mutex_);
  const auto found = table_.find(source);  // busy entries are never forgotten
  if (found == table_.end() || found->second->in_flight == 0) return;
  --found->second->in_flight;
  --in_flight_;
}

std::uint32_t AcceptGate::in_flight() const {
  const std::lock_guard lock(mutex_);
  return in_flight_;
}
std::size_t AcceptGate::sources() const {
  const std::lock_guard lock(mutex_);
  return table_.size();
}

// ---- Acceptor --------------------------------------------------------------

namespace {

std::string_view verdict_name(AcceptGate::Verdict v) {
  switch (v) {
    case AcceptGate::Verdict::kAdmit:
      return "admit";
    case AcceptGate::Verdict::kRateTotal:
      return "rate_total";
    case AcceptGate::Verdict::kRateSource:
      return "rate_source";
    case AcceptGate::Verdict::kBusyTotal:
      return "busy_total";
    case AcceptGate::Verdict::kBusySource:
      return "busy_source";
    case AcceptGate::Verdict::kTableFull:
      return "table_full";
  }
  return "unknown";
}

}  // namespace

struct Acceptor::Impl {
  /// A connection that is not authenticated yet.
  struct Pending final : StreamHandler {
    Impl* owner = nullptr;
    std::list<Pending>::iterator self;
    std::unique_ptr<Stream> stream;

    void on_handshaken() override { owner->established(self); }
    void on_readable() override {}
    void on_writable() override {}
    void on_closed(const Error& why) override { owner->failed(self, why); }
  };

  Impl(loop::Loop& l, AcceptorOptions o, OnStream cb)
      : loop(l),
        options(std::move(o)),
        on_stream(std::make_shared<OnStream>(std::move(cb))),
        gate(options.gate != nullptr ? options.gate
                                     : std::make_shared<AcceptGate>(options.limits, l.clock())) {}

  ~Impl() {
    for (const auto& p : pending) gate->finished(p.stream->remote().source_key());
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void accept(loop::Fd fd, const loop::Address& peer) {
    const auto verdict = gate->admit(peer.source_key());
    if (verdict != AcceptGate::Verdict::kAdmit) {
      ++counters.refused_limit;
      log::warn("tls.refused_by_limit", {{"listener", options.name},
                                         {"source", peer.ip_text()},
                                         {"limit", verdict_name(verdict)}});
      return;
    }
    ++counters.accepted;
    auto session = Session::on_fd(options.context, fd.get());
    if (!session) {
      gate->finished(peer.source_key());
      ++counters.failed_other;
      log::error("tls.no_session",
                 {{"listener", options.name}, {"reason", session.error().text()}});
      return;
    }
    pending.emplace_back();
    const auto it = std::prev(pending.end());
    it->owner = this;
    it->self = it;
    it->stream = std::make_unique<Stream>(loop, std::move(fd), std::move(*session));
    it->stream->start(*it, options.limits.stream);
  }

  void established(std::list<Pending>::iterator it) {
    auto stream = std::move(it->stream);
    gate->finished(stream->remote().source_key());
    pending.erase(it);
    ++counters.established;
    const auto callback = on_stream;  // outlives a callback that destroys us
    (*callback)(std::move(stream));
  }

  void failed(std::list<Pending>::iterator it, const Error& why) {
    const Session& session = it->stream->session();
    const auto& bad = session.verify_error();
    if (bad || why.is(Errc::kNoCertificate))
      ++counters.failed_certificate;
    else if (why.is(Errc::kTimeout))
      ++counters.timed_out;
    else
      ++counters.failed_other;
    log::warn("tls.handshake_failed", {{"listener", options.name},
                                       {"source", it->stream->remote().str()},
                                       {"code", bad ? bad->code() : why.code()},
                                       {"reason", bad ? bad->context() : why.context()},
                                       {"alert_sent", session.alert_sent()}});
    gate->finished(it->stream->remote().source_key());
    if (bad && options.on_bad_certificate) options.on_bad_certificate(it->stream->remote(), *bad);
    pending.erase(it);
  }

  loop::Loop& loop;
  AcceptorOptions options;
  std::shared_ptr<OnStream> on_stream;
  std::shared_ptr<AcceptGate> gate;
  AcceptorCounters counters;
  std::list<Pending> pending;
  std::unique_ptr<loop::Listener> listener;
};

Acceptor::Acceptor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Acceptor::~Acceptor() = default;

Result<std::unique_ptr<Acceptor>> Acceptor::create(loop::Loop& loop, AcceptorOptions options,
                                                   OnStream on_stream) {
  if (options.context == nullptr || options.context->options().side != Side::kServer)
    return fail(Errc::kConfig, "a listener needs a server context", Source::kConfig);
  auto impl = std::make_unique<Impl>(loop, std::move(options), std::move(on_stream));
  TRY_ASSIGN(impl->listener, loop::Listener::tcp(
                                 loop, impl->options.host, impl->options.port,
                                 [i = impl.get()](loop::Fd fd, const loop::Address& peer) {
                                   i->accept(std::move(fd), peer);
                                 },
                                 impl->options.listen));
  return std::unique_ptr<Acceptor>(new Acceptor(std::move(impl)));
}

loop::Address Acceptor::address() const {
  return impl_->listener->address();
}
void Acceptor::set_context(std::shared_ptr<const Context> context) {
  impl_->options.context = std::move(context);
}
const AcceptorCounters& Acceptor::counters() const {
  return impl_->counters;
}
std::uint32_t Acceptor::handshakes_in_flight() const {
  return impl_->gate->in_flight();
}

}  // namespace sally::tls
