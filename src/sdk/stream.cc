// SPDX-License-Identifier: Apache-2.0
#include "sdk/stream.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "sdk/core.h"

namespace sally::sdk {

BlockingStream::BlockingStream(loop::Loop& loop, std::shared_ptr<void> keep,
                               std::unique_ptr<Circuit> circuit,
                               std::function<void(BlockingStream&)> drop)
    : keep_(std::move(keep)), loop_(loop), circuit_(std::move(circuit)), drop_(std::move(drop)) {}

BlockingStream::~BlockingStream() = default;

void BlockingStream::start() {
  circuit_->set_user(*this);
}

// With the lock held, as dead_ is set: nothing is left in the mailbox of a loop that has ended,
// where it would keep the context, and with it the loop, for ever.
template <typename F>
void BlockingStream::on_loop(F f, bool always) {
  if (dead_) return;
  // A full mailbox means the loop is far behind: readers and writers try again when they wake; an
  // end is never dropped.
  (void)loop_.post([self = shared_from_this(), f = std::move(f)] { f(*self); }, always);
}

std::optional<Result<std::size_t>> BlockingStream::take(MutableBytes into) {
  if (in_at_ == in_.size() && !in_ended_ && !error_) return std::nullopt;
  if (in_at_ < in_.size()) {
    const std::size_t n = std::min(into.size(), in_.size() - in_at_);
    std::memcpy(into.data(), in_.data() + in_at_, n);
    in_at_ += n;
    if (in_at_ == in_.size()) {
      in_.clear();
      in_at_ = 0;
    }
    return n;
  }
  // An end in order stays one, whatever became of our own direction.
  if (!in_ended_ && error_) return fail(*error_);
  return std::size_t{0};
}

Result<std::size_t> BlockingStream::read(MutableBytes into) {
  if (into.empty()) return std::size_t{0};
  std::unique_lock lock(mutex_);
  for (;;) {
    if (auto taken = take(into)) return *std::move(taken);
    on_loop([](BlockingStream& s) {
      s.pulling_ = true;
      s.pull();
    });
    changed_.wait_for(lock, std::chrono::seconds(1),
                      [&] { return in_at_ < in_.size() || in_ended_ || error_; });
  }
}

Result<std::size_t> BlockingStream::try_read(MutableBytes into) {
  if (into.empty()) return std::size_t{0};
  std::unique_lock lock(mutex_);
  if (auto taken = take(into)) return *std::move(taken);
  if (std::this_thread::get_id() == thread_) {
    lock.unlock();
    pulling_ = true;
    whole([this] { pull(); });
    lock.lock();
    if (auto taken = take(into)) return *std::move(taken);
  } else {
    on_loop(
        [](BlockingStream& s) {
          s.pulling_ = true;
          s.pull();
        },
        true);
  }
  wants_read_ = true;
  return fail(Errc::kWouldBlock, {}, Source::kLocal, true);
}

Result<std::size_t> BlockingStream::try_write(ByteView data) {
  std::unique_lock lock(mutex_);
  if (error_) return fail(*error_);
  if (out_ended_) return fail(Errc::kClosed, "writing was shut down", Source::kLocal);
  const std::size_t room = kBuffer - std::min(kBuffer, out_.size() - out_at_);
  const ByteView part = data.first(std::min(room, data.size()));
  wants_write_ = part.size() < data.size();
  if (part.empty() && !data.empty()) return fail(Errc::kWouldBlock, {}, Source::kLocal, true);
  make_room(part.size());
  if (std::this_thread::get_id() == thread_) {
    append(out_, part);
    lock.unlock();
    whole([this] { push(); });
  } else {
    on_loop([](BlockingStream& s) { s.push(); }, true);
    append(out_, part);
  }
  return part.size();
}

// With the lock held. What may fail for want of memory comes before anything is taken; the loop
// sees it only when the lock is given back.
void BlockingStream::make_room(std::size_t n) {
  const std::size_t need = out_.size() + n;
  if (out_.capacity() < need) out_.reserve(std::max(need, 2 * out_.capacity()));
}

void BlockingStream::watch(std::function<void()> ready) {
  const std::lock_guard lock(mutex_);
  ready_ = std::move(ready);
}

void BlockingStream::changed(bool readable, bool writable) {
  changed_.notify_all();
  if (!((wants_read_ && readable) || (wants_write_ && writable)) || ready_ == nullptr || telling_)
    return;
  telling_ = true;
  // At the end of the turn: we are called from within the circuit, the program may do anything.
  loop_.defer([self = shared_from_this()] {
    std::function<void()> ready;
    {
      const std::lock_guard lock(self->mutex_);
      self->telling_ = self->wants_read_ = self->wants_write_ = false;
      ready = self->ready_;
    }
    if (ready) ready();
  });
}

Status BlockingStream::write(ByteView data) {
  std::unique_lock lock(mutex_);
  while (!data.empty()) {
    if (error_) return fail(*error_);
    if (out_ended_) return fail(Errc::kClosed, "writing was shut down", Source::kLocal);
    const std::size_t room = kBuffer - std::min(kBuffer, out_.size() - out_at_);
    if (room == 0) {
      changed_.wait_for(lock, std::chrono::seconds(1),
                        [&] { return out_.size() - out_at_ < kBuffer || error_; });
      on_loop([](BlockingStream& s) { s.push(); });
      continue;
    }
    const ByteView part = data.first(std::min(room, data.size()));
    make_room(part.size());
    on_loop([](BlockingStream& s) { s.push(); });
    append(out_, part);
    data = data.subspan(part.size());
  }
  return {};
}

void BlockingStream::set_class(wire::Class traffic_class) {
  const std::lock_guard lock(mutex_);
  on_loop(
      [traffic_class](BlockingStream& s) {
        if (s.circuit_ != nullptr) s.circuit_->set_traffic_class(traffic_class);
      },
      true);
}

void BlockingStream::shutdown_write() {
  const std::lock_guard lock(mutex_);
  on_loop([](BlockingStream& s) { s.push(); }, true);
  out_ended_ = true;
}

void BlockingStream::close() {
  const std::lock_guard lock(mutex_);
  out_ended_ = true;
  closed_ = true;
  ready_ = nullptr;
  on_loop([](BlockingStream& s) { s.push(); }, true);
}

void BlockingStream::reset() {
  const std::lock_guard lock(mutex_);
  ready_ = nullptr;
  on_loop(
      [](BlockingStream& s) {
        if (s.circuit_ != nullptr) s.circuit_->abort(wire::ResetCode::kClosed);
        s.drop();
      },
      true);
}

// ---- on the loop
// -----------------------------------------------------------------------------------------

void BlockingStream::on_circuit_readable() {
  if (pulling_) pull();
}

void BlockingStream::pull() {
  if (circuit_ == nullptr) return;
  std::uint8_t piece[16'384];
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      // At the end of the circuit all that is left is taken: a window at most.
      if (in_ended_ || error_ || (in_.size() - in_at_ >= kBuffer && !circuit_->over())) return;
    }
    const auto result = circuit_->read(piece);
    if (result.kind == Circuit::ReadKind::kNothing) return;
    const std::lock_guard lock(mutex_);
    if (result.kind == Circuit::ReadKind::kEnd) {
      in_ended_ = true;
    } else {
      append(in_, {piece, result.n});
    }
    changed(true, false);
  }
}

