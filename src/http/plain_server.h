// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/error.h"
#include "http/message.h"
#include "loop/loop.h"
#include "loop/net.h"

namespace sally::http {

/// Where a PlainServer may listen: a loopback address, or a Unix socket.
struct PlainAddress {
  std::string path;  ///< of the socket, or empty
  std::string host;
  std::uint16_t port = 0;
};
/// "127.0.0.1:9100", "[::1]:9100" or "unix:/run/x.sock". kForbidden for any other address: without
/// TLS nothing is served to the network.
Result<PlainAddress> parse_plain_address(std::string_view text);

/// GET without TLS for programs on this machine, on loopback or a Unix socket of mode 0600:
/// metrics. Owned by a daemon; loop's thread only. Bounded: 4 KiB of head, no body, 16 connections,
/// 5 s from connect to the last byte, one request each. A bad or slow client loses its connection.
class PlainServer {
 public:
  using Reply = std::move_only_function<void(Response)>;
  /// Answers once, now or later, on the loop's thread; the reply may outlive the server.
  using Handler = std::function<void(const Request&, Reply)>;
  static Result<std::unique_ptr<PlainServer>> create(loop::Loop& loop, const PlainAddress& at,
                                                     Handler handler);
  ~PlainServer();
  PlainServer(const PlainServer&) = delete;
  PlainServer& operator=(const PlainServer&) = delete;
  [[nodiscard]] std::uint16_t port() const { return listener_->port(); }

 private:
  struct Client;
  PlainServer(loop::Loop& loop, Handler handler);
  void accept(loop::Fd fd);
  void on_ready(std::uint64_t key, loop::Watcher::Ready ready);
  void on_request(std::uint64_t key, Client& client, Request request);
  void answer(std::uint64_t key, const Response& response);
  void drop(std::uint64_t key);

  loop::Loop& loop_;
  Handler handler_;
  std::unique_ptr<loop::Listener> listener_;
  std::map<std::uint64_t, std::unique_ptr<Client>> clients_;
  std::uint64_t next_ = 1;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// The program's figures on `at` under /metrics: what `--metrics` asks for. `collect` answers now
/// or later.
Result<std::unique_ptr<PlainServer>> serve_metrics(
    loop::Loop& loop, const PlainAddress& at,
    std::function<void(std::move_only_function<void(std::string)>)> collect);

}  // namespace sally::http
