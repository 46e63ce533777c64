// SPDX-License-Identifier: Apache-2.0
#include "loop/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/log.h"

namespace sally::loop {
namespace {

constexpr int kAcceptsPerTurn = 32;
constexpr std::int64_t kPauseMs = 100;

std::string errno_text(int e) {
  char text[128] = {};
  return strerror_r(e, text, sizeof text);
}

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* plain() { return reinterpret_cast<sockaddr*>(&storage); }
};

Result<SocketAddress> local_path(const std::string& path) {
  SocketAddress out;
  sockaddr_un un{};
  if (path.empty() || path.size() >= sizeof un.sun_path)
    return fail(Errc::kBadAddress, "socket path has more than 107 characters: " + path,
                Source::kConfig);
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, path.c_str(), path.size() + 1);
  std::memcpy(&out.storage, &un, sizeof un);
  out.size = sizeof un;
  return out;
}

}  // namespace

// ---- Listener --------------------------------------------------------------

struct Listener::Impl {
  Impl(Loop& l, Fd f, OnAccept cb)
      : loop(l),
        fd(std::move(f)),
        on_accept(std::make_shared<OnAccept>(std::move(cb))),
        resume(l.timers(), [this] { watcher->want_read(true); }),
        watcher(std::make_unique<Watcher>(l, fd.get(), [this](Watcher::Ready) { accept_some(); })) {
    watcher->want_read(true);
  }
  ~Impl() {
    *alive = false;
    watcher.reset();
    if (!unlink_path.empty()) ::unlink(unlink_path.c_str());
  }

  void accept_some() {
    // Both outlive a callback that destroys us.
    const auto still = alive;
    const auto callback = on_accept;
    for (int i = 0; i < kAcceptsPerTurn && *still && watcher->wants_read(); ++i) {
      SocketAddress from;
      from.size = sizeof from.storage;
      Fd peer(::accept4(fd.get(), from.plain(), &from.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!peer.valid()) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          log::warn("loop.accept_paused", {{"reason", errno_text(errno)}});
          watcher->want_read(false);
          resume.arm(kPauseMs);
        }
        return;
      }
      if (from.storage.ss_family != AF_UNIX) tune_tcp(peer.get());
      (*callback)(std::move(peer), Address::from(from.plain()));
    }
  }

  Loop& loop;
  Fd fd;
  std::shared_ptr<OnAccept> on_accept;
  Timer resume;
  std::unique_ptr<Watcher> watcher;
  std::string unlink_path;
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
};

Listener::Listener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Listener::~Listener() = default;

Result<std::unique_ptr<Listener>> Listener::tcp(Loop& loop, const std::string& host,
                                                std::uint16_t port, OnAccept on_accept,
                                                ListenOptions options) {
  SocketAddress at;
  const bool any = host.empty() || host == "*";
  in6_addr six{};
  in_addr four{};
  int family = AF_INET6;
  if (any || inet_pton(AF_INET6, host.c_str(), &six) == 1) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    in.sin6_addr = any ? in6addr_any : six;
    std::memcpy(&at.storage, &in, sizeof in);
    at.size = sizeof in;
  } else if (inet_pton(AF_INET, host.c_str(), &four) == 1) {
    family = AF_INET;
  } else {
    return fail(Errc::kBadAddress, "listen address is no IP address: " + host, Source::kConfig);
  }
  Fd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid() && any) {  // no IPv6 on this machine
    family = AF_INET;
    fd = Fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  }
  if (family == AF_INET) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr = four;
    std::memcpy(&at.storage, &in, sizeof in);
    at.size = sizeof in;
  }
  const auto refuse = [&](const char* what) {
    const int e = errno;
    return fail(Errc::kBind,
                std::string(what) + " " + (any ? "*" : host) + ":" + std::to_string(port) + ": " +
                    errno_text(e),
                Source::kLocal, e == EADDRINUSE);
  };
  if (!fd.valid()) return refuse("socket");
  const int on = 1;
  const int off = 0;
  if (options.first && port != 0) {
    const Fd probe(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!probe.valid()) return refuse("socket");
    setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6 && any)
      setsockopt(probe.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (::bind(probe.get(), at.plain(), at.size) != 0) return refuse("bind");
  }
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (options.reuse_port) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (family == AF_INET6 && any) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (::bind(fd.get(), at.plain(), at.size) != 0) return refuse("bind");
  if (::listen(fd.get(), options.backlog) != 0) return refuse("listen");
  return std::unique_ptr<Listener>(
      new Listener(std::make_unique<Impl>(loop, std::move(fd), std::move(on_accept))));
}

