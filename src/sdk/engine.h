// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/backoff.h"
#include "base/chunk.h"
#include "base/random.h"
#include "base/text.h"
#include "identity/device_clock.h"
#include "identity/recovery.h"
#include "identity/renew.h"
#include "identity/session.h"
#include "identity/signing.h"
#include "lane/lane.h"
#include "sdk/circuit.h"
#include "trust/circuit.h"
#include "trust/records.h"

namespace sally::sdk {

/// The identity a context runs as, read and checked by the caller.
struct Material {
  std::string network;
  std::string id;
  std::string name;
  std::vector<crypto::Certificate> chain;  ///< leaf, issuing
  crypto::SignerPtr key;
  trust::Anchors anchors;
  std::vector<HostPort> routers;
  Bytes card{};  ///< from enrolment, for the first router; empty or stale: it asks the controller
  /// Keeps a renewed certificate; none: it is used until the process ends.
  std::function<Status(const identity::Credential&)> keep{};
  /// What is kept now: another process of the identity may have renewed it.
  std::function<Result<identity::Credential>()> kept{};
  /// URL of the controller, for whom no router lets in any more; may be empty.
  std::string controller{};
  /// It is at least so late (Unix ms): identity::Identity::time_floor_ms.
  std::int64_t time_floor_ms = 0;
  /// Keeps a later one for the next start.
  std::function<Status(std::int64_t ms)> keep_time{};
  identity::SessionKey session_key = identity::SessionKey::kAuto;
};

/// A service as the network last told us, its record verified.
struct KnownService {
  trust::VerifiedRecord record;
  bool dial = false;
  bool bind = false;
};

enum class Event : std::uint8_t { kOnline, kOffline, kServices, kDenied };

/// A caller who asks for a service we host; its proof, card and grant are verified.
struct Caller {
  std::string id;
  std::string name;
  std::string serial;
};

/// What a program does with callers of one binding. Calls on the loop's thread.
class Host {
 public:
  virtual ~Host() = default;
  /// Decide now or later: call `answer` once, from the loop's thread; empty = welcome.
  using Answer = std::move_only_function<void(std::optional<Error> refused)>;
  virtual void on_caller(std::uint64_t request, const Caller& caller, Answer answer) = 0;
  /// After a welcome: the stream is open, or the caller went away (null).
  virtual void on_stream(std::uint64_t request, const Caller& caller,
                         std::unique_ptr<Circuit> circuit) = 0;
};

/// The client's half of the fabric: one lane to a router, made again whenever it is lost; dials;
/// bindings. Owner: a context. Thread: its loop's. Failure: everything is retried with jittered
/// back-off; a dial has its deadline.
class Engine final : public lane::LaneOwner {
 public:
  Engine(loop::Loop& loop, Random& random, Material material,
         std::function<void(Event, const std::string&)> on_event);
  ~Engine() override;
  void start();

  using DialDone = std::move_only_function<void(Result<std::unique_ptr<Circuit>>)>;
  /// By name or id; waits for the network until the deadline. `done` comes in a later turn.
  void dial(std::string service, Bytes app_data, std::int64_t timeout_ms, DialDone done);

  /// Hosts the service from now on, whenever the network lets us. `host` outlives the binding.
  std::uint64_t bind(std::string service, std::uint32_t cost, Host& host);
  void unbind(std::uint64_t binding);
  /// Empty when a router has accepted the binding.
  [[nodiscard]] std::optional<Error> binding_error(std::uint64_t binding) const;

  [[nodiscard]] const std::map<std::string, KnownService>& services() const { return services_; }
  [[nodiscard]] bool online() const { return lane_ != nullptr && lane_->up(); }
  [[nodiscard]] const lane::Lane* lane() const { return lane_.get(); }
  [[nodiscard]] const std::string& last_error() const { return last_error_; }
  /// The routers refuse this identity: removed, suspended, enrolled again elsewhere, or expired.
  [[nodiscard]] bool refused() const { return refused_; }
  [[nodiscard]] std::int64_t since_ms() const { return since_ms_; }
  [[nodiscard]] const lane::Counters& counters() const { return counters_; }
  [[nodiscard]] std::uint64_t connects() const { return connects_; }
  /// True while streams that the program gave back still have something to deliver.
  [[nodiscard]] bool delivering() const;
  [[nodiscard]] const Material& material() const { return material_; }
  [[nodiscard]] const identity::Renewer& renewer() const { return renewer_; }
  [[nodiscard]] const identity::SessionKeeper& sessions() const { return sessions_; }
  [[nodiscard]] const identity::DeviceClock& clock() const { return clock_; }
  /// Sooner than it is due, at a moment of its own within `ms`.
  void renew_within(std::uint64_t ms) { renewer_.renew_within(ms); }

  // lane::LaneOwner
  void on_lane_up(lane::Lane& lane, const wire::Hello& peer) override;
  void on_lane_control(lane::Lane& lane, wire::Control&& message) override;
  void on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) override;
  void on_lane_down(lane::Lane& lane, const Error& why) override;

