// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <semaphore>

#include "base/log.h"
#include "http/client.h"
#include "http/server.h"
#include "http/worker_pool.h"
#include "tls/acceptor.h"
#include "tls/test_tls.h"

namespace sally::http {
namespace {

using crypto::Role;
constexpr std::int64_t kLimit = 20'000;

// ---- pure parts --------------------------------------------------------------

TEST(Url, Table) {
  const auto ok = [](const char* text) {
    const auto u = parse_url(text);
    return u ? u->host + "|" + std::to_string(u->port) + "|" + u->target : std::string("bad");
  };
  EXPECT_EQ(ok("https://a.example"), "a.example|443|/");
  EXPECT_EQ(ok("https://10.0.0.1:1280/x/y?z=1"), "10.0.0.1|1280|/x/y?z=1");
  EXPECT_EQ(ok("https://[::1]:1280/x"), "::1|1280|/x");
  EXPECT_EQ(ok("https://a?b"), "a|443|/?b");
  for (const char* bad : {"", "http://a", "https://", "https:///x", "https://u@a", "https://a#f",
                          "https://a b", "https://a:0", "https://a:99999", "https://a\r\nX: y"})
    EXPECT_EQ(ok(bad), "bad") << bad;
}

TEST(Query, FirstEqualsSignAndPlus) {
  const auto q = parse_query("filter=name=%22echo%22&a+b=c+d&&x&bad=%zz");
  ASSERT_EQ(q.size(), 3u);
  EXPECT_EQ(q[0], (std::pair<std::string, std::string>{"filter", "name=\"echo\""}));
  EXPECT_EQ(q[1], (std::pair<std::string, std::string>{"a b", "c d"}));
  EXPECT_EQ(q[2], (std::pair<std::string, std::string>{"x", ""}));
  EXPECT_EQ(percent_decode(percent_encode("a/ b%\xff")), "a/ b%\xff");
}

struct ParseCase {
  const char* name;
  std::string in;
  int status;  // 0 = complete
};
class Refuses : public testing::TestWithParam<ParseCase> {};
const ParseCase kParse[] = {
    {"Good", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"Http10", "GET / HTTP/1.0\r\n\r\n", 0},
    {"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
    {"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {"AbsoluteTarget", "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"Connect", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    {"Trace", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    {"BothLengths",
     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: "
     "chunked\r\n\r\n0\r\n\r\n",
     400},
    {"TwoLengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
     400},
    {"NegativeLength", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
    {"BareLineFeed", "GET / HTTP/1.1\nHost: a\n\n", 400},
    {"FoldedField", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400},
    {"SpaceBeforeColon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
    {"NotHttp", "\x16\x03\x01 hello", 400},
    {"LongTarget", "GET /" + std::string(20'000, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", 431},
    {"LongField", "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(20'000, 'a') + "\r\n\r\n", 431},
    {"LargeLength", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413},
    {"LargeChunks",
     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n" +
         std::string(0x100001, 'x') + "\r\n0\r\n\r\n",
     413},
    {"LongExtension",
     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
         std::string(20'000, 'x') + "\r\na\r\n0\r\n\r\n",
     413},
};
TEST_P(Refuses, WithItsStatus) {
  // In pieces of one byte and whole.
  for (const std::size_t piece : {std::size_t{1} << 30, std::size_t{1}}) {
    if (piece == 1 && GetParam().in.size() > 100'000) continue;
    Parser parser(Parser::Kind::kRequest);
    auto state = Parser::State::kMore;
    for (std::size_t at = 0; at < GetParam().in.size() && state == Parser::State::kMore;) {
      std::size_t used = 0;
      const auto part = as_bytes(GetParam().in).subspan(at);
      state = parser.feed(part.first(std::min(piece, part.size())), used);
      at += used;
    }
    if (GetParam().status == 0) {
      EXPECT_EQ(state, Parser::State::kComplete);
    } else {
      ASSERT_EQ(state, Parser::State::kError);
      EXPECT_EQ(parser.error_status(), GetParam().status);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, Refuses, testing::ValuesIn(kParse),
                         [](const auto& c) { return std::string(c.param.name); });

TEST(Parser, ManyFieldsRefusedAndTrailersIgnored) {
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 101; ++i) many += "A: b\r\n";
  std::size_t used = 0;
  Parser first(Parser::Kind::kRequest);
  EXPECT_EQ(first.feed(as_bytes(many + "\r\n"), used), Parser::State::kError);
  EXPECT_EQ(first.error_status(), 431);
  Parser second(Parser::Kind::kRequest);
  used = 0;
  const std::string chunked =
      "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Admin: "
      "yes\r\n\r\nREST";
  EXPECT_EQ(second.feed(as_bytes(chunked), used), Parser::State::kComplete);
  EXPECT_EQ(chunked.substr(used), "REST");
  const Request r = second.take_request();
  EXPECT_EQ(r.body, "hi");
  EXPECT_FALSE(r.headers.has("x-admin"));
}

TEST(WorkerPool, BoundedQueueAndCleanEnd) {
  std::binary_semaphore hold(0);
  std::atomic<int> ran = 0;
  {
    WorkerPool pool(1, 2);
    EXPECT_TRUE(pool.submit([&] {
      hold.acquire();
      ++ran;
    }));
    // The first may still be queued or already running: two or three fit.
    int accepted = 0;
    for (int i = 0; i < 10; ++i) accepted += pool.submit([&] { ++ran; }) ? 1 : 0;
    EXPECT_GE(accepted, 1);
    EXPECT_LE(accepted, 2);
    hold.release();
  }
  EXPECT_GE(ran, 0);
}

// ---- over real sockets -------------------------------------------------------

/// A client that speaks bytes.
struct Raw final : tls::StreamHandler {
  std::unique_ptr<tls::Stream> stream;
  std::string got;
  bool closed = false;
  void on_readable() override {
    std::array<std::uint8_t, 16'384> buffer;
    got += to_text(ByteView(buffer.data(), stream->read(buffer)));
  }
  void on_writable() override {}
  void on_closed(const Error&) override { closed = true; }
  [[nodiscard]] int count(std::string_view what) const {
    int n = 0;
    for (std::size_t at = 0; (at = got.find(what, at)) != std::string::npos; ++at) ++n;
    return n;
  }
};

class Http : public testing::Test {
 protected:
  Http()
      : clock(pki.now_s * 1000),
        device(pki.leaf(Role::kDevice, "pump-17")),
        controller(pki.leaf(Role::kController, "controller-1")) {
    log::set_sink([](std::string_view) {});
  }
  ~Http() override { log::set_sink(nullptr); }

  void serve(ServerOptions options = {}, const tls::AcceptLimits& limits = {}) {
    auto o = tls::test_options(pki, tls::Side::kServer, &controller, &clock, {"http/1.1"});
    o.chain.push_back(pki.infrastructure);
    o.alpn_optional = true;
    o.peer_certificate = tls::PeerCertificate::kOptional;
    tls::AcceptorOptions ao;
    ao.host = "127.0.0.1";
    ao.context = tls::test_context(std::move(o));
    ao.limits = limits;
    server = std::make_unique<Server>(loop, std::move(options),
                                      [this](const Request& r) { return handle(r); });
    acceptor = crypto::must(tls::Acceptor::create(
        loop, std::move(ao),
        [this](std::unique_ptr<tls::Stream> s) { server->adopt(std::move(s)); }));
  }
  [[nodiscard]] std::string url(const std::string& target) const {
    return "https://localhost:" + std::to_string(acceptor->port()) + target;
  }
  Response handle(const Request& r) {
    if (r.path == "/who")
      return Response::json(200, r.peer ? r.peer->uri() : std::string("nobody"));
    if (r.path == "/echo") {
      Response out = Response::text(201, r.body);
      out.headers.add("X-Query", r.query);
      return out;
    }
    if (r.path == "/hold") hold.acquire();
    if (r.path == "/throw") throw std::runtime_error("handler bug");
    if (r.path == "/big") return Response::text(200, std::string(3 << 20, 'b'));
    if (r.path == "/split") {
      Response out = Response::text(200, "x");
      out.headers.add("X-A", "1\r\nX-Injected: 2");
      return out;
    }
    return Response::text(404, "no\n");
  }
  Result<ClientResponse> get(const std::string& target, RequestOptions o = {}, bool show = false) {
    if (!o.context)
      o.context = show ? crypto::must(client_context({pki.root}, NetworkId(pki.network),
                                                     {device.cert}, device.key, &clock))
                       : crypto::must(client_context({pki.root}, NetworkId(pki.network), {},
                                                     nullptr, &clock));
    std::optional<Result<ClientResponse>> out;
    auto call = request(loop, target.starts_with("https") ? target : url(target), std::move(o),
                        [&](Result<ClientResponse> r) { out = std::move(r); });
    EXPECT_TRUE(until([&] { return out.has_value(); }));
    return std::move(*out);
  }
  void open(Raw& raw) {
    tls::DialOptions d;
    d.host = "localhost";
    d.port = acceptor->port();
    auto o = tls::test_options(pki, tls::Side::kClient, nullptr, &clock, {"http/1.1"});
    auto dialing = tls::dial(loop, tls::test_context(std::move(o)), d,
                             [&](Result<std::unique_ptr<tls::Stream>> s) {
                               raw.stream = crypto::must(std::move(s));
                               raw.stream->set_handler(raw);
                             });
    ASSERT_TRUE(until([&] { return raw.stream != nullptr; }));
  }
  bool until(const std::function<bool()>& done) { return loop.run_until(done, kLimit); }

  crypto::TestPki pki;
  FakeClock clock;
  crypto::TestLeaf device, controller;
  loop::Loop loop;
  std::counting_semaphore<100> hold{0};
  std::unique_ptr<Server> server;
  std::unique_ptr<tls::Acceptor> acceptor;
};

TEST_F(Http, PeerIsTheProvenLeafOrNobody) {
  serve();
  EXPECT_EQ(get("/who")->body, "nobody");
  const auto r = get("/who", {}, true);
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_EQ(r->body, "spiffe://net-a.sally/device/pump-17");
  EXPECT_EQ(r->headers.get("content-type"), "application/json");
  ASSERT_TRUE(r->peer);
  EXPECT_EQ(r->peer->id(), "controller-1");
}

TEST_F(Http, BodiesMethodsAndErrors) {
  serve();
  RequestOptions o;
  o.method = "POST";
  o.body = std::string(1 << 20, 'a');
  auto r = get("/echo?q=1", o);
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_EQ(r->status, 201);
  EXPECT_TRUE(r->body == o.body);
  EXPECT_EQ(r->headers.get("X-Query"), "q=1");
  o.body += 'b';
  r = get("/echo", o);
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_EQ(r->status, 413);
  EXPECT_EQ(get("/nothing")->status, 404);
  EXPECT_EQ(get("/throw")->status, 500);
  o = {};
  o.method = "HEAD";
  r = get("/big", o);
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_TRUE(r->body.empty());
  EXPECT_EQ(r->headers.get("content-length"), std::to_string(3 << 20));
  EXPECT_EQ(get("/big")->body.size(), 3u << 20);
  EXPECT_FALSE(get("/split")->headers.has("X-Injected"));
  o = {};
  o.max_response = 1000;
  EXPECT_TRUE(get("/big", o).error().is(Errc::kTooLarge));
}

TEST_F(Http, ServersThatAreNotBelieved) {
  serve();
  const crypto::TestPki other("net-b.sally");
  RequestOptions o;
  o.context =
      crypto::must(client_context({other.root}, NetworkId("net-a.sally"), {}, nullptr, &clock));
  EXPECT_TRUE(get("/who", o).error().is(tls::Errc::kCertificate));
  o.context =
      crypto::must(client_context({pki.root}, NetworkId("net-b.sally"), {}, nullptr, &clock));
  EXPECT_TRUE(get("/who", o).error().is(tls::Errc::kCertificate));
  // A host name that is not in the certificate.
  o.context = nullptr;
  EXPECT_TRUE(get("https://127.0.0.2:" + std::to_string(acceptor->port()) + "/who", o)
                  .error()
                  .code()
                  .starts_with("loop."));  // nobody listens there
  o.verify_host = true;
  o.expect_peer = {Role::kController, "controller-2"};
  EXPECT_TRUE(get("/who", o).error().is(tls::Errc::kCertificate));
  // Capture only: nothing is believed, nothing is shown.
  o.context = crypto::must(unverified_enrolment_context());
  o.expect_peer.reset();
  const auto r = get("/who", o);
  ASSERT_TRUE(r);
  EXPECT_EQ(r->captured_leaf, controller.cert);
  EXPECT_FALSE(r->peer);
  EXPECT_EQ(r->body, "nobody");
}

TEST_F(Http, OneRequestAfterAnotherOnAConnection) {
  serve();
  RequestOptions first;
  first.context = crypto::must(unverified_enrolment_context());
  first.verify_host = false;
  first.keep_open = true;
  const auto origin = "https://127.0.0.1:" + std::to_string(acceptor->port());
  std::optional<Result<ClientResponse>> got;
  const auto take = [&got](Result<ClientResponse> r) { got = std::move(r); };
  const auto call = request(loop, origin + "/who", first, take);
  ASSERT_TRUE(until([&] { return got.has_value(); }));
  ASSERT_TRUE(*got) << got->error().text();
  EXPECT_EQ(server->connections(), 1u);
  RequestOptions second;
  second.method = "POST";
  second.body = "again";
  got.reset();
  call->again("/echo", second, take);
  ASSERT_TRUE(until([&] { return got.has_value(); }));
  ASSERT_TRUE(*got) << got->error().text();
  EXPECT_EQ((*got)->body, "again");
  // That one did not keep it.
  got.reset();
  call->again("/who", second, take);
  EXPECT_FALSE(got);  // never from inside
  ASSERT_TRUE(until([&] { return got.has_value(); }));
  EXPECT_TRUE(got->error().is(Errc::kClosed));
}

TEST_F(Http, AHandshakeCutOffIsTriedAgain) {
  tls::AcceptLimits limits;
  limits.burst_per_source = 1;
  limits.rate_per_source = 5;
  serve({}, limits);
  EXPECT_TRUE(get("/who"));
  const auto second = get("/who");  // refused until the bucket has a token again
  EXPECT_TRUE(second) << second.error().text();
}

TEST_F(Http, KeepAliveAndPipelining) {
  serve();
  Raw raw;
  open(raw);
  std::string all;
  for (int i = 0; i < 50; ++i) all += "GET /who HTTP/1.1\r\nHost: a\r\n\r\n";
  raw.stream->write(as_bytes(all));
  ASSERT_TRUE(until([&] { return raw.count("HTTP/1.1 200 OK") == 50; }));
  EXPECT_EQ(server->connections(), 1u);
  EXPECT_FALSE(raw.closed);
  raw.stream->write(as_bytes("GET /who HTTP/1.0\r\n\r\n"));
  ASSERT_TRUE(until([&] { return raw.closed; }));
  ASSERT_TRUE(until([&] { return server->connections() == 0; }));
}

TEST_F(Http, ExpectContinue) {
  serve();
  Raw raw;
  open(raw);
  raw.stream->write(as_bytes(
      "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
  ASSERT_TRUE(until([&] { return raw.count("100 Continue\r\n\r\n") == 1; }));
  raw.stream->write(as_bytes("ok"));
  ASSERT_TRUE(until([&] { return raw.count("HTTP/1.1 201 Created") == 1; }));
}

TEST_F(Http, SlowSilentAndEmptyPeersEndAtTheirDeadlines) {
  ServerOptions o;
  o.read_ms = 60;
  o.idle_ms = 120;
  serve(o);
  Raw silent;
  Raw slow;
  Raw lines;
  open(silent);
  open(slow);
  open(lines);
  slow.stream->write(as_bytes("GET / HTTP/1.1\r\nX"));
  loop::Timer drip(loop.timers(), [&] {
    if (!lines.closed) lines.stream->write(as_bytes("\r\n"));  // empty lines for ever
    if (!slow.closed) slow.stream->write(as_bytes("x"));
    drip.arm(20);
  });
  drip.arm(1);
  ASSERT_TRUE(until([&] { return silent.closed && slow.closed && lines.closed; }));
  EXPECT_GE(server->counters().timed_out, 3u);
  ASSERT_TRUE(until([&] { return server->connections() == 0; }));
}

TEST_F(Http, BusyWorkersAnswer503AndTheQueueIsBounded) {
  ServerOptions o;
  o.workers = 1;
  o.queue = 1;
  serve(o);
  std::deque<Raw> raws(4);
  for (auto& raw : raws) {
    open(raw);
    raw.stream->write(as_bytes("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"));
  }
  const auto refused = [&] {
    int n = 0;
    for (auto& raw : raws) n += raw.count("503 Service Unavailable");
    return n;
  };
  ASSERT_TRUE(until([&] { return refused() >= 2; }));
  hold.release(10);
  ASSERT_TRUE(until([&] {
    int n = 0;
    for (auto& raw : raws) n += raw.count("404 Not Found");
    return n + refused() == 4;
  }));
}

TEST_F(Http, BodyBudgetAndConnectionLimits) {
  ServerOptions o;
  o.body_bytes = 100'000;
  o.connections = 3;
  serve(o);
  std::deque<Raw> raws(3);
  for (auto& raw : raws) open(raw);
  for (auto& raw : raws)
    raw.stream->write(as_bytes("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" +
                               std::string(45'000, 'x')));
  const auto over = [&] {
    int n = 0;
    for (auto& raw : raws) n += raw.count("503 Service Unavailable");
    return n;
  };
  ASSERT_TRUE(until([&] { return over() == 1; }));
  // The table is full of busy connections but one that ended: a new one gets in, the next does not.
  ASSERT_TRUE(until([&] { return server->connections() == 2; }));
  Raw third;
  open(third);
  third.stream->write(as_bytes("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"));
  loop.run_until([] { return false; }, 20);
  Raw fourth;
  open(fourth);
  ASSERT_TRUE(until([&] { return fourth.closed; }));
  EXPECT_EQ(server->counters().dropped, 1u);
}

TEST_F(Http, TimeoutAndCancel) {
  serve();
  RequestOptions o;
  o.timeout_ms = 80;
  EXPECT_TRUE(get("/hold", o).error().is(Errc::kTimeout));
  o.context = crypto::must(client_context({pki.root}, NetworkId(pki.network), {}, nullptr, &clock));
  auto call = request(loop, url("/hold"), o, [](Result<ClientResponse>) { ADD_FAILURE(); });
  loop.run_until([] { return false; }, 20);
  call.reset();
  hold.release(5);
  EXPECT_TRUE(get("http://plain/", {}).error().is(Errc::kBadUrl));
}

TEST_F(Http, ServerGoesWhileHandlersRun) {
  serve();
  Raw raw;
  open(raw);
  raw.stream->write(as_bytes("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"));
  ASSERT_TRUE(until([&] { return server->counters().requests == 1; }));
  hold.release();
  server.reset();
  ASSERT_TRUE(until([&] { return raw.closed; }));
}

}  // namespace
}  // namespace sally::http
