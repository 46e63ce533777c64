// SPDX-License-Identifier: Apache-2.0
#include "http/client.h"

#include <array>

#include "base/backoff.h"
#include "base/text.h"
#include "http/parser.h"
#include "tls/stream.h"

namespace sally::http {
namespace {

class CallImpl final : public Call, private tls::StreamHandler {
 public:
  CallImpl(loop::Loop& loop, Result<Url> url, RequestOptions options, OnResponse done)
      : loop_(loop),
        options_(std::move(options)),
        done_(std::move(done)),
        deadline_(loop.timers(),
                  [this] {
                    if (early_) return finish(fail(*early_));
                    finish(fail(Errc::kTimeout, url_.origin() + ": no answer in time",
                                Source::kPeer, true));
                  }),
        redial_(loop.timers(), [this] { dial(); }) {
    if (!url || options_.context == nullptr) {
      early_ =
          url ? Error(Errc::kBadUrl, "no TLS context", Source::kInternal) : std::move(url).error();
      deadline_.arm(0);  // never call back from the constructor
      return;
    }
    url_ = std::move(*url);
    deadline_.arm(options_.timeout_ms);
    dial();
  }

  void again(const std::string& target, RequestOptions options, OnResponse done) override {
    done_ = std::move(done);
    url_.target = target;
    options_ = std::move(options);
    if (!kept_) {
      early_ =
          Error(Errc::kClosed, url_.origin() + ": the connection is over", Source::kPeer, true);
      deadline_.arm(0);
      return;
    }
    deadline_.arm(options_.timeout_ms);
    send();
  }

 private:
  // A server that has enough of our address for now cuts the handshake off: nothing was asked yet.
  static constexpr int kDials = 6;

