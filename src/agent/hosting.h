// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sally/sally.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/host_config.h"
#include "loop/loop.h"
#include "loop/net.h"

namespace sally::agent {

/// Hosts every service that this device may bind and whose host.v1 it can serve: a caller becomes a
/// TCP connection to the target. Owner: the Agent. Thread: its loop's; the SDK's callbacks post
/// there. Failure: a target that refuses turns the caller away with the reason; a host.v1 we cannot
/// serve is shown in the status.
class Hosting {
 public:
  Hosting(loop::Loop& loop, sally_context* ctx);
  ~Hosting();
  Hosting(const Hosting&) = delete;
  Hosting& operator=(const Hosting&) = delete;

  /// Holds the bindings against the services of now.
  void sync();

  struct Status {
    std::string service;
    std::string target;
    bool bound = false;
    bool target_ok = false;
    std::string why;  ///< what is wrong, empty when nothing is
  };
  /// Since the start.
  struct Counts {
    std::uint64_t callers = 0;
    std::uint64_t target_failed = 0;
    std::uint64_t services = 0;  ///< now
    std::uint64_t bound = 0;     ///< of those, a router lets callers through
  };
  [[nodiscard]] Counts counts() const;
  /// Tries every target once (1 s at most), then calls.
  void probe(std::function<void(std::vector<Status>)> done);

 private:
  struct Binding;
  struct Connection;
  static void on_request(void* user, sally_request* request);
  static void on_stream(void* user, sally_stream* stream, void* token);
  void connect(const std::string& service, sally_request* request);

  loop::Loop& loop_;
  sally_context* ctx_;
  std::map<std::string, std::unique_ptr<Binding>> bindings_;  // by service id
  std::map<std::uint64_t, std::unique_ptr<loop::Connecting>> connecting_;
  std::uint64_t next_ = 1;
  Counts counts_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::agent
