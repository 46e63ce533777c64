// SPDX-License-Identifier: Apache-2.0
// A network on one loop: a controller's control-lane half over a LogWriter, a router, devices as
// SDK engines. A router with more workers has the others on threads of their own.
#pragma once

#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "crypto/csr.h"
#include "crypto/issue.h"
#include "crypto/test_pki.h"
#include "replica/writer.h"
#include "router/router.h"
#include "sdk/engine.h"
#include "tls/acceptor.h"
#include "trust/records.h"
#include "trust/renewal.h"

namespace sally::sim {

using crypto::must;

inline std::int64_t now_ms() {
  return system_clock().unix_ms();
}

/// The controller as a router sees it. Test's thread.
class FakeController final : public lane::LaneOwner {
 public:
  FakeController(loop::Loop& loop, const crypto::TestPki& pki)
      : loop_(loop),
        pki_(pki),
        signer_(pki.leaf(crypto::Role::kSigner, "1")),
        leaf_(pki.leaf(crypto::Role::kController, "c-1")),
        writer_(pki.network, signer_.key, {{signer_.cert.der(), pki.infrastructure.der()}}) {
    listen(0);
  }
  void listen(std::uint16_t port) {
    tls::ContextOptions o{.side = tls::Side::kServer,
                          .chain = {leaf_.cert, pki_.infrastructure},
                          .key = leaf_.key,
                          .anchors = {pki_.root},
                          .issuing = {pki_.devices, pki_.infrastructure},
                          .network = NetworkId(pki_.network),
                          .roles = {tls::Role::kRouter},
                          .alpn = {std::string(lane::kAlpnControl)}};
    acceptor_ = must(tls::Acceptor::create(
        loop_,
        {.host = "127.0.0.1",
         .port = port,
         .context = must(tls::Context::create(std::move(o))),
         .limits = {},
         .name = "controller"},
        [this](std::unique_ptr<tls::Stream> s) {
          lane::LaneOptions options;
          options.hello.network = pki_.network;
          options.hello.features = wire::kFeatureRenewal | (counts_usage ? wire::kFeatureUsage : 0);
          options.tell_time = true;
          options.max_labels = 0;
          options.max_control = wire::kMaxControlMessage;
          lanes_.push_back(
              std::make_unique<lane::Lane>(loop_, pool_, std::move(s), *this, std::move(options)));
        }));
    port_ = acceptor_->port();
  }
  /// Gone, with all its lanes.
  void stop() {
    acceptor_.reset();
    for (auto& l : lanes_) l->close(Error(lane::Errc::kClosed));
  }
  void start() { listen(port_); }
  [[nodiscard]] HostPort address() const { return {"127.0.0.1", port_}; }