void BlockingStream::on_circuit_writable() {
  push();
}

void BlockingStream::push() {
  if (circuit_ == nullptr) return;
  bool end = false;
  bool closed = false;
  {
    const std::lock_guard lock(mutex_);
    // The circuit copies into its own window: the lock is held for that long and no longer.
    out_at_ += circuit_->write(ByteView(out_).subspan(out_at_));
    if (out_at_ == out_.size()) {
      out_.clear();
      out_at_ = 0;
      end = out_ended_;
      closed = closed_;
    } else if (out_at_ > kBuffer / 2) {
      out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(out_at_));
      out_at_ = 0;
    }
    changed(false, out_.size() - out_at_ < kBuffer);
  }
  if (end) circuit_->shutdown_write();
  if (closed) {
    Circuit::finish(std::move(circuit_));
    drop();
  }
}

std::unique_ptr<Circuit> BlockingStream::detach(Bytes& read_ahead) {
  {
    const std::lock_guard lock(mutex_);
    if (circuit_ == nullptr || error_) return nullptr;
    read_ahead.assign(in_.begin() + static_cast<std::ptrdiff_t>(in_at_), in_.end());
    error_ = Error(Errc::kClosed, "the stream was attached to a descriptor", Source::kLocal);
    ready_ = nullptr;
  }
  auto circuit = std::move(circuit_);
  drop();
  return circuit;
}

bool BlockingStream::closing() {
  const std::lock_guard lock(mutex_);
  return closed_ && !error_;
}

void BlockingStream::fail_with(Error why) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(why);
  changed(true, true);
}

void BlockingStream::context_closed() {
  {
    const std::lock_guard lock(mutex_);
    dead_ = true;
  }
  drop_ = nullptr;
  fail_with(Error(Errc::kClosed, "the context was closed", Source::kLocal));
  circuit_.reset();
}

void BlockingStream::on_circuit_over(const Error& why) {
  pull();
  fail_with(why);
  circuit_.reset();
  drop();
}

void BlockingStream::drop() {
  {
    const std::lock_guard lock(mutex_);
    dead_ = true;
  }
  circuit_.reset();
  if (drop_) std::exchange(drop_, nullptr)(*this);
}

}  // namespace sally::sdk
