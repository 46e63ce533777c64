// SPDX-License-Identifier: Apache-2.0
#include "http/server.h"

#include <array>
#include <exception>
#include <list>
#include <map>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "http/worker_pool.h"

namespace sally::http {
namespace {

/// Stable code of what the server refuses by itself.
std::string_view refusal_code(int status) {
  switch (status) {
    case 408:
      return "http.timeout";
    case 413:
      return "http.too_large";
    case 431:
      return "http.head_too_large";
    case 501:
      return "http.method";
    case 503:
      return "http.busy";
    case 505:
      return "http.version";
    default:
      return status >= 500 ? "http.internal" : "http.bad_request";
  }
}

/// The same form as the API's errors, so that no client needs a second way to read them.
Response refusal(int status) {
  Response r;
  r.status = status;
  r.headers.add("Content-Type", "application/json");
  r.body = "{\"error\":{\"code\":\"" + std::string(refusal_code(status)) + "\",\"message\":\"" +
           lower(reason_phrase(status)) + "\"}}";
  return r;
}

bool token_text(std::string_view value) {
  for (const char c : value)
    if (c == '\r' || c == '\n' || c == '\0') return false;
  return true;
}

/// Status line, fields and body in one buffer: the head leaves in one TLS record
/// (docs/compatible-enrolment.md H16).
std::string serialise(const Response& r, const Headers& extra, bool head_only, bool close) {
  std::string out = "HTTP/1.1 " + std::to_string(r.status) + " ";
  out += reason_phrase(r.status);
  out += "\r\n";
  const auto field = [&](std::string_view name, std::string_view value) {
    if (!token_text(name) || !token_text(value))
      return;  // a handler's mistake must not split a response
    out += name;
    out += ": ";
    out += value;
    out += "\r\n";
  };
  for (const auto& [name, value] : r.headers.list()) field(name, value);
  for (const auto& [name, value] : extra.list())
    if (!r.headers.has(name)) field(name, value);
  if (r.status != 204 && r.status != 304) field("Content-Length", std::to_string(r.body.size()));
  if (close) field("Connection", "close");
  out += "\r\n";
  if (!head_only && r.status != 204 && r.status != 304) out += r.body;
  return out;
}

}  // namespace

struct Server::Impl {
  class Connection;
  using List = std::list<std::shared_ptr<Connection>>;  // least recently used first
  using Source = std::array<std::uint8_t, 16>;

