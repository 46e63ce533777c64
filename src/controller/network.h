// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/api.h"
#include "base/chunk.h"
#include "base/token_bucket.h"
#include "controller/errc.h"
#include "http/worker_pool.h"
#include "lane/lane.h"
#include "loop/loop.h"
#include "pki/enroll.h"
#include "pki/renew.h"
#include "pki/status.h"
#include "replica/writer.h"
#include "tls/peer_identity.h"

namespace sally::controller {

/// One network (tenant) of a controller: its store, CA, signer, REST handlers, replicated log and
/// the control lanes of its routers. Owned by the server. Lanes and log on the loop's thread; api()
/// and the Live calls from any thread; blocking work on the pool, which must be gone before this
/// is. A lane that breaks rules loses its connection; a database that fails makes requests fail,
/// lanes go on.
class Network final : public lane::LaneOwner, public api::Live {
 public:
  /// From the folder init_network made. kNoNetwork, or what store, pki and replica say.
  static Result<std::unique_ptr<Network>> open(const std::string& dir, loop::Loop& loop,
                                               http::WorkerPool& pool, const Clock& clock,
                                               Random& random,
                                               std::int64_t life_s = pki::kRenewingLifeS,
                                               std::int64_t grace_s = pki::kRecoveryGraceS,
                                               std::int64_t session_life_s = api::Sessions::kLifeS);
  ~Network() override;

  /// Loop's thread, once: heads every 10 s, upkeep every hour. `on_certificates` runs on the loop
  /// when the REST certificate was renewed.
  void start(std::move_only_function<void()> on_certificates);
  /// Loop's thread: a stream whose ALPN is the control lane's.
  void take(std::unique_ptr<tls::Stream> stream);
  /// Loop's thread, inside the verify step of a handshake: refuses what is revoked, suspended or
  /// removed.
  [[nodiscard]] Status admit(const tls::PeerIdentity& peer, bool up = false) const;

  [[nodiscard]] const api::Api& api() const { return *api_; }
  [[nodiscard]] const pki::Authority& authority() const { return *authority_; }
  [[nodiscard]] const NetworkId& id() const { return id_; }
  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] std::shared_ptr<const pki::RestIdentity> rest() const;
  [[nodiscard]] std::uint64_t version() const { return writer_->version(); }
  /// Where `/metrics` of the API comes from; before the first request.
  void set_metrics(std::function<std::string()> all) { metrics_ = std::move(all); }
  /// Of store, routers, usage and API. Any thread; may wait for the database.
  void write_metrics(metrics::Text& out) const;

  // api::Live
  [[nodiscard]] api::Live::Router router(const std::string& id) const override;
  [[nodiscard]] std::vector<Host> hosts() const override;
  Load traffic() override;
  void changed() override;
  Enforced await(std::uint64_t version, std::int64_t timeout_ms) override;
  void renew_now(const std::string& id, std::int64_t within_ms) override;

