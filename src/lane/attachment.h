// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/error.h"
#include "fabric/scheduler.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace sally::lane {

class Lane;

/// A circuit's place on one lane: what comes in for its label, what goes out when it is its turn.
/// Owner: the circuit; its destruction resets the circuit on this lane. Thread: the lane's. An
/// error returned from on_* is the peer's fault and closes the lane. Any on_* may destroy the
/// attachment.
class Attachment : public fabric::Turn {
 public:
  Attachment() = default;
  ~Attachment() override;

  /// `whole` is set when the payload fills the rest of its chunk, which may then be taken.
  virtual Status on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) = 0;
  virtual Status on_fin(std::uint64_t offset) = 0;
  virtual void on_credit(std::uint64_t limit) = 0;
  virtual Status on_ack(std::uint64_t offset) = 0;
  /// The answer to our SETUP; remote_label() is set. Payload: SetupOkFrame.
  virtual Status on_setup_ok(ByteView payload) = 0;
  /// The refusal of our SETUP; already detached.
  virtual void on_setup_err(const wire::SetupErr& err) = 0;
  /// The circuit is over on this lane (reset, path down, lane lost); already detached.
  virtual void on_reset(const wire::Reset& reset) = 0;
  /// The lane is destroyed, without an end before: already detached. May destroy the attachment.
  virtual void on_lane_gone() {}
  /// Some 20 ms after Lane::request_tick.
  virtual void on_tick() {}

  /// One frame to send. The payload is in `chunk` (with headroom), or `view`, which lives until the
  /// attachment is called again and may be all of `whole`, a chunk with headroom it keeps.
  struct Out {
    bool fin = false;
    std::uint64_t offset = 0;
    ByteView view;
    ChunkPtr chunk;
    Chunk* whole = nullptr;
  };
  /// False when nothing can go now: the attachment leaves the ring until Lane::ready.
  virtual bool next_frame(Out& out) = 0;

  /// The lane it is on; null once detached.
  [[nodiscard]] Lane* lane() const { return lane_; }
  [[nodiscard]] std::uint32_t local_label() const { return local_; }
  /// 0 until the peer has named it.
  [[nodiscard]] std::uint32_t remote_label() const { return remote_; }
  /// What our data says of itself, and its share of the lane.
  [[nodiscard]] wire::Class traffic_class() const { return class_; }
  void set_traffic_class(wire::Class c) { class_ = c; }
  /// Of the peer's last DATA.
  [[nodiscard]] wire::Class heard_class() const { return heard_class_; }

 private:
  friend class Lane;
  // Small: a router has two of these per circuit, mostly idle.
  wire::Class class_ : 2 = wire::Class::kNormal;
  wire::Class heard_class_ : 2 = wire::Class::kNormal;
  bool tick_wanted_ : 1 = false;
  std::uint32_t local_ = 0;
  std::uint32_t remote_ = 0;
  Lane* lane_ = nullptr;
  // CREDIT and ACK are absolute: of many that wait only the last one leaves. 0: none does.
  std::uint64_t credit_due_ = 0;
  std::uint64_t ack_due_ = 0;
};

}  // namespace sally::lane
