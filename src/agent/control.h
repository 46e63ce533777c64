// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "loop/loop.h"
#include "loop/net.h"

namespace sally::agent {

/// The agent's door for the command line on the same machine: a Unix socket of mode 0600 in the
/// agent's folder. One request per connection, a line of JSON each way, at most 64 KiB. Owner: the
/// Agent. Thread: its loop's. Failure: a bad or slow client loses its connection, nothing else.
class ControlSocket {
 public:
  using Reply = std::function<void(std::string json)>;
  /// `handler` gets the request's line and answers once, now or later.
  using Handler = std::function<void(const std::string& request, Reply reply)>;

  static Result<std::unique_ptr<ControlSocket>> open(loop::Loop& loop, const std::string& path,
                                                     Handler handler);
  ~ControlSocket();

 private:
  struct Client;
  ControlSocket(loop::Loop& loop, Handler handler);
  void accept(loop::Fd fd);
  void drop(std::uint64_t key);

  static constexpr std::size_t kMaxClients = 16;
  loop::Loop& loop_;
  Handler handler_;
  std::unique_ptr<loop::Listener> listener_;
  std::map<std::uint64_t, std::unique_ptr<Client>> clients_;
  std::uint64_t next_ = 1;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::agent
