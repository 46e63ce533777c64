// SPDX-License-Identifier: Apache-2.0
// GHSA-7868-235p-7497 from the other side: a router with a genuine certificate hands a real host
// whatever set-ups it likes. What the router checked proves nothing to the host.
#include <gtest/gtest.h>

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "raw_device.h"
#include "world.h"

namespace sally::sim {
namespace {

using wire::SetupCode;

/// A router that belongs to the network and to the attacker.
class HostileRouter final : public lane::LaneOwner {
 public:
  explicit HostileRouter(World& world)
      : world_(world), signer_(world.pki.leaf(crypto::Role::kSigner, "1")) {
    tls::ContextOptions o{.side = tls::Side::kServer,
                          .chain = {world.router_leaf.cert, world.pki.infrastructure},
                          .key = world.router_leaf.key,
                          .anchors = {world.pki.root},
                          .issuing = {world.pki.devices, world.pki.infrastructure},
                          .network = NetworkId(world.pki.network),
                          .roles = {tls::Role::kDevice},
                          .alpn = {std::string(lane::kAlpnEdge)}};
    acceptor_ = must(tls::Acceptor::create(world.loop,
                                           {.host = "127.0.0.1",
                                            .port = 0,
                                            .context = must(tls::Context::create(std::move(o))),
                                            .limits = {},
                                            .name = "hostile"},
                                           [this](std::unique_ptr<tls::Stream> s) {
                                             lane::LaneOptions options;
                                             options.hello.network = world_.pki.network;
                                             options.tell_time = true;
                                             options.max_control = wire::kMaxControlMessage;
                                             lane = std::make_unique<lane::Lane>(
                                                 world_.loop, pool_, std::move(s), *this,
                                                 std::move(options));
                                           }));
  }
  [[nodiscard]] std::uint16_t port() const { return acceptor_->port(); }
  [[nodiscard]] Bytes card(const std::string& id, std::vector<std::string> tags,
                           std::int64_t life_ms = 3'600'000) const {
    return must(trust::make_card({.network = world_.pki.network,
                                  .id = id,
                                  .name = id,
                                  .attributes = std::move(tags),
                                  .attr_epoch = 0,
                                  .credential_epoch = 0,
                                  .not_after_ms = now_ms() + life_ms},
                                 *signer_.key));
  }
  [[nodiscard]] wire::Route route(const wire::Setup& s) const {
    return {.network = world_.pki.network,
            .circuit = s.circuit,
            .epoch = s.epoch,
            .attempt = 0,
            .service = s.service,
            .terminator = "t-1",
            .hops = {"r-1"},
            .expiry_ms = now_ms() + trust::kMaxRouteLifeMs,
            .setup_hash = trust::hash_of(wire::encode(s)),
            .instance = instance,
            .ingress_leaf = world_.router_leaf.cert.der(),
            .ingress_issuing = world_.pki.infrastructure.der()};
  }
  /// What the host says to it: kNone = it answers.
  std::optional<SetupCode> ask(const wire::Setup& s, Bytes sealed_route) {
    ends.emplace_back();
    RawEnd& end = ends.back();
    if (!lane->attach(end)) return std::nullopt;
    lane->send_setup(end,
                     {.setup = wire::encode(s), .route = std::move(sealed_route), .attempt = 0});
    world_.until([&] { return answered || end.refused || lane == nullptr; });
    if (end.refused) return end.refused->code;
    return answered ? std::optional(SetupCode::kNone) : std::nullopt;
  }

  void on_lane_up(lane::Lane& l, const wire::Hello&) override {
    const wire::ServiceRecord record{.network = world_.pki.network,
                                     .id = "s-1",
                                     .name = "plant-mqtt",
                                     .e2e = wire::E2e::kTls,
                                     .dial = {"#sensors"},
                                     .bind = {"#servers"},
                                     .version = 1,
                                     .not_after_ms = now_ms() + 3'600'000,
                                     .host_config = {},
                                     .intercept_config = {}};
    l.send_control({wire::Services{
        .entries = {{.record = must(trust::make_service_record(record, *signer_.key)),
                     .dial = false,
                     .bind = true}},
        .signers = {{signer_.cert.der(), world_.pki.infrastructure.der()}}}});
    l.send_control({wire::CardUpdate{.card = card("host", {"servers"})}});
  }
  void on_lane_control(lane::Lane& l, wire::Control&& m) override {
    if (const auto* b = std::get_if<wire::Bind>(&m.member)) {
      instance = b->instance;
      l.send_control({wire::BindReply{
          .request = b->request, .code = SetupCode::kNone, .text = {}, .terminator = "t-1"}});
    }
  }
  void on_lane_setup(lane::Lane&, std::uint32_t, ByteView) override { std::abort(); }
  void on_lane_down(lane::Lane&, const Error&) override { lane.reset(); }

  wire::InstanceId instance{};
  bool answered = false;

 private:
  World& world_;
  crypto::TestLeaf signer_;
  ChunkPool pool_;
  std::unique_ptr<tls::Acceptor> acceptor_;

 public:
  std::unique_ptr<lane::Lane> lane;
  std::list<RawEnd> ends;  // gone before the lane
};

/// Tells the router that the host lets a caller in.
class Welcoming final : public sdk::Host {
 public:
  explicit Welcoming(HostileRouter& router) : router_(router) {}
  void on_caller(std::uint64_t, const sdk::Caller& caller, Answer answer) override {
    callers.push_back(caller);
    router_.answered = true;
    answer(std::nullopt);
  }
  void on_stream(std::uint64_t, const sdk::Caller&, std::unique_ptr<sdk::Circuit>) override {}
  std::vector<sdk::Caller> callers;

