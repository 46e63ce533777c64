// SPDX-License-Identifier: Apache-2.0
#include "tls/stream.h"

#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <deque>

#include "base/log.h"
#include "crypto/ossl.h"
#include "loop/net.h"
#include "tls/acceptor.h"
#include "tls/context_impl.h"
#include "tls/test_tls.h"

namespace sally::tls {
namespace {

using crypto::Role;
constexpr std::int64_t kLimit = 20'000;

/// Sends what it is told and keeps what it gets.
struct Peer final : StreamHandler {
  std::unique_ptr<Stream> stream;
  std::string got;
  std::string to_send;
  std::optional<Error> closed;
  std::size_t limit = SIZE_MAX;  // stop reading here
  int readable_calls = 0;
  std::function<void()> on_read;

  void adopt(std::unique_ptr<Stream> s) {
    stream = std::move(s);
    stream->set_handler(*this);
  }
  void send(std::string text) {
    to_send += text;
    push();
  }
  void push() {
    const std::size_t n = stream->write(as_bytes(to_send));
    to_send.erase(0, n);
  }
  void on_readable() override {
    ++readable_calls;
    std::array<std::uint8_t, 16'384> buffer;
    const std::size_t n = stream->read(buffer);
    got += to_text(ByteView(buffer.data(), n));
    if (got.size() >= limit) stream->want_read(false);
    if (n > 0 && on_read) on_read();
  }
  void on_writable() override { push(); }
  void on_closed(const Error& why) override { closed = why; }
};

class Streams : public testing::Test {
 protected:
  Streams()
      : clock(pki.now_s * 1000),
        device(pki.leaf(Role::kDevice, "pump-17")),
        router(pki.leaf(Role::kRouter, "router-1")) {
    log::set_sink([this](std::string_view line) { lines.emplace_back(line); });
  }
  ~Streams() override { log::set_sink(nullptr); }

  void listen(AcceptLimits limits = {}, const std::function<void(ContextOptions&)>& change = {}) {
    auto o = test_options(pki, Side::kServer, &router, &clock, {"sally-edge/1", "sally-link/1"});
    if (change) change(o);
    AcceptorOptions ao;
    ao.host = "127.0.0.1";
    ao.context = test_context(std::move(o));
    ao.limits = limits;
    ao.name = "test";
    acceptor =
        crypto::must(Acceptor::create(loop, std::move(ao), [this](std::unique_ptr<Stream> s) {
          servers.emplace_back();
          servers.back().adopt(std::move(s));
        }));
  }
  std::unique_ptr<Dialing> connect(Peer& peer,
                                   const std::function<void(ContextOptions&)>& change = {}) {
    auto o = test_options(pki, Side::kClient, &device, &clock);
    if (change) change(o);
    DialOptions d;
    d.host = "127.0.0.1";
    d.port = acceptor->port();
    d.expect_peer = {Role::kRouter, "router-1"};
    return dial(loop, test_context(std::move(o)), d, [&peer](Result<std::unique_ptr<Stream>> s) {
      if (s)
        peer.adopt(std::move(*s));
      else
        peer.closed = s.error();
    });
  }
  bool until(const std::function<bool()>& done) { return loop.run_until(done, kLimit); }
  [[nodiscard]] bool logged(std::string_view what) const {
    for (const auto& l : lines)
      if (l.find(what) != std::string::npos) return true;
    return false;
  }

  crypto::TestPki pki;
  FakeClock clock;
  crypto::TestLeaf device, router;
  loop::Loop loop;
  std::vector<std::string> lines;
  std::deque<Peer> servers;
  std::unique_ptr<Acceptor> acceptor;
};

TEST_F(Streams, BothSidesProvenAndBytesFlow) {
  listen();
  Peer client;
  auto d = connect(client);
  ASSERT_TRUE(until([&] { return client.stream && !servers.empty(); }));
  Peer& server = servers.front();
  EXPECT_EQ(server.stream->peer()->uri(), "spiffe://net-a.sally/device/pump-17");
  EXPECT_EQ(client.stream->peer()->uri(), "spiffe://net-a.sally/router/router-1");
  EXPECT_EQ(server.stream->session().alpn(), "sally-edge/1");
  EXPECT_EQ(acceptor->handshakes_in_flight(), 0u);
  EXPECT_EQ(acceptor->counters().established, 1u);

  // 8 MiB each way at once, with a key update every 20 records under the data.
  client.stream->session().set_key_update_every(20);
  server.stream->session().set_key_update_every(20);
  std::string big(8 << 20, '\0');
  for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 31 >> 8);
  client.send(big);
  server.send(big);
  ASSERT_TRUE(
      until([&] { return client.got.size() == big.size() && server.got.size() == big.size(); }));
  EXPECT_TRUE(client.got == big && server.got == big);
  EXPECT_GT(client.stream->session().key_updates_sent(), 10u);