  void put_device(const std::string& id, std::vector<std::string> tags) {
    auto& card = cards_[id];
    card.network = pki_.network;
    card.id = id;
    card.name = "name-of-" + id;
    if (!card.attributes.empty() && card.attributes != tags) ++card.attr_epoch;
    card.attributes = std::move(tags);
    if (card.attr_epoch != 0) {
      op({wire::IdentityState{.id = id,
                              .standing = wire::Standing::kActive,
                              .credential_epoch = 0,
                              .attr_epoch = card.attr_epoch,
                              .at_ms = now_ms()}});
    }
  }
  void put_service(const std::string& id, const std::string& name, std::vector<std::string> dial,
                   std::vector<std::string> bind, wire::E2e e2e = wire::E2e::kTls) {
    const wire::ServiceRecord r{.network = pki_.network,
                                .id = id,
                                .name = name,
                                .e2e = e2e,
                                .dial = std::move(dial),
                                .bind = std::move(bind),
                                .version = writer_.version() + 1,
                                .not_after_ms = now_ms() + 3'600'000,
                                .host_config = {},
                                .intercept_config = {}};
    op({wire::PutService{must(trust::make_service_record(r, *signer_.key))}});
  }
  void remove_device(const std::string& id) {
    cards_.erase(id);
    op({wire::IdentityState{.id = id,
                            .standing = wire::Standing::kRevoked,
                            .credential_epoch = 1,
                            .attr_epoch = 0,
                            .at_ms = now_ms()}});
  }
  /// As the controller does it (pki/revoke.h): all of it dies with the identity, its cards for
  /// good.
  void revoke_device(const std::string& id) { stand(id, wire::Standing::kRevoked, 1); }
  void suspend_device(const std::string& id) { stand(id, wire::Standing::kSuspended, 1); }
  /// `dead`: serials that a revocation ended; they are named before it comes back.
  void resume_device(const std::string& id, const std::vector<std::string>& dead) {
    for (const auto& serial : dead)
      hold_op({wire::RevokedCertificate{
          .serial = serial, .not_after_ms = now_ms() + 3'600'000, .at_ms = now_ms()}});
    stand(id, wire::Standing::kActive, 0);
  }
  /// What it has or could have had up to now.
  [[nodiscard]] wire::Card card(const std::string& id) const {
    auto c = cards_.at(id);
    c.not_after_ms = now_ms() + 24LL * 3600 * 1000;
    return c;
  }
  [[nodiscard]] crypto::SignerPtr signer() const { return signer_.key; }
  void revoke_certificate(const std::string& serial) {
    op({wire::RevokedCertificate{
        .serial = serial, .not_after_ms = now_ms() + 3'600'000, .at_ms = now_ms()}});
  }
  /// As the controller does it: the older certificate is revoked, its cards die by the epoch.
  void enroll_again(const std::string& id, const std::string& old_serial) {
    auto& card = cards_[id];
    ++card.credential_epoch;
    hold_op({wire::RevokedCertificate{
        .serial = old_serial, .not_after_ms = now_ms() + 3'600'000, .at_ms = now_ms()}});
    op({wire::IdentityState{.id = id,
                            .standing = wire::Standing::kActive,
                            .credential_epoch = card.credential_epoch,
                            .attr_epoch = card.attr_epoch,
                            .at_ms = now_ms()}});
  }
  void op(wire::StateOp o) {
    hold_op(std::move(o));
    push_all();
  }
  /// Several of them reach the router in one update, at push_all.
  void hold_op(wire::StateOp o) {
    if (!writer_.append(o)) std::abort();
  }
  void push_all() {
    for (auto& l : lanes_) push(*l);
  }
  [[nodiscard]] bool heard(const std::string& code) const {
    for (const auto& e : events) {
      if (e.code == code) return true;
    }
    return false;
  }

  std::vector<wire::Event> events;
  std::vector<wire::Terminator> terminators;
  std::uint64_t acked = 0;
  std::uint64_t flows_cut = 0;
  [[nodiscard]] std::uint64_t version() const { return writer_.version(); }
  std::int64_t life_s = 0;   ///< of renewed certificates; 0: renewals are not answered
  std::size_t renewals = 0;  ///< answered
  std::int64_t session_life_s = 3'600;
  std::string session_parent;     ///< that they name; empty: the certificate that asks
  std::size_t sessions = 0;       ///< session certificates issued
  std::vector<std::string> used;  ///< serials whose use was told
  std::string refuse_renewals;    ///< with this code
  std::int64_t shift_ms = 0;      ///< how wrong the clock of its heads is
  bool silent = false;            ///< card requests are not answered
  bool counts_usage = false;
  /// As a controller keeps them: the first of an epoch and sequence.
  std::map<std::pair<wire::ProcessEpoch, std::uint64_t>, wire::Usage> usage;
  std::size_t usage_heard = 0;
  std::size_t lost_acks = 0;  ///< so many are not sent

