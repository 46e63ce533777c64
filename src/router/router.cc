// SPDX-License-Identifier: Apache-2.0
#include "router/router.h"

#include <algorithm>
#include <future>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/fs.h"
#include "base/log.h"

namespace sally::router {
namespace {

constexpr std::uint64_t kUsagePeriodMs = 10'000;  // until the controller says otherwise
constexpr std::size_t kMaxUsageFile = 16 * 1024 * 1024;

const wire::ProcessEpoch& process_epoch(Shared& shared, Random& random) {
  random.fill(shared.process_epoch);
  return shared.process_epoch;
}

}  // namespace

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kRevoked:
      return "router.revoked";
    case Errc::kStale:
      return "router.stale";
    case Errc::kNoState:
      return "router.no_state";
    case Errc::kConfig:
      return "router.config";
    case Errc::kThread:
      return "router.thread";
    case Errc::kTooManyLanes:
      return "router.too_many_lanes";
    case Errc::kDeviceKeyOnly:
      return "router.device_key_only";
    case Errc::kTooFast:
      return "router.too_fast";
  }
  return "router.unknown";
}

Router::Router(loop::Loop& loop, Random& random, RouterOptions options)
    : loop_(loop),
      random_(random),
      shared_(std::move(options), loop.clock(), *this),
      options_(shared_.options),
      replica_(options_.anchors),
      enforced_(replica_.state()),
      recovery_(loop, options_.controller_url, options_.anchors, loop.clock(),
                [this](std::int64_t ms) {
                  if (options_.time != nullptr) options_.time->raise(ms);
                }),
      renewer_(loop, random, options_.id, crypto::Role::kRouter, options_.anchors,
               {options_.chain, options_.key},
               {.send =
                    [this](wire::Renew message) {
                      if (control_ == nullptr || !control_->up() || !carries_renewals_)
                        return false;
                      control_->send({std::move(message)});
                      return true;
                    },
                .time_ms = [this] { return now_ms(); },
                .keep =
                    [this](const identity::Credential& fresh) {
                      return options_.keep ? options_.keep(fresh) : Status{};
                    },
                .use = [this](const identity::Credential& fresh) { return use(fresh); },
                .recover =
                    [this](const wire::Renew& message) {
                      return recovery_.send(
                          options_.id, message,
                          [this](const wire::Renewed& answer) { renewer_.on_renewed(answer); });
                    }}),
      desk_(loop, [](Call call) { call(); }),
      events_timer_(loop.timers(), [this] { flush_events(); }),
      report_timer_(loop.timers(), [this] { control_->send({shared_.terminators.report()}); }),
      usage_(process_epoch(shared_, random)),
      usage_period_ms_(kUsagePeriodMs),
      usage_timer_(loop.timers(), [this] { collect_usage(); }),
      shed_timer_(loop.timers(), [this] { shed(); }) {
  SALLY_CHECK(options_.workers >= 1 && options_.workers <= kMaxWorkers);
  make_seats();
}

Router::~Router() {
  for (Seat& seat : seats_) {
    if (seat.thread.joinable()) seat.own_loop->stop();
  }
  for (Seat& seat : seats_) {
    if (seat.thread.joinable()) seat.thread.join();
  }
  ending_ = true;
  // Nothing runs any more. What was not told yet is for the next process.
  for (Seat& seat : seats_) usage_.add(seat.worker->take_usage());
  keep_usage();
  // Workers first, they use each other's inboxes to the end; then those.
  control_.reset();
  for (Seat& seat : seats_) seat.worker.reset();
  for (Seat& seat : seats_) {
    seat.crossings.reset();
    seat.calls.reset();
  }
}

void Router::make_seats() {
  seats_.resize(options_.workers);
  for (unsigned i = 0; i < seats_.size(); ++i) {
    Seat& seat = seats_[i];
    if (i != 0) seat.own_loop = std::make_unique<loop::Loop>(loop_.clock());
    loop::Loop& loop = i == 0 ? loop_ : *seat.own_loop;
    seat.worker = std::make_unique<Worker>(loop, random_, shared_, i);
    seat.calls = std::make_unique<loop::Inbox<Call>>(loop, [](Call call) { call(); });
    seat.crossings = std::make_unique<CrossingInbox>(
        loop, [w = seat.worker.get()](const CrossingPtr& c) { w->on_crossing(c); });
    shared_.crossings.push_back(seat.crossings.get());
  }
}