  client.stream->close();
  ASSERT_TRUE(until([&] { return client.closed && server.closed; }));
  EXPECT_TRUE(server.closed->is(Errc::kClosed)) << server.closed->text();
  EXPECT_TRUE(client.closed->is(Errc::kClosed)) << client.closed->text();
}

TEST_F(Streams, BackPressureHoldsAndResumes) {
  listen();
  Peer client;
  auto d = connect(client);
  ASSERT_TRUE(until([&] { return client.stream && !servers.empty(); }));
  Peer& server = servers.front();
  server.limit = 100'000;
  client.send(std::string(32 << 20, 'x'));
  ASSERT_TRUE(until([&] { return server.got.size() >= server.limit; }));
  for (int i = 0; i < 20; ++i) loop.run_once(false);
  EXPECT_LT(server.got.size(), server.limit + 16'385);
  EXPECT_FALSE(client.to_send.empty());
  server.limit = SIZE_MAX;
  server.stream->want_read(true);
  ASSERT_TRUE(until([&] { return server.got.size() == 32u << 20; }));
  EXPECT_TRUE(client.to_send.empty());
}

TEST_F(Streams, TruncationIsSeen) {
  listen();
  Peer client;
  auto d = connect(client);
  ASSERT_TRUE(until([&] { return client.stream && !servers.empty(); }));
  client.send("half a mess");
  ASSERT_TRUE(until([&] { return servers.front().got == "half a mess"; }));
  ::shutdown(client.stream->fd(), SHUT_RDWR);  // a cut without close_notify
  ASSERT_TRUE(until([&] { return servers.front().closed.has_value(); }));
  EXPECT_TRUE(servers.front().closed->is(Errc::kTruncated)) << servers.front().closed->text();
}

TEST_F(Streams, HandlerMayDestroyItsStreamWhileReading) {
  listen();
  Peer client;
  auto d = connect(client);
  ASSERT_TRUE(until([&] { return client.stream && !servers.empty(); }));
  servers.front().on_read = [&] { servers.front().stream.reset(); };
  client.send(std::string(100'000, 'x'));
  ASSERT_TRUE(until([&] { return client.closed.has_value(); }));
}

TEST_F(Streams, RefusedWithTheAlertTheClientSees) {
  listen();
  const auto attempt = [&](const std::function<void(ContextOptions&)>& change) {
    Peer client;
    const auto failed = acceptor->counters().failed_certificate + acceptor->counters().failed_other;
    auto d = connect(client, change);
    // In TLS 1.3 a client may be done before the server has judged its certificate.
    EXPECT_TRUE(until([&] { return client.closed.has_value(); }));
    EXPECT_TRUE(until([&] {
      return acceptor->counters().failed_certificate + acceptor->counters().failed_other > failed &&
             acceptor->handshakes_in_flight() == 0;
    }));
    return client.closed ? client.closed->text() : "";
  };
  EXPECT_EQ(attempt([](ContextOptions& o) {
              o.chain.clear();
              o.key.reset();
            }),
            "tls.peer_refused: alert 116 (certificate required)");
  EXPECT_TRUE(logged("tls.no_certificate"));
  EXPECT_EQ(attempt([&](ContextOptions& o) {
              const crypto::TestPki other(pki.network);
              const auto leaf = other.leaf(Role::kDevice, "pump-17");
              o.chain = {leaf.cert, other.devices};
              o.key = leaf.key;
            }),
            "tls.peer_refused: alert 42 (bad certificate)");
  EXPECT_EQ(attempt([&](ContextOptions& o) {
              auto spec = pki.leaf_spec(Role::kDevice, "pump-17");
              spec.not_after_s = pki.now_s - 1;
              const auto leaf = pki.leaf(spec, true);
              o.chain = {leaf.cert};
              o.key = leaf.key;
            }),
            "tls.peer_refused: alert 42 (bad certificate)");
  EXPECT_TRUE(logged("crypto.expired"));
  EXPECT_EQ(acceptor->counters().failed_certificate, 3u);
  EXPECT_TRUE(servers.empty());
}

/// A client that is not ours: plain OpenSSL on a non-blocking socket.
struct RawClient {
  crypto::Ossl<SSL_CTX, SSL_CTX_free> ctx{SSL_CTX_new(TLS_client_method())};
  crypto::Ossl<SSL, SSL_free> ssl;
  loop::Fd fd;
  std::unique_ptr<loop::Watcher> watcher;
  std::string error;  // the library's reason, once it failed

  void step() {
    ERR_clear_error();
    char c = 0;
    const int rc =
        SSL_is_init_finished(ssl.get()) ? SSL_read(ssl.get(), &c, 1) : SSL_connect(ssl.get());
    const int what = SSL_get_error(ssl.get(), rc);
    if (rc > 0 || what == SSL_ERROR_WANT_READ || what == SSL_ERROR_WANT_WRITE) return;
    const char* reason = ERR_reason_error_string(ERR_peek_error());
    error = reason == nullptr ? "closed" : reason;
    watcher->want(false, false);
  }
};

/// What a thief makes of a certificate: a key object with the victim's public half and his own
/// private one.
EVP_PKEY* stolen(const crypto::PublicKey& victim, const crypto::FileKey& thief) {
  BIGNUM* secret = nullptr;
  std::array<std::uint8_t, 100> point;
  std::size_t point_size = 0;
  EVP_PKEY_get_bn_param(thief.native(), OSSL_PKEY_PARAM_PRIV_KEY, &secret);
  EVP_PKEY_get_octet_string_param(victim.native(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                  point.size(), &point_size);
  const crypto::Ossl<OSSL_PARAM_BLD, OSSL_PARAM_BLD_free> build(OSSL_PARAM_BLD_new());
  OSSL_PARAM_BLD_push_utf8_string(build.get(), OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0);
  OSSL_PARAM_BLD_push_octet_string(build.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point_size);
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_PRIV_KEY, secret);
  const crypto::Ossl<OSSL_PARAM, OSSL_PARAM_free> params(OSSL_PARAM_BLD_to_param(build.get()));
  const crypto::PkeyCtxPtr ctx(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  EVP_PKEY* out = nullptr;
  EVP_PKEY_fromdata_init(ctx.get());
  EVP_PKEY_fromdata(ctx.get(), &out, EVP_PKEY_KEYPAIR, params.get());
  BN_clear_free(secret);
  return out;
}

TEST_F(Streams, ForeignClientsThatMustFail) {
  listen();
  const auto attempt = [&](const std::function<void(SSL_CTX*)>& change) {
    RawClient c;
    const unsigned char alpn[] = "\x0csally-edge/1";
    SSL_CTX_set_alpn_protos(c.ctx.get(), alpn, sizeof alpn - 1);
    SSL_CTX_use_certificate(c.ctx.get(), device.cert.native());
    change(c.ctx.get());
    c.ssl.reset(SSL_new(c.ctx.get()));
    auto connecting =
        loop::connect_tcp(loop, "127.0.0.1", acceptor->port(), kLimit, [&](Result<loop::Fd> fd) {
          c.fd = std::move(*fd);
          SSL_set_fd(c.ssl.get(), c.fd.get());
          c.watcher = std::make_unique<loop::Watcher>(loop, c.fd.get(),
                                                      [&](loop::Watcher::Ready) { c.step(); });
          c.watcher->want_read(true);
          c.step();
        });
    EXPECT_TRUE(until([&] { return !c.error.empty(); }));
    return c.error;
  };
  EXPECT_EQ(attempt([](SSL_CTX* x) { SSL_CTX_set_max_proto_version(x, TLS1_2_VERSION); }),
            "tlsv1 alert protocol version");
  EXPECT_EQ(attempt([](SSL_CTX* x) { set_list(x, SSL_CTRL_SET_GROUPS_LIST, "P-384"); }),
            "ssl/tls alert handshake failure");
  // The certificate of another device, without its key: the chain is fine, the proof is not.
  const auto thief = crypto::must(crypto::FileKey::generate(crypto::KeyType::kP256));
  const crypto::PkeyPtr liar(stolen(device.cert.public_key(), *thief));
  EXPECT_EQ(attempt([&](SSL_CTX* x) { EXPECT_EQ(SSL_CTX_use_PrivateKey(x, liar.get()), 1); }),
            "tlsv1 alert decrypt error");
  EXPECT_TRUE(until([&] { return acceptor->handshakes_in_flight() == 0; }));
  EXPECT_TRUE(servers.empty());
  EXPECT_EQ(acceptor->counters().established, 0u);
}

TEST_F(Streams, SilentAndGarbagePeersEndAtTheirLimits) {
  AcceptLimits limits;
  limits.stream.handshake_ms = 100;
  listen(limits);
  loop::Loop& l = loop;
  std::vector<loop::Fd> fds;
  const auto open = [&] {
    const std::size_t before = fds.size();
    auto c = loop::connect_tcp(l, "127.0.0.1", acceptor->port(), kLimit,
                               [&](Result<loop::Fd> fd) { fds.push_back(std::move(*fd)); });
    EXPECT_TRUE(until([&] { return fds.size() > before; }));
    return fds.back().get();
  };
  open();  // says nothing
  EXPECT_TRUE(until([&] { return acceptor->counters().timed_out == 1; }));
  const int garbage = open();
  EXPECT_GT(::send(garbage, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 0);
  EXPECT_TRUE(until([&] { return acceptor->counters().failed_other == 1; }));
  EXPECT_EQ(acceptor->handshakes_in_flight(), 0u);
}

TEST_F(Streams, RateLimitPerSource) {
  AcceptLimits limits;
  limits.burst_per_source = 2;
  limits.rate_per_source = 0.001;
  listen(limits);
  std::deque<Peer> clients(4);
  std::vector<std::unique_ptr<Dialing>> dialing;
  for (auto& c : clients) dialing.push_back(connect(c));
  ASSERT_TRUE(until([&] {
    int n = 0;
    for (auto& c : clients) n += c.stream || c.closed ? 1 : 0;
    return n == 4 && servers.size() == 2;
  }));
  EXPECT_EQ(acceptor->counters().refused_limit, 2u);
  EXPECT_TRUE(logged("rate_source"));
}

// ---- AcceptGate, on a fake clock ---------------------------------------------

AcceptGate::Source source(std::uint8_t n) {
  AcceptGate::Source s{};
  s[7] = n;
  return s;
}
using V = AcceptGate::Verdict;

TEST(AcceptGate, RatesRefillWithTime) {
  FakeClock clock;
  AcceptLimits l;
  l.rate_per_source = 10;
  l.burst_per_source = 2;
  AcceptGate gate(l, clock);
  const auto once = [&](std::uint8_t n) {
    const V v = gate.admit(source(n));
    if (v == V::kAdmit) gate.finished(source(n));
    return v;
  };
  EXPECT_EQ(once(1), V::kAdmit);
  EXPECT_EQ(once(1), V::kAdmit);
  EXPECT_EQ(once(1), V::kRateSource);
  EXPECT_EQ(once(2), V::kAdmit);  // another source is not touched
  clock.advance_ms(100);
  EXPECT_EQ(once(1), V::kAdmit);
  EXPECT_EQ(once(1), V::kRateSource);
}

TEST(AcceptGate, OneSourceCannotUseUpTheTotal) {
  FakeClock clock;
  AcceptLimits l;
  l.rate_total = 0.001;
  l.burst_total = 10;
  l.burst_per_source = 3;
  l.rate_per_source = 0.001;
  AcceptGate gate(l, clock);
  int admitted = 0;
  for (int i = 0; i < 100; ++i) admitted += gate.admit(source(1)) == V::kAdmit ? 1 : 0;
  EXPECT_EQ(admitted, 3);
  for (std::uint8_t n = 2; n < 9; ++n) EXPECT_EQ(gate.admit(source(n)), V::kAdmit);
  EXPECT_EQ(gate.admit(source(9)), V::kRateTotal);
}

TEST(AcceptGate, HandshakesInFlight) {
  FakeClock clock;
  AcceptLimits l;
  l.handshakes_per_source = 2;
  l.handshakes_total = 3;
  AcceptGate gate(l, clock);
  EXPECT_EQ(gate.admit(source(1)), V::kAdmit);
  EXPECT_EQ(gate.admit(source(1)), V::kAdmit);
  EXPECT_EQ(gate.admit(source(1)), V::kBusySource);
  EXPECT_EQ(gate.admit(source(2)), V::kAdmit);
  EXPECT_EQ(gate.admit(source(3)), V::kBusyTotal);
  gate.finished(source(1));
  EXPECT_EQ(gate.admit(source(3)), V::kAdmit);
  EXPECT_EQ(gate.in_flight(), 3u);
}

TEST(AcceptGate, TableIsBoundedAndForgetsIdleSourcesFirst) {
  FakeClock clock;
  AcceptLimits l;
  l.sources = 3;
  AcceptGate gate(l, clock);
  EXPECT_EQ(gate.admit(source(1)), V::kAdmit);  // stays busy
  for (std::uint8_t n = 2; n < 100; ++n) {
    EXPECT_EQ(gate.admit(source(n)), V::kAdmit);
    gate.finished(source(n));
    EXPECT_LE(gate.sources(), 3u);
  }
  gate.finished(source(1));
  EXPECT_EQ(gate.in_flight(), 0u);
  for (std::uint8_t n = 1; n < 4; ++n) EXPECT_EQ(gate.admit(source(n)), V::kAdmit);
  EXPECT_EQ(gate.admit(source(4)), V::kTableFull);
}

}  // namespace
}  // namespace sally::tls
