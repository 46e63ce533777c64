// SPDX-License-Identifier: Apache-2.0
// Keys in hardware: the handshake waits for them, the loop does not.
#include <gtest/gtest.h>

#include <latch>

#include "crypto/test_token.h"
#include "tls/acceptor.h"
#include "tls/stream.h"
#include "tls/test_tls.h"

namespace sally::tls {
namespace {

using crypto::Role;
constexpr std::int64_t kLimit = 20'000;
constexpr int kSignMs = 200;

class SlowKeys : public testing::Test {
 protected:
  SlowKeys()
      : clock(pki.now_s * 1000),
        device(pki.leaf(Role::kDevice, "pump-17")),
        router(pki.leaf(Role::kRouter, "router-1")),
        device_token(device.key),
        router_token(router.key) {}
  void SetUp() override {
#ifdef SALLY_THREAD_SANITIZER
    GTEST_SKIP() << "paused calls are not followed by ThreadSanitizer";
#endif
  }
  std::shared_ptr<const Context> context(Side side, bool inner = false) {
    const bool client = side == Side::kClient;
    auto o = test_options(pki, side, client ? &device : &router, &clock);
    o.key = client ? device_token.key : router_token.key;
    o.inner = inner;
    return test_context(std::move(o));
  }
  bool until(const std::function<bool()>& done) { return loop.run_until(done, kLimit); }

  crypto::TestPki pki;
  FakeClock clock;
  crypto::TestLeaf device, router;
  crypto::TokenKey device_token, router_token;
  loop::Loop loop;
};

struct End final : StreamHandler {
  std::unique_ptr<Stream> stream;
  std::optional<Error> closed;
  void adopt(std::unique_ptr<Stream> s) {
    stream = std::move(s);
    stream->set_handler(*this);
  }
  void on_readable() override {}
  void on_writable() override {}
  void on_closed(const Error& why) override { closed = why; }
};

class SlowStreams : public SlowKeys {
 protected:
  void listen() {
    AcceptorOptions o;
    o.host = "127.0.0.1";
    o.context = context(Side::kServer);
    o.name = "test";
    acceptor = crypto::must(Acceptor::create(
        loop, std::move(o), [this](std::unique_ptr<Stream> s) { server.adopt(std::move(s)); }));
  }
  void connect() {
    DialOptions d{.host = "127.0.0.1", .port = acceptor->port()};
    dialing = dial(loop, context(Side::kClient), d, [this](Result<std::unique_ptr<Stream>> s) {
      if (s)
        client.adopt(std::move(*s));
      else
        client.closed = s.error();
    });
  }
  End client, server;
  std::unique_ptr<Acceptor> acceptor;
  std::unique_ptr<Dialing> dialing;
};

TEST_F(SlowStreams, TheLoopGoesOnWhileBothKeysSign) {
  device_token.controls->sign_ms = kSignMs;
  router_token.controls->sign_ms = kSignMs;
  listen();
  // Between two ticks the loop does everything else it has to do.
  std::int64_t longest_ms = 0;
  std::int64_t last_ms = loop.now_ms();
  int ticks = 0;
  loop::Timer tick(loop.timers(), [&] {
    longest_ms = std::max(longest_ms, loop.now_ms() - last_ms);
    last_ms = loop.now_ms();
    ++ticks;
    tick.arm(2);
  });
  tick.arm(2);
  connect();
  ASSERT_TRUE(until([&] { return client.stream && server.stream; }));
  EXPECT_EQ(server.stream->peer()->id(), "pump-17");
  EXPECT_EQ(client.stream->peer()->id(), "router-1");
  EXPECT_EQ(device_token.controls->signatures, 1);
  EXPECT_EQ(router_token.controls->signatures, 1);
  EXPECT_GT(ticks, 20);
  EXPECT_LT(longest_ms, kSignMs / 2);
}

TEST_F(SlowStreams, APulledTokenEndsTheHandshakeAndIsNamed) {
  listen();
  device_token.controls->gone = true;
  connect();
  ASSERT_TRUE(until([&] { return client.closed.has_value(); }));
  EXPECT_EQ(client.closed->code(), "crypto.token_missing") << client.closed->text();
  EXPECT_EQ(device_token.controls->signatures, 0);
  device_token.controls->gone = false;
  client.closed.reset();
  connect();
  EXPECT_TRUE(until([&] { return client.stream && server.stream; }));
}

// Whoever waits for a signature may go away at any moment of it.
TEST_F(SlowStreams, GivenUpWhileTheKeySigns) {
  device_token.controls->sign_ms = kSignMs;
  listen();
  connect();
  const std::int64_t before = loop.now_ms();
  ASSERT_TRUE(until([&] { return acceptor->handshakes_in_flight() == 1; }));
  (void)loop.run_until([] { return false; }, kSignMs / 4);
  dialing.reset();
  EXPECT_LT(loop.now_ms() - before, kSignMs);
  (void)loop.run_until([] { return false; }, 2 * kSignMs);
  EXPECT_FALSE(client.stream);
  EXPECT_FALSE(client.closed);
  EXPECT_EQ(acceptor->handshakes_in_flight(), 0u);
}

TEST_F(SlowKeys, OnMemoryItWaitsAndGoesOn) {
  device_token.controls->sign_ms = 20;
  router_token.controls->sign_ms = 20;
  auto client = crypto::must(Session::on_memory(context(Side::kClient, true)));
  auto server = crypto::must(Session::on_memory(context(Side::kServer, true)));
  int waits = 0;
  const auto step = [&](Session& s) {
    std::latch signed_by_key(1);
    s.on_key([&] { signed_by_key.count_down(); });
    Io io = s.handshake();
    EXPECT_FALSE(s.error()) << s.error()->text();
    if (io.kind != IoKind::kWantKey) return io;
    ++waits;
    EXPECT_EQ(s.handshake().kind, IoKind::kWantKey) << "it goes on when the key has signed";
    signed_by_key.wait();
    return s.handshake();
  };
  EXPECT_EQ(client->handshake().kind, IoKind::kWantRead);
  server->feed(client->take_output());
  EXPECT_EQ(step(*server).kind, IoKind::kWantRead);
  client->feed(server->take_output());
  EXPECT_EQ(step(*client).kind, IoKind::kOk);
  server->feed(client->take_output());
  EXPECT_EQ(server->handshake().kind, IoKind::kOk);
  EXPECT_EQ(waits, 2);
  EXPECT_EQ(server->peer()->id(), "pump-17");
  // After the handshake nothing waits for keys any more.
  EXPECT_TRUE(client->write(as_bytes("hello")).ok());
  server->feed(client->take_output());
  std::array<std::uint8_t, 16> in{};
  EXPECT_EQ(server->read(in).n, 5u);
}

TEST_F(SlowKeys, WhoeverDoesNotWaitSignsHereAndNow) {
  auto client = crypto::must(Session::on_memory(context(Side::kClient, true)));
  auto server = crypto::must(Session::on_memory(context(Side::kServer, true)));
  EXPECT_EQ(client->handshake().kind, IoKind::kWantRead);
  server->feed(client->take_output());
  EXPECT_EQ(server->handshake().kind, IoKind::kWantRead);
  client->feed(server->take_output());
  EXPECT_EQ(client->handshake().kind, IoKind::kOk);
}

}  // namespace
}  // namespace sally::tls
