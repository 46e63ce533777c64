// SPDX-License-Identifier: Apache-2.0
#include "tls/stream.h"

#include <sys/socket.h>

#include <array>
#include <utility>

#include "base/check.h"
#include "loop/net.h"

namespace sally::tls {
namespace {

constexpr int kRecordsPerTurn = 8;
constexpr std::int64_t kCloseMs = 1'000;      // for the peer to take our close_notify
constexpr std::int64_t kRefuseMs = 100;       // for a refused peer to read its alert
constexpr std::size_t kDiscard = 256 * 1024;  // what we throw away while closing

}  // namespace

// States go down only: kNew, kHandshake, kOpen, kDraining (our end is out, the rest is thrown
// away), kDead.
struct Stream::Impl : std::enable_shared_from_this<Stream::Impl> {
  enum class State : std::uint8_t { kNew, kHandshake, kOpen, kDraining, kDead };

  Impl(loop::Loop& l, loop::Fd f, std::unique_ptr<Session> s)
      : loop(l),
        fd(std::move(f)),
        session(std::move(s)),
        remote(loop::Address::of_peer(fd.get())),
        deadline(l.timers(), [this] { on_deadline(); }) {}

  loop::Loop& loop;
  loop::Fd fd;
  std::unique_ptr<Session> session;
  loop::Address remote;
  loop::Timer deadline;
  std::unique_ptr<loop::Watcher> watcher;
  StreamHandler* handler = nullptr;
  StreamLimits limits;
  State state = State::kNew;
  bool user_reads = true;
  bool write_blocked = false;  // a write or a close_notify waits for the socket
  bool read_wants_write = false;
  bool half_closing = false;  // close_notify of our direction not out yet
  bool step_queued = false;   // a step of the handshake waits for its turn
  bool waits_for_key = false;
  bool pump_due = false;  // announce pending bytes in a later turn
  bool finish_due = false;
  std::optional<Error> ended;  // why there is nothing more to read or write
  std::size_t discarded = 0;

  void start() {
    state = State::kHandshake;
    watcher = std::make_unique<loop::Watcher>(loop, fd.get(), [this](loop::Watcher::Ready r) {
      const auto self = shared_from_this();
      on_event(r);
      if (state != State::kDead) update_interest();
    });
    deadline.arm(limits.handshake_ms);
    session->on_key([this, weak = weak_from_this()] {
      (void)loop.post(
          [weak] {
            const auto self = weak.lock();
            if (!self || self->state == State::kDead) return;
            self->waits_for_key = false;
            self->step_handshake();
            if (self->state != State::kDead) self->update_interest();
          },
          true);
    });
    later([](Impl& i) { i.step_handshake(); });
  }

  /// Runs on the stream in this or the next turn, unless it is gone by then.
  void later(void (*fn)(Impl&)) {
    loop.defer([weak = weak_from_this(), fn] {
      const auto self = weak.lock();
      if (!self || self->state == State::kDead) return;
      fn(*self);
      if (self->state != State::kDead) self->update_interest();
    });
  }

  /// The owner destroyed the stream, or it has told its end.
  void destroy() {
    state = State::kDead;
    handler = nullptr;
    deadline.cancel();
    watcher.reset();
    session->abandon();
    fd.reset();
  }

  void update_interest() {
    if (!watcher) return;
    bool r = false;
    bool w = write_blocked;
    switch (state) {
      case State::kHandshake:
        r = !write_blocked && !step_queued && !waits_for_key;
        w = w && !step_queued;
        break;
      case State::kOpen:
        r = user_reads && !ended && handler != nullptr;
        w = w || read_wants_write;
        break;
      case State::kDraining:
        r = true;
        break;
      default:
        w = false;
    }
    watcher->want(r, w);
  }

  void on_event(loop::Watcher::Ready ready) {
    switch (state) {
      case State::kHandshake:
        queue_handshake();
        return;
      case State::kOpen:
        step_open(ready);
        return;
      case State::kDraining:
        step_drain();
        return;
      default:
        return;
    }
  }

  /// A step costs up to a millisecond: those of a crowd take turns with everything else.
  void queue_handshake() {
    if (std::exchange(step_queued, true)) return;
    loop.defer_costly([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self || self->state == State::kDead) return;
      self->step_queued = false;
      self->step_handshake();
      if (self->state != State::kDead) self->update_interest();
    });
  }

  void step_handshake() {
    if (state != State::kHandshake) return;
    const Io io = session->handshake();
    write_blocked = io.kind == IoKind::kWantWrite;
    waits_for_key = io.kind == IoKind::kWantKey;
    if (waits_for_key) return;
    if (io.kind == IoKind::kWantRead || io.kind == IoKind::kWantWrite) {
      if (session->bytes_in() > limits.handshake_bytes)
        finish(Error(Errc::kTooMuch, "more bytes than a handshake needs"));
      return;
    }
    if (!io.ok()) {
      ended = session->error() ? *session->error() : Error(Errc::kTruncated, "handshake cut off");
      // A refused peer should be able to read its alert: closing with unread bytes would reset it
      // away.
      if (session->alert_sent() > 0)
        drain(kRefuseMs);
      else
        finish(*ended);
      return;
    }
    deadline.cancel();
    state = State::kOpen;
    if (handler != nullptr) handler->on_handshaken();
    if (state == State::kOpen && session->has_pending()) pump_later();
  }

