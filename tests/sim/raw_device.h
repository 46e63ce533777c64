// SPDX-License-Identifier: Apache-2.0
// A device without the SDK: a real lane, and hands that send whatever the test wants.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trust/circuit.h"
#include "world.h"

namespace sally::sim {

/// A circuit's place on a raw device's lane; it records and sends what it is told, valid or not.
class RawEnd final : public lane::Attachment {
 public:
  Status on_data(std::uint64_t, ByteView payload, ChunkPtr*) override {
    append(data, payload);
    return {};
  }
  Status on_fin(std::uint64_t) override {
    fin = true;
    return {};
  }
  void on_credit(std::uint64_t) override {}
  Status on_ack(std::uint64_t offset) override {
    acked = offset;
    return {};
  }
  Status on_setup_ok(ByteView payload) override {
    const auto frame = must(wire::decode_setup_ok_frame(payload));
    const auto envelope = wire::decode_envelope(frame.answer);
    // From a router it is sealed, from a host it is not.
    if (envelope) {
      answer = must(wire::decode_answer(envelope->payload));
    } else {
      answer = wire::Answer{.host = must(wire::decode_host_answer(frame.answer))};
    }
    return {};
  }
  void on_setup_err(const wire::SetupErr& err) override { refused = err; }
  void on_reset(const wire::Reset& r) override { reset = r; }
  bool next_frame(Out& out) override {
    if (queue_.empty()) return false;
    auto& [offset, bytes, is_fin] = queue_.front();
    out.offset = offset;
    out.fin = is_fin;
    sending_ = std::move(bytes);
    out.view = sending_;
    queue_.pop_front();
    return true;
  }
  /// DATA at an offset of the test's choice.
  void send_at(std::uint64_t offset, Bytes bytes) {
    queue_.push_back({offset, std::move(bytes), false});
    lane()->ready(*this);
  }
  void send(Bytes bytes) {
    const std::uint64_t at = sent_;
    sent_ += bytes.size();
    send_at(at, std::move(bytes));
  }
  void send_fin() {
    queue_.push_back({sent_, {}, true});
    lane()->ready(*this);
  }
  [[nodiscard]] bool decided() const { return answer || refused || reset; }

  std::optional<wire::Answer> answer;
  std::optional<wire::SetupErr> refused;
  std::optional<wire::Reset> reset;
  Bytes data;
  bool fin = false;
  std::uint64_t acked = 0;

 private:
  struct Frame {
    std::uint64_t offset;
    Bytes bytes;
    bool fin;
  };
  std::deque<Frame> queue_;
  Bytes sending_;
  std::uint64_t sent_ = 0;
};

/// A device's lane without an engine.
class RawDevice final : public lane::LaneOwner {
 public:
  RawDevice(World& world, std::string name, Bytes hello_card = {})
      : id(std::move(name)),
        leaf(world.pki.leaf(crypto::Role::kDevice, id)),
        world_(world),
        hello_card_(std::move(hello_card)) {
    tls::ContextOptions o = tls_options();
    o.roles = {tls::Role::kRouter};
    o.alpn = {std::string(lane::kAlpnEdge)};
    dialing_ = tls::dial(world.loop, must(tls::Context::create(std::move(o))),
                         {.host = "127.0.0.1", .port = world.port_of(id)},
                         [this](Result<std::unique_ptr<tls::Stream>> s) {
                           if (!s) {
                             down = s.error();
                             return;
                           }
                           lane::LaneOptions options;
                           options.hello.network = world_.pki.network;
                           options.hello.card = hello_card_;
                           options.max_control = wire::kMaxControlMessage;
                           lane = std::make_unique<lane::Lane>(world_.loop, pool, std::move(*s),
                                                               *this, std::move(options));
                         });
  }
  [[nodiscard]] tls::ContextOptions tls_options() const {
    return {.side = tls::Side::kClient,
            .chain = {leaf.cert, world_.pki.devices},
            .key = leaf.key,
            .anchors = {world_.pki.root},
            .issuing = {world_.pki.devices, world_.pki.infrastructure},
            .network = NetworkId(world_.pki.network)};
  }
  /// A TLS session for the inside of a circuit, with the certificate of `as`.
  [[nodiscard]] std::unique_ptr<tls::Session> inner(tls::Side side,
                                                    const crypto::TestLeaf& as) const {
    return inner(side, as.key, {as.cert, world_.pki.devices});
  }
  /// The same with any chain; its first certificate is the key's.
  [[nodiscard]] std::unique_ptr<tls::Session> inner(tls::Side side, const crypto::SignerPtr& key,
                                                    std::vector<crypto::Certificate> chain) const {
    tls::ContextOptions o = tls_options();
    o.side = side;
    o.chain = std::move(chain);
    o.key = key;
    o.roles = {tls::Role::kDevice};
    o.alpn = {"sally-circuit/1"};
    o.inner = true;
    return must(tls::Session::on_memory(must(tls::Context::create(std::move(o)))));
  }
  [[nodiscard]] bool ready() const { return lane != nullptr && lane->up() && !card.empty(); }
  [[nodiscard]] bool alive() const { return lane != nullptr && lane->up() && !down; }

