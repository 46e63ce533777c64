// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sally/sally.h>

#include <memory>
#include <string>

#include "agent/control.h"
#include "agent/forwards.h"
#include "agent/hosting.h"
#include "base/error.h"
#include "http/plain_server.h"
#include "loop/loop.h"

namespace sally::agent {

/// The daemon on a device: one identity, hosts what it is granted, keeps local forwards, answers
/// `sally status`. In its folder: identity.json (from `sally join`), forwards.json, agent.sock,
/// agent.lock. Owner: the app. Thread: its loop's; the SDK has its own. Failure: start() says why;
/// later everything is retried.
class Agent {
 public:
  /// `flags`: SALLY_SESSION_KEY_*.
  Agent(loop::Loop& loop, std::string dir, int flags = 0);
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  /// Takes the folder's lock, opens the identity, connects. kRunning where another agent is.
  Status start();
  /// Its figures without TLS on this machine (docs/metrics.md); after start().
  Status serve_metrics(const http::PlainAddress& at);
  /// Set by the request "stop".
  std::function<void()> on_stop;

 private:
  static void on_event(void* user, sally_event event, const char* text);
  void handle(const std::string& request, ControlSocket::Reply reply);
  [[nodiscard]] Status may_dial(const std::string& service) const;
  void reply_status(ControlSocket::Reply reply);
  [[nodiscard]] std::string metrics_text() const;

  loop::Loop& loop_;
  std::string dir_;
  const int flags_;
  loop::Fd lock_;
  sally_context* ctx_ = nullptr;
  std::unique_ptr<Hosting> hosting_;
  std::unique_ptr<Forwards> forwards_;
  std::unique_ptr<ControlSocket> control_;
  std::unique_ptr<http::PlainServer> plain_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::agent
