// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "controller/network.h"
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

 private:
  Server(loop::Loop& loop, const Clock& clock, Random& random, ServerOptions options);
  Status start();
  [[nodiscard]] Result<std::shared_ptr<const tls::Context>> make_context() const;
  void accept(std::unique_ptr<tls::Stream> stream);
  [[nodiscard]] http::Response handle(http::Request&& request) const;

  loop::Loop& loop_;
  const Clock& clock_;
  Random& random_;
  ServerOptions options_;
  std::unique_ptr<Network> network_;
  // After what their jobs use, so that they go first.
  std::unique_ptr<http::WorkerPool> pool_;
  std::unique_ptr<http::Server> http_;
  std::unique_ptr<tls::Acceptor> acceptor_;
};

}  // namespace sally::controller