  /// A set-up as an honest SDK would make it, its inner session in `session`; no proof yet.
  wire::Setup setup(const std::string& service, const std::string& sni_service = {}) {
    return setup(service, sni_service, inner(tls::Side::kClient, leaf));
  }
  wire::Setup setup(const std::string& service, const std::string& sni_service,
                    std::unique_ptr<tls::Session> inside) {
    CircuitId circuit;
    system_random().fill(circuit.raw);
    session = std::move(inside);
    if (!session->set_sni(circuit.hex() + "." + (sni_service.empty() ? service : sni_service)))
      std::abort();
    (void)session->handshake();
    return {.kind = wire::SetupKind::kOpen,
            .network = world_.pki.network,
            .circuit = circuit,
            .service = service,
            .client_hello = session->take_output(),
            .leaf = leaf.cert.der(),
            .issuing = world_.pki.devices.der(),
            .card = card};
  }
  wire::Setup sealed(wire::Setup s, const std::string& ingress = "r-1", std::int64_t late_ms = 0) {
    s.proof = must(trust::make_dial_proof(s, ingress, now_ms() - late_ms, *leaf.key));
    return s;
  }
  RawEnd& begin(const wire::Setup& s, Bytes route = {}) {
    ends.emplace_back();
    if (!lane->attach(ends.back())) std::abort();
    lane->send_setup(ends.back(),
                     {.setup = wire::encode(s), .route = std::move(route), .attempt = 0});
    return ends.back();
  }
  /// The answer to a set-up: kNone = open; nullopt = none came.
  std::optional<wire::SetupCode> open(const wire::Setup& s, Bytes route = {}) {
    RawEnd& end = begin(s, std::move(route));
    world_.until([&] { return end.decided() || down.has_value(); });
    if (end.refused) return end.refused->code;
    if (end.answer) return wire::SetupCode::kNone;
    return std::nullopt;
  }
  /// Ends the inner handshake of an opened circuit; its last flight is on the way.
  void finish_handshake(RawEnd& end) {
    session->feed(end.answer->host.flight);
    if (!session->handshake().ok()) std::abort();
    end.send(session->take_output());
  }

  Bytes bind_proof(const std::string& service, const wire::InstanceId& of,
                   const crypto::Signer& by) {
    return must(trust::make_bind_proof({.network = world_.pki.network,
                                        .service = service,
                                        .instance = of,
                                        .router = "r-1",
                                        .time_ms = now_ms()},
                                       by));
  }
  std::optional<wire::SetupCode> bind(const std::string& service, Bytes proof,
                                      std::uint32_t precedence = 0) {
    const std::uint64_t request = ++request_;
    lane->send_control({wire::Bind{.request = request,
                                   .service = service,
                                   .instance = instance,
                                   .proof = std::move(proof),
                                   .cost = 0,
                                   .precedence = precedence}});
    std::optional<wire::SetupCode> code;
    world_.until([&] {
      for (const auto& r : bind_replies) {
        if (r.request == request) code = r.code;
      }
      return code.has_value() || down.has_value();
    });
    return code;
  }
  std::optional<wire::SetupCode> bind(const std::string& service, std::uint32_t precedence = 0) {
    return bind(service, bind_proof(service, instance, *leaf.key), precedence);
  }

  /// A set-up that came to us as a host.
  struct Asked {
    std::uint32_t label;
    wire::SetupFrame frame;
    wire::Setup setup;
  };
  /// Answers a set-up: inner TLS as `as`, whatever card is given.
  RawEnd& answer(const Asked& a, const crypto::TestLeaf& as, Bytes with_card) {
    return answer(a, inner(tls::Side::kServer, as), std::move(with_card));
  }
  RawEnd& answer(const Asked& a, std::unique_ptr<tls::Session> inside, Bytes with_card) {
    session = std::move(inside);
    session->feed(a.setup.client_hello);
    (void)session->handshake();
    return answer(a, session->take_output(), std::move(with_card));
  }
  RawEnd& answer(const Asked& a, Bytes flight, Bytes with_card) {
    ends.emplace_back();
    if (!lane->attach(ends.back(), a.label)) std::abort();
    const wire::HostAnswer answer{.circuit = a.setup.circuit,
                                  .epoch = a.setup.epoch,
                                  .attempt = a.frame.attempt,
                                  .flight = std::move(flight),
                                  .card = std::move(with_card),
                                  .next_expected = 0,
                                  .app_data = {}};
    lane->send_setup_ok(ends.back(),
                        wire::encode(wire::SetupOkFrame{.answer = wire::encode(answer)}));
    return ends.back();
  }

  void on_lane_up(lane::Lane&, const wire::Hello&) override {}
  void on_lane_control(lane::Lane&, wire::Control&& m) override {
    if (auto* c = std::get_if<wire::CardUpdate>(&m.member)) card = c->card;
    if (auto* b = std::get_if<wire::BindReply>(&m.member)) bind_replies.push_back(*b);
    if (auto* s = std::get_if<wire::Services>(&m.member)) services = *s;
  }
  void on_lane_setup(lane::Lane&, std::uint32_t label, ByteView payload) override {
    Asked a{.label = label, .frame = must(wire::decode_setup_frame(payload)), .setup = {}};
    a.setup = must(wire::decode_setup(a.frame.setup));
    asked.push_back(a);
    if (on_setup) on_setup(asked.back());
  }
  void on_lane_down(lane::Lane&, const Error& why) override {
    down = why;
    lane.reset();
  }

  std::string id;
  crypto::TestLeaf leaf;
  Bytes card;
  wire::InstanceId instance{1, 2, 3};
  std::optional<wire::Services> services;
  std::vector<wire::BindReply> bind_replies;
  std::vector<Asked> asked;
  std::function<void(const Asked&)> on_setup;
  std::optional<Error> down;
  std::unique_ptr<tls::Session> session;
  ChunkPool pool;
  std::unique_ptr<lane::Lane> lane;
  std::list<RawEnd> ends;  // gone before the lane: they stand on it

 private:
  World& world_;
  Bytes hello_card_;
  std::unique_ptr<tls::Dialing> dialing_;
  std::uint64_t request_ = 0;
};

}  // namespace sally::sim
