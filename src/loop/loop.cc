// SPDX-License-Identifier: Apache-2.0
#include "loop/loop.h"

#include <uv.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"

namespace sally::loop {
namespace {

using Function = std::move_only_function<void()>;
constexpr std::size_t kMaxPosted = 65'536;
constexpr std::size_t kCostlyPerTurn = 4;

template <typename Handle>
uv_handle_t* handle(Handle* h) {
  return reinterpret_cast<uv_handle_t*>(h);
}

}  // namespace

struct Watcher::Impl {
  uv_poll_t poll{};
  Loop::Impl* loop = nullptr;
  Callback callback;
  int wanted = 0;   // what the owner wants
  int applied = 0;  // what libuv polls
  bool dirty = false;
};

struct Loop::Impl {
  explicit Impl(const Clock& c) : clock(c), wheel(c) {}

  uv_loop_t uv{};
  const Clock& clock;
  TimerWheel wheel;
  uv_timer_t timer{};
  uv_prepare_t prepare{};
  uv_check_t check{};
  uv_idle_t idle{};
  uv_async_t async{};
  bool idling = false;
  std::vector<Function> deferred;
  std::deque<Function> costly;
  bool in_run_until = false;
  std::vector<Watcher::Impl*> dirty;
  bool unpolled = false;  // libuv learns of a changed interest when it polls next
  std::mutex mutex;
  std::vector<Function> posted;
  std::atomic<bool> stopping{false};
  std::atomic<std::thread::id> owner{};

  void bind_thread() {
    if (owner.load(std::memory_order_relaxed) == std::thread::id{})
      owner.store(std::this_thread::get_id(), std::memory_order_relaxed);
  }