Status Router::start() {
  if (const Status s = replica_.load(options_.state_path, now_ms());
      !s && !s.error().is(fs::Errc::kNotFound)) {
    // Loud, and then on with nothing: the controller sends it again.
    log::error("router.state_refused", {{"path", options_.state_path}, {"why", s.error().text()}});
  }
  if (options_.time != nullptr) options_.time->raise(replica_.state()->head_time_ms());
  enforced_ = replica_.state();
  for (Seat& seat : seats_) seat.worker->take_state(enforced_, nullptr, {});

  TRY_ASSIGN(const auto client_context, control_context(renewer_.current()));
  TRY(listen());
  control_ = std::make_unique<ControlClient>(loop_, pool_, random_, client_context,
                                             options_.controller, *this);
  TRY(start_threads());
  control_->start();
  renewer_.start();
  if (auto saved = fs::read_file(usage_path(), kMaxUsageFile); saved) {
    usage_kept_ = true;
    if (const Status s = usage_.load(*saved); !s)
      log::warn("router.usage_unreadable", {{"path", usage_path()}, {"why", s.error().text()}});
  }
  usage_.start(loop_.now_ms());
  usage_timer_.arm(static_cast<std::int64_t>(usage_period_ms_));
  log::info("router.listening", {{"id", options_.id},
                                 {"network", options_.network},
                                 {"address", seats_[0].worker->address().str()},
                                 {"workers", options_.workers}});
  return {};
}

Result<std::shared_ptr<const tls::Context>> Router::control_context(
    const identity::Credential& credential) const {
  tls::ContextOptions client{.side = tls::Side::kClient,
                             .chain = credential.chain,
                             .key = credential.key,
                             .anchors = options_.anchors.roots,
                             .issuing = options_.anchors.issuing,
                             .network = NetworkId(options_.network),
                             .roles = {tls::Role::kController},
                             .alpn = {std::string(lane::kAlpnControl)},
                             .clock = &loop_.clock()};
  return tls::Context::create(std::move(client));
}

// What is up stays; what begins from now on has the new certificate.
Status Router::use(const identity::Credential& fresh) {
  TRY_ASSIGN(auto context, control_context(fresh));
  control_->set_context(std::move(context));
  for (unsigned i = 0; i < seats_.size(); ++i) {
    on_worker(i, [w = seats_[i].worker.get(), fresh] {
      if (const Status s = w->use(fresh); !s)
        log::error("router.certificate_unusable", {{"why", s.error().text()}});
    });
  }
  return {};
}

Status Router::listen() {
  HostPort at = options_.listen;
  const auto& own = options_.own_ports;
  const bool share = seats_.size() > 1 && own.empty();
  for (unsigned i = 0; i < seats_.size(); ++i) {
    if (i < own.size()) at.port = own[i];
    TRY(seats_[i].worker->listen(at, {.reuse_port = share, .first = share && i == 0}));
    if (share) at.port = seats_[0].worker->address().port;
  }
  return {};
}

Status Router::start_threads() {
  for (Seat& seat : seats_) {
    if (seat.own_loop == nullptr) continue;
    try {
      seat.thread = std::thread([loop = seat.own_loop.get()] { loop->run(); });
    } catch (const std::system_error& e) {
      return fail(Errc::kThread, std::string("a worker's thread: ") + e.what(), Source::kLocal);
    }
  }
  return {};
}

void Router::on_worker(unsigned worker, std::move_only_function<void()> fn) {
  if (worker == 0) {
    fn();
  } else {
    seats_[worker].calls->send(std::move(fn));
  }
}

void Router::at_desk(unsigned worker, Call call) {
  if (worker == 0) {
    call();
  } else {
    desk_.send(std::move(call));
  }
}

void Router::memory_exhausted(unsigned worker) {
  std::size_t none = 0;  // one round at a time, however many ask
  if (!sheds_waiting_.compare_exchange_strong(none, seats_.size())) return;
  // In a turn of its own: a worker asks in the middle of a circuit.
  at_desk(worker, [this] { shed_timer_.arm(0); });
}

void Router::shed() {
  for (unsigned i = 0; i < seats_.size(); ++i) {
    on_worker(i, [this, w = seats_[i].worker.get()] {
      w->shed();
      --sheds_waiting_;
    });
  }
}

std::size_t Router::labels() {
  std::size_t sum = 0;
  for (unsigned i = 0; i < seats_.size(); ++i) {
    std::promise<std::size_t> promise;
    auto count = promise.get_future();
    on_worker(i, [w = seats_[i].worker.get(), &promise] { promise.set_value(w->labels()); });
    sum += count.get();
  }
  return sum;
}

}  // namespace sally::router
