// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loop/fd.h"
#include "loop/loop.h"
#include "loop/process.h"

namespace sally::cli {

/// A program kept running.
struct Program {
  std::string name;
  std::string path;
  std::vector<std::string> args;
  std::string log_path;        ///< its standard error, appended
  std::string only_if_exists;  ///< started once this file is there; empty = at once
};

/// Keeps programs running: starts them, starts them again when they end, ends them when it ends.
/// Owner: `sally up`, `sally join`. Thread: its loop's. Failure: a program that cannot run is tried
/// again with growing pauses, 5 s at most, and each end is written to its log.
class Supervisor {
 public:
  Supervisor(loop::Loop& loop, std::vector<Program> programs);
  ~Supervisor();
  void start();
  /// SIGTERM to all, SIGKILL after 5 s; `done` when the last one is gone.
  void stop(std::function<void()> done);

 private:
  struct Child;
  void run(Child& child);
  void ended(Child& child, loop::Process::Exit exit);

  loop::Loop& loop_;
  std::vector<std::unique_ptr<Child>> children_;
  std::function<void()> done_;
  std::unique_ptr<loop::Timer> kill_timer_;
  bool stopping_ = false;
};

/// The lock of a folder that one process works on. The kernel names who has it. A process must not
/// ask holder() about a lock that it has itself: closing the file would give it back (fcntl(2)).
class FolderLock {
 public:
  /// kRunning, with the process, when another one has it for longer than `wait_ms`.
  static Result<FolderLock> take(const std::string& path, std::int64_t wait_ms = 0);
  /// Process id of the holder; 0 when nobody holds it. kDenied when we may not look.
  static Result<int> holder(const std::string& path);

 private:
  explicit FolderLock(loop::Fd fd) : fd_(std::move(fd)) {}
  loop::Fd fd_;
};

}  // namespace sally::cli