  bool run_costly() {
    const std::size_t count = std::min(costly.size(), kCostlyPerTurn);
    for (std::size_t i = 0; i < count; ++i) {
      auto fn = std::move(costly.front());
      costly.pop_front();
      fn();
    }
    return count != 0;
  }
  bool run_deferred() {
    if (deferred.empty()) return false;
    auto now = std::exchange(deferred, {});
    for (auto& fn : now) fn();
    return true;
  }
  void run_posted() {
    std::vector<Function> now;
    {
      const std::lock_guard lock(mutex);
      now.swap(posted);
    }
    for (auto& fn : now) fn();
  }
  static void on_poll(uv_poll_t* poll, int status, int events);
  void apply_interest() {
    auto now = std::exchange(dirty, {});
    for (auto* w : now) {
      w->dirty = false;
      if (w->wanted == w->applied) continue;
      w->applied = w->wanted;
      unpolled = true;
      if (w->wanted == 0)
        uv_poll_stop(&w->poll);
      else
        SALLY_CHECK(uv_poll_start(&w->poll, w->wanted, on_poll) == 0);
    }
  }
  bool end_of_turn() {
    const bool some = run_costly();
    const bool ran = run_deferred();
    apply_interest();
    return ran || some;
  }
  void before_sleep() {
    const bool fired = wheel.advance();
    const bool ran = end_of_turn();
    unpolled = false;  // what was changed up to here is polled now
    // run_until looks at its condition between turns: what ran just now may have made it true.
    const bool more = !deferred.empty() || !costly.empty() || ((fired || ran) && in_run_until);
    if (more && !idling) uv_idle_start(&idle, [](uv_idle_t*) {});
    if (!more && idling) uv_idle_stop(&idle);
    idling = more;
    const std::int64_t wait = wheel.next_ms();
    if (wait < 0) {
      uv_timer_stop(&timer);
    } else {
      uv_update_time(&uv);
      // The wheel fires in before_sleep and after poll; this only ends the sleep.
      uv_timer_start(&timer, [](uv_timer_t*) {}, static_cast<std::uint64_t>(wait), 0);
    }
  }
};

void Loop::Impl::on_poll(uv_poll_t* poll, int status, int events) {
  auto* w = static_cast<Watcher::Impl*>(poll->data);
  // A socket error arrives as a negative status (UV_EBADF): both directions look, read or write
  // will tell.
  Watcher::Ready ready{(events & UV_READABLE) != 0, (events & UV_WRITABLE) != 0};
  if (status < 0) {
    // libuv has stopped the poll; start it again if the owner still wants it.
    w->applied = 0;
    ready = {true, true};
    if (!w->dirty) {
      w->dirty = true;
      w->loop->dirty.push_back(w);
    }
  }
  if (w->wanted == 0 && status >= 0) return;  // interest withdrawn in this very turn
  if (status >= 0) {
    ready.readable = ready.readable && (w->wanted & UV_READABLE) != 0;
    ready.writable = ready.writable && (w->wanted & UV_WRITABLE) != 0;
    if (!ready.readable && !ready.writable) return;
  }
  w->callback(ready);
}

Loop::Loop(const Clock& clock) : impl_(std::make_unique<Impl>(clock)) {
  static const bool ignored = [] {
    struct sigaction action{};
    action.sa_handler = SIG_IGN;
    return sigaction(SIGPIPE, &action, nullptr) == 0;
  }();
  SALLY_CHECK(ignored);
  auto* l = &impl_->uv;
  SALLY_CHECK(uv_loop_init(l) == 0);
  l->data = impl_.get();
  SALLY_CHECK(uv_timer_init(l, &impl_->timer) == 0);
  SALLY_CHECK(uv_prepare_init(l, &impl_->prepare) == 0);
  SALLY_CHECK(uv_check_init(l, &impl_->check) == 0);
  SALLY_CHECK(uv_idle_init(l, &impl_->idle) == 0);
  SALLY_CHECK(uv_async_init(l, &impl_->async, [](uv_async_t* a) {
                static_cast<Impl*>(a->loop->data)->run_posted();
              }) == 0);
  uv_prepare_start(&impl_->prepare,
                   [](uv_prepare_t* p) { static_cast<Impl*>(p->loop->data)->before_sleep(); });
  uv_check_start(&impl_->check,
                 [](uv_check_t* c) { static_cast<Impl*>(c->loop->data)->end_of_turn(); });
}

Loop::~Loop() {
  // What was posted or deferred but never ran is dropped, without running it.
  impl_->posted.clear();
  impl_->deferred.clear();
  impl_->costly.clear();
  uv_close(handle(&impl_->timer), nullptr);
  uv_close(handle(&impl_->prepare), nullptr);
  uv_close(handle(&impl_->check), nullptr);
  uv_close(handle(&impl_->idle), nullptr);
  uv_close(handle(&impl_->async), nullptr);
  // Close callbacks of watchers, processes and cancelled look-ups.
  while (uv_run(&impl_->uv, UV_RUN_DEFAULT) != 0) {
  }
  SALLY_CHECK(uv_loop_close(&impl_->uv) == 0);
}

void Loop::run() {
  impl_->bind_thread();
  while (!impl_->stopping.load(std::memory_order_acquire)) uv_run(&impl_->uv, UV_RUN_ONCE);
  impl_->stopping.store(false, std::memory_order_release);
  impl_->owner.store({}, std::memory_order_relaxed);  // the next user may be another thread
}

void Loop::stop() {
  impl_->stopping.store(true, std::memory_order_release);
  uv_async_send(&impl_->async);
}

void Loop::run_once(bool wait) {
  impl_->bind_thread();
  uv_run(&impl_->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

int Loop::poll_fd() const {
  return uv_backend_fd(&impl_->uv);
}

std::int64_t Loop::wait_ms() const {
  if (impl_->unpolled || !impl_->dirty.empty() || !impl_->deferred.empty() ||
      !impl_->costly.empty())
    return 0;
  return impl_->wheel.next_ms();
}

bool Loop::run_until(const std::function<bool()>& done, std::int64_t timeout_ms) {
  impl_->bind_thread();
  struct Limit {
    uv_timer_t timer{};
    bool expired = false;
  };
  auto* limit = new Limit;  // its close callback frees it
  uv_timer_init(&impl_->uv, &limit->timer);
  limit->timer.data = limit;
  uv_update_time(&impl_->uv);
  uv_timer_start(
      &limit->timer, [](uv_timer_t* t) { static_cast<Limit*>(t->data)->expired = true; },
      static_cast<std::uint64_t>(timeout_ms < 0 ? 0 : timeout_ms), 0);
  bool result = done();
  impl_->in_run_until = true;
  while (!result && !limit->expired) {
    uv_run(&impl_->uv, UV_RUN_ONCE);
    result = done();
  }
  impl_->in_run_until = false;
  uv_close(handle(&limit->timer), [](uv_handle_t* h) { delete static_cast<Limit*>(h->data); });
  return result;
}

bool Loop::post(std::move_only_function<void()> fn, bool always) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!always && impl_->posted.size() >= kMaxPosted) return false;
    impl_->posted.push_back(std::move(fn));
  }
  uv_async_send(&impl_->async);
  return true;
}