  void pump_later() {
    if (std::exchange(pump_due, true)) return;
    later([](Impl& i) {
      i.pump_due = false;
      if (i.state == State::kOpen) i.pump_read();
    });
  }

  void step_open(loop::Watcher::Ready ready) {
    if (ready.writable) {
      ready.readable = ready.readable || std::exchange(read_wants_write, false);
      if (half_closing) send_close_notify();
      if (std::exchange(write_blocked, half_closing) && !half_closing && !ended &&
          handler != nullptr)
        handler->on_writable();
      if (state != State::kOpen) return;
    }
    if (ready.readable) pump_read();
  }

  void pump_read() {
    for (int i = 0; i < kRecordsPerTurn; ++i) {
      if (state != State::kOpen || !user_reads || ended || handler == nullptr) return;
      handler->on_readable();
      if (state != State::kOpen || !session->has_pending()) return;
    }
    pump_later();
  }

  void end(Error why) {
    if (ended) return;
    ended = std::move(why);
    if (std::exchange(finish_due, true)) return;
    later([](Impl& i) {
      if (i.state == State::kOpen && i.handler != nullptr) i.finish(*i.ended);
      i.finish_due = false;
    });
  }

  Error reason(IoKind kind) const {
    if (kind == IoKind::kEof) return Error(Errc::kClosed, "closed by the peer");
    if (session->error()) return *session->error();
    return Error(Errc::kTruncated, "the connection ended without close_notify");
  }

  std::size_t read(MutableBytes into) {
    if (state != State::kOpen || ended) return 0;
    const Io io = session->read(into);
    switch (io.kind) {
      case IoKind::kOk:
        return io.n;
      case IoKind::kWantWrite:
        read_wants_write = true;
        update_interest();
        return 0;
      case IoKind::kWantRead:
        return 0;
      default:
        end(reason(io.kind));
        return 0;
    }
  }

  std::size_t write(ByteView from) {
    std::size_t done = 0;
    if (state != State::kOpen || ended || half_closing) return 0;
    while (done < from.size()) {
      const Io io = session->write(from.subspan(done));
      if (io.ok()) {
        done += io.n;
        continue;
      }
      if (io.kind == IoKind::kWantWrite || io.kind == IoKind::kWantRead) {
        write_blocked = true;
        update_interest();
      } else {
        end(reason(io.kind));
      }
      break;
    }
    return done;
  }

  std::size_t gather(ByteView from) {
    session->gather(true);
    const std::size_t taken = write(from);
    session->gather(false);
    return taken;
  }

  bool flush() {
    if (state != State::kOpen || ended) return false;
    const Io io = session->flush();
    if (io.ok()) return true;
    if (io.kind == IoKind::kWantWrite) {
      write_blocked = true;
      update_interest();
    } else {
      end(reason(io.kind));
    }
    return false;
  }

  void send_close_notify() {
    const Io io = session->shutdown();
    half_closing = io.kind == IoKind::kWantWrite;
    write_blocked = half_closing;
  }

  void close() {
    if (state == State::kDraining || state == State::kDead) return;
    if (!ended) ended = Error(Errc::kClosed, "closed by us", Source::kLocal);
    if (state != State::kOpen ||
        write_blocked) {  // a record is half out: no close_notify can follow
      later([](Impl& i) { i.finish(*i.ended); });
      return;
    }
    send_close_notify();
    drain(kCloseMs);
    update_interest();
  }

  /// Our end is out (or about to be); wait for the peer's, throwing away what comes.
  void drain(std::int64_t ms) {
    state = State::kDraining;
    deadline.arm(ms);
    if (!half_closing) ::shutdown(fd.get(), SHUT_WR);
  }

