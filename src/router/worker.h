// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/chunk.h"
#include "base/random.h"
#include "base/token_bucket.h"
#include "identity/renew.h"
#include "lane/lane.h"
#include "replica/cards.h"
#include "replica/replica.h"
#include "router/circuit.h"
#include "router/circuit_registry.h"
#include "router/counters.h"
#include "router/crossing.h"
#include "router/device.h"
#include "router/errors.h"
#include "router/opening.h"
#include "router/options.h"
#include "router/terminators.h"
#include "router/usage.h"
#include "tls/acceptor.h"
#include "trust/circuit.h"
#include "trust/records.h"

namespace sally::router {

/// What a worker asks of its router. Any worker's thread; `worker` is the caller's index.
class Desk {
 public:
  virtual ~Desk() = default;
  /// The controller's answer comes to on_card_reply of all workers; none comes while it is away.
  virtual void ask_card(unsigned worker, std::string id) = 0;
  /// The list of terminators has changed.
  virtual void report_terminators(unsigned worker) = 0;
  /// For the controller's audit; dropped when too many wait.
  virtual void event(unsigned worker, wire::Event event) = 0;
  /// The memory for what waits is used up: Worker::shed on all of them.
  virtual void memory_exhausted(unsigned worker) = 0;
  /// Cut by a card, not by a state: counts with the next confirmation.
  virtual void flows_cut(unsigned worker, std::uint64_t count) = 0;
  /// A device's request for the controller; the answer comes to on_renewed of all workers.
  virtual void renew(unsigned worker, wire::Renew request) = 0;
};

/// What the workers of a router share. Owner: the router. Thread: any. See its parts.
struct Shared {
  Shared(RouterOptions o, const Clock& clock, Desk& d)
      : options(std::move(o)),
        budget(options.memory_bytes),
        circuits(options.max_circuits),
        devices(options.per_device),
        services(options.per_service),
        gate(std::make_shared<tls::AcceptGate>(tls::AcceptLimits{}, clock)),
        desk(d) {}
  const RouterOptions options;
  wire::ProcessEpoch process_epoch{};
  ChunkBudget budget;
  CircuitRegistry circuits;
  Accounts devices;
  Accounts services;
  Terminators terminators;
  replica::CardCache cards;
  std::shared_ptr<tls::AcceptGate> gate;
  std::atomic<std::size_t> lanes{0};
  std::atomic<std::size_t> openings{0};   ///< circuits between SETUP and the answer
  std::atomic<std::size_t> hosted{0};     ///< hosting halves of circuits between workers
  std::vector<CrossingInbox*> crossings;  ///< by worker; complete before the first one runs
  Desk& desk;
};

/// The data plane of one core: a listener, lanes of devices, what is theirs of circuits, policy
/// from the replicated state. Owner: the Router. Thread: its loop's. Failure: a misbehaving peer
/// loses its lane.
class Worker final : public lane::LaneOwner, public edge::ConnectionOwner, public CircuitOwner {
 public:
  Worker(loop::Loop& loop, Random& random, Shared& shared, unsigned index);
  ~Worker() override;
  /// Before its thread runs, with a state.
  Status listen(const HostPort& at, loop::ListenOptions how);
  [[nodiscard]] loop::Address address() const { return acceptor_->address(); }
  /// A renewed certificate of the router: for whoever comes and what is signed from now on.
  [[nodiscard]] Status use(const identity::Credential& fresh);
  /// In use on all lanes, those that drain included.
  [[nodiscard]] std::size_t labels() const;

  // From the router
  /// What lives and may be touched by `diff` is held against the state; none: nothing is. `done` is
  /// called with the circuits cut when all of it has happened, at the end of this turn of the loop.
  void take_state(replica::StatePtr state, const replica::Diff* diff,
                  std::move_only_function<void(std::uint64_t)> done);
  void on_card_reply(const wire::CardReply& reply);
  void on_renewed(const wire::Renewed& reply);
  void on_renew_now(const wire::RenewNow& wish);
  /// The controller is there again: what it was not asked is asked now.
  void ask_missing_cards();
  [[nodiscard]] const Counters& counters() const { return counters_; }
  /// What only its thread may count, for who watches the router.
  struct Figures {
    tls::AcceptorCounters accepted;
    std::uint64_t handshakes = 0;
    std::uint64_t lanes = 0;
    std::uint64_t open = 0;
    std::uint64_t opening = 0;
    std::uint64_t hosted = 0;
    std::uint64_t waiting = 0;  ///< circuits with bytes that wait for credit or for their lane
    std::uint64_t queued_bytes = 0;
    std::uint64_t chunks_used = 0;
    std::uint64_t chunks_idle = 0;
  };
  [[nodiscard]] Figures figures();
  /// What was carried since the last call.
  [[nodiscard]] std::vector<wire::UsageEntry> take_usage();
  /// Resets circuits whose data does not move, largest first, until this worker's share of what is
  /// over the budget is free.
  void shed();
  /// From another worker; see Crossing.
  void on_crossing(const CrossingPtr& crossing);