  void dial() {
    tls::DialOptions to;
    to.host = url_.host;
    to.port = url_.port;
    to.expect_host = options_.verify_host;
    to.expect_peer = options_.expect_peer;
    to.connect_ms = options_.timeout_ms;
    to.limits.handshake_ms = options_.timeout_ms;
    dialing_ =
        tls::dial(loop_, options_.context, to, [this](Result<std::unique_ptr<tls::Stream>> stream) {
          if (!stream) return refused(std::move(stream).error());
          stream_ = std::move(*stream);
          stream_->set_handler(*this);
          send();
        });
  }
  void refused(Error why) {
    const bool cut = why.is(tls::Errc::kIo) || why.is(tls::Errc::kTruncated);
    if (!cut || ++dials_ == kDials) return finish(fail(std::move(why)));
    redial_.arm(pause_.next_ms(system_random(), 1'000));
  }

  void send() {
    kept_ = false;
    response_ = {};
    parser_.emplace(Parser::Kind::kResponse,
                    ParserLimits{.head = 64 * 1024, .headers = 200, .body = options_.max_response});
    if (options_.method == "HEAD") parser_->expect_no_body();
    if (const auto* peer = stream_->peer())
      response_.peer = std::make_shared<const tls::PeerIdentity>(*peer);
    response_.captured_leaf = stream_->session().captured_leaf();
    out_ = options_.method + " " + url_.target +
           " HTTP/1.1\r\nHost: " + HostPort{url_.host, url_.port}.str() +
           (options_.keep_open ? "\r\n" : "\r\nConnection: close\r\n");
    for (const auto& [name, value] : options_.headers.list()) out_ += name + ": " + value + "\r\n";
    if (!options_.body.empty() || options_.method == "POST" || options_.method == "PUT" ||
        options_.method == "PATCH")
      out_ += "Content-Length: " + std::to_string(options_.body.size()) + "\r\n";
    out_ += "\r\n" + options_.body;
    push();
  }
  void push() {
    written_ += stream_->write(as_bytes(out_).subspan(written_));
    if (written_ == out_.size()) out_ = {}, written_ = 0;
  }

  void on_readable() override {
    std::array<std::uint8_t, 16 * 1024> buffer;
    const std::size_t n = stream_->read(buffer);
    if (n == 0) return;
    std::size_t used = 0;
    const auto state = parser_->feed(ByteView(buffer.data(), n), used);
    // Nobody asked for more than the answer.
    kept_ = used == n && options_.keep_open && state == Parser::State::kComplete &&
            parser_->keep_alive();
    settle(state);
  }
  void on_writable() override { push(); }
  void on_closed(const Error& why) override {
    kept_ = false;
    if (early_) return;
    // Only an honest end may complete a response that runs until the end of the connection.
    if (why.is(tls::Errc::kClosed) && parser_->started()) {
      const auto state = parser_->finish();
      if (state == Parser::State::kComplete) return settle(state);
      return finish(fail(Errc::kClosed, "response cut short", Source::kPeer, true));
    }
    finish(fail(why));
  }

  void settle(Parser::State state) {
    if (state == Parser::State::kMore) return;
    if (state == Parser::State::kError) {
      const bool large = parser_->error_status() == 413 || parser_->error_status() == 431;
      return finish(fail(large ? Errc::kTooLarge : Errc::kBadResponse, url_.origin()));
    }
    Response r = parser_->take_response();
    response_.status = r.status;
    response_.headers = std::move(r.headers);
    response_.body = std::move(r.body);
    finish(std::move(response_));
  }

  void finish(Result<ClientResponse> result) {
    deadline_.cancel();
    redial_.cancel();
    if (!done_) return;
    auto done = std::exchange(done_, nullptr);
    // The stream may be calling us: it goes when the call object goes.
    if (stream_ && !kept_) stream_->close();
    done(std::move(result));  // may destroy us
  }

  loop::Loop& loop_;
  RequestOptions options_;
  OnResponse done_;
  Url url_;
  std::optional<Parser> parser_;
  loop::Timer deadline_;
  loop::Timer redial_;
  Backoff pause_{100};
  int dials_ = 0;
  std::optional<Error> early_;
  ClientResponse response_;
  std::string out_;
  std::size_t written_ = 0;
  bool kept_ = false;  // answered, and the connection may be used again
  std::unique_ptr<tls::Stream> stream_;
  std::unique_ptr<tls::Dialing> dialing_;
};

tls::ContextOptions base_options() {
  tls::ContextOptions o;
  o.side = tls::Side::kClient;
  o.alpn = {"http/1.1"};
  o.alpn_optional = true;
  o.allow_p256 = true;
  return o;
}

}  // namespace

std::unique_ptr<Call> request(loop::Loop& loop, const std::string& url, RequestOptions options,
                              OnResponse done) {
  return std::make_unique<CallImpl>(loop, parse_url(url), std::move(options), std::move(done));
}

Result<ClientResponse> blocking_request(const std::string& url, RequestOptions options) {
  loop::Loop loop;
  std::optional<Result<ClientResponse>> result;
  const std::int64_t limit = options.timeout_ms + 1000;
  auto call = request(loop, url, std::move(options),
                      [&](Result<ClientResponse> r) { result = std::move(r); });
  loop.run_until([&] { return result.has_value(); }, limit);
  if (!result) return fail(Errc::kTimeout, url, Source::kPeer, true);
  return std::move(*result);
}

Result<std::shared_ptr<const tls::Context>> client_context(
    std::vector<crypto::Certificate> anchors, NetworkId network,
    std::vector<crypto::Certificate> chain, std::shared_ptr<const crypto::Signer> key,
    const Clock* clock, bool clock_may_lag) {
  auto o = base_options();
  o.anchors = std::move(anchors);
  o.network = std::move(network);
  o.chain = std::move(chain);
  o.key = std::move(key);
  o.clock = clock;
  o.clock_may_lag = clock_may_lag;
  return tls::Context::create(std::move(o));
}

Result<std::shared_ptr<const tls::Context>> unverified_enrolment_context() {
  auto o = base_options();
  o.trust = tls::Trust::kUnverifiedForEnrolmentOnly;
  return tls::Context::create(std::move(o));
}

}  // namespace sally::http