  void on_lane_up(lane::Lane& lane, const wire::Hello& hello) override {
    known_[&lane] = hello.state_version;
    // A reader that is ahead gets everything: the roll-back a test may want.
    const std::uint64_t version = hello.state_version > writer_.version() ? 0 : hello.state_version;
    lane.send_control({must(writer_.update_for(version, hello.state_hash, now_ms() + shift_ms))});
    known_[&lane] = writer_.version();
    if (counts_usage) lane.send_control({wire::UsageAck{hello.epoch, 0, 1'000}});
  }
  void on_lane_control(lane::Lane& lane, wire::Control&& m) override {
    if (const auto* r = std::get_if<wire::CardRequest>(&m.member)) {
      if (silent) return;
      wire::CardReply reply{.request = r->request, .id = r->id, .card = {}, .error = {}};
      const auto it = cards_.find(r->id);
      if (it == cards_.end()) {
        reply.error = "unknown";
      } else {
        it->second.not_after_ms = now_ms() + 24LL * 3600 * 1000;
        it->second.issued_ms = now_ms() + shift_ms;
        reply.card = must(trust::make_card(it->second, *signer_.key));
      }
      lane.send_control({std::move(reply)});
    } else if (const auto* n = std::get_if<wire::Renew>(&m.member)) {
      on_renew(lane, *n);
    } else if (const auto* e = std::get_if<wire::Events>(&m.member)) {
      events.insert(events.end(), e->entries.begin(), e->entries.end());
    } else if (const auto* u = std::get_if<wire::Usage>(&m.member)) {
      ++usage_heard;
      usage.try_emplace({u->epoch, u->sequence}, *u);
      if (lost_acks > 0) {
        --lost_acks;
      } else {
        lane.send_control({wire::UsageAck{u->epoch, u->sequence, 1'000}});
      }
    } else if (const auto* t = std::get_if<wire::Terminators>(&m.member)) {
      terminators = t->entries;
    } else if (const auto* a = std::get_if<wire::StateAck>(&m.member)) {
      acked = a->version;
      flows_cut = a->flows_cut;
    }
  }
  void on_lane_setup(lane::Lane&, std::uint32_t, ByteView) override { std::abort(); }
  void on_lane_down(lane::Lane& lane, const Error&) override {
    known_.erase(&lane);
    lanes_.remove_if([&](const auto& l) { return l.get() == &lane; });
  }

 private:
  void on_renew(lane::Lane& lane, const wire::Renew& n) {
    if (life_s == 0) return;
    wire::Renewed reply{.request = n.request,
                        .id = n.id,
                        .leaf = {},
                        .issuing = {},
                        .error = refuse_renewals,
                        .retry_after_ms = 100};
    const auto request = must(trust::read_renewal(n.envelope, pki_.network));
    const bool router = n.id.empty();
    reply.id = request.id;
    if (!request.session_csr.empty() && !router) {
      if (refuse_renewals.empty()) {
        auto spec = pki_.leaf_spec(crypto::Role::kDevice, request.id);
        spec.not_before_s = now_ms() / 1000 - session_life_s / 10;
        spec.not_after_s = now_ms() / 1000 + session_life_s;
        spec.session_parent = session_parent.empty() ? request.serial : session_parent;
        reply.leaf =
            must(crypto::sign_certificate(spec, must(crypto::parse_csr(request.session_csr)).key,
                                          &pki_.devices, *pki_.devices_key, system_random()))
                .der();
        reply.issuing = pki_.devices.der();
        ++sessions;
      }
    } else if (request.csr.empty()) {
      used.push_back(request.serial);
      // As after enrolment: all that came before.
      std::string& before = used_before_[request.id];
      if (!before.empty()) {
        op({wire::RevokedCertificate{.serial = before,
                                     .not_after_ms = now_ms() + 3'600'000,
                                     .at_ms = now_ms(),
                                     .superseded = true}});
      }
      before = request.serial;
    } else if (refuse_renewals.empty()) {
      auto spec =
          pki_.leaf_spec(router ? crypto::Role::kRouter : crypto::Role::kDevice, request.id);
      spec.not_before_s = now_ms() / 1000 - life_s / 10;
      spec.not_after_s = now_ms() / 1000 + life_s;
      const auto& issuing = router ? pki_.infrastructure : pki_.devices;
      reply.leaf = must(crypto::sign_certificate(
                            spec, must(crypto::parse_csr(request.csr)).key, &issuing,
                            router ? *pki_.infra_key : *pki_.devices_key, system_random()))
                       .der();
      reply.issuing = issuing.der();
      ++renewals;
    }
    lane.send_control({std::move(reply)});
  }
  void stand(const std::string& id, wire::Standing standing, std::uint64_t more_epochs) {
    auto& card = cards_[id];
    card.credential_epoch += more_epochs;
    op({wire::IdentityState{.id = id,
                            .standing = standing,
                            .credential_epoch = card.credential_epoch,
                            .attr_epoch = card.attr_epoch,
                            .at_ms = now_ms()}});
  }
  std::map<std::string, std::string> used_before_;  ///< by identity
  void push(lane::Lane& lane) {
    if (!lane.up()) return;
    lane.send_control({must(writer_.update_since(known_[&lane], now_ms() + shift_ms))});
    known_[&lane] = writer_.version();
  }
  loop::Loop& loop_;
  const crypto::TestPki& pki_;
  ChunkPool pool_;
  crypto::TestLeaf signer_;
  crypto::TestLeaf leaf_;
  replica::LogWriter writer_;
  std::uint16_t port_ = 0;
  std::unique_ptr<tls::Acceptor> acceptor_;
  std::list<std::unique_ptr<lane::Lane>> lanes_;
  std::map<const lane::Lane*, std::uint64_t> known_;
  std::map<std::string, wire::Card> cards_;
};

/// A circuit's user that keeps what comes and can send.
class Recorder final : public sdk::CircuitUser {
 public:
  explicit Recorder(std::unique_ptr<sdk::Circuit> c) : circuit(std::move(c)) {
    circuit->set_user(*this);
  }
  ~Recorder() override {
    if (circuit != nullptr) circuit->abort(wire::ResetCode::kClosed);
  }
  void send(ByteView bytes) {
    append(out_, bytes);
    on_circuit_writable();
  }
  void end_after_sending() {
    end_wanted_ = true;
    on_circuit_writable();
  }
  void on_circuit_readable() override {
    while (!paused && !ended) {
      std::uint8_t buffer[16'384];
      const auto r = circuit->read(buffer);
      if (r.kind == sdk::Circuit::ReadKind::kNothing) return;
      if (r.kind == sdk::Circuit::ReadKind::kEnd) {
        ended = true;
        break;
      }
      received += r.n;
      if (keep) append(data, {buffer, r.n});
      if (echo) send({buffer, r.n});
    }
    if (ended && echo) end_after_sending();
  }
  void on_circuit_writable() override {
    at_ += circuit->write(ByteView(out_).subspan(at_));
    if (at_ < out_.size()) return;
    out_.clear();
    at_ = 0;
    if (end_wanted_) circuit->shutdown_write();
  }
  void on_circuit_over(const Error& why) override { cut = why; }

  std::unique_ptr<sdk::Circuit> circuit;
  Bytes data;
  std::size_t received = 0;
  bool keep = true;
  bool echo = false;
  bool paused = false;
  bool ended = false;
  std::optional<Error> cut;

 private:
  Bytes out_;
  std::size_t at_ = 0;
  bool end_wanted_ = false;
};

/// Welcomes or refuses callers and keeps their streams.
class TestHost final : public sdk::Host {
 public:
  void on_caller(std::uint64_t, const sdk::Caller& caller, Answer answer) override {
    callers.push_back(caller);
    answer(refuse);
  }
  void on_stream(std::uint64_t, const sdk::Caller&,
                 std::unique_ptr<sdk::Circuit> circuit) override {
    if (circuit == nullptr) {
      ++gone;
      return;
    }
    streams.push_back(std::make_unique<Recorder>(std::move(circuit)));
    streams.back()->echo = echo;
  }
  std::vector<sdk::Caller> callers;
  std::vector<std::unique_ptr<Recorder>> streams;
  std::optional<Error> refuse;
  bool echo = false;
  int gone = 0;
};

/// One device: an engine with its identity.
struct Device {
  Device(loop::Loop& loop, sdk::Material material)
      : engine(std::make_unique<sdk::Engine>(loop, system_random(), std::move(material),
                                             [this](sdk::Event e, const std::string& text) {
                                               seen.insert(e);
                                               last_text = text;
                                             })) {
    engine->start();
  }
  std::set<sdk::Event> seen;
  std::string last_text;
  std::unique_ptr<sdk::Engine> engine;
};

class World {
 public:
  using Adjust = std::function<void(router::RouterOptions&)>;
  explicit World(unsigned worker_count = 1, bool port_for_each = true, Adjust adjust = {},
                 const Clock& clock = system_clock())
      : workers(worker_count),
        own_ports(port_for_each),
        adjust_router(std::move(adjust)),
        loop(clock),
        pki("net-a.sally", now_ms() / 1000),
        controller(loop, pki),
        router_leaf(pki.leaf(crypto::Role::kRouter, "r-1")) {
    char name[] = "/tmp/sally-sim-XXXXXX";
    if (::mkdtemp(name) == nullptr) std::abort();
    dir = name;
    controller.op({wire::RouterEntry{.id = "r-1", .name = "first", .addresses = {}}});
    start_router();
  }
  ~World() {
    std::error_code ignored;
    std::filesystem::remove_all(dir, ignored);
  }

  /// Where it was before, if it was.
  void start_router() {
    router::RouterOptions o;
    o.workers = workers;
    ports.resize(workers);
    if (own_ports) o.own_ports = ports;
    o.state_path = dir + "/state";
    o.listen = {"127.0.0.1", 0};
    o.controller = controller.address();
    o.network = pki.network;
    o.id = "r-1";
    o.chain = {router_leaf.cert, pki.infrastructure};
    o.key = router_leaf.key;
    o.anchors = anchors();
    if (adjust_router) adjust_router(o);
    router = std::make_unique<router::Router>(loop, system_random(), std::move(o));
    if (const Status s = router->start(); !s) {
      std::fprintf(stderr, "router: %s\n", s.error().text().c_str());
      std::abort();
    }
    for (unsigned i = 0; i < workers; ++i) ports[i] = router->port(i);
  }
  /// The port of the worker where a device's lane belongs: with several workers, hosts and dialers
  /// are never on the same one.
  [[nodiscard]] std::uint16_t port_of(const std::string& id) const {
    const auto at = placed.find(id);
    if (at != placed.end()) return ports[at->second];
    return ports[id == "host" ? workers - 1 : 0];
  }
  [[nodiscard]] trust::Anchors anchors() const {
    return {
        .network = pki.network, .roots = {pki.root}, .issuing = {pki.devices, pki.infrastructure}};
  }
  [[nodiscard]] sdk::Material material(const std::string& id, const crypto::TestLeaf& leaf) const {
    return {.network = pki.network,
            .id = id,
            .name = id,
            .chain = {leaf.cert, pki.devices},
            .key = leaf.key,
            .anchors = anchors(),
            .routers = {{"127.0.0.1", port_of(id)}}};
  }
  std::unique_ptr<Device> device(const std::string& id) {
    return std::make_unique<Device>(loop, material(id, pki.leaf(crypto::Role::kDevice, id)));
  }
  bool until(const std::function<bool()>& done, std::int64_t ms = 10'000) {
    // What other workers do does not wake this loop.
    loop::Timer tick(loop.timers(), [&] { tick.arm(5); });
    if (workers > 1) tick.arm(5);
    return loop.run_until(done, ms);
  }

  /// The result of a dial, or nullopt when nothing came in time.
  std::optional<Result<std::unique_ptr<sdk::Circuit>>> dial(Device& d, const std::string& service,
                                                            std::int64_t timeout_ms = 5'000) {
    // Shared: the callback may come after we gave up.
    auto result = std::make_shared<std::optional<Result<std::unique_ptr<sdk::Circuit>>>>();
    d.engine->dial(service, {}, timeout_ms, [result](Result<std::unique_ptr<sdk::Circuit>> r) {
      result->emplace(std::move(r));
    });
    until([&] { return result->has_value(); }, timeout_ms + 5'000);
    return std::move(*result);
  }

  const unsigned workers;
  const bool own_ports;
  const Adjust adjust_router;
  std::map<std::string, unsigned> placed;  ///< device to worker
  std::string dir;
  loop::Loop loop;
  crypto::TestPki pki;
  FakeController controller;
  crypto::TestLeaf router_leaf;
  std::vector<std::uint16_t> ports;  ///< by worker
  std::unique_ptr<router::Router> router;
};

}  // namespace sally::sim
