// SPDX-License-Identifier: Apache-2.0
// The hot paths, one after the other, for counting their instructions under callgrind: see
// counts.py. The router has a loop of its own in this one thread, so that what is counted is the
// router's turns and nothing of the ends.
#include <stdlib.h>
#include <valgrind/callgrind.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "../sim/world.h"
#include "base/log.h"
#include "controller/init.h"
#include "controller/server.h"
#include "controller/test_identity.h"

namespace sally::bench {
namespace {

using crypto::must;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "hot_paths: %s\n", what);
  std::_Exit(1);
}

/// Callgrind's counters: cleared, on and off around what counts, written under a name.
struct Meter {
  static void clear() { CALLGRIND_ZERO_STATS; }
  static void toggle() { CALLGRIND_TOGGLE_COLLECT; }
  static void report(const char* name, int operations) {
    const std::string text = std::string(name) + " " + std::to_string(operations);
    CALLGRIND_DUMP_STATS_AT(text.c_str());
  }
};

/// A network whose router has its own loop.
struct Network {
  std::string dir;
  loop::Loop ends;
  loop::Loop routers;
  crypto::TestPki pki{"bench.sally", sim::now_ms() / 1000};
  sim::FakeController controller{ends, pki};
  crypto::TestLeaf leaf{pki.leaf(crypto::Role::kRouter, "r-1")};
  std::unique_ptr<router::Router> router;
  bool counting = false;

