// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "http/message.h"
#include "http/parser.h"
#include "loop/loop.h"
#include "tls/stream.h"

namespace sally::http {

/// Runs on a worker thread, several at a time. Must not throw (what is thrown anyway becomes 500).
/// The request is its own: a body is kept once.
using Handler = std::function<Response(Request&&)>;

struct ServerOptions {
  std::string name = "http";  ///< in log lines
  ParserLimits limits;
  std::size_t workers = 4;
  std::size_t queue = 128;  ///< requests waiting for a worker; beyond it 503
  std::size_t connections = 2048;
  std::size_t connections_per_source = 256;
  std::size_t body_bytes = 64 * 1024 * 1024;  ///< of all requests being received; beyond it 503
  std::int64_t idle_ms = 30'000;              ///< between requests
  std::int64_t read_ms = 10'000;              ///< from the first to the last byte of a request
  std::int64_t write_ms = 10'000;             ///< without progress of a response
  Headers headers;                            ///< added to every response that has not set them
};
struct ServerCounters {
  std::uint64_t requests = 0;
  std::uint64_t refused = 0;  ///< answered by the server itself with 4xx or 5xx
  std::uint64_t timed_out = 0;
  std::uint64_t dropped = 0;  ///< connections over a limit
};

/// HTTP/1.1 on established TLS streams: `tls::Acceptor` hands them over, `adopt` takes them. Owned
/// by a daemon; loop's thread only. The handler runs on a bounded pool, the peer identity is copied
/// into its request. One request at a time per connection, pipelined ones wait. The destructor ends
/// connections and waits for running handlers.
class Server {
 public:
  Server(loop::Loop& loop, ServerOptions options, Handler handler);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  void adopt(std::unique_ptr<tls::Stream> stream);
  [[nodiscard]] std::size_t connections() const;
  [[nodiscard]] const ServerCounters& counters() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace sally::http