  // lane::LaneOwner
  void on_lane_up(lane::Lane& lane, const wire::Hello& peer) override;
  void on_lane_control(lane::Lane& lane, wire::Control&& message) override;
  void on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) override;
  void on_lane_down(lane::Lane& lane, const Error& why) override;

  // edge::ConnectionOwner
  void on_hello(edge::Channel& channel, const edge::Hello& hello) override;
  void on_connect(edge::Channel& channel, edge::Connect connect) override;
  void on_bind(edge::Channel& channel, edge::Bind bind) override;
  void on_unbind(edge::Channel& channel, std::uint32_t bind) override;
  void on_update_bind(edge::Channel& channel, std::uint32_t bind, std::optional<std::uint16_t> cost,
                      std::optional<std::uint8_t> precedence) override;
  void on_health(edge::Channel& channel, std::uint32_t bind, bool passed) override;
  bool on_update_token(edge::Channel& channel, const std::string& token) override;
  void on_channel_down(edge::Channel& channel, const Error& why) override;

  // CircuitOwner
  Status on_circuit_answer(Circuit& circuit, ByteView payload) override;
  void on_circuit_refused(Circuit& circuit, const wire::SetupErr& err) override;
  void on_circuit_over(Circuit& circuit, const wire::Reset& reset) override;
  void on_crossing_held(const CrossingPtr& crossing, Crossing::End to) override;
  [[nodiscard]] fabric::WindowConditions window_conditions(
      const lane::Lane& upstream) const override;
  void on_memory_scarce() override;
  void on_foreign_answer(Circuit& circuit, Bytes key) override;
  void on_dialer_gone(Circuit& circuit) override;
  [[nodiscard]] std::uint64_t most_waiting() const override;
  [[nodiscard]] ChunkPool& pool() override { return pool_; }
  [[nodiscard]] const ChunkBudget& budget() const override { return shared_.budget; }

