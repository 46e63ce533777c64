// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/error.h"
#include "fabric/labels.h"
#include "fabric/scheduler.h"
#include "lane/attachment.h"
#include "lane/counters.h"
#include "lane/errors.h"
#include "lane/frame_reader.h"
#include "loop/loop.h"
#include "tls/stream.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace sally::lane {

inline constexpr std::string_view kAlpnEdge = "sally-edge/1";
inline constexpr std::string_view kAlpnControl = "sally-ctrl/1";
inline constexpr std::uint32_t kVersion = 1;

struct LaneOptions {
  /// What we say. versions are filled in; time only where `tell_time`.
  wire::Hello hello;
  /// Routers and controllers tell the time in HELLO and PONG; devices do not.
  bool tell_time = false;
  /// Longest control message the peer may send.
  std::size_t max_control = wire::kMaxControlFromDevice;
  std::size_t max_labels = 65'536;
  /// Stop reading while much waits to be sent: a peer that makes us answer and does not read. The
  /// side that dialed reads always, or the two could wait for each other.
  bool pause_reading = true;
  std::int64_t hello_ms = 5'000;
  std::int64_t probe_ms = 1'000;  ///< silence after which we ask
  std::int64_t dead_ms = 5'000;   ///< silence after which the lane is dead
  Counters* counters = nullptr;   ///< counts into this, if there is one
};

/// Who uses a lane. Calls may close the lane, and destroy it in on_lane_down only.
class LaneOwner {
 public:
  virtual ~LaneOwner() = default;
  virtual void on_lane_up(class Lane& lane, const wire::Hello& peer) = 0;
  virtual void on_lane_control(Lane& lane, wire::Control&& message) = 0;
  /// A SETUP of the peer; answer to `label` with accept + send_setup_ok, or send_setup_err.
  virtual void on_lane_setup(Lane& lane, std::uint32_t label, ByteView payload) = 0;
  /// Once, in a turn of its own; all attachments have been reset before.
  virtual void on_lane_down(Lane& lane, const Error& why) = 0;
};

/// One mutual TLS connection that carries frames: HELLO, liveness, control messages, circuits
/// taking turns. Owner: a LaneOwner (router, SDK, controller). Thread: its loop's. Failure: every
/// violation closes the lane, says so to the peer where it can, and ends in on_lane_down; circuits
/// on it are reset.
class Lane final : public tls::StreamHandler {
 public:
  /// `stream` is established and has verified its peer. HELLO leaves at once.
  Lane(loop::Loop& loop, ChunkPool& pool, std::unique_ptr<tls::Stream> stream, LaneOwner& owner,
       LaneOptions options);
  ~Lane() override;

  /// The proven peer.
  [[nodiscard]] const tls::PeerIdentity& peer() const { return *stream_->peer(); }
  [[nodiscard]] tls::Session& session() { return stream_->session(); }
  [[nodiscard]] const loop::Address& remote() const { return stream_->remote(); }
  [[nodiscard]] bool up() const { return up_; }
  [[nodiscard]] ChunkPool& pool() { return pool_; }
  /// Smoothed round trip in microseconds, 0 before the first probe.
  [[nodiscard]] std::int64_t round_trip_us() const { return rtt_us_; }
  /// Unix time in ms as the peer tells it, else our own: what proofs on this lane are dated with.
  [[nodiscard]] std::int64_t time_ms() const;
  /// The peer has told it.
  [[nodiscard]] bool time_known() const { return time_known_; }
  [[nodiscard]] std::size_t circuits() const { return labels_.used(); }

  void send_control(const wire::Control& message);
  /// Gives the attachment a label of this lane; false when the table is full. A `remote_label`
  /// means that send_setup_ok follows at once.
  [[nodiscard]] bool attach(Attachment& attachment, std::uint32_t remote_label = 0);
  /// Only after attach, without a remote label.
  void send_setup(Attachment& attachment, const wire::SetupFrame& setup);
  void send_setup_ok(Attachment& attachment, ByteView payload);
  void send_setup_err(std::uint32_t remote_label, const wire::SetupErr& err);
  /// Before any DATA, and merged while they wait: a flood of them costs the peer of this lane
  /// nothing.
  void send_credit(Attachment& attachment, std::uint64_t limit);
  void send_ack(Attachment& attachment, std::uint64_t offset);
  /// RESET, and the attachment is off the lane; its label drains. on_reset is not called.
  void reset(Attachment& attachment, wire::ResetCode code, std::string text = {});
  /// The same for many, in as few frames as possible.
  void path_down(const std::vector<Attachment*>& attachments, wire::ResetCode code);
  /// The attachment has something to send.
  void ready(Attachment& attachment);
  /// Calls on_tick once, soon: delayed acknowledgements of all circuits share one timer.
  void request_tick(Attachment& attachment);

  /// Tells the peer why (code and text of `why`) and ends the lane.
  void close(const Error& why);

  // tls::StreamHandler
  void on_readable() override;
  void on_writable() override;
  void on_closed(const Error& why) override;

 private:
  friend class Attachment;
  class Draining;

  void put_frame(wire::FrameHeader header, ByteView payload);
  void append_frame(wire::FrameHeader header, ByteView payload);
  void want_window(const Attachment& attachment);
  void flush_window(Attachment& attachment);
  void detach(Attachment& attachment);
  void drain_label(std::uint32_t label);
  void schedule_pump();
  void pump();
  bool write_pending();
  bool fill_record();
  std::size_t gather(ByteView record);
  ChunkPtr fresh_record(ByteView first = {});
  Status dispatch(const wire::FrameHeader& header, ByteView payload, ChunkPtr* whole);
  Status dispatch_lane(const wire::FrameHeader& header, ByteView payload);
  Status dispatch_circuit(const wire::FrameHeader& header, ByteView payload, ChunkPtr* whole);
  Status on_control_frame(const wire::FrameHeader& header, ByteView payload);
  Status on_hello(const wire::Hello& hello);
  void terminal(std::uint32_t label, const wire::Reset& reset);
  void learn_time(std::int64_t peer_ms);
  void on_probe_timer();
  void on_tick_timer();
  void go_down(const Error& why);

  loop::Loop& loop_;
  ChunkPool& pool_;
  std::unique_ptr<tls::Stream> stream_;
  LaneOwner& owner_;
  LaneOptions options_;

  FrameReader frames_;
  fabric::LabelTable<Attachment> labels_;
  fabric::DeficitRoundRobin ring_;
  std::unique_ptr<Draining> draining_;
  std::vector<std::uint32_t> ticks_;
  std::vector<std::uint32_t> windows_;  // labels with CREDIT or ACK due

  // Out: control bytes first, then frames of circuits. `record_` is being written, `held_` did not
  // fit into it.
  Bytes control_out_;
  std::size_t control_sent_ = 0;
  ChunkPtr record_;
  ChunkPtr held_;
  bool pump_scheduled_ = false;
  bool reading_paused_ = false;

  // A control message that spans frames.
  Bytes control_in_;

  loop::Timer probe_timer_;
  loop::Timer tick_timer_;
  std::int64_t heard_ms_ = 0;
  std::int64_t started_ms_ = 0;
  std::uint64_t acked_bytes_ = 0;
  std::int64_t rtt_us_ = 0;
  std::int64_t asked_ms_ = 0;  ///< last PING
  std::int64_t time_offset_ms_ = 0;
  bool time_known_ = false;
  bool up_ = false;
  bool closing_ = false;
  bool down_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::lane
