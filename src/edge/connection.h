// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "base/chunk.h"
#include "base/error.h"
#include "base/metrics.h"
#include "edge/channel.h"
#include "loop/loop.h"
#include "tls/stream.h"

namespace sally::edge {

/// Who owns a connection of a foreign end.
class ConnectionOwner : public ChannelUser {
 public:
  /// Once, in a turn of its own; the connection may be destroyed in it. Its conns have been told.
  virtual void on_channel_down(Channel& channel, const Error& why) = 0;
};

/// Of many connections; counted into by each. Outlives them.
struct Traffic {
  metrics::Counter& bytes_in;
  metrics::Counter& bytes_out;
};

/// A Channel on a TLS connection. Owner: a ConnectionOwner. Thread: its loop's. Failure: every
/// violation closes it and ends in on_channel_down.
class Connection final : public tls::StreamHandler, private ChannelTransport {
 public:
  /// `stream` is established and has verified its peer.
  Connection(loop::Loop& loop, ChunkPool& pool, std::unique_ptr<tls::Stream> stream,
             ConnectionOwner& owner, ChannelOptions options, Traffic traffic);
  ~Connection() override;

  [[nodiscard]] Channel& channel() { return channel_; }
  [[nodiscard]] const Channel& channel() const { return channel_; }
  /// The proven peer.
  [[nodiscard]] const tls::PeerIdentity& peer() const { return *stream_->peer(); }
  [[nodiscard]] const tls::Session& session() const { return stream_->session(); }
  [[nodiscard]] const loop::Address& remote() const { return stream_->remote(); }
  [[nodiscard]] bool up() const { return !down_ && channel_.live(); }
  /// Ends it and the circuits on it, at once.
  void close(const Error& why) { end(why, true); }

  // tls::StreamHandler
  void on_readable() override;
  void on_writable() override { settle(); }
  /// What the SDK sent before is still delivered.
  void on_closed(const Error& why) override { end(why, false); }

 private:
  void on_channel_changed() override;
  void on_timer();
  /// What there is to send, to read and to wait for.
  void settle();
  void pump();
  bool write_pending();
  [[nodiscard]] bool stuck() const { return record_ != nullptr && !channel_.wants_read(); }
  void end(const Error& why, bool cut);

  loop::Loop& loop_;
  ChunkPool& pool_;
  std::unique_ptr<tls::Stream> stream_;
  ConnectionOwner& owner_;
  Traffic traffic_;
  Channel channel_;
  ChunkPtr record_;
  std::int64_t moved_ms_;  // when the SDK took something last, or nothing waited
  loop::Timer timer_;
  bool settling_ = false;
  bool down_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::edge