Result<std::unique_ptr<Listener>> Listener::local(Loop& loop, const std::string& path,
                                                  OnAccept on_accept, ListenOptions options) {
  TRY_ASSIGN(SocketAddress at, local_path(path));
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode))
      return fail(Errc::kBind, path + " exists and is no socket", Source::kLocal);
    if (connect_local(path))
      return fail(Errc::kBind, "another process listens on " + path, Source::kLocal);
    ::unlink(path.c_str());
  }
  // Nobody may connect between bind and chmod.
  const mode_t before = ::umask(0777 & ~options.unix_mode);
  const int bound = fd.valid() ? ::bind(fd.get(), at.plain(), at.size) : -1;
  const int e = errno;
  ::umask(before);
  if (bound != 0 || ::listen(fd.get(), options.backlog) != 0)
    return fail(Errc::kBind, "bind " + path + ": " + errno_text(bound != 0 ? e : errno),
                Source::kLocal);
  auto impl = std::make_unique<Impl>(loop, std::move(fd), std::move(on_accept));
  impl->unlink_path = path;
  return std::unique_ptr<Listener>(new Listener(std::move(impl)));
}

Address Listener::address() const {
  return Address::of_local(impl_->fd.get());
}
void Listener::pause() {
  impl_->resume.cancel();
  impl_->watcher->want_read(false);
}
void Listener::resume() {
  impl_->watcher->want_read(true);
}

// ---- connect ---------------------------------------------------------------

namespace {

class TcpConnecting final : public Connecting {
 public:
  TcpConnecting(Loop& loop, const std::string& host, std::uint16_t port, std::int64_t timeout_ms,
                OnConnect done)
      : loop_(loop),
        host_(host),
        port_(port),
        done_(std::move(done)),
        total_(
            loop.timers(),
            [this] { finish(fail(Errc::kTimeout, where() + ": no answer", Source::kPeer, true)); }),
        attempt_(loop.timers(), [this] {
          last_ = "no answer";
          next();
        }) {
    total_.arm(timeout_ms);
    timeout_ms_ = timeout_ms;
    resolve();
  }
  ~TcpConnecting() override {
    if (lookup_ == nullptr) return;
    lookup_->owner = nullptr;  // frees itself when libuv is done with it
    uv_cancel(reinterpret_cast<uv_req_t*>(&lookup_->request));
  }

 private:
  struct Lookup {
    uv_getaddrinfo_t request{};
    TcpConnecting* owner = nullptr;
  };

  std::string where() const { return host_ + ":" + std::to_string(port_); }

  void resolve() {
    auto* lookup = new Lookup;
    lookup->owner = this;
    lookup->request.data = lookup;
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    in6_addr any{};
    if (inet_pton(AF_INET, host_.c_str(), &any) == 1 ||
        inet_pton(AF_INET6, host_.c_str(), &any) == 1)
      hints.ai_flags = AI_NUMERICHOST;
    else
      hints.ai_flags = AI_ADDRCONFIG;
    const int rc =
        uv_getaddrinfo(loop_.uv(), &lookup->request, on_resolved, host_.c_str(), nullptr, &hints);
    if (rc != 0) {
      delete lookup;
      start_failed_ = uv_strerror(rc);
      attempt_.arm(0);  // never call back from the constructor
      return;
    }
    lookup_ = lookup;
  }