  class Connection final : public tls::StreamHandler,
                           public std::enable_shared_from_this<Connection> {
   public:
    Connection(Impl& owner, std::unique_ptr<tls::Stream> stream)
        : owner_(owner),
          stream_(std::move(stream)),
          parser_(Parser::Kind::kRequest, owner.options.limits),
          deadline_(owner.loop.timers(), [this] { on_deadline(); }) {
      if (const auto* peer = stream_->peer())
        peer_ = std::make_shared<const tls::PeerIdentity>(*peer);
    }
    void start() {
      deadline_.arm(owner_.options.idle_ms);
      stream_->set_handler(*this);
    }
    [[nodiscard]] bool idle() const { return phase_ == Phase::kReading && !receiving_; }
    [[nodiscard]] const std::shared_ptr<const tls::PeerIdentity>& peer() const { return peer_; }
    [[nodiscard]] Source source() const { return stream_->remote().source_key(); }
    List::iterator self;

    /// No call comes after this.
    void retire() {
      phase_ = Phase::kClosing;
      count(0);
      deadline_.cancel();
      stream_.reset();
    }
    void end() {
      phase_ = Phase::kClosing;
      stream_->close();
    }

    void on_readable() override {
      std::array<std::uint8_t, 16 * 1024> buffer;
      const std::size_t n = stream_->read(buffer);
      if (n == 0 || phase_ != Phase::kReading) return;
      begin_receiving();
      consume(ByteView(buffer.data(), n));
    }
    void on_writable() override { push(); }
    void on_closed(const Error&) override { owner_.remove(self); }

    void answer(Response response) {
      if (phase_ != Phase::kHandling) return;
      const bool close = response.close || !keep_;
      respond(response, close);
    }

   private:
    enum class Phase : std::uint8_t { kReading, kHandling, kWriting, kClosing };

    /// The deadline of a request runs from its first byte, even from the empty lines before it.
    void begin_receiving() {
      if (!std::exchange(receiving_, true)) deadline_.arm(owner_.options.read_ms);
    }
    /// Keeps the server's sum of body bytes under way.
    void count(std::size_t now) {
      owner_.receiving += now - counted_;
      counted_ = now;
    }

    void consume(ByteView in) {
      std::size_t used = 0;
      const auto state = parser_.feed(in, used);
      count(parser_.body_size());
      if (state == Parser::State::kError) return refuse(parser_.error_status());
      if (owner_.receiving > owner_.options.body_bytes) return refuse(503);
      if (state == Parser::State::kMore) {
        if (parser_.take_expect_continue()) {
          out_ = "HTTP/1.1 100 Continue\r\n\r\n";
          push();
        }
        return;
      }
      if (used < in.size()) rest_ = to_bytes(in.subspan(used));  // at most one record
      keep_ = parser_.keep_alive();
      count(0);
      dispatch(parser_.take_request());
    }

    void dispatch(Request request) {
      phase_ = Phase::kHandling;
      deadline_.cancel();  // handlers have their own limits
      stream_->want_read(false);
      head_only_ = request.method == "HEAD";
      request.peer = peer_;
      request.source = stream_->remote();
      ++owner_.counters.requests;
      owner_.touch(self);
      auto job = [weak = weak_from_this(), &owner = owner_,
                  request = std::move(request)]() mutable {
        Response response;
        try {
          response = owner.handler(std::move(request));
        } catch (const std::exception& e) {
          log::error("http.handler_threw", {{"reason", e.what()}});
          response = refusal(500);
        }
        // The pool is joined before the server goes, so `owner` is alive; the connection may be
        // gone.
        if (!owner.loop.post([weak, response = std::move(response)]() mutable {
              if (const auto c = weak.lock()) c->answer(std::move(response));
            }))
          log::error("http.response_lost", {});
      };
      if (!owner_.pool->submit(std::move(job))) {
        log::warn("http.workers_busy", {{"listener", owner_.options.name}});
        refuse(503);
      }
    }

    void refuse(int status) {
      ++owner_.counters.refused;
      count(0);
      Response r = refusal(status);
      if (status == 503) r.headers.add("Retry-After", "1");
      respond(r, true);
    }

    void respond(const Response& response, bool close) {
      phase_ = Phase::kWriting;
      deadline_.arm(owner_.options.write_ms);
      close_after_ = close;
      stream_->want_read(false);
      out_ += serialise(response, owner_.options.headers, head_only_, close);
      push();
    }

    void push() {
      if (!out_.empty()) {
        const std::size_t n = stream_->write(as_bytes(out_).subspan(written_));
        written_ += n;
        if (written_ < out_.size()) {
          if (n > 0 && phase_ == Phase::kWriting) deadline_.arm(owner_.options.write_ms);
          return;
        }
        out_ = std::string();  // an idle connection holds no memory
        written_ = 0;
      }
      if (phase_ == Phase::kWriting) written();
    }

    void written() {
      deadline_.cancel();
      if (close_after_) return end();
      phase_ = Phase::kReading;
      head_only_ = false;
      receiving_ = false;
      deadline_.arm(owner_.options.idle_ms);
      if (!rest_.empty()) {
        // In a later turn: pipelined requests must not recurse.
        owner_.loop.defer([weak = weak_from_this()] {
          const auto c = weak.lock();
          if (!c || c->phase_ != Phase::kReading || c->rest_.empty()) return;
          const Bytes rest = std::exchange(c->rest_, {});
          c->begin_receiving();
          c->consume(rest);
          if (c->phase_ == Phase::kReading) c->stream_->want_read(true);
        });
        return;
      }
      stream_->want_read(true);
    }

    void on_deadline() {
      ++owner_.counters.timed_out;
      if (phase_ == Phase::kReading && receiving_) return refuse(408);
      end();
    }

    Impl& owner_;
    std::unique_ptr<tls::Stream> stream_;
    Parser parser_;
    loop::Timer deadline_;
    std::shared_ptr<const tls::PeerIdentity> peer_;
    Phase phase_ = Phase::kReading;
    bool keep_ = false;
    bool receiving_ = false;
    std::size_t counted_ = 0;
    bool head_only_ = false;
    bool close_after_ = false;
    Bytes rest_;
    std::string out_;
    std::size_t written_ = 0;

    friend struct Impl;
  };

  Impl(loop::Loop& l, ServerOptions o, Handler h)
      : loop(l),
        options(std::move(o)),
        handler(std::move(h)),
        pool(std::make_unique<WorkerPool>(options.workers, options.queue)) {}
  ~Impl() {
    pool.reset();
    connections.clear();
  }

  void touch(List::iterator c) { connections.splice(connections.end(), connections, c); }
  void remove(List::iterator c) {
    // We may be called from inside it.
    const auto keep = *c;  // NOLINT(performance-unnecessary-copy-initialization)
    if (--sources[keep->source()] == 0) sources.erase(keep->source());
    connections.erase(c);
    keep->retire();
    loop.defer([keep] {});
  }

  void adopt(std::unique_ptr<tls::Stream> stream) {
    const auto source = stream->remote().source_key();
    const auto found = sources.find(source);
    if (found != sources.end() && found->second >= options.connections_per_source) {
      ++counters.dropped;
      log::warn("http.source_over_limit",
                {{"listener", options.name}, {"source", stream->remote().ip_text()}});
      return;
    }
    if (connections.size() >= options.connections) {
      ++counters.dropped;
      // Whoever is idle longest makes room; when all are busy the new one goes.
      if (!connections.front()->idle()) return;
      remove(connections.begin());
    }
    auto connection = std::make_shared<Connection>(*this, std::move(stream));
    ++sources[source];
    connections.push_back(connection);
    connection->self = std::prev(connections.end());
    connection->start();
  }

  loop::Loop& loop;
  ServerOptions options;
  Handler handler;
  ServerCounters counters;
  std::size_t receiving = 0;  // body bytes of requests not yet complete
  std::map<Source, std::size_t> sources;
  List connections;
  std::unique_ptr<WorkerPool> pool;
};

Server::Server(loop::Loop& loop, ServerOptions options, Handler handler)
    : impl_(std::make_unique<Impl>(loop, std::move(options), std::move(handler))) {}
Server::~Server() = default;
void Server::adopt(std::unique_ptr<tls::Stream> stream) {
  impl_->adopt(std::move(stream));
}
std::size_t Server::connections() const {
  return impl_->connections.size();
}
const ServerCounters& Server::counters() const {
  return impl_->counters;
}

}  // namespace sally::http
