// SPDX-License-Identifier: Apache-2.0
#include "agent/control.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sally::agent {
namespace {

constexpr std::size_t kMaxRequest = 64 * 1024;
constexpr std::int64_t kClientMs = 10'000;

}  // namespace

struct ControlSocket::Client {
  loop::Fd fd;
  std::unique_ptr<loop::Watcher> watcher;
  std::unique_ptr<loop::Timer> deadline;
  std::string in;
  std::string out;
  bool asked = false;
  bool leaving = false;  // makes room for a newer one
};

Result<std::unique_ptr<ControlSocket>> ControlSocket::open(loop::Loop& loop,
                                                           const std::string& path,
                                                           Handler handler) {
  std::unique_ptr<ControlSocket> self(new ControlSocket(loop, std::move(handler)));
  TRY_ASSIGN(
      self->listener_,
      loop::Listener::local(loop, path, [raw = self.get()](loop::Fd fd, const loop::Address&) {
        raw->accept(std::move(fd));
      }));
  return self;
}

ControlSocket::ControlSocket(loop::Loop& loop, Handler handler)
    : loop_(loop), handler_(std::move(handler)) {}
ControlSocket::~ControlSocket() {
  *alive_ = false;
}

void ControlSocket::drop(std::uint64_t key) {
  loop_.defer([this, key, alive = alive_] {
    if (*alive) clients_.erase(key);
  });
}

void ControlSocket::accept(loop::Fd fd) {
  if (clients_.size() >= kMaxClients) {
    // Whoever says nothing for longest makes room, so that silent clients do not lock others out;
    // when all have asked the new one goes.
    const auto silent = std::find_if(clients_.begin(), clients_.end(), [](const auto& c) {
      return !c.second->asked && !c.second->leaving;
    });
    if (silent == clients_.end()) return;
    silent->second->leaving = true;
    drop(silent->first);
  }
  const std::uint64_t key = next_++;
  auto client = std::make_unique<Client>();
  Client* c = client.get();
  c->fd = std::move(fd);
  c->deadline = std::make_unique<loop::Timer>(loop_.timers(), [this, key] { drop(key); });
  c->deadline->arm(kClientMs);
  c->watcher = std::make_unique<loop::Watcher>(
      loop_, c->fd.get(), [this, key, c](loop::Watcher::Ready ready) {
        if (ready.readable && !c->asked) {
          char buffer[4096];
          const ssize_t n = ::read(c->fd.get(), buffer, sizeof buffer);
          if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
          if (n <= 0) return drop(key);
          c->in.append(buffer, static_cast<std::size_t>(n));
          const auto end = c->in.find('\n');
          if (end == std::string::npos) {
            if (c->in.size() > kMaxRequest) drop(key);
            return;
          }
          c->asked = true;
          c->watcher->want(false, false);
          handler_(c->in.substr(0, end), [this, key, alive = alive_](std::string json) {
            if (!*alive) return;
            const auto it = clients_.find(key);
            if (it == clients_.end()) return;
            it->second->out = std::move(json) + "\n";
            it->second->watcher->want(false, true);
          });
          return;
        }
        if (ready.writable && c->asked && !c->out.empty()) {
          const ssize_t n = ::send(c->fd.get(), c->out.data(), c->out.size(), MSG_NOSIGNAL);
          if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
          if (n > 0) c->out.erase(0, static_cast<std::size_t>(n));
          if (n < 0 || c->out.empty()) drop(key);
        }
      });
  c->watcher->want(true, false);
  clients_.emplace(key, std::move(client));
}

}  // namespace sally::agent
