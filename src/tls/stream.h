// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "loop/fd.h"
#include "loop/loop.h"
#include "tls/session.h"

namespace sally::tls {

class Stream;

/// Who uses a stream. Every call may destroy the stream.
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  /// The handshake is over, the peer is known. Failure comes through on_closed.
  virtual void on_handshaken() {}
  /// Read now, one record; called again while more is pending and reading is wanted.
  virtual void on_readable() = 0;
  /// After a write that did not take everything.
  virtual void on_writable() = 0;
  /// Once; nothing follows. kClosed: honest end; kTruncated, kTimeout, kPeerRefused, ...
  virtual void on_closed(const Error& why) = 0;
};

struct StreamLimits {
  std::int64_t handshake_ms = 5'000;
  std::uint64_t handshake_bytes = 64 * 1024;  ///< from the peer, before it is authenticated
};

/// A TLS connection driven by a loop. Owned by its handler or by an Acceptor until authenticated;
/// owns descriptor and session. Loop's thread only. Reads one record per wake-up and goes on only
/// while the session holds more (8 records a turn). Fails through on_closed; `read` and `write`
/// never report errors themselves.
class Stream {
 public:
  Stream(loop::Loop& loop, loop::Fd fd, std::unique_ptr<Session> session);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Starts the handshake. No call comes from inside this function.
  void start(StreamHandler& handler, StreamLimits limits = {});
  /// Another owner takes over an established stream. Bytes that wait are announced again in the
  /// next turn.
  void set_handler(StreamHandler& handler);

  /// Bytes read, 0 for nothing now.
  std::size_t read(MutableBytes into);
  /// Bytes taken; fewer than given means: on_writable will come. Small writes become small records:
  /// coalesce before.
  std::size_t write(ByteView from);
  /// The same for a turn that writes several records: they leave together, at flush() at the
  /// latest.
  std::size_t gather(ByteView from);
  /// False: on_writable will come.
  bool flush();
  /// Stops and resumes on_readable (back-pressure). On at the start.
  void want_read(bool on);
  [[nodiscard]] bool wants_read() const;
  /// close_notify, then the descriptor is closed once it left (or after 1 s); on_closed(kClosed)
  /// follows in a later turn.
  void close();
  /// close_notify of our direction only; reading goes on.
  void shutdown_write();

  [[nodiscard]] bool established() const;
  [[nodiscard]] Session& session();
  [[nodiscard]] const Session& session() const;
  [[nodiscard]] const PeerIdentity* peer() const { return session().peer(); }
  [[nodiscard]] const loop::Address& remote() const;
  [[nodiscard]] int fd() const;

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

struct DialOptions {
  std::string host;
  std::uint16_t port = 0;
  std::string sni;           ///< sent when not empty
  bool expect_host = false;  ///< the certificate must carry `host`
  std::optional<std::pair<Role, std::string>> expect_peer;
  std::int64_t connect_ms = 10'000;
  StreamLimits limits;
};
/// Connects and shakes hands; destroy to cancel.
class Dialing {
 public:
  virtual ~Dialing() = default;
};
/// `done` gets an established stream without a handler: call `set_handler` on it.
std::unique_ptr<Dialing> dial(loop::Loop& loop, std::shared_ptr<const Context> context,
                              DialOptions options,
                              std::move_only_function<void(Result<std::unique_ptr<Stream>>)> done);

}  // namespace sally::tls
