// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/chunk.h"
#include "base/random.h"
#include "base/text.h"
#include "base/token_bucket.h"
#include "lane/lane.h"
#include "replica/cards.h"
#include "replica/replica.h"
#include "router/circuit.h"
#include "router/control_client.h"
#include "router/errors.h"
#include "router/terminators.h"
#include "tls/acceptor.h"
#include "trust/circuit.h"
#include "trust/records.h"

namespace sally::router {

struct RouterOptions {
  std::string state_path;  ///< where the replicated state is kept
  HostPort listen;         ///< lanes; port 0 = any
  HostPort controller;
  std::string network;
  std::string id;
  std::vector<crypto::Certificate> chain;  ///< leaf, issuing
  crypto::SignerPtr key;
  trust::Anchors anchors;
  std::int64_t grace_ms = 24LL * 3600 * 1000;  ///< offline grace (docs/wire-protocol.md)
  std::size_t max_circuits = 100'000;
  std::size_t max_half_open_per_lane = 64;
  double dials_per_s = 50;  ///< of one connection; beyond it and its burst: busy
  double dial_burst = 200;
  double binds_per_s = 50;  ///< the same; the burst is all a connection may bind
};

/// The data-plane process: lanes of devices, circuits between them, policy from the replicated
/// state. Owner: the app. Thread: one worker, its loop's. Failure: a misbehaving peer loses its
/// lane; without the controller it goes on with the state it has, until the offline grace is over.
class Router final : public lane::LaneOwner, public CircuitOwner, public ControlHandler {
 public:
  Router(loop::Loop& loop, Random& random, RouterOptions options);
  ~Router() override;
  /// Loads the state, listens, connects to the controller.
  Status start();
  [[nodiscard]] std::uint16_t port() const { return acceptor_->port(); }
  [[nodiscard]] std::size_t circuits() const { return circuits_.size(); }
  [[nodiscard]] std::size_t lanes() const { return lanes_.size(); }
  /// In use on all lanes of devices, those that drain included.
  [[nodiscard]] std::size_t labels() const;
  [[nodiscard]] bool controller_up() const { return control_->up(); }

  // lane::LaneOwner: lanes of devices
  void on_lane_up(lane::Lane& lane, const wire::Hello& peer) override;
  void on_lane_control(lane::Lane& lane, wire::Control&& message) override;
  void on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) override;
  void on_lane_down(lane::Lane& lane, const Error& why) override;

  // CircuitOwner
  Status on_circuit_answer(Circuit& circuit, ByteView payload) override;
  void on_circuit_refused(Circuit& circuit, const wire::SetupErr& err) override;
  void on_circuit_over(Circuit& circuit, const wire::Reset& reset) override;

  // ControlHandler
  wire::Hello control_hello() override;
  void on_control_up() override;
  void on_control_message(wire::Control&& message) override;
  void on_control_down() override {}

 private:
  /// A device's connection.
  struct Device {
    explicit Device(const RouterOptions& o)
        : dials(o.dials_per_s, o.dial_burst),
          binds(o.binds_per_s, static_cast<double>(Terminators::kMaxPerLane)) {}
    std::unique_ptr<lane::Lane> lane;
    std::string id;
    std::optional<trust::VerifiedCard> card;  ///< none yet, or dropped as stale
    Bytes card_envelope;
    std::int64_t stale_since_ms = 0;  ///< the card's attributes are older than the state says
    wire::Hash services_hash{};       ///< of what was pushed last
    bool services_sent = false;
    std::size_t half_open = 0;
    TokenBucket dials;
    TokenBucket binds;
  };
  /// From SETUP to SETUP_OK.
  struct Opening {
    Bytes setup_bytes;
    wire::Setup setup;
    Device* dialer = nullptr;
    std::uint32_t label = 0;  ///< the dialer's return label
    std::uint32_t attempt = 0;
    std::int64_t deadline_ms = 0;
    std::vector<std::string> candidates;  ///< terminator ids, best last
    std::string terminator;
    wire::InstanceId instance{};
    wire::SetupErr last;  ///< what the dialer hears when no candidate is left
    std::unique_ptr<loop::Timer> timer;
  };
  struct Entry {
    std::unique_ptr<Circuit> circuit;
    std::unique_ptr<Opening> opening;  ///< null once open
    std::string terminator;
  };

  // router.cc: lanes, cards, services
  void accept(std::unique_ptr<tls::Stream> stream);
  [[nodiscard]] Status admit(const tls::PeerIdentity& peer) const;
  [[nodiscard]] trust::Context trust_context() const;
  [[nodiscard]] const replica::State& state() const { return *replica_.state(); }
  [[nodiscard]] wire::IdentityState standing_of(const std::string& id) const;
  [[nodiscard]] std::int64_t now_ms() const { return loop_.clock().unix_ms(); }
  void push_routers(Device& device);
  bool use_card(Device& device, const Bytes& envelope);
  void ask_card(Device& device);
  void on_card_reply(const wire::CardReply& reply);
  void push_services(Device& device);
  [[nodiscard]] Device* find(const lane::Lane& lane) const;
  void on_upkeep();
  // control.cc: replicated state, events
  void on_state(const wire::StateUpdate& update);
  std::uint64_t enforce();
  void report_terminators();
  void event(std::string code, std::string actor, std::string subject, std::string text);
  void flush_events();
  // router.cc: binds; dialing.cc: circuits
  void on_bind(Device& device, const wire::Bind& bind);
  [[nodiscard]] bool may_bind(const Device& device, const std::string& service) const;
  [[nodiscard]] bool may_dial(const Device& device, const std::string& service) const;
  [[nodiscard]] std::optional<wire::SetupCode> begin(Device& device, std::uint32_t label,
                                                     ByteView payload, wire::SetupErr& err);
  void try_next(Entry& entry);
  void give_up(Entry& entry);
  void end_circuit(Circuit& circuit, wire::ResetCode code, const std::string& text);
  void retire(Circuit& circuit);
  void note_circuit(const std::string& terminator, int change, bool failed);

  loop::Loop& loop_;
  Random& random_;
  RouterOptions options_;
  ChunkPool pool_;
  wire::ProcessEpoch process_epoch_{};
  replica::Replica replica_;
  replica::CardCache cards_;
  std::unique_ptr<ControlClient> control_;
  std::unique_ptr<tls::Acceptor> acceptor_;
  Terminators terminators_;
  trust::SeenCircuits seen_;
  std::map<const lane::Lane*, std::unique_ptr<Device>> lanes_;
  std::unordered_map<CircuitId, Entry> circuits_;
  std::vector<std::unique_ptr<Circuit>> retired_;  // freed at the end of the turn
  std::vector<Circuit*> path_down_;                // of those: told in one batch per lane
  bool cleanup_scheduled_ = false;
  std::vector<wire::Event> events_;
  std::uint64_t events_lost_ = 0;
  std::uint64_t flows_cut_ = 0;
  std::uint64_t next_request_ = 1;
  loop::Timer upkeep_timer_;
  loop::Timer events_timer_;
  loop::Timer report_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::router
