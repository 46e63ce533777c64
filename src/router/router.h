// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/chunk.h"
#include "base/random.h"
#include "identity/recovery.h"
#include "replica/replica.h"
#include "router/control_client.h"
#include "router/options.h"
#include "router/worker.h"

namespace sally::router {

/// The data-plane process: the replicated state, the lane to the controller, and workers, one per
/// core, that do the rest. Owner: the app. Thread: its loop's, which is the first worker's too.
/// Failure: without the controller it goes on with the state it has, until the offline grace is
/// over.
class Router final : public ControlHandler, public Desk {
 public:
  Router(loop::Loop& loop, Random& random, RouterOptions options);
  ~Router() override;
  /// Loads the state, listens, connects to the controller. kBind where another process listens on
  /// the address, however many workers either of us has.
  Status start();
  /// Of one worker; they share it unless they have `own_ports`.
  [[nodiscard]] std::uint16_t port(unsigned worker = 0) const {
    return seats_[worker].worker->address().port;
  }
  /// Circuits in the tables of their dialers' workers.
  [[nodiscard]] std::size_t circuits() const { return shared_.circuits.size(); }
  /// Of those, or just over: what other workers keep for their hosts.
  [[nodiscard]] std::size_t hosted() const { return shared_.hosted.load(); }
  [[nodiscard]] std::size_t lanes() const { return shared_.lanes.load(); }
  /// Bytes of stream data that waits, to a few chunks.
  [[nodiscard]] std::size_t memory_used() const { return shared_.budget.used(); }
  /// In use on all lanes of devices, those that drain included. Waits for every worker: for tests.
  [[nodiscard]] std::size_t labels();
  /// Runs `fn` on the worker's thread, here and now for the first one: for tests.
  void on_worker(unsigned worker, std::move_only_function<void()> fn);
  [[nodiscard]] bool controller_up() const { return control_->up(); }
  [[nodiscard]] identity::Renewer& renewer() { return renewer_; }
  /// All figures as Prometheus text (docs/metrics.md); `done` is called on this thread, later.
  void collect_metrics(std::move_only_function<void(std::string)> done);

  // ControlHandler
  wire::Hello control_hello() override;
  void on_control_up(const wire::Hello& peer) override;
  void on_control_message(wire::Control&& message) override;
  void on_control_down() override {}
  void on_control_refused() override { renewer_.on_refused(); }

  // Desk
  void ask_card(unsigned worker, std::string id) override;
  void report_terminators(unsigned worker) override;
  void event(unsigned worker, wire::Event event) override;
  void memory_exhausted(unsigned worker) override;
  void flows_cut(unsigned worker, std::uint64_t count) override;
  void renew(unsigned worker, wire::Renew request) override;

 private:
  using Call = std::move_only_function<void()>;
  /// A worker and what it runs on.
  struct Seat {
    std::unique_ptr<loop::Loop> own_loop;  ///< none for the first one
    std::unique_ptr<loop::Inbox<Call>> calls;
    std::unique_ptr<CrossingInbox> crossings;
    std::unique_ptr<Worker> worker;
    std::thread thread;
  };
  /// A state that the workers are taking over.
  struct Round {
    replica::StatePtr state;
    std::size_t waiting = 0;
    std::uint64_t cut = 0;
  };

  [[nodiscard]] Result<std::shared_ptr<const tls::Context>> control_context(
      const identity::Credential& credential) const;
  [[nodiscard]] Status use(const identity::Credential& fresh);
  void make_seats();
  Status listen();
  Status start_threads();
  /// At the desk's own thread, from a worker's.
  void at_desk(unsigned worker, Call call);
  void shed();
  // control.cc
  void on_state(const wire::StateUpdate& update);
  void on_card_reply(wire::CardReply&& reply);
  void on_renewed(wire::Renewed&& reply);
  void on_renew_now(wire::RenewNow&& wish);
  /// None: nothing that lives is touched.
  void hand_out(std::shared_ptr<const replica::Diff> diff);
  void taken(Round& round, std::uint64_t cut);
  void own_event(std::string code, std::string subject, std::string text);
  void flush_events();
  // reporting.cc
  void collect_usage();
  void report_usage();
  void on_usage_ack(const wire::UsageAck& ack);
  void keep_usage();
  [[nodiscard]] std::string usage_path() const { return options_.state_path + ".usage"; }
  [[nodiscard]] wire::RouterLive live() const;
  [[nodiscard]] std::string metrics_text(const std::vector<Worker::Figures>& workers) const;
  [[nodiscard]] const replica::State& state() const { return *replica_.state(); }
  [[nodiscard]] std::int64_t now_ms() const { return loop_.clock().unix_ms(); }

  loop::Loop& loop_;
  Random& random_;
  ChunkPool pool_;
  Shared shared_;
  const RouterOptions& options_;  // shared_'s
  replica::Replica replica_;
  replica::StatePtr enforced_;  // by all workers
  std::unique_ptr<ControlClient> control_;
  identity::RecoveryDoor recovery_;
  identity::Renewer renewer_;
  loop::Inbox<Call> desk_;
  std::vector<Seat> seats_;
  std::mutex events_mutex_;  // both below
  std::vector<wire::Event> events_;
  std::uint64_t events_lost_ = 0;
  std::atomic<bool> report_asked_{false};
  std::atomic<std::size_t> sheds_waiting_{0};  // workers that have not shed yet
  std::uint64_t flows_cut_ = 0;
  std::uint64_t next_request_ = 1;
  loop::Timer events_timer_;
  loop::Timer report_timer_;
  UsageLedger usage_;
  bool reports_usage_ = false;     ///< this controller knows it
  bool carries_renewals_ = false;  ///< this controller answers them
  bool usage_kept_ = false;        ///< there is a file
  std::uint64_t usage_period_ms_;
  loop::Timer usage_timer_;
  bool ending_ = false;
  loop::Timer shed_timer_;
};

}  // namespace sally::router