 private:
  struct Dial;
  struct Binding {
    std::string service;  // name or id, as asked
    std::uint32_t cost = 0;
    Host* host = nullptr;
    wire::InstanceId instance{};
    std::string bound_as;  // service id the router was asked for; empty when not
    std::uint64_t request = 0;
    std::optional<Error> error;
  };
  /// An incoming circuit between SETUP and the inner handshake.
  struct Incoming {
    std::unique_ptr<Circuit> circuit;
    wire::Setup setup;
    std::string expected_sni;
    std::uint32_t label = 0;  // the router's return label
    std::uint32_t attempt = 0;
    std::uint64_t binding = 0;
    Caller caller;
    bool offered = false;  // to the program
    bool welcomed = false;
    std::unique_ptr<loop::Timer> deadline;
  };

  [[nodiscard]] bool recover(const wire::Renew& message);
  /// What the router's time says, while it can be right.
  void learn_time();
  void note_signed_time(std::int64_t ms);
  [[nodiscard]] Status make_contexts();
  [[nodiscard]] Status make_lane_context();
  [[nodiscard]] Status use(const identity::Credential& fresh);
  void use_session(const std::optional<identity::Credential>& session);
  void connect();
  void retry_later();
  void note_refusal(bool refused);
  [[nodiscard]] trust::Context trust_context(std::int64_t now_ms) const;
  [[nodiscard]] const KnownService* find_service(const std::string& name_or_id, bool to_dial) const;

  void on_services(const wire::Services& message);
  void on_card(const wire::CardUpdate& message);

  void try_dials();
  void begin_dial(Dial& dial, const KnownService* service);
  void send_dial(std::uint64_t id, wire::Setup setup, std::unique_ptr<tls::Session> session);
  Status on_answer(Dial& dial, Circuit& circuit, ByteView payload);
  void end_dial(std::uint64_t id, Result<std::unique_ptr<Circuit>> result);

  void sync_bindings();
  void send_bind(Binding& binding, const KnownService& service);
  void on_bind_reply(const wire::BindReply& reply);
  [[nodiscard]] std::optional<wire::SetupCode> receive_setup(std::uint32_t label, ByteView payload,
                                                             wire::SetupErr& err);
  [[nodiscard]] std::optional<wire::SetupCode> offer(std::uint64_t request);
  void resume_incoming(std::uint64_t request);
  void answer_caller(std::uint64_t request, std::optional<Error> refused);
  void tell_gone(std::uint64_t binding, std::uint64_t request, const Caller& caller);
  void incoming_open(std::uint64_t request);
  void incoming_failed(std::uint64_t request, const Error& why);

  // What an idle program keeps for its next burst: 1 MiB.
  static constexpr std::size_t kKeptChunks = 64;

  loop::Loop& loop_;
  Random& random_;
  Material material_;
  std::function<void(Event, const std::string&)> on_event_;
  std::shared_ptr<ChunkPool> pool_ = std::make_shared<ChunkPool>(kKeptChunks);
  wire::ProcessEpoch process_epoch_{};
  /// What new lanes, dials and inner handshakes prove themselves with: a session or the device's.
  identity::Credential shown_;
  identity::Credential lane_credential_;  ///< the same of the lane that is up or being made
  std::shared_ptr<const tls::Context> lane_tls_;
  std::shared_ptr<const tls::Context> inner_client_tls_;
  std::shared_ptr<const tls::Context> inner_server_tls_;

  lane::Counters counters_;
  std::uint64_t connects_ = 0;
  std::unique_ptr<tls::Dialing> dialing_;
  std::unique_ptr<lane::Lane> lane_;
  identity::Signings signings_;
  identity::DeviceClock clock_;
  std::int64_t kept_time_ms_ = 0;
  identity::RecoveryDoor recovery_;
  identity::Renewer renewer_;
  identity::SessionKeeper sessions_;
  loop::Timer retry_timer_;
  std::size_t next_router_ = 0;
  Backoff backoff_{50};
  std::int64_t offline_since_ms_ = 0;
  std::int64_t since_ms_ = 0;
  std::string last_error_;
  bool renewals_ = false;     // this router carries them
  bool refused_ = false;      // the last router we reached did not want this identity
  bool whole_chain_ = false;  ///< the issuing certificate is shown to routers too

  trust::SignerSet signers_;
  Bytes card_;  // envelope of our own card
  bool services_known_ = false;
  std::map<std::string, KnownService> services_;  // by id

  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, std::unique_ptr<Dial>> dials_;
  std::map<std::uint64_t, Binding> bindings_;
  std::map<std::uint64_t, std::unique_ptr<Incoming>> incoming_;
  trust::SeenCircuits seen_{16'384};
  std::shared_ptr<std::set<Circuit*>> lingering_ = std::make_shared<std::set<Circuit*>>();
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::sdk
