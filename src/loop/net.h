// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "loop/fd.h"
#include "loop/loop.h"

namespace sally::loop {

struct ListenOptions {
  int backlog = 512;
  /// SO_REUSEPORT: several listeners of this process share the address.
  bool reuse_port = false;
  /// With reuse_port, for the first of them: kBind when somebody listens there already, although he
  /// would share it too.
  bool first = false;
  unsigned unix_mode = 0600;  ///< mode of a Unix socket's file
};

/// A listening TCP or Unix socket. Owned by the server object; loop's thread only.
/// Every accepted descriptor is non-blocking, close-on-exec and handed to the callback, which may
/// destroy the listener. At most 32 accepts per turn; out of descriptors it pauses for 100 ms and
/// logs.
class Listener {
 public:
  using OnAccept = std::move_only_function<void(Fd fd, const Address& peer)>;
  /// `host` is an IP address, "" or "*" for all addresses; port 0 chooses one.
  static Result<std::unique_ptr<Listener>> tcp(Loop& loop, const std::string& host,
                                               std::uint16_t port, OnAccept on_accept,
                                               ListenOptions options = {});
  /// Replaces a socket file nobody listens on; kBind when somebody does. Removed again by the
  /// destructor.
  static Result<std::unique_ptr<Listener>> local(Loop& loop, const std::string& path,
                                                 OnAccept on_accept, ListenOptions options = {});
  ~Listener();
  [[nodiscard]] Address address() const;
  [[nodiscard]] std::uint16_t port() const { return address().port; }
  void pause();
  void resume();

 private:
  struct Impl;
  explicit Listener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// A connection attempt. Destroying it cancels without a call; the callback may destroy it.
/// Loop's thread only; the callback runs once, never from inside the function that started it.
class Connecting {
 public:
  virtual ~Connecting() = default;
};
using OnConnect = std::move_only_function<void(Result<Fd>)>;

/// Resolves `host` and tries its addresses in order, each with its share of `timeout_ms`. The
/// descriptor is non-blocking and tuned. Errors: kDns, kConnect (context names the last address and
/// reason), kTimeout; all retryable.
std::unique_ptr<Connecting> connect_tcp(Loop& loop, const std::string& host, std::uint16_t port,
                                        std::int64_t timeout_ms, OnConnect done);
/// Connects to a Unix socket at once.
Result<Fd> connect_local(const std::string& path);

}  // namespace sally::loop
