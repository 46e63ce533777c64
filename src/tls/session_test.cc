// SPDX-License-Identifier: Apache-2.0
#include "tls/session.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "crypto/ossl.h"
#include "tls/context_impl.h"
#include "tls/test_tls.h"

namespace sally::tls {
namespace {

using crypto::Role;

class Memory : public testing::Test {
 protected:
  Memory() : pki("net-a.sally"), clock(pki.now_s * 1000) {}

  std::unique_ptr<Session> make(ContextOptions o) {
    o.inner = true;
    return crypto::must(Session::on_memory(test_context(std::move(o))));
  }
  /// Carries bytes both ways until nothing moves.
  static void run(Session& a, Session& b) {
    for (int i = 0; i < 20; ++i) {
      if (!a.error()) a.handshake();
      if (a.has_output()) b.feed(a.take_output());
      if (!b.error()) b.handshake();
      if (!b.has_output() && !a.has_output()) break;
      if (b.has_output()) a.feed(b.take_output());
    }
  }
  static std::string read_all(Session& s, IoKind* last = nullptr) {
    std::string out;
    std::array<std::uint8_t, 20'000> buffer;
    for (;;) {
      const Io io = s.read(buffer);
      if (!io.ok()) {
        if (last != nullptr) *last = io.kind;
        return out;
      }
      out += to_text(ByteView(buffer.data(), io.n));
    }
  }
  void connect() {
    client_leaf = pki.leaf(Role::kDevice, "pump-17");
    server_leaf = pki.leaf(Role::kDevice, "server-1");
    client = make(test_options(pki, Side::kClient, &*client_leaf, &clock));
    server = make(test_options(pki, Side::kServer, &*server_leaf, &clock));
    ASSERT_TRUE(client->set_sni("circuit.service"));
    run(*client, *server);
    ASSERT_TRUE(client->handshaken() && server->handshaken())
        << (client->error() ? client->error()->text() : "")
        << (server->error() ? server->error()->text() : "");
  }

