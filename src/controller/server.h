// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "controller/network.h"
#include "http/plain_server.h"
#include "http/server.h"
#include "http/worker_pool.h"
#include "loop/loop.h"
#include "tls/acceptor.h"

namespace sally::controller {

struct ServerOptions {
  std::string dir;
  std::string host;  ///< address to listen on; empty = all
  std::uint16_t port = 1280;
  std::size_t threads = 2;
  std::optional<http::PlainAddress> metrics = std::nullopt;  ///< also without TLS, on this machine
  std::int64_t life_s = pki::kRenewingLifeS;            ///< certificates of who renews by itself
  std::int64_t grace_s = pki::kRecoveryGraceS;          ///< after their end, for the recovery door
  std::int64_t session_life_s = api::Sessions::kLifeS;  ///< of foreign ends, without a request
};

/// The controller process: one TLS port for REST (ALPN http/1.1 or none) and control lanes
/// (sally-ctrl/1); a client certificate is asked for, not demanded. Owned by the app or a test; the
/// loop's thread. REST handlers run on the pool. Fails at start only; afterwards single connections
/// and requests fail.
class Server {
 public:
  static Result<std::unique_ptr<Server>> create(loop::Loop& loop, const Clock& clock,
                                                Random& random, ServerOptions options);
  ~Server();
  [[nodiscard]] std::uint16_t port() const { return acceptor_->port(); }
  [[nodiscard]] Network& network() { return *network_; }
  /// Of the figures' own listener; 0 = none.
  [[nodiscard]] std::uint16_t metrics_port() const { return plain_ ? plain_->port() : 0; }

 private:
  Server(loop::Loop& loop, const Clock& clock, Random& random, ServerOptions options);
  Status start();
  [[nodiscard]] Result<std::shared_ptr<const tls::Context>> make_context() const;
  void accept(std::unique_ptr<tls::Stream> stream);
  [[nodiscard]] http::Response handle(http::Request&& request) const;

  // metrics.cc
  /// What only the loop's thread may read.
  struct LoopFigures {
    tls::AcceptorCounters accepted;
    std::uint32_t handshakes = 0;
    http::ServerCounters requests;
    std::size_t connections = 0;
  };
  [[nodiscard]] LoopFigures loop_figures() const;
  [[nodiscard]] std::string metrics_text(const std::optional<LoopFigures>& loop) const;
  [[nodiscard]] std::string metrics_from_pool() const;
  void collect_metrics(std::move_only_function<void(std::string)> done);

  loop::Loop& loop_;
  const Clock& clock_;
  Random& random_;
  ServerOptions options_;
  std::unique_ptr<Network> network_;
  // After what their jobs use, so that they go first.
  std::unique_ptr<http::WorkerPool> pool_;
  std::unique_ptr<http::Server> http_;
  std::unique_ptr<tls::Acceptor> acceptor_;
  std::unique_ptr<http::PlainServer> plain_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::controller
