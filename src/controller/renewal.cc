// SPDX-License-Identifier: Apache-2.0
// Renewals that routers carry here.
#include "base/log.h"
#include "base/text.h"
#include "controller/network.h"

namespace sally::controller {
namespace {

constexpr std::uint64_t kPauseMs = 30'000;  // of who is told to come again

}  // namespace

wire::Renewed Network::answer_renew(const std::string& router, const wire::Renew& renew) {
  wire::Renewed reply{.request = renew.request,
                      .id = renew.id,
                      .leaf = {},
                      .issuing = {},
                      .error = {},
                      .retry_after_ms = 0};
  const auto run = [&]() -> Result<pki::RenewalDoor::Outcome> {
    TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
    TRY_ASSIGN(auto done, renewals_->take(*tx, renew.envelope, {renew.id, renew.serial},
                                          clock_.unix_ms(), random_));
    if (done.changed) TRY(tx->commit());
    return done;
  };
  auto done = run();
  if (!done) {
    const Error& e = done.error();
    log::warn("controller.renewal_refused",
              {{"router", router}, {"id", renew.id}, {"code", e.code()}, {"why", e.context()}});
    // What is our own fault, or of the moment, is tried again.
    const bool internal = e.source() != Source::kPeer;
    reply.error = internal ? std::string(error_name(Errc::kBusy)) : std::string(e.code());
    if (internal || e.retry()) reply.retry_after_ms = kPauseMs;
    return reply;
  }
  if (done->superseded > 0) changed();
  if (done->issued) {
    reply.leaf = done->issued->leaf.der();
    reply.issuing = done->issued->issuing.der();
    log::info("controller.renewed",
              {{"id", renew.id}, {"router", router}, {"serial", done->issued->leaf.serial_hex()}});
  }
  return reply;
}

void Network::on_renew(Peer& peer, wire::Renew renew) {
  if (renew.id.empty()) {  // the router's own
    renew.id = peer.router;
    renew.serial = peer.lane->peer().serial();
  }
  const std::uint64_t number = peer.number;
  const auto send = [this, number](wire::Renewed reply) {
    if (Peer* to = find(number); to != nullptr) to->lane->send_control({std::move(reply)});
  };
  wire::Renewed busy{.request = renew.request,
                     .id = renew.id,
                     .leaf = {},
                     .issuing = {},
                     .error = std::string(error_name(Errc::kBusy)),
                     .retry_after_ms = kPauseMs};
  const bool room =
      peer.renewals.take(clock_.mono_us()) &&
      pool_.submit([this, send, router = peer.router, renew = std::move(renew)] {
        auto reply = answer_renew(router, renew);
        on_loop([send, reply = std::move(reply)]() mutable { send(std::move(reply)); });
      });
  if (!room) send(std::move(busy));
}

}  // namespace sally::controller