  void step_drain() {
    if (half_closing) {
      send_close_notify();
      if (half_closing) return;
      ::shutdown(fd.get(), SHUT_WR);
    }
    std::array<std::uint8_t, 16 * 1024> waste;
    for (int i = 0; i < 4; ++i) {
      const auto n = ::recv(fd.get(), waste.data(), waste.size(), MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (n > 0) discarded += static_cast<std::size_t>(n);
      if (n <= 0 || discarded > kDiscard) return finish(*ended);
    }
  }

  void on_deadline() {
    const auto self = shared_from_this();
    if (state == State::kHandshake)
      finish(Error(Errc::kTimeout,
                   "handshake took longer than " + std::to_string(limits.handshake_ms) + " ms"));
    else if (state == State::kDraining)
      finish(*ended);
  }

  void finish(Error why) {
    if (state == State::kDead) return;
    auto* who = handler;
    destroy();
    if (who != nullptr) who->on_closed(why);  // may destroy the Stream
  }
};

Stream::Stream(loop::Loop& loop, loop::Fd fd, std::unique_ptr<Session> session)
    : impl_(std::make_shared<Impl>(loop, std::move(fd), std::move(session))) {
  loop.check_thread();
}
Stream::~Stream() {
  impl_->destroy();
}

void Stream::start(StreamHandler& handler, StreamLimits limits) {
  SALLY_CHECK(impl_->state == Impl::State::kNew);
  impl_->handler = &handler;
  impl_->limits = limits;
  impl_->start();
}

void Stream::set_handler(StreamHandler& handler) {
  impl_->handler = &handler;
  if (impl_->state != Impl::State::kOpen) return;
  if (impl_->ended) {
    impl_->later([](Impl& i) {
      if (i.state == Impl::State::kOpen) i.finish(*i.ended);
    });
  } else if (impl_->session->has_pending()) {
    impl_->pump_later();
  }
  impl_->update_interest();
}

std::size_t Stream::read(MutableBytes into) {
  impl_->loop.check_thread();
  return impl_->read(into);
}
std::size_t Stream::write(ByteView from) {
  impl_->loop.check_thread();
  return impl_->write(from);
}

std::size_t Stream::gather(ByteView from) {
  impl_->loop.check_thread();
  return impl_->gather(from);
}
bool Stream::flush() {
  return impl_->flush();
}

void Stream::want_read(bool on) {
  if (impl_->user_reads == on) return;
  impl_->user_reads = on;
  if (impl_->state != Impl::State::kOpen) return;
  if (on && impl_->session->has_pending()) impl_->pump_later();
  impl_->update_interest();
}
bool Stream::wants_read() const {
  return impl_->user_reads;
}
void Stream::close() {
  impl_->close();
}
void Stream::shutdown_write() {
  if (impl_->state != Impl::State::kOpen || impl_->ended || impl_->write_blocked) return;
  impl_->send_close_notify();
  impl_->update_interest();
}
bool Stream::established() const {
  return impl_->state == Impl::State::kOpen && !impl_->ended;
}
Session& Stream::session() {
  return *impl_->session;
}
const Session& Stream::session() const {
  return *impl_->session;
}
const loop::Address& Stream::remote() const {
  return impl_->remote;
}
int Stream::fd() const {
  return impl_->fd.get();
}

// ---- dial ------------------------------------------------------------------

namespace {

class Dial final : public Dialing, private StreamHandler {
 public:
  using Done = std::move_only_function<void(Result<std::unique_ptr<Stream>>)>;
  Dial(loop::Loop& loop, std::shared_ptr<const Context> context, DialOptions options, Done done)
      : loop_(loop),
        context_(std::move(context)),
        options_(std::move(options)),
        done_(std::move(done)) {
    connecting_ = loop::connect_tcp(loop, options_.host, options_.port, options_.connect_ms,
                                    [this](Result<loop::Fd> fd) { connected(std::move(fd)); });
  }

 private:
  void connected(Result<loop::Fd> fd) {
    if (!fd) return finish(std::unexpected(std::move(fd).error()));
    auto session = prepare(fd->get());
    if (!session) return finish(std::unexpected(std::move(session).error()));
    stream_ = std::make_unique<Stream>(loop_, std::move(*fd), std::move(*session));
    stream_->start(*this, options_.limits);
  }
  Result<std::unique_ptr<Session>> prepare(int fd) {
    TRY_ASSIGN(auto session, Session::on_fd(context_, fd));
    if (!options_.sni.empty()) TRY(session->set_sni(options_.sni));
    if (options_.expect_host) TRY(session->expect_host(options_.host));
    if (options_.expect_peer)
      session->expect_peer(options_.expect_peer->first, options_.expect_peer->second);
    return session;
  }
  void on_handshaken() override { finish(std::move(stream_)); }
  void on_readable() override {}
  void on_writable() override {}
  void on_closed(const Error& why) override { finish(fail(why)); }

  void finish(Result<std::unique_ptr<Stream>> result) {
    auto done = std::move(done_);
    if (done) done(std::move(result));  // may destroy us
  }

  loop::Loop& loop_;
  std::shared_ptr<const Context> context_;
  DialOptions options_;
  Done done_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<loop::Connecting> connecting_;
};

}  // namespace

std::unique_ptr<Dialing> dial(loop::Loop& loop, std::shared_ptr<const Context> context,
                              DialOptions options,
                              std::move_only_function<void(Result<std::unique_ptr<Stream>>)> done) {
  return std::make_unique<Dial>(loop, std::move(context), std::move(options), std::move(done));
}

}  // namespace sally::tls
