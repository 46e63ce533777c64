// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "base/error.h"
#include "fabric/windows.h"

namespace sally::fabric {

/// One end of a circuit: both windows and the orderly end. It knows nothing of lanes, TLS or time.
///
/// Each direction ends with a FIN, acknowledged like one more byte. When both directions are over,
/// the dialing end sends RESET (code none), the other end answers it, and the labels are free.
/// Owner: an SDK circuit. Thread: its worker's. Failure: an error of on_* is the peer's and closes
/// the lane.
class CircuitEnd {
 public:
  enum class Role : std::uint8_t { kDialer, kHost };

  explicit CircuitEnd(Role role) : role_(role) {}

  [[nodiscard]] SendWindow& send() { return send_; }
  [[nodiscard]] RecvWindow& recv() { return recv_; }
  [[nodiscard]] const SendWindow& send() const { return send_; }
  [[nodiscard]] const RecvWindow& recv() const { return recv_; }

  /// CREDIT and ACK that are due; `flush` also those that could still wait.
  struct Due {
    std::optional<std::uint64_t> credit;
    std::optional<std::uint64_t> ack;
  };
  /// `now()` gives the WindowConditions.
  template <typename F>
  [[nodiscard]] Due take_due(bool flush, F now) {
    return {recv_.credit_due() ? recv_.take_credit(now()) : std::nullopt, recv_.take_ack(flush)};
  }

  /// Both directions are over and acknowledged.
  [[nodiscard]] bool finished() const { return send_.fin_acked() && recv_.fin_ack_sent(); }
  /// True once, at the dialing end, when it is time for the orderly RESET.
  [[nodiscard]] bool take_orderly_reset() {
    if (role_ != Role::kDialer || !finished() || reset_taken_) return false;
    reset_taken_ = true;
    return true;
  }

 private:
  SendWindow send_;
  RecvWindow recv_;
  Role role_;
  bool reset_taken_ = false;
};

}  // namespace sally::fabric
