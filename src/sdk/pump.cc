// SPDX-License-Identifier: Apache-2.0
#include "sdk/pump.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace sally::sdk {
namespace {

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

void Pump::from_fd() {
  for (int i = 0; i < kRecordsPerTurn && !fd_ended_ && !ended_ && circuit_ != nullptr; ++i) {
    if (outward_at_ < outward_.size()) {
      outward_at_ += circuit_->write(ByteView(outward_).subspan(outward_at_));
      if (outward_at_ < outward_.size()) {
        watcher_->want_read(false);  // on_circuit_writable resumes
        return;
      }
    }
    outward_.resize(tls::kInnerFragment);
    outward_at_ = 0;
    const ssize_t n = ::read(fd_.get(), outward_.data(), outward_.size());
    outward_.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    if (n < 0) {
      if (!would_block()) cut();
      return;
    }
    if (n == 0) {
      fd_ended_ = true;
      watcher_->want_read(false);
      circuit_->shutdown_write();
      maybe_done();
      return;
    }
  }
  if (circuit_ != nullptr && outward_at_ < outward_.size()) {
    outward_at_ += circuit_->write(ByteView(outward_).subspan(outward_at_));
    if (outward_at_ < outward_.size()) watcher_->want_read(false);
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

// True when the descriptor has taken all that waited.
bool Pump::flush_to_fd() {
  while (inward_at_ < inward_.size()) {
    ssize_t n =
        ::send(fd_.get(), inward_.data() + inward_at_, inward_.size() - inward_at_, MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK)
      n = ::write(fd_.get(), inward_.data() + inward_at_, inward_.size() - inward_at_);
    if (n < 0) {
      if (would_block()) {
        watcher_->want_write(true);
      } else {
        cut();
      }
      return false;
    }
    inward_at_ += static_cast<std::size_t>(n);
  }
  watcher_->want_write(false);
  return true;
}

void Pump::to_fd() {
  for (int i = 0; !ended_; ++i) {
    if (!flush_to_fd()) return;
    if (circuit_ended_) {
      if (circuit_ == nullptr) {
        ::shutdown(fd_.get(), SHUT_WR);
        end(false);
      }
      return;
    }
    if (i == kRecordsPerTurn) {
      loop_.defer([this, alive = alive_] {
        if (*alive && !ended_) to_fd();
      });
      return;
    }
    inward_.resize(tls::kInnerFragment);
    inward_at_ = 0;
    const auto result = circuit_->read(inward_);
    inward_.resize(result.kind == Circuit::ReadKind::kData ? result.n : 0);
    if (result.kind == Circuit::ReadKind::kNothing) return;
    if (result.kind == Circuit::ReadKind::kEnd) {
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
  inward_.erase(inward_.begin(), inward_.begin() + static_cast<std::ptrdiff_t>(inward_at_));
  inward_at_ = 0;
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
