// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "loop/loop.h"

namespace sally::loop {

struct ProcessOptions {
  std::string program;            ///< path, or a name looked up in PATH
  std::vector<std::string> args;  ///< without the program itself
  /// "NAME=value"; nullopt inherits ours.
  std::optional<std::vector<std::string>> env;
  std::string cwd;
  /// A descriptor of ours the child gets, kInherit, or kNull.
  static constexpr int kInherit = -2;
  static constexpr int kNull = -1;
  int stdin_fd = kNull;
  int stdout_fd = kInherit;
  int stderr_fd = kInherit;
  bool detached = false;  ///< a session of its own
};

/// A child process. Owned by a supervisor; loop's thread only. The destructor neither kills nor
/// waits: `kill` first. `on_exit` runs once and may destroy the object. Fails only at `spawn`
/// (kSpawn: context names program and reason).
class Process {
 public:
  struct Exit {
    int code;    ///< exit status
    int signal;  ///< what killed it, or 0
  };
  static Result<std::unique_ptr<Process>> spawn(Loop& loop, const ProcessOptions& options,
                                                std::move_only_function<void(Exit)> on_exit);
  ~Process();
  [[nodiscard]] int pid() const;
  [[nodiscard]] bool running() const;
  void kill(int signal);

 private:
  struct Impl;
  explicit Process(Impl* impl) : impl_(impl) {}
  Impl* impl_;
};

/// For a supervised child, at its start: the kernel sends it `signal` when the thread that started
/// it dies. `parent` is the supervisor's process id (it passes it down); false when that one is
/// gone already: the child should end.
bool die_with_parent(int signal, int parent);
/// Supervisor and child agree by an environment variable: the first marks itself before it starts
/// children, the second asks for SIGTERM when the supervisor dies. A process that nobody marked
/// does nothing.
void mark_supervisor();
void die_with_supervisor();

/// Calls back for the given signals. Owned by main; loop's thread only. SIGPIPE is ignored
/// process-wide by the first Loop.
class Signals {
 public:
  Signals(Loop& loop, std::initializer_list<int> signals,
          std::move_only_function<void(int)> callback);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace sally::loop