  crypto::TestPki pki;
  FakeClock clock;
  std::optional<crypto::TestLeaf> client_leaf, server_leaf;
  std::unique_ptr<Session> client, server;
};

TEST_F(Memory, FlightsAreExactAndPeersKnown) {
  client_leaf = pki.leaf(Role::kDevice, "pump-17");
  server_leaf = pki.leaf(Role::kDevice, "server-1");
  client = make(test_options(pki, Side::kClient, &*client_leaf, &clock));
  auto so = test_options(pki, Side::kServer, &*server_leaf, &clock);
  so.chain.push_back(pki.devices);
  server = make(std::move(so));
  ASSERT_TRUE(client->set_sni("circuit.service"));

  EXPECT_EQ(client->handshake().kind, IoKind::kWantRead);
  const Bytes hello = client->take_output();
  EXPECT_LT(hello.size(), 4096u);
  server->feed(hello);
  EXPECT_EQ(server->handshake().kind, IoKind::kWantRead);
  const Bytes flight = server->take_output();
  EXPECT_LT(flight.size(), 8192u);
  EXPECT_FALSE(is_hello_retry(flight));
  EXPECT_EQ(server->peer(), nullptr);  // nothing is believed before the proof of the key
  client->feed(flight);
  ASSERT_TRUE(client->handshake().ok()) << client->error()->text();
  const Bytes finish = client->take_output();
  EXPECT_EQ(server->handshake().kind, IoKind::kWantRead);
  server->feed(finish);
  ASSERT_TRUE(server->handshake().ok());
  EXPECT_FALSE(server->has_output());  // no tickets

  ASSERT_NE(server->peer(), nullptr);
  EXPECT_EQ(server->peer()->id(), "pump-17");
  EXPECT_EQ(server->peer()->role(), Role::kDevice);
  EXPECT_EQ(server->peer()->network().str(), "net-a.sally");
  EXPECT_EQ(server->peer()->uri(), "spiffe://net-a.sally/device/pump-17");
  EXPECT_EQ(server->peer()->leaf(), client_leaf->cert);
  EXPECT_EQ(server->peer()->issuer(), pki.devices);
  EXPECT_EQ(client->peer()->id(), "server-1");
  EXPECT_EQ(server->sni(), "circuit.service");
  EXPECT_EQ(server->alpn(), "sally-edge/1");
  EXPECT_EQ(client->group(), "X25519MLKEM768");
  EXPECT_EQ(client->cipher(), "TLS_AES_128_GCM_SHA256");
}

TEST_F(Memory, RecordsAreCappedAndKeyUpdateIsAFlightOfItsOwn) {
  connect();
  const std::string big(40'000, 'x');
  std::string rest = big;
  std::string got;
  server->set_key_update_every(2);
  client->set_key_update_every(2);
  int updates = 0;
  while (!rest.empty()) {
    if (client->key_update_due()) {
      ASSERT_TRUE(client->key_update());
      const Bytes flight = client->take_output();
      EXPECT_EQ(flight.size(), 27u);
      server->feed(flight);
      ++updates;
    }
    const Io io = client->write(as_bytes(rest));
    ASSERT_TRUE(io.ok());
    EXPECT_LE(io.n, 16'346u);
    rest.erase(0, io.n);
    const Bytes record = client->take_output();
    EXPECT_LE(record.size(), 16'368u);  // one inner record fits one frame
    server->feed(record);
    got += read_all(*server);
    EXPECT_FALSE(server->has_output());
  }
  EXPECT_EQ(got, big);
  EXPECT_EQ(updates, 1);
  EXPECT_EQ(client->key_updates_sent(), 1u);
}

TEST_F(Memory, EndAndTruncationDiffer) {
  connect();
  IoKind last{};
  ASSERT_TRUE(client->write(as_bytes("bye")).ok());
  ASSERT_TRUE(client->shutdown().ok());
  server->feed(client->take_output());
  EXPECT_EQ(read_all(*server, &last), "bye");
  EXPECT_EQ(last, IoKind::kEof);
  // Half close: the other direction goes on.
  ASSERT_TRUE(server->write(as_bytes("still here")).ok());
  client->feed(server->take_output());
  EXPECT_EQ(read_all(*client), "still here");
  client->feed_end();
  read_all(*client, &last);
  EXPECT_EQ(last, IoKind::kTruncated);
  EXPECT_TRUE(client->error()->is(Errc::kTruncated));
}

TEST_F(Memory, FlippedByteKillsTheSession) {
  connect();
  ASSERT_TRUE(client->write(as_bytes("data")).ok());
  Bytes record = client->take_output();
  record.back() ^= 1;
  server->feed(record);
  IoKind last{};
  EXPECT_EQ(read_all(*server, &last), "");
  EXPECT_EQ(last, IoKind::kError);
  EXPECT_TRUE(server->error()->is(Errc::kHandshake));
  EXPECT_EQ(server->alert_sent(), 20);
}

TEST_F(Memory, HelloRetryIsRefused) {
  // A foreign client that knows X25519 but sends a key share for P-256 only.
  auto leaf = pki.leaf(Role::kDevice, "server-1");
  server = make(test_options(pki, Side::kServer, &leaf, &clock));
  const crypto::Ossl<SSL_CTX, SSL_CTX_free> ctx(SSL_CTX_new(TLS_client_method()));
  ASSERT_TRUE(set_list(ctx.get(), SSL_CTRL_SET_GROUPS_LIST, "*P-256:X25519"));
  const unsigned char alpn[] = "\x0csally-edge/1";
  SSL_CTX_set_alpn_protos(ctx.get(), alpn, sizeof alpn - 1);
  const crypto::Ossl<SSL, SSL_free> ssl(SSL_new(ctx.get()));
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);
  SSL_connect(ssl.get());
  Bytes hello(BIO_ctrl_pending(out));
  BIO_read(out, hello.data(), static_cast<int>(hello.size()));
  server->feed(hello);
  EXPECT_EQ(server->handshake().kind, IoKind::kError);
  EXPECT_TRUE(server->error()->is(Errc::kHelloRetry)) << server->error()->text();
  EXPECT_TRUE(is_hello_retry(server->take_output()));
}

TEST_F(Memory, GarbageAndEveryTruncationOfAHello) {
  auto c = pki.leaf(Role::kDevice, "pump-17");
  auto s = pki.leaf(Role::kDevice, "server-1");
  client = make(test_options(pki, Side::kClient, &c, &clock));
  client->handshake();
  const Bytes hello = client->take_output();
  auto options = test_options(pki, Side::kServer, &s, &clock);
  options.inner = true;
  const auto context = test_context(std::move(options));
  for (std::size_t n = 0; n < hello.size(); n += 37) {
    auto one = crypto::must(Session::on_memory(context));
    one->feed(ByteView(hello).first(n));
    EXPECT_EQ(one->handshake().kind, IoKind::kWantRead);
    one->feed_end();
    EXPECT_NE(one->handshake().kind, IoKind::kOk);
    EXPECT_TRUE(one->error());
  }
  auto one = crypto::must(Session::on_memory(context));
  one->feed(as_bytes("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_EQ(one->handshake().kind, IoKind::kError);
}

// ---- who is let in -----------------------------------------------------------

struct Case {
  const char* name;
  // Changes what the client shows or what the server wants.
  std::function<void(const crypto::TestPki&, ContextOptions& client, ContextOptions& server)>
      change;
  std::string_view code;  // our reason
  int alert;              // what the peer sees
};

class Refused : public testing::TestWithParam<Case> {};

crypto::TestLeaf device(const crypto::TestPki& pki, std::int64_t from, std::int64_t to) {
  auto spec = pki.leaf_spec(Role::kDevice, "pump-17");
  spec.not_before_s = pki.now_s + from;
  spec.not_after_s = pki.now_s + to;
  return pki.leaf(spec, true);
}

void show(ContextOptions& c, const crypto::TestLeaf& leaf) {
  c.chain = {leaf.cert};
  c.key = leaf.key;
}

const Case kCases[] = {
    {"NoCertificate",
     [](const auto&, auto& c, auto&) {
       c.chain.clear();
       c.key.reset();
     },
     "tls.no_certificate", 116},
    {"UnknownCa",
     [](const auto& pki, auto& c, auto&) {
       const crypto::TestPki other(pki.network);  // same names, other keys
       show(c, other.leaf(Role::kDevice, "pump-17"));
       c.chain.push_back(other.devices);
     },
     "crypto.", 42},
    {"Expired", [](const auto& pki, auto& c, auto&) { show(c, device(pki, -7200, -1)); },
     "crypto.expired", 42},
    {"NotYetValid", [](const auto& pki, auto& c, auto&) { show(c, device(pki, 60, 7200)); },
     "crypto.not_yet_valid", 42},
    {"WrongTrustDomain",
     [](const auto& pki, auto& c, auto&) {
       auto spec = pki.leaf_spec(Role::kDevice, "pump-17");
       spec.uris = {"spiffe://other.sally/device/pump-17"};
       show(c, pki.leaf(spec, true));
     },
     "crypto.wrong_trust_domain", 42},
    {"IntermediateAsLeaf",
     [](const auto& pki, auto& c, auto&) {
       c.chain = {pki.devices};
       c.key = pki.devices_key;
     },
     "crypto.intermediate_as_leaf", 42},
    {"OtherDevicesLeafLaterInTheChain",
     [](const auto& pki, auto& c, auto&) {
       // A leaf of a self-made CA that names the victim, followed by the victim's genuine one.
       const crypto::TestPki own(pki.network);
       show(c, own.leaf(Role::kDevice, "victim"));
       c.chain.push_back(pki.leaf(Role::kDevice, "victim").cert);
       c.chain.push_back(pki.devices);
     },
     "crypto.", 42},
    {"RoleNotAllowedHere", [](const auto&, auto&, auto& s) { s.roles = {Role::kRouter}; },
     "crypto.wrong_role", 42},
    {"Revoked",
     [](const auto&, auto&, auto& s) {
       s.admit = [](const PeerIdentity& p) -> Status {
         return fail(Errc::kWrongPeer, p.id() + " is revoked");
       };
     },
     "tls.wrong_peer", 42},
    {"NoCommonAlpn", [](const auto&, auto& c, auto&) { c.alpn = {"other/1"}; }, "tls.handshake",
     120},
    {"NoAlpn", [](const auto&, auto& c, auto&) { c.alpn = {}; }, "tls.handshake", 120},
};

TEST_P(Refused, WithOurReasonAndOneAlert) {
  const crypto::TestPki pki;
  const FakeClock clock(pki.now_s * 1000);
  const auto d = pki.leaf(Role::kDevice, "pump-17");
  const auto r = pki.leaf(Role::kRouter, "router-1");
  auto co = test_options(pki, Side::kClient, &d, &clock);
  auto so = test_options(pki, Side::kServer, &r, &clock);
  GetParam().change(pki, co, so);
  auto client = crypto::must(Session::on_memory(test_context(std::move(co))));
  auto server = crypto::must(Session::on_memory(test_context(std::move(so))));
  for (int i = 0; i < 6; ++i) {
    if (!client->handshaken()) client->handshake();
    server->feed(client->take_output());
    if (!server->error()) server->handshake();
    client->feed(server->take_output());
  }
  std::array<std::uint8_t, 64> buffer;
  if (client->handshaken()) client->read(buffer);
  ASSERT_FALSE(server->handshaken());
  EXPECT_EQ(server->peer(), nullptr);
  const auto& why = server->verify_error() ? server->verify_error() : server->error();
  ASSERT_TRUE(why);
  EXPECT_TRUE(why->code().starts_with(GetParam().code)) << why->text();
  EXPECT_EQ(server->alert_sent(), GetParam().alert);
  EXPECT_EQ(client->alert_received(), GetParam().alert);
  ASSERT_TRUE(client->error());
  EXPECT_TRUE(client->error()->is(Errc::kPeerRefused)) << client->error()->text();
}

INSTANTIATE_TEST_SUITE_P(All, Refused, testing::ValuesIn(kCases),
                         [](const auto& c) { return std::string(c.param.name); });

TEST(Server, JudgedByItsClient) {
  const crypto::TestPki pki;
  const FakeClock clock(pki.now_s * 1000);
  const auto d = pki.leaf(Role::kDevice, "pump-17");
  const auto r = pki.leaf(Role::kRouter, "router-1");
  const auto attempt = [&](const std::function<void(Session&)>& expect) {
    auto client = crypto::must(
        Session::on_memory(test_context(test_options(pki, Side::kClient, &d, &clock))));
    auto server = crypto::must(
        Session::on_memory(test_context(test_options(pki, Side::kServer, &r, &clock))));
    expect(*client);
    client->handshake();
    server->feed(client->take_output());
    server->handshake();
    client->feed(server->take_output());
    return client->handshake().ok() ? std::string("ok")
                                    : std::string(client->verify_error()->code());
  };
  EXPECT_EQ(attempt([](Session& s) { ASSERT_TRUE(s.expect_host("localhost")); }), "ok");
  EXPECT_EQ(attempt([](Session& s) { ASSERT_TRUE(s.expect_host("127.0.0.1")); }), "ok");
  EXPECT_EQ(attempt([](Session& s) { ASSERT_TRUE(s.expect_host("evil.example")); }),
            "tls.wrong_peer");
  EXPECT_EQ(attempt([](Session& s) { s.expect_peer(Role::kRouter, "router-1"); }), "ok");
  EXPECT_EQ(attempt([](Session& s) { s.expect_peer(Role::kRouter, "router-2"); }),
            "tls.wrong_peer");
  EXPECT_EQ(attempt([](Session& s) { s.expect_peer(Role::kController, "router-1"); }),
            "tls.wrong_peer");
}

TEST(Session, AStrictProtocolNeedsItsRolesOnAPortThatIsOpenToAll) {
  const crypto::TestPki pki;
  const FakeClock clock(pki.now_s * 1000);
  const auto controller = pki.leaf(Role::kController, "c");
  const auto device = pki.leaf(Role::kDevice, "pump-17");
  const auto router = pki.leaf(Role::kRouter, "router-1");
  auto o = test_options(pki, Side::kServer, &controller, &clock);
  o.alpn = {"sally-ctrl/1", "http/1.1"};
  o.alpn_optional = true;
  o.peer_certificate = PeerCertificate::kOptional;
  o.strict = {.alpn = "sally-ctrl/1", .roles = {Role::kRouter}};
  o.allow_p256 = true;
  const auto context = test_context(std::move(o));
  const auto attempt = [&](std::string alpn, const crypto::TestLeaf* who) {
    auto co = test_options(pki, Side::kClient, who, &clock);
    co.alpn = {std::move(alpn)};
    const auto client = crypto::must(Session::on_memory(test_context(std::move(co))));
    const auto server = crypto::must(Session::on_memory(context));
    client->handshake();
    server->feed(client->take_output());
    server->handshake();
    client->feed(server->take_output());
    client->handshake();
    server->feed(client->take_output());
    if (server->handshake().ok()) return std::string("ok");
    const auto& bad = server->verify_error();
    return std::string(bad ? bad->code() : server->error()->code()) + " " +
           std::to_string(server->alert_sent());
  };
  EXPECT_EQ(attempt("sally-ctrl/1", &router), "ok");
  EXPECT_EQ(attempt("sally-ctrl/1", &device), "crypto.wrong_role 42");
  EXPECT_EQ(attempt("sally-ctrl/1", nullptr), "tls.no_certificate 116");
  EXPECT_EQ(attempt("http/1.1", &device), "ok");
  EXPECT_EQ(attempt("http/1.1", nullptr), "ok");
}

// A peer that dies is nobody who failed to prove himself: worth another try.
TEST(OnSocket, ALostConnectionIsNoFailedProof) {
  ASSERT_NE(std::signal(SIGPIPE, SIG_IGN), SIG_ERR);
  const crypto::TestPki pki;
  const FakeClock clock(pki.now_s * 1000);
  const auto leaf = pki.leaf(Role::kDevice, "pump-17");
  for (const char* lost :
       {"at once", "after our hello", "after its own flight", "in our write", "in our end"}) {
    SCOPED_TRACE(lost);
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    auto client = crypto::must(
        Session::on_fd(test_context(test_options(pki, Side::kClient, &leaf, &clock)), fds[0]));
    auto server = crypto::must(
        Session::on_fd(test_context(test_options(pki, Side::kServer, &leaf, &clock)), fds[1]));
    if (lost != std::string_view("at once")) {
      EXPECT_EQ(client->handshake().kind, IoKind::kWantRead);
    }
    if (lost == std::string_view("after its own flight")) {
      EXPECT_EQ(server->handshake().kind, IoKind::kWantRead);
    }
    if (std::string_view(lost).starts_with("in our")) {
      EXPECT_EQ(server->handshake().kind, IoKind::kWantRead);
      EXPECT_TRUE(client->handshake().ok());
    }
    ::close(fds[1]);
    if (lost == std::string_view("in our write")) {
      EXPECT_FALSE(client->write(as_bytes("x")).ok());
    } else if (lost == std::string_view("in our end")) {
      EXPECT_FALSE(client->shutdown().ok());
    } else {
      EXPECT_FALSE(client->handshake().ok());
    }
    ASSERT_TRUE(client->error().has_value());
    EXPECT_TRUE(client->error()->is(Errc::kIo)) << client->error()->text();
    EXPECT_TRUE(client->error()->retry());
    ::close(fds[0]);
  }
}

TEST(Context, RefusesHalfConfigurations) {
  const crypto::TestPki pki;
  const FakeClock clock(pki.now_s * 1000);
  const auto d = pki.leaf(Role::kDevice, "pump-17");
  const auto other = pki.leaf(Role::kDevice, "pump-18");
  const auto refused = [](ContextOptions o) {
    const auto c = Context::create(std::move(o));
    return !c && c.error().is(Errc::kConfig);
  };
  auto o = test_options(pki, Side::kServer, &d, &clock);
  o.key = other.key;
  EXPECT_TRUE(refused(o));  // a certificate without its key
  o = test_options(pki, Side::kServer, nullptr, &clock);
  EXPECT_TRUE(refused(o));
  o = test_options(pki, Side::kServer, &d, &clock);
  o.anchors.clear();
  EXPECT_TRUE(refused(o));
  o = test_options(pki, Side::kServer, &d, &clock);
  o.network = NetworkId();
  EXPECT_TRUE(refused(o));
  o = test_options(pki, Side::kServer, &d, &clock);
  o.trust = Trust::kUnverifiedForEnrolmentOnly;
  EXPECT_TRUE(refused(o));
  o = test_options(pki, Side::kClient, &d, &clock);
  o.peer_certificate = PeerCertificate::kNone;
  EXPECT_TRUE(refused(o));
}

}  // namespace
}  // namespace sally::tls
