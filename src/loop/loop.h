// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "loop/errc.h"
#include "loop/fd.h"
#include "loop/timer_wheel.h"

struct uv_loop_s;

namespace sally::loop {

/// One event loop: a thin owner of libuv with our own timers. Created and destroyed by whoever runs
/// the thread. Everything but `post` and `stop` belongs to the thread that runs it (first `run*`
/// call binds; debug builds abort otherwise). Objects made on it must be destroyed before it.
/// Construction aborts when the kernel gives no descriptors.
class Loop {
 public:
  explicit Loop(const Clock& clock = system_clock());
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Runs until `stop`.
  void run();
  /// Any thread; sticky: a run that starts later returns at once. The flag clears when `run`
  /// returns.
  void stop();
  /// One turn; with `wait` it sleeps until something happens.
  void run_once(bool wait);
  /// For a host loop that waits for us: readable when run_once(false) has work. Valid as long as
  /// this.
  [[nodiscard]] int poll_fd() const;
  /// Milliseconds until run_once(false) has work even if poll_fd() stays quiet; -1: never.
  [[nodiscard]] std::int64_t wait_ms() const;
  /// Turns until `done()` or `timeout_ms` of real time; true when done. For blocking callers and
  /// tests.
  bool run_until(const std::function<bool()>& done, std::int64_t timeout_ms);

  /// Any thread: runs `fn` on the loop's thread. False (and `fn` is dropped) when 65,536 are
  /// waiting.
  /// `always`: taken even then; for what ends something, of which there is a bounded number.
  bool post(std::move_only_function<void()> fn, bool always = false);
  /// Owner thread: runs `fn` at the end of this turn.
  void defer(std::move_only_function<void()> fn);
  /// Owner thread: the same for what takes long, a step of a handshake. In their order, a few each
  /// turn, so that a crowd of them holds nobody else up; the loop does not sleep over the rest.
  void defer_costly(std::move_only_function<void()> fn);

  [[nodiscard]] const Clock& clock() const;
  [[nodiscard]] TimerWheel& timers();
  /// Monotonic milliseconds.
  [[nodiscard]] std::int64_t now_ms() const { return clock().mono_us() / 1000; }
  /// False on another thread than the one that runs the loop.
  [[nodiscard]] bool on_thread() const;
  /// Aborts in debug builds when called from another thread.
  void check_thread() const {
#ifdef SALLY_DEBUG
    abort_if_foreign();
#endif
  }
  [[nodiscard]] uv_loop_s* uv();

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  void abort_if_foreign() const;
  std::unique_ptr<Impl> impl_;
};

/// Wakes a loop from other threads; several signals may become one call. Owned by an object on the
/// loop. `signal` from any thread, everything else on the loop's thread. Must outlive all callers
/// of `signal`. Never fails.
class Wakeup {
 public:
  Wakeup(Loop& loop, std::move_only_function<void()> callback);
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;
  void signal();

 private:
  struct Impl;
  Impl* impl_;
};

/// Interest in one descriptor. Owned by the object that owns the descriptor; does not close it.
/// Loop's thread only. The callback may destroy the watcher. Level triggered; interest changes take
/// effect at the end of the turn (changing another descriptor's poll inside a batch loses its
/// event). Errors show as readable and writable.
class Watcher {
 public:
  struct Ready {
    bool readable;
    bool writable;
  };
  using Callback = std::move_only_function<void(Ready)>;
  Watcher(Loop& loop, int fd, Callback callback);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  void want(bool readable, bool writable);
  void want_read(bool on) { want(on, wants_write()); }
  void want_write(bool on) { want(wants_read(), on); }
  [[nodiscard]] bool wants_read() const;
  [[nodiscard]] bool wants_write() const;

  struct Impl;

 private:
  Impl* impl_;
};

}  // namespace sally::loop