 private:
  HostileRouter& router_;
};

TEST(HostileRouter, Ghsa7868235p7497TheHostBelievesTheCallersProofAndNotTheRouter) {
  World world;
  HostileRouter evil(world);
  auto material = world.material("host", world.pki.leaf(crypto::Role::kDevice, "host"));
  material.routers = {{"127.0.0.1", evil.port()}};
  Welcoming host(evil);
  Device device(world.loop, std::move(material));
  const auto binding = device.engine->bind("plant-mqtt", 0, host);
  ASSERT_TRUE(world.until([&] { return !device.engine->binding_error(binding); }));

  // The real router's world lends a device that makes honest set-ups.
  world.controller.put_device("pump", {"sensors"});
  world.until([&] { return world.controller.acked > 0; });
  RawDevice pump(world, "pump");
  ASSERT_TRUE(world.until([&] { return pump.ready(); }));
  const auto honest = [&] {
    auto s = pump.setup("s-1");
    s.card = evil.card("pump", {"sensors"});
    return pump.sealed(std::move(s));
  };
  const auto mallory = world.pki.leaf(crypto::Role::kDevice, "mallory");
  const auto again = world.pki.leaf(crypto::Role::kDevice, "pump");
  const crypto::TestPki net_b("net-b.sally", world.pki.now_s);
  const auto foreign = net_b.leaf(crypto::Role::kDevice, "pump");
  const auto by = [](wire::Setup& s, const crypto::TestLeaf& leaf, std::int64_t late_ms = 0) {
    s.proof = must(trust::make_dial_proof(s, "r-1", now_ms() - late_ms, *leaf.key));
  };
  using Change = std::function<void(wire::Setup&)>;
  const std::pair<const char*, Change> setups[] = {
      {"no proof", [](auto& s) { s.proof.clear(); }},
      {"garbage", [](auto& s) { s.proof = Bytes(200, 0x5a); }},
      {"expired", [&](auto& s) { by(s, pump.leaf, 61'500); }},
      {"by another key", [&](auto& s) { by(s, again); }},
      {"by the router", [&](auto& s) { by(s, world.router_leaf); }},
      {"of another identity",
       [&](auto& s) {
         s.leaf = mallory.cert.der();
         by(s, mallory);
       }},
      {"of another network",
       [&](auto& s) {
         s.leaf = foreign.cert.der();
         s.issuing = net_b.devices.der();
         by(s, foreign);
       }},
      {"another ClientHello", [](auto& s) { s.client_hello.back() ^= 1; }},
      {"other app data", [](auto& s) { s.app_data = {1}; }},
      {"no card", [](auto& s) { s.card.clear(); }},
      {"another's card", [&](auto& s) { s.card = evil.card("mallory", {"sensors"}); }},
      {"a card that has ended", [&](auto& s) { s.card = evil.card("pump", {"sensors"}, -70'000); }},
      {"a move", [](auto& s) { s.kind = wire::SetupKind::kMove; }},
  };
  for (const auto& [what, change] : setups) {
    auto s = honest();
    change(s);
    const auto code = evil.ask(s, must(trust::make_route(evil.route(s), *world.router_leaf.key)));
    ASSERT_TRUE(code) << what;
    EXPECT_TRUE(code == SetupCode::kInvalid || code == SetupCode::kNotKnown)
        << what << ": " << wire::setup_code_name(*code);
  }
  // A card that grants nothing.
  auto s = honest();
  s.card = evil.card("pump", {"guests"});
  EXPECT_EQ(evil.ask(s, must(trust::make_route(evil.route(s), *world.router_leaf.key))),
            SetupCode::kNoService);

  const std::pair<const char*, std::function<void(wire::Route&)>> routes[] = {
      {"another set-up's", [](auto& r) { r.setup_hash[0] ^= 1; }},
      {"expired", [](auto& r) { r.expiry_ms = now_ms() - 61'500; }},
      {"of the far future", [](auto& r) { r.expiry_ms += 3'600'000; }},
      {"another circuit's", [](auto& r) { r.circuit.raw[0] ^= 1; }},
      {"another service's", [](auto& r) { r.service = "s-2"; }},
      {"another router's", [](auto& r) { r.hops = {"r-2"}; }},
      {"another attempt's", [](auto& r) { r.attempt = 1; }},
      {"signed by what is no router",
       [&](auto& r) {
         r.ingress_leaf = mallory.cert.der();
         r.ingress_issuing = world.pki.devices.der();
       }},
  };
  for (const auto& [what, change] : routes) {
    s = honest();
    auto r = evil.route(s);
    change(r);
    EXPECT_EQ(evil.ask(s, must(trust::make_route(r, *world.router_leaf.key))), SetupCode::kInvalid)
        << what;
  }
  s = honest();
  EXPECT_EQ(evil.ask(s, {}), SetupCode::kInvalid);
  EXPECT_EQ(evil.ask(s, Bytes(100, 1)), SetupCode::kInvalid);
  EXPECT_EQ(evil.ask(s, must(trust::make_route(evil.route(s), *mallory.key))), SetupCode::kInvalid);
  EXPECT_TRUE(host.callers.empty());

  // Unchanged it is let in, as pump; once.
  s = honest();
  const Bytes good = must(trust::make_route(evil.route(s), *world.router_leaf.key));
  EXPECT_EQ(evil.ask(s, good), SetupCode::kNone);
  ASSERT_EQ(host.callers.size(), 1U);
  EXPECT_EQ(host.callers[0].id, "pump");
  evil.answered = false;
  EXPECT_EQ(evil.ask(s, good), SetupCode::kInvalid);
  EXPECT_TRUE(device.engine->online());
  evil.ends.clear();
}

}  // namespace
}  // namespace sally::sim
