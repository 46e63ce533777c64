// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "lane/lane.h"
#include "router/accounts.h"
#include "router/foreign.h"
#include "trust/records.h"
#include "wire/messages.h"

namespace sally::router {

/// A device's connection: a lane, or a foreign end's channel. Owner: its worker. Thread: the
/// worker's.
struct Device {
  std::unique_ptr<lane::Lane> lane;  ///< one of the two
  std::unique_ptr<Foreign> foreign;
  [[nodiscard]] const tls::PeerIdentity& peer() const {
    return lane != nullptr ? lane->peer() : foreign->connection->peer();
  }
  [[nodiscard]] bool up() const { return lane != nullptr ? lane->up() : foreign->connection->up(); }
  [[nodiscard]] std::size_t circuits() const {
    return lane != nullptr ? lane->circuits() : foreign->connection->channel().conns();
  }
  void close(const Error& why) {
    lane != nullptr ? lane->close(why) : foreign->connection->close(why);
  }
  std::string id;
  Share share;                              ///< a lane of the device's account
  std::optional<trust::VerifiedCard> card;  ///< none yet, or dropped as stale
  Bytes card_envelope;
  /// Requests to the controller that are under way: a renewal and a session's may be at once. The
  /// last kMaxRenewals of them.
  static constexpr std::size_t kMaxRenewals = 4;
  std::vector<std::uint64_t> renewals;
  bool hears_renew_now = false;
  std::int64_t stale_since_ms = 0;  ///< the card's attributes are older than the state says
  wire::Hash services_hash{};       ///< of what was pushed last
  bool services_sent = false;
};

}  // namespace sally::router