  Network() {
    char name[] = "/tmp/sally-hot-XXXXXX";
    if (::mkdtemp(name) == nullptr) die("no folder");
    dir = name;
    controller.op({wire::RouterEntry{.id = "r-1", .name = "first", .addresses = {}}});
    controller.put_device("dialer", {"dial"});
    controller.put_device("host", {"host"});
    controller.put_service("s-1", "flow", {"#dial"}, {"#host"});
    router::RouterOptions o;
    o.state_path = dir + "/state";
    o.listen = {"127.0.0.1", 0};
    o.controller = controller.address();
    o.network = pki.network;
    o.id = "r-1";
    o.chain = {leaf.cert, pki.infrastructure};
    o.key = leaf.key;
    o.anchors = anchors();
    router = std::make_unique<router::Router>(routers, system_random(), std::move(o));
    if (!router->start()) die("router");
    until([&] { return router->controller_up(); }, "no control lane");
  }
  ~Network() {
    router.reset();
    std::filesystem::remove_all(dir);
  }
  [[nodiscard]] trust::Anchors anchors() const {
    return {
        .network = pki.network, .roots = {pki.root}, .issuing = {pki.devices, pki.infrastructure}};
  }
  std::unique_ptr<sim::Device> device(const std::string& id) {
    const auto device_leaf = pki.leaf(crypto::Role::kDevice, id);
    return std::make_unique<sim::Device>(ends,
                                         sdk::Material{.network = pki.network,
                                                       .id = id,
                                                       .name = id,
                                                       .chain = {device_leaf.cert, pki.devices},
                                                       .key = device_leaf.key,
                                                       .anchors = anchors(),
                                                       .routers = {{"127.0.0.1", router->port()}}});
  }
  /// Turns of both loops; only the router's are counted.
  void turn() {
    ends.run_once(false);
    if (counting) Meter::toggle();
    routers.run_once(false);
    if (counting) Meter::toggle();
  }
  template <typename F>
  void until(F done, const char* what) {
    for (int i = 0; !done(); ++i) {
      if (i == 2'000'000) die(what);
      turn();
    }
  }
  std::unique_ptr<sdk::Circuit> dial(sim::Device& d) {
    std::optional<Result<std::unique_ptr<sdk::Circuit>>> result;
    d.engine->dial("flow", {}, 60'000, [&](auto r) { result.emplace(std::move(r)); });
    until([&] { return result.has_value(); }, "no answer to a dial");
    return must(std::move(*result));
  }
};

void data_paths() {
  Network net;
  auto host = net.device("host");
  auto dialer = net.device("dialer");
  sim::TestHost answers;
  const auto binding = host->engine->bind("flow", 0, answers);
  net.until([&] { return !host->engine->binding_error(binding).has_value(); }, "not bound");

  sim::Recorder sender(net.dial(*dialer));
  net.until([&] { return answers.streams.size() == 1; }, "no stream");
  sim::Recorder& receiver = *answers.streams.front();
  receiver.keep = false;

  const auto transfer = [&](std::size_t pieces, std::size_t size, bool one_by_one) {
    const Bytes piece(size, 0x5a);
    const std::size_t end = receiver.received + pieces * size;
    for (std::size_t i = 0; i < pieces; ++i) {
      const std::size_t before = receiver.received;
      sender.send(piece);
      if (one_by_one)
        net.until([&] { return receiver.received == before + size; }, "a message is lost");
    }
    net.until([&] { return receiver.received == end; }, "bulk is lost");
  };
  constexpr int kRecords = 256;
  constexpr int kMessages = 200;
  transfer(kRecords, tls::kInnerFragment, false);  // warm: pools, windows
  Meter::clear();
  net.counting = true;
  transfer(kRecords, tls::kInnerFragment, false);
  net.counting = false;
  Meter::report("router_record_16k", kRecords);
  transfer(20, 100, true);
  Meter::clear();
  net.counting = true;
  transfer(kMessages, 100, true);
  net.counting = false;
  Meter::report("router_message_100", kMessages);
  constexpr int kDials = 10;
  std::list<sim::Recorder> open;
  open.emplace_back(net.dial(*dialer));
  Meter::clear();
  net.counting = true;
  for (int i = 0; i < kDials; ++i) open.emplace_back(net.dial(*dialer));
  net.counting = false;
  Meter::report("router_dial", kDials);
  open.clear();
}

void handshakes() {
  const crypto::TestPki pki("bench.sally", sim::now_ms() / 1000);
  const auto a = pki.leaf(crypto::Role::kDevice, "a");
  const auto b = pki.leaf(crypto::Role::kRouter, "b");
  const auto context = [&](tls::Side side, const crypto::TestLeaf& leaf,
                           const crypto::Certificate& issuing) {
    return must(tls::Context::create({.side = side,
                                      .chain = {leaf.cert, issuing},
                                      .key = leaf.key,
                                      .anchors = {pki.root},
                                      .issuing = {pki.devices, pki.infrastructure},
                                      .network = NetworkId(pki.network),
                                      .alpn = {"x"}}));
  };
  const auto client = context(tls::Side::kClient, a, pki.devices);
  const auto server = context(tls::Side::kServer, b, pki.infrastructure);
  const auto shake = [&] {
    auto c = must(tls::Session::on_memory(client));
    auto s = must(tls::Session::on_memory(server));
    for (int i = 0; i < 4 && !(c->handshaken() && s->handshaken()); ++i) {
      (void)c->handshake();
      if (c->has_output()) s->feed(c->take_output());
      (void)s->handshake();
      if (s->has_output()) c->feed(s->take_output());
    }
    if (!c->handshaken() || !s->handshaken()) die("no handshake");
  };
  constexpr int kHandshakes = 10;
  shake();
  Meter::clear();
  Meter::toggle();
  for (int i = 0; i < kHandshakes; ++i) shake();
  Meter::toggle();
  Meter::report("mutual_handshake", kHandshakes);
}

void create_devices() {
  char name[] = "/tmp/sally-hot-XXXXXX";
  if (::mkdtemp(name) == nullptr) die("no folder");
  const std::string dir = name;
  controller::InitOptions o;
  o.dir = dir + "/controller";
  o.name = "bench";
  o.hosts = {"127.0.0.1"};
  o.router_addresses = {"127.0.0.1:3022"};
  o.router_identity = dir + "/router/identity.json";
  o.admin_identity = dir + "/admin.json";
  (void)must(controller::init_network(o, system_clock(), system_random()));
  loop::Loop loop;
  auto server = must(controller::Server::create(
      loop, system_clock(), system_random(),
      {.dir = dir + "/controller", .host = "127.0.0.1", .port = 0, .threads = 1}));
  const controller::TestIdentity admin(dir + "/admin.json");
  int made = 0;
  const auto create = [&] {
    api::Request r;
    r.method = "POST";
    r.path = "/fleet/v1/devices";
    r.body = R"({"name":"pump-)" + std::to_string(1000 + made++) + R"(","tags":["sensors"]})";
    r.caller =
        api::Caller{admin.network, crypto::Role::kAdmin, admin.id, admin.chain[0].serial_hex()};
    if (server->network().api().handle(r).status != 201) die("no device made");
  };
  constexpr int kDevices = 20;
  for (int i = 0; i < 3; ++i) create();
  Meter::clear();
  Meter::toggle();
  for (int i = 0; i < kDevices; ++i) create();
  Meter::toggle();
  Meter::report("create_device", kDevices);
  server.reset();
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace sally::bench

int main() {
  sally::log::set_level("error");
  sally::bench::data_paths();
  sally::bench::handshakes();
  sally::bench::create_devices();
  return 0;
}
