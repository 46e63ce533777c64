// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace sally::cli::demo {

/// A network namespace that lives as long as this object: a process of ours holds it.
class Namespace {
 public:
  static Result<std::unique_ptr<Namespace>> create(std::string name);
  ~Namespace();
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] pid_t holder() const { return holder_; }

 private:
  Namespace(std::string name, pid_t holder) : name_(std::move(name)), holder_(holder) {}
  std::string name_;
  pid_t holder_;
};

/// A program of the demo in a namespace. Ends with us, however we end.
/// Owner: the demo. Thread: the main one. Failure: exit code 127 where the program cannot be
/// started.
class Child {
 public:
  /// `log_path` takes standard output and error; with `feed` its standard input is a pipe, else
  /// /dev/null.
  static Result<std::unique_ptr<Child>> start(const Namespace& where,
                                              const std::vector<std::string>& args,
                                              const std::string& log_path, bool feed = false);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  /// Ends standard input.
  void end_input();
  /// Exit code, or -1 when it still runs after `timeout_ms`.
  int wait(std::int64_t timeout_ms);
  void kill(int signal) const;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  Child(pid_t pid, int input) : pid_(pid), input_(input) {}
  pid_t pid_;
  int input_;
  int exit_ = -1;
};

struct Ran {
  int exit = -1;  ///< -1: killed after the time-out
  std::string out;
  std::string err;
};
/// Runs a program to its end in a namespace.
Ran run_in(const Namespace& where, const std::vector<std::string>& args,
           std::int64_t timeout_ms = 30'000);

/// Before anything else, where we are not root: a user namespace in which we are. kFailed says what
/// the machine forbids.
Status become_root();

}  // namespace sally::cli::demo
