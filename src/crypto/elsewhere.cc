// SPDX-License-Identifier: Apache-2.0
#include "crypto/elsewhere.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "crypto/errc.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

// A chip signs one at a time; several keys, or callers of one, may wait for each other here.
constexpr std::size_t kThreads = 4;

/// The helper threads, started one by one as they are needed, ended with the process.
class Helpers {
 public:
  static Helpers& get() {
    static Helpers helpers;
    return helpers;
  }
  void run(std::move_only_function<void()> job) {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (idle_ < jobs_.size() && threads_.size() < kThreads)
      threads_.emplace_back([this] { work(); });
    changed_.notify_one();
  }

 private:
  Helpers() = default;
  ~Helpers() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
      jobs_.clear();
    }
    changed_.notify_all();
    for (auto& t : threads_) t.join();
  }
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
      --idle_;
      if (ending_) return;
      auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      job = nullptr;  // what it holds may take locks of its own
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::move_only_function<void()>> jobs_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool ending_ = false;
};

thread_local Pausing* current_pausing = nullptr;

}  // namespace

struct Errand::Shared {
  std::mutex mutex;
  std::move_only_function<void()> done;
};

Errand::Errand(std::move_only_function<void()> work, std::move_only_function<void()> done)
    : shared_(std::make_shared<Shared>()) {
  shared_->done = std::move(done);
  Helpers::get().run([shared = shared_, work = std::move(work)]() mutable {
    work();
    const std::lock_guard lock(shared->mutex);
    if (shared->done) shared->done();
  });
}

Errand::~Errand() {
  const std::lock_guard lock(shared_->mutex);
  shared_->done = nullptr;
}

std::atomic<bool> Pausing::possible = false;

Pausing::Scope::Scope(Pausing* pausing) : before_(std::exchange(current_pausing, pausing)) {}
Pausing::Scope::~Scope() {
  current_pausing = before_;
}
Pausing* Pausing::current() {
  return current_pausing;
}

Status signing(std::string_view what, const std::function<bool()>& call) {
  Pausing note;
  const Pausing::Scope scope(&note);
  if (call()) return {};
  const std::string library = ossl_error();
  if (note.error) return fail(std::move(*note.error).at(what));
  return fail(Errc::kKeyOperation, std::string(what) + ": " + library, Source::kLocal);
}

}  // namespace sally::crypto
