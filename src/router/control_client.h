// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/backoff.h"
#include "base/random.h"
#include "base/text.h"
#include "lane/lane.h"

namespace sally::router {

/// What the controller tells the router.
class ControlHandler {
 public:
  virtual ~ControlHandler() = default;
  /// What HELLO says, state version and hash included; asked at every connect.
  virtual wire::Hello control_hello() = 0;
  /// `peer`: what the controller said of itself.
  virtual void on_control_up(const wire::Hello& peer) = 0;
  virtual void on_control_message(wire::Control&& message) = 0;
  virtual void on_control_down() = 0;
  /// The controller does not take our certificate.
  virtual void on_control_refused() = 0;
};

/// The router's lane to its controller, dialed outbound and made again whenever it is lost.
/// Owner: the Router. Thread: its loop's. Failure: retried with jittered back-off; no circuit
/// depends on it.
class ControlClient final : public lane::LaneOwner {
 public:
  ControlClient(loop::Loop& loop, ChunkPool& pool, Random& random,
                std::shared_ptr<const tls::Context> context, HostPort controller,
                ControlHandler& handler);
  void start() { connect(); }
  [[nodiscard]] bool up() const { return lane_ != nullptr && lane_->up(); }
  /// What the controller sent was taken over: the next loss begins with the shortest pause again.
  void settled() { backoff_.reset(); }
  /// Ends the lane; the next one follows after a pause that grows until settled().
  void reconnect();
  /// Dropped when the lane is down: whoever needs an answer asks again in on_control_up.
  void send(const wire::Control& message);
  /// For later connections; the one that is up stays.
  void set_context(std::shared_ptr<const tls::Context> context) { context_ = std::move(context); }

  // lane::LaneOwner
  void on_lane_up(lane::Lane& lane, const wire::Hello& peer) override;
  void on_lane_control(lane::Lane& lane, wire::Control&& message) override;
  void on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) override;
  void on_lane_down(lane::Lane& lane, const Error& why) override;

 private:
  void connect();
  void retry_later();

  loop::Loop& loop_;
  ChunkPool& pool_;
  Random& random_;
  std::shared_ptr<const tls::Context> context_;
  HostPort controller_;
  ControlHandler& handler_;
  std::unique_ptr<tls::Dialing> dialing_;
  std::unique_ptr<lane::Lane> lane_;
  loop::Timer retry_timer_;
  Backoff backoff_{50};
};

}  // namespace sally::router
