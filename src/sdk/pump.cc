// SPDX-License-Identifier: Apache-2.0
#include "sdk/pump.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace sally::sdk {
namespace {

constexpr std::size_t kBatch = 65'536;     // of one system call
constexpr std::size_t kPerTurn = 131'072;  // then others have their turn

// Of all pumps of a thread: an idle one holds no buffer.
thread_local std::array<std::uint8_t, kBatch> scratch;

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

}  // namespace

Pump::Pump(loop::Loop& loop, std::unique_ptr<Circuit> circuit, loop::Fd fd, Bytes first,
           std::function<void(bool ok)> done)
    : loop_(loop),
      circuit_(std::move(circuit)),
      fd_(std::move(fd)),
      done_(std::move(done)),
      inward_(std::move(first)) {
  watcher_ = std::make_unique<loop::Watcher>(loop_, fd_.get(),
                                             [this](loop::Watcher::Ready ready) { on_fd(ready); });
  watcher_->want(true, false);
  circuit_->set_user(*this);
}

Pump::~Pump() {
  *alive_ = false;
  watcher_.reset();
  if (circuit_ != nullptr) circuit_->abort(wire::ResetCode::kShutdown);
}

bool Pump::delivering() const {
  if (ended_ || circuit_ == nullptr) return false;
  if (fd_ended_) return !circuit_->delivered();
  pollfd ended{.fd = fd_.get(), .events = POLLRDHUP, .revents = 0};
  return ::poll(&ended, 1, 0) > 0 && (ended.revents & (POLLRDHUP | POLLHUP)) != 0;
}

void Pump::on_fd(loop::Watcher::Ready ready) {
  const auto alive = alive_;
  if (ready.writable && !ended_) to_fd();
  if (!*alive || ended_) return;
  if (ready.readable) from_fd();
}

// False when the circuit does not take all: the rest waits, on_circuit_writable resumes.
bool Pump::to_circuit(ByteView data) {
  const std::size_t taken = circuit_->write(data);
  if (taken == data.size()) return true;
  Bytes rest = to_bytes(data.subspan(taken));
  outward_ = std::move(rest);  // `data` may be in it
  watcher_->want_read(false);
  return false;
}

void Pump::from_fd() {
  for (std::size_t moved = 0; moved < kPerTurn && !fd_ended_ && !ended_ && circuit_ != nullptr;) {
    if (!outward_.empty()) {
      if (!to_circuit(outward_)) return;
      outward_ = Bytes();
    }
    const ssize_t n = ::read(fd_.get(), scratch.data(), scratch.size());
    if (n > 0) {
      moved += static_cast<std::size_t>(n);
      if (!to_circuit(ByteView(scratch).first(static_cast<std::size_t>(n)))) return;
    } else if (n == 0) {
      fd_ended_ = true;
      watcher_->want_read(false);
      circuit_->shutdown_write();
      maybe_done();
    } else {
      if (!would_block()) cut();
      return;
    }
  }
}

void Pump::on_circuit_writable() {
  if (ended_ || fd_ended_) return;
  watcher_->want_read(true);
  from_fd();
}

void Pump::on_circuit_readable() {
  to_fd();
}

// False when the descriptor does not take all: the rest waits, on_fd resumes.
bool Pump::to_descriptor(ByteView data) {
  while (!data.empty()) {
    ssize_t n = ::send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK) n = ::write(fd_.get(), data.data(), data.size());
    if (n < 0) {
      if (would_block()) {
        Bytes rest = to_bytes(data);
        inward_ = std::move(rest);  // `data` may be in it
        watcher_->want_write(true);
      } else {
        cut();
      }
      return false;
    }
    data = data.subspan(static_cast<std::size_t>(n));
  }
  inward_ = Bytes();
  watcher_->want_write(false);
  return true;
}

void Pump::to_fd() {
  for (std::size_t moved = 0; !ended_;) {
    if (!inward_.empty() && !to_descriptor(inward_)) return;
    if (circuit_ended_) {
      if (circuit_ == nullptr) {
        ::shutdown(fd_.get(), SHUT_WR);
        end(false);
      }
      return;
    }
    if (moved >= kPerTurn) {
      loop_.defer([this, alive = alive_] {
        if (*alive && !ended_) to_fd();
      });
      return;
    }
    // Several records, one system call.
    std::size_t n = 0;
    auto kind = Circuit::ReadKind::kData;
    while (kind == Circuit::ReadKind::kData && n + tls::kInnerFragment <= kBatch) {
      const auto result = circuit_->read(MutableBytes(scratch).subspan(n));
      kind = result.kind;
      if (kind == Circuit::ReadKind::kData) n += result.n;
    }
    moved += n;
    if (!to_descriptor(ByteView(scratch).first(n))) return;
    if (kind == Circuit::ReadKind::kNothing) return;
    if (kind == Circuit::ReadKind::kEnd) {
      circuit_ended_ = true;
      ::shutdown(fd_.get(), SHUT_WR);
      maybe_done();
      return;
    }
  }
}

void Pump::maybe_done() {
  if (!fd_ended_ || !circuit_ended_ || ended_) return;
  Circuit::finish(std::move(circuit_));
  end(true);
}

void Pump::cut() {
  if (circuit_ != nullptr) circuit_->abort(wire::ResetCode::kClosed);
  end(false);
}

// All that is left of the peer's direction; false when it has no end.
bool Pump::take_rest() {
  for (;;) {
    const std::size_t had = inward_.size();
    inward_.resize(had + tls::kInnerFragment);
    const auto result = circuit_->read(MutableBytes(inward_).subspan(had));
    inward_.resize(had + (result.kind == Circuit::ReadKind::kData ? result.n : 0));
    if (result.kind != Circuit::ReadKind::kData) return result.kind == Circuit::ReadKind::kEnd;
  }
}

void Pump::on_circuit_over(const Error&) {
  if (circuit_ended_ || take_rest()) {
    // The peer's direction is whole, a window of it at most waits for the descriptor. Ours is lost.
    circuit_ended_ = true;
    circuit_.reset();
    watcher_->want_read(false);
    to_fd();
    return;
  }
  // The application sees a reset, not an end: nobody may take a cut stream for a whole one.
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  end(false);
}

void Pump::end(bool ok) {
  if (ended_) return;
  ended_ = true;
  watcher_.reset();
  fd_.reset();
  loop_.defer([this, alive = alive_, ok] {
    if (*alive) done_(ok);
  });
}

}  // namespace sally::sdk