  // lane::LaneOwner
  void on_lane_up(lane::Lane& lane, const wire::Hello& peer) override;
  void on_lane_control(lane::Lane& lane, wire::Control&& message) override;
  void on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) override;
  void on_lane_down(lane::Lane& lane, const Error& why) override;

  /// Somebody at the listener whose certificate is nobody's; into the audit, at a rate.
  void on_bad_certificate(const loop::Address& from, const Error& why);

  /// Renews what is past two thirds of its life and signs records again; on the pool, blocks.
  Status upkeep();

 private:
  /// Of one router; beyond them its devices are told to come again.
  static constexpr double kRenewalsPerSecond = 500;
  static constexpr double kRenewalBurst = 2'000;
  struct Peer {
    std::unique_ptr<lane::Lane> lane;
    std::uint64_t number = 0;  ///< names the lane in answers from the pool
    std::string router;
    std::uint64_t sent = 0;  ///< log version it has been sent
    bool synced = false;
    bool reports = false;  ///< it knows Usage
    bool hears_renew_now = false;
    wire::UsageAck acked;  ///< its last batch
    TokenBucket renewals{kRenewalsPerSecond, kRenewalBurst};
  };
  struct Ack {
    std::uint64_t version;
    std::uint64_t flows;  ///< since the router started
  };
  /// What one router may add to the audit; the rest is counted in the log.
  static constexpr double kEventsPerSecond = 20;
  static constexpr double kEventBurst = 2'000;
  struct LiveRouter {
    std::uint64_t lane = 0;  ///< number of its lane, 0 = offline
    std::int64_t seen_ms = 0;
    std::deque<Ack> acks;
    std::vector<Host> hosts;
    TokenBucket events{kEventsPerSecond, kEventBurst};  ///< audited at most
    wire::Usage usage;                                  ///< the last batch
    wire::RouterLive before;  ///< of the batch before, of the same process
  };
  /// Since the controller started, for Prometheus.
  struct Carried {
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    std::uint64_t circuits = 0;
  };

  Network(std::string dir, loop::Loop& loop, http::WorkerPool& pool, const Clock& clock,
          Random& random);
  Status load();
  Status load_certificates();
  Status make_writer();
  void take_rows(std::vector<store::LogRow> rows);
  void push(Peer& peer);
  void push_all();
  void drop_dead();
  void on_ack(const std::string& router, const wire::StateAck& ack);
  void on_terminators(const std::string& router, const wire::Terminators& list);
  void on_card_request(std::uint64_t lane, const wire::CardRequest& request);
  void on_events(const std::string& router, wire::Events events);
  // renewal.cc
  void on_renew(Peer& peer, wire::Renew renew);
  void audit_refusal(const wire::Renew& renew, const Error& why);
  Status end_unproven();
  Status prune_certificates();
  Status warn_of_ends();
  struct Renewing {
    std::uint64_t lane = 0;
    std::string router;
    wire::Renew renew;
  };
  void run_renewals();
  [[nodiscard]] std::vector<wire::Renewed> answer_renewals(const std::vector<Renewing>& batch);
  [[nodiscard]] wire::Renewed answer(const Renewing& of, Result<pki::RenewalDoor::Outcome> done);
  /// Makes the revocation lists, at most once a minute: now, or when that is over.
  void lists_due();
  Status refresh_lists();
  /// When foreign ends were heard last; on the pool.
  void flush_sessions();
  /// Responders of status requests, where they are due.
  Status renew_responders();
  // usage.cc
  void on_usage(Peer& peer, wire::Usage usage);
  void ack_usage(std::uint64_t lane, const wire::Usage& usage);
  [[nodiscard]] Result<bool> store_usage(const std::string& router, const wire::Usage& usage);
  void count_usage(const wire::Usage& usage);
  [[nodiscard]] std::uint64_t period_ms() const;
  [[nodiscard]] Result<store::Figures> figures() const;
  wire::CardReply answer_card(const wire::CardRequest& request);
  Result<bool> renew(const std::string& file, const std::string& key_name, pki::Profile profile);
  Peer* find(std::uint64_t number);
  /// Runs `fn` on the loop unless this is gone by then.
  bool on_loop(std::move_only_function<void()> fn);

  const std::string dir_;
  loop::Loop& loop_;
  http::WorkerPool& pool_;
  const Clock& clock_;
  Random& random_;
  pki::KeyDir keys_;
  std::int64_t life_s_ = pki::kRenewingLifeS;  ///< of who renews by itself
  std::int64_t grace_s_ = pki::kRecoveryGraceS;
  std::int64_t session_life_s_ = api::Sessions::kLifeS;  ///< of a foreign end that says nothing
  NetworkId id_;
  std::string url_;
  std::unique_ptr<store::Store> store_;
  pki::AuthorityPtr authority_;
  std::unique_ptr<pki::TokenDoor> door_;
  std::unique_ptr<pki::RenewalDoor> renewals_;
  std::unique_ptr<pki::StatusDesk> status_;
  std::unique_ptr<api::Sessions> sessions_;
  crypto::SignerPtr signer_key_;
  std::unique_ptr<api::Api> api_;

  std::int64_t warned_day_ = 0;  ///< of ends; the pool, one upkeep at a time

  // Loop's thread.
  ChunkPool chunks_;
  wire::ProcessEpoch epoch_{};
  std::unique_ptr<replica::LogWriter> writer_;
  std::map<const lane::Lane*, Peer> peers_;
  std::uint64_t next_lane_ = 1;
  TokenBucket refusals_{1.0 / 60, 20};  // audited: strangers must not fill it
  std::unique_ptr<loop::Timer> head_timer_;
  std::unique_ptr<loop::Timer> upkeep_timer_;
  std::unique_ptr<loop::Timer> sessions_timer_;
  std::unique_ptr<loop::Timer> lists_timer_;
  std::int64_t lists_at_ms_ = 0;  ///< made last
  std::move_only_function<void()> on_certificates_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  // Any thread.
  std::atomic<bool> open_ = false;  ///< load() is over
  std::mutex publish_mutex_;        ///< keeps rows on their way to the loop in order
  std::uint64_t published_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable acked_;
  std::map<std::string, LiveRouter> routers_;
  std::map<std::string, std::uint64_t> event_counts_;  ///< by code of a router; bounded
  std::map<std::string, Carried> carried_;             ///< by service id; bounded
  std::uint64_t usage_refused_ = 0;
  std::vector<Renewing> renewing_;  ///< wait for the next transaction; bounded
  bool renewals_run_ = false;       ///< on the pool
  TokenBucket denials_{1.0, 200};   ///< of renewals, audited
  mutable store::Figures figures_;  ///< the last ones, asked at most every 10 s
  mutable std::int64_t figures_at_ms_ = 0;
  std::atomic<std::int64_t> watched_until_ms_ = 0;
  std::function<std::string()> metrics_;
  std::shared_ptr<const pki::RestIdentity> rest_;
  std::vector<crypto::Certificate> signer_chain_;
};

}  // namespace sally::controller
