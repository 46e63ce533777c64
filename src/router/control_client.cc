// SPDX-License-Identifier: Apache-2.0
#include "router/control_client.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace sally::router {
namespace {

constexpr std::int64_t kMaxBackoffMs = 2'000;

}  // namespace

ControlClient::ControlClient(loop::Loop& loop, ChunkPool& pool, Random& random,
                             std::shared_ptr<const tls::Context> context, HostPort controller,
                             ControlHandler& handler)
    : loop_(loop),
      pool_(pool),
      random_(random),
      context_(std::move(context)),
      controller_(std::move(controller)),
      handler_(handler),
      retry_timer_(loop.timers(), [this] { connect(); }) {}

void ControlClient::connect() {
  dialing_ = tls::dial(
      loop_, context_,
      {.host = controller_.host, .port = controller_.port, .sni = {}, .expect_host = false},
      [this](Result<std::unique_ptr<tls::Stream>> stream) {
        if (!stream) {
          log::debug("router.controller_unreachable",
                     {{"controller", controller_.str()}, {"why", stream.error().text()}});
          if (stream.error().is(tls::Errc::kPeerRefused)) handler_.on_control_refused();
          retry_later();
          return;
        }
        lane::LaneOptions options;
        options.hello = handler_.control_hello();
        options.tell_time = true;
        options.max_control = wire::kMaxControlMessage;
        options.pause_reading = false;
        options.max_labels = 0;  // no circuits on a control lane
        lane_ = std::make_unique<lane::Lane>(loop_, pool_, std::move(*stream), *this,
                                             std::move(options));
      });
}

void ControlClient::retry_later() {
  retry_timer_.arm(backoff_.next_ms(random_, kMaxBackoffMs));
}

void ControlClient::reconnect() {
  if (lane_ != nullptr) lane_->close(Error(lane::Errc::kClosed));
}

void ControlClient::send(const wire::Control& message) {
  if (up()) lane_->send_control(message);
}

void ControlClient::on_lane_up(lane::Lane& lane, const wire::Hello& peer) {
  log::info("router.controller_up", {{"controller", lane.peer().id()}, {"at", controller_.str()}});
  handler_.on_control_up(peer);
}

void ControlClient::on_lane_control(lane::Lane&, wire::Control&& message) {
  handler_.on_control_message(std::move(message));
}

void ControlClient::on_lane_setup(lane::Lane& lane, std::uint32_t, ByteView) {
  lane.close(Error(lane::Errc::kProtocol, "a SETUP on a control lane"));
}

void ControlClient::on_lane_down(lane::Lane& lane, const Error& why) {
  log::warn("router.controller_down", {{"why", why.text()}});
  // TLS 1.3 tells a client that its certificate is not taken after its handshake is done.
  const bool refused = !lane.up() && why.is(tls::Errc::kPeerRefused);
  lane_.reset();
  handler_.on_control_down();
  if (refused) handler_.on_control_refused();
  retry_later();
}

}  // namespace sally::router
