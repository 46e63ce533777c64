// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "loop/loop.h"

namespace sally::loop {

/// A queue for what must never be lost, handled in order on a loop's thread. Owned by the consumer,
/// made on its thread or before that runs, destroyed after the producers stopped. `send` from any
/// thread. It has no bound: whoever sends has one for what waits. At most `kBatch` items per turn.
template <typename T>
class Inbox {
 public:
  static constexpr int kBatch = 256;
  Inbox(Loop& loop, std::move_only_function<void(T)> on_item)
      : on_item_(std::move(on_item)), wakeup_(loop, [this] { drain(); }) {}

  void send(T item) {
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = waiting_.empty();
      waiting_.push_back(std::move(item));
    }
    if (first) wakeup_.signal();
  }

 private:
  void drain() {
    for (int i = 0; i < kBatch; ++i) {
      if (at_ == taken_.size()) {
        taken_.clear();
        at_ = 0;
        const std::lock_guard lock(mutex_);
        taken_.swap(waiting_);
      }
      if (taken_.empty()) return;
      on_item_(std::move(taken_[at_++]));
    }
    wakeup_.signal();
  }
  std::mutex mutex_;
  std::vector<T> waiting_;
  std::vector<T> taken_;  // the consumer's
  std::size_t at_ = 0;
  std::move_only_function<void(T)> on_item_;
  Wakeup wakeup_;
};

}  // namespace sally::loop
