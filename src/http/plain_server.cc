// SPDX-License-Identifier: Apache-2.0
#include "http/plain_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "base/metrics.h"
#include "base/text.h"
#include "http/parser.h"

namespace sally::http {
namespace {

constexpr std::size_t kMaxClients = 16;
constexpr std::int64_t kClientMs = 5'000;
constexpr ParserLimits kLimits{.head = 4096, .headers = 32, .body = 0};

// A page in a browser has no business here, whatever name its owner gave to our address.
bool own_host(const Request& r) {
  if (r.headers.has("Origin")) return false;
  const std::string host(r.headers.get("Host"));
  if (host.empty() || host == "localhost" || valid_address(host)) return true;
  const auto at = parse_host_port(host);
  return at && (at->host == "localhost" || valid_address(at->host));
}

}  // namespace

Result<PlainAddress> parse_plain_address(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  if (text.starts_with(kUnix)) {
    PlainAddress at{.path = std::string(text.substr(kUnix.size())), .host = {}, .port = 0};
    if (at.path.empty() || at.path.front() != '/')
      return fail(Errc::kForbidden, "unix:PATH needs an absolute path", Source::kConfig);
    return at;
  }
  const auto at = parse_listen(text);
  if (!at) return fail(Errc::kForbidden, "neither ADDRESS:PORT nor unix:PATH", Source::kConfig);
  // By its text: a name could mean something else tomorrow.
  if (at->host != "::1" && !(at->host.starts_with("127.") && valid_address(at->host)))
    return fail(Errc::kForbidden,
                "without TLS only loopback is served: 127.0.0.1:PORT, [::1]:PORT or unix:PATH",
                Source::kConfig);
  return PlainAddress{.path = {}, .host = at->host, .port = at->port};
}

struct PlainServer::Client {
  loop::Fd fd;
  Parser parser{Parser::Kind::kRequest, kLimits};
  std::unique_ptr<loop::Watcher> watcher;
  std::unique_ptr<loop::Timer> deadline;
  std::string out;
  std::size_t written = 0;
  bool asked = false;
  bool head_only = false;
  bool dropped = false;
};

PlainServer::PlainServer(loop::Loop& loop, Handler handler)
    : loop_(loop), handler_(std::move(handler)) {}
PlainServer::~PlainServer() {
  *alive_ = false;
}

Result<std::unique_ptr<PlainServer>> PlainServer::create(loop::Loop& loop, const PlainAddress& at,
                                                         Handler handler) {
  std::unique_ptr<PlainServer> self(new PlainServer(loop, std::move(handler)));
  const auto on_accept = [raw = self.get()](loop::Fd fd, const loop::Address&) {
    raw->accept(std::move(fd));
  };
  if (at.path.empty()) {
    TRY_ASSIGN(self->listener_, loop::Listener::tcp(loop, at.host, at.port, on_accept));
  } else {
    TRY_ASSIGN(self->listener_, loop::Listener::local(loop, at.path, on_accept));
  }
  return self;
}

// Not inside a callback of the client's own watcher.
void PlainServer::drop(std::uint64_t key) {
  const auto it = clients_.find(key);
  if (it == clients_.end() || std::exchange(it->second->dropped, true)) return;
  it->second->watcher->want(false, false);
  loop_.defer([this, key, alive = alive_] {
    if (*alive) clients_.erase(key);
  });
}

void PlainServer::accept(loop::Fd fd) {
  if (clients_.size() >= kMaxClients) return;
  const std::uint64_t key = next_++;
  auto client = std::make_unique<Client>();
  client->fd = std::move(fd);
  client->deadline = std::make_unique<loop::Timer>(loop_.timers(), [this, key] { drop(key); });
  client->deadline->arm(kClientMs);
  client->watcher = std::make_unique<loop::Watcher>(
      loop_, client->fd.get(), [this, key](loop::Watcher::Ready ready) { on_ready(key, ready); });
  client->watcher->want(true, false);
  clients_.emplace(key, std::move(client));
}

void PlainServer::on_ready(std::uint64_t key, loop::Watcher::Ready ready) {
  const auto it = clients_.find(key);
  if (it == clients_.end() || it->second->dropped) return;
  Client& c = *it->second;
  if (!c.asked && ready.readable) {
    std::array<std::uint8_t, 4096> buffer;
    const ssize_t n = ::recv(c.fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return drop(key);
    std::size_t used = 0;
    const auto state = c.parser.feed(ByteView(buffer.data(), static_cast<std::size_t>(n)), used);
    if (state == Parser::State::kMore) return;
    c.asked = true;
    c.watcher->want(false, false);
    if (state == Parser::State::kError)
      return answer(key, Response::text(c.parser.error_status(), "bad request\n"));
    return on_request(key, c, c.parser.take_request());
  }
  if (c.out.empty()) return;
  const ssize_t n = ::send(c.fd.get(), c.out.data() + c.written, c.out.size() - c.written,
                           MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) c.written += static_cast<std::size_t>(n);
  if (n >= 0 && c.written < c.out.size()) return;
  ::shutdown(c.fd.get(), SHUT_WR);
  // What it sent beyond the request would turn our end into a reset that eats the answer.
  std::array<std::uint8_t, 4096> rest;
  for (int i = 0; i < 4 && ::recv(c.fd.get(), rest.data(), rest.size(), MSG_DONTWAIT) > 0; ++i) {
  }
  drop(key);
}

void PlainServer::on_request(std::uint64_t key, Client& client, Request request) {
  client.head_only = request.method == "HEAD";
  if (request.method != "GET" && request.method != "HEAD")
    return answer(key, Response::text(405, "only GET\n"));
  handler_(request, [this, key, alive = alive_](const Response& response) {
    if (*alive) answer(key, response);
  });
}

void PlainServer::answer(std::uint64_t key, const Response& response) {
  const auto it = clients_.find(key);
  if (it == clients_.end() || it->second->dropped) return;
  Client& c = *it->second;
  c.out = "HTTP/1.1 " + std::to_string(response.status) + " " +
          std::string(reason_phrase(response.status)) + "\r\n";
  for (const auto& [name, value] : response.headers.list())
    c.out.append(name).append(": ").append(value).append("\r\n");
  c.out += "Content-Length: " + std::to_string(response.body.size()) +
           "\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n";
  if (!c.head_only) c.out += response.body;
  c.watcher->want(false, true);
}

Result<std::unique_ptr<PlainServer>> serve_metrics(
    loop::Loop& loop, const PlainAddress& at,
    std::function<void(std::move_only_function<void(std::string)>)> collect) {
  TRY_ASSIGN(
      auto server,
      PlainServer::create(
          loop, at, [collect = std::move(collect)](const Request& r, PlainServer::Reply reply) {
            if (r.path != "/metrics") return reply(Response::text(404, "see /metrics\n"));
            if (!own_host(r)) return reply(Response::text(403, "not for browsers\n"));
            collect([reply = std::move(reply)](std::string text) mutable {
              Response out;
              out.headers.add("Content-Type", std::string(metrics::Text::kContentType));
              out.body = std::move(text);
              reply(std::move(out));
            });
          }));
  log::info("http.metrics", {{"at", at.path.empty() ? HostPort{at.host, server->port()}.str()
                                                    : "unix:" + at.path}});
  return server;
}

}  // namespace sally::http