 private:
  [[nodiscard]] const RouterOptions& options() const { return shared_.options; }
  [[nodiscard]] const replica::State& state() const { return *state_; }
  [[nodiscard]] std::int64_t now_ms() const { return loop_.clock().unix_ms(); }
  [[nodiscard]] trust::Context trust_context() const;
  [[nodiscard]] Device* find(const lane::Lane& lane) const;
  [[nodiscard]] Device* find(const edge::Channel& channel) const;
  [[nodiscard]] Device* device_of(Side& side) const;
  template <typename F>
  void each_device(F f) {
    for (auto& [lane, device] : lanes_) f(*device);
    for (auto& [channel, device] : channels_) f(*device);
  }
  void forget(Device& device);
  void event(std::string code, std::string actor, std::string subject, std::string text);
  // worker.cc: lanes, cards, services, binds
  [[nodiscard]] Result<std::shared_ptr<const tls::Context>> make_context() const;
  void accept(std::unique_ptr<tls::Stream> stream);
  void on_bad_certificate(const loop::Address& from, const Error& why);
  [[nodiscard]] Status admit(const tls::PeerIdentity& peer) const;
  /// The same of a lane that is up: a certificate that was only superseded does not end it.
  [[nodiscard]] Status alive(const tls::PeerIdentity& peer) const;
  [[nodiscard]] wire::IdentityState standing_of(const std::string& id) const;
  void push_routers(Device& device);
  bool use_card(Device& device, const Bytes& envelope);
  void ask_card(const Device& device) { shared_.desk.ask_card(index_, device.id); }
  void push_services(Device& device);
  void on_bind(Device& device, const wire::Bind& bind);
  void on_renew(Device& device, wire::Renew renew);
  [[nodiscard]] bool may_bind(const Device& device, const std::string& service) const;
  [[nodiscard]] bool may_dial(const Device& device, const std::string& service) const;
  // What every dial passes, whichever kind of end it is of.
  [[nodiscard]] bool may_open(const Device& device, Opening& opening, Share& circuit) const;
  [[nodiscard]] bool may_dial_now(const std::string& service) const;
  void note_refused(const Device& device, const std::string& service, wire::SetupCode code,
                    const std::string& why);
  void start(std::unique_ptr<Circuit> circuit, std::unique_ptr<Opening> opening);
  void on_upkeep();
  // enforce.cc: what the state cuts
  std::uint64_t enforce(const replica::Diff* diff);
  /// The same because of a card.
  void enforce_cards();
  /// What this state leaves of one device; false where its card may do less than before.
  bool enforce_device(Device& device, std::uint64_t& cut);
  void enforce_terminators();
  std::uint64_t enforce_circuits();
  std::uint64_t enforce_left();
  std::uint64_t cut_circuits(const std::vector<Circuit*>& denied, const char* why);
  [[nodiscard]] bool may_linger(const ForeignSide& side, const std::string& service,
                                bool dial) const;
  // dialing.cc: set-ups and circuits, from the dialer's side
  [[nodiscard]] std::optional<wire::SetupCode> begin(Device& device, std::uint32_t label,
                                                     ByteView payload, wire::SetupErr& err);
  void try_next(Circuit& circuit);
  /// The host's connection, when it is here and up and its device may still bind.
  [[nodiscard]] Device* may_ask(const Candidate& host) const;
  /// False: the next one.
  [[nodiscard]] bool ask_host_here(Circuit& circuit, Bytes route, std::uint32_t attempt);
  void ask_host_beyond(Circuit& circuit, Bytes route, std::uint32_t attempt);
  /// `answer`: sealed; to a foreign dialer the host's key.
  void open(Circuit& circuit, ByteView answer);
  void give_up(Circuit& circuit);
  /// The asked host's side, wherever it is, ends; the circuit may try another one.
  static void end_attempt(Circuit& circuit, wire::ResetCode code);
  void end_sides(Circuit& circuit, const wire::Reset& reset);
  void end_circuit(Circuit& circuit, wire::ResetCode code, const std::string& text);
  void list(std::unique_ptr<Circuit> circuit);
  void retire(Circuit& circuit);
  // foreign.cc, foreign_dials.cc: foreign ends
  void accept_foreign(std::unique_ptr<tls::Stream> stream);
  [[nodiscard]] Status check_hello(Device& device, const std::string& token);
  void end_hello_wait(Device& device);
  void refuse_foreign(Device& device, const Error& why, bool busy);
  /// A token to dial or to host, of this device's session: the service it is for.
  Result<const replica::ServiceView*> check_token(const Device& device, const std::string& token,
                                                  wire::SessionUse use,
                                                  edge::Failure& failure) const;
  [[nodiscard]] std::optional<edge::Failure> begin_foreign(Device& device, edge::Connect connect);
  [[nodiscard]] std::optional<edge::Failure> bind_foreign(Device& device, const edge::Bind& bind);
  void update_hosting(Device& device, Foreign::Hosting& hosting);
  void end_lost_bindings();
  [[nodiscard]] edge::Call call_of(const Circuit& circuit) const;
  [[nodiscard]] bool ask_foreign_host(Circuit& circuit, Device& host, const edge::Call& call,
                                      std::uint32_t attempt);
  void open_foreign(Circuit& circuit, ByteView key);
  void refuse_foreign_dial(Circuit& circuit);
  // hosting.cc: the host's side, and circuits between workers
  struct Sealed {
    wire::SetupCode code = wire::SetupCode::kNone;  ///< kNone: `answer` is good
    Bytes answer;
  };
  /// An error is the host's fault.
  Result<Sealed> seal_answer(Circuit& circuit, ByteView payload);
  [[nodiscard]] static bool send_order(Circuit& circuit, Device& host, wire::SetupFrame frame,
                                       std::uint32_t epoch);
  void on_dialing_mail(const CrossingPtr& crossing, Crossing::Mail& mail);
  void on_hosting_mail(const CrossingPtr& crossing, Crossing::Mail& mail);
  void ask_host_for(const CrossingPtr& crossing, Crossing::Order order);
  Status on_hosted_answer(Circuit& circuit, ByteView payload);
  void on_hosted_refused(Circuit& circuit, const wire::SetupErr& err);
  void refuse_hosted(Circuit& circuit, wire::SetupCode code);
  void on_hosted_over(Circuit& circuit, const wire::Reset& reset);
  void look_at_held();
  // memory.cc
  void mark_stalled();
  void rest();

  loop::Loop& loop_;
  Random& random_;
  Shared& shared_;
  const unsigned index_;
  ChunkPool pool_{256, &shared_.budget};
  identity::Credential credential_;  ///< of the router
  replica::StatePtr state_;
  Counters counters_;
  UsageTable usage_;
  std::unique_ptr<tls::Acceptor> acceptor_;
  std::map<const lane::Lane*, std::unique_ptr<Device>> lanes_;
  std::map<const edge::Channel*, std::unique_ptr<Device>> channels_;
  std::vector<std::unique_ptr<Circuit>> circuits_;  // those that stand for another worker's too
  struct Held {
    CrossingPtr crossing;
    Crossing::End to;
    Crossing::Held state;
  };
  std::vector<Held> held_;  // bulk that the other worker is told of in a moment
  std::vector<std::unique_ptr<Circuit>> retired_;  // freed at the end of the turn
  std::vector<Circuit*> path_down_;                // of those: told in one batch per lane
  bool cleanup_scheduled_ = false;
  loop::Timer upkeep_timer_;
  loop::Timer mark_timer_;              // while memory is scarce
  std::size_t kept_free_ = 0;           // free memory after it was given back to the system
  TokenBucket refusals_{1.0 / 60, 20};  // told to the audit: strangers must not fill it
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::router