void Loop::defer(std::move_only_function<void()> fn) {
  check_thread();
  impl_->deferred.push_back(std::move(fn));
}

void Loop::defer_costly(std::move_only_function<void()> fn) {
  check_thread();
  impl_->costly.push_back(std::move(fn));
}

const Clock& Loop::clock() const {
  return impl_->clock;
}
TimerWheel& Loop::timers() {
  return impl_->wheel;
}
uv_loop_s* Loop::uv() {
  return &impl_->uv;
}

bool Loop::on_thread() const {
  const auto owner = impl_->owner.load(std::memory_order_relaxed);
  return owner == std::thread::id{} || owner == std::this_thread::get_id();
}
void Loop::abort_if_foreign() const {
  SALLY_CHECK(on_thread());
}

// ---- Wakeup ----------------------------------------------------------------

struct Wakeup::Impl {
  uv_async_t async{};
  std::move_only_function<void()> callback;
};

Wakeup::Wakeup(Loop& loop, std::move_only_function<void()> callback) : impl_(new Impl) {
  impl_->callback = std::move(callback);
  impl_->async.data = impl_;
  SALLY_CHECK(uv_async_init(loop.uv(), &impl_->async,
                            [](uv_async_t* a) { static_cast<Impl*>(a->data)->callback(); }) == 0);
}
Wakeup::~Wakeup() {
  uv_close(handle(&impl_->async), [](uv_handle_t* h) { delete static_cast<Impl*>(h->data); });
}
void Wakeup::signal() {
  uv_async_send(&impl_->async);
}

// ---- Watcher ---------------------------------------------------------------

Watcher::Watcher(Loop& loop, int fd, Callback callback) : impl_(new Impl) {
  loop.check_thread();
  impl_->loop = &loop.impl();
  impl_->callback = std::move(callback);
  impl_->poll.data = impl_;
  SALLY_CHECK(uv_poll_init(loop.uv(), &impl_->poll, fd) == 0);
}

Watcher::~Watcher() {
  // Our own descriptor leaves the batch at once: nothing may be called after destruction.
  uv_poll_stop(&impl_->poll);
  if (impl_->dirty) std::erase(impl_->loop->dirty, impl_);
  uv_close(handle(&impl_->poll), [](uv_handle_t* h) { delete static_cast<Impl*>(h->data); });
}

void Watcher::want(bool readable, bool writable) {
  impl_->wanted = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
  if (impl_->wanted == impl_->applied || impl_->dirty) return;
  impl_->dirty = true;
  impl_->loop->dirty.push_back(impl_);
}
bool Watcher::wants_read() const {
  return (impl_->wanted & UV_READABLE) != 0;
}
bool Watcher::wants_write() const {
  return (impl_->wanted & UV_WRITABLE) != 0;
}

}  // namespace sally::loop
