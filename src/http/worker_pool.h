// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace sally::http {

/// A few threads for plain synchronous work (handlers that wait for a database). Owned by a server.
/// `submit` from any thread; the destructor drops what has not begun and joins.
/// `submit` fails when the queue is full; jobs do not throw.
class WorkerPool {
 public:
  using Job = std::move_only_function<void()>;
  WorkerPool(std::size_t threads, std::size_t queue);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;
  [[nodiscard]] bool submit(Job job);

 private:
  void work();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  const std::size_t limit_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sally::http