  static void on_resolved(uv_getaddrinfo_t* request, int status, addrinfo* list) {
    auto* lookup = static_cast<Lookup*>(request->data);
    auto* self = lookup->owner;
    delete lookup;
    std::vector<SocketAddress> found;
    for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
      SocketAddress to;
      if (a->ai_addrlen > sizeof to.storage) continue;
      std::memcpy(&to.storage, a->ai_addr, a->ai_addrlen);
      to.size = a->ai_addrlen;
      found.push_back(to);
    }
    uv_freeaddrinfo(list);
    if (self == nullptr) return;  // cancelled
    self->lookup_ = nullptr;
    if (status != 0 || found.empty()) {
      self->finish(fail(Errc::kDns,
                        self->host_ + ": " + (status != 0 ? uv_strerror(status) : "no address"),
                        Source::kPeer, true));
      return;
    }
    self->addresses_ = std::move(found);
    self->next();
  }

  void next() {
    if (!start_failed_.empty())
      return finish(fail(Errc::kDns, host_ + ": " + start_failed_, Source::kLocal, true));
    watcher_.reset();
    fd_.reset();
    while (at_ < addresses_.size()) {
      SocketAddress& to = addresses_[at_++];
      if (to.storage.ss_family == AF_INET) {
        sockaddr_in in{};
        std::memcpy(&in, &to.storage, sizeof in);
        in.sin_port = htons(port_);
        std::memcpy(&to.storage, &in, sizeof in);
      } else if (to.storage.ss_family == AF_INET6) {
        sockaddr_in6 in{};
        std::memcpy(&in, &to.storage, sizeof in);
        in.sin6_port = htons(port_);
        std::memcpy(&to.storage, &in, sizeof in);
      } else {
        continue;
      }
      tried_ = Address::from(to.plain()).str();
      fd_ = Fd(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      if (!fd_.valid() ||
          (::connect(fd_.get(), to.plain(), to.size) != 0 && errno != EINPROGRESS)) {
        last_ = errno_text(errno);
        continue;
      }
      tune_tcp(fd_.get());
      watcher_ = std::make_unique<Watcher>(loop_, fd_.get(), [this](Watcher::Ready) { ready(); });
      watcher_->want(false, true);
      const auto left = static_cast<std::int64_t>(addresses_.size() - at_ + 1);
      attempt_.arm(timeout_ms_ / left + 1);
      return;
    }
    const std::string also = tried_.empty() || tried_ == where() ? "" : " (" + tried_ + ")";
    finish(fail(Errc::kConnect, where() + also + ": " + last_, Source::kPeer, true));
  }

  void ready() {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      last_ = errno_text(error);
      next();
      return;
    }
    watcher_.reset();
    finish(std::move(fd_));
  }

  void finish(Result<Fd> result) {
    total_.cancel();
    attempt_.cancel();
    watcher_.reset();
    auto done = std::move(done_);
    done(std::move(result));  // may destroy us
  }

  Loop& loop_;
  std::string host_;
  std::uint16_t port_;
  std::int64_t timeout_ms_ = 0;
  OnConnect done_;
  Timer total_;
  Timer attempt_;
  Lookup* lookup_ = nullptr;
  std::string start_failed_;
  std::vector<SocketAddress> addresses_;
  std::size_t at_ = 0;
  std::string tried_;
  std::string last_ = "no usable address";
  Fd fd_;
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace

std::unique_ptr<Connecting> connect_tcp(Loop& loop, const std::string& host, std::uint16_t port,
                                        std::int64_t timeout_ms, OnConnect done) {
  return std::make_unique<TcpConnecting>(loop, host, port, timeout_ms, std::move(done));
}

Result<Fd> connect_local(const std::string& path) {
  TRY_ASSIGN(SocketAddress to, local_path(path));
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid() || ::connect(fd.get(), to.plain(), to.size) != 0)
    return fail(Errc::kConnect, path + ": " + errno_text(errno), Source::kLocal, true);
  return fd;
}

}  // namespace sally::loop
