// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/ids.h"
#include "loop/mailbox.h"
#include "wire/messages.h"

namespace sally::router {

class Crossing;
using CrossingPtr = std::shared_ptr<Crossing>;
/// Where a worker hears that a crossing has mail for it: at most one notice per crossing and end
/// waits.
using CrossingInbox = loop::Inbox<CrossingPtr>;

/// A circuit attempt whose two lanes live on different workers: what its halves tell each other.
/// Each end has one slot, in which everything that waits is merged: payloads into chunks as in a
/// HopOutlet, windows and acknowledgements into the newest. So what waits is bounded by the credit
/// of the circuit however busy the other worker is, and no end of a circuit can be lost. Bulk is
/// held back for a moment, so that one wake-up of the other worker serves several records. Owner:
/// both halves. Thread: any; one lock per slot, held for a few instructions. Never fails.
class Crossing final : public std::enable_shared_from_this<Crossing> {
 public:
  enum class End : std::uint8_t { kDialing, kHosting };
  static constexpr End other(End end) {
    return end == End::kDialing ? End::kHosting : End::kDialing;
  }

  /// To the hosting end: ask the host.
  struct Order {
    Bytes setup;
    Bytes route;
    std::uint32_t attempt = 0;
    std::uint32_t epoch = 0;
    std::string terminator;
  };
  /// To the dialing end: not this host.
  struct Refusal {
    wire::SetupCode code = wire::SetupCode::kNone;
    std::string hop;
    std::string text;
  };
  struct Mail {
    std::optional<Order> order;
    std::optional<Bytes> answer;  ///< sealed by the hosting end
    std::optional<Refusal> refusal;
    std::vector<ChunkPtr> chunks;  ///< without a home
    bool fin = false;
    std::optional<std::uint64_t> credit;
    std::vector<ChunkPtr> spares;  ///< as many as came from there: no pool runs dry
    std::optional<std::uint64_t> ack;
    std::optional<wire::Reset> reset;

    /// Empty again; the vector keeps its room.
    void clear();
  };

  Crossing(CircuitId id, ServiceId service, DeviceId dialer, CrossingInbox& dialing,
           CrossingInbox& hosting)
      : id_(id),
        service_(std::move(service)),
        dialer_(std::move(dialer)),
        slots_{Slot{dialing}, Slot{hosting}} {}
  Crossing(const Crossing&) = delete;
  Crossing& operator=(const Crossing&) = delete;

  [[nodiscard]] const CircuitId& id() const { return id_; }
  [[nodiscard]] const ServiceId& service() const { return service_; }
  [[nodiscard]] const DeviceId& dialer() const { return dialer_; }
  /// Which end the owner of `inbox` is.
  [[nodiscard]] End end_of(const CrossingInbox& inbox) const {
    return &slots_[0].inbox == &inbox ? End::kDialing : End::kHosting;
  }
  /// True for the first caller: a circuit that both ends cut counts once.
  [[nodiscard]] bool first_cut() { return !cut_.exchange(true, std::memory_order_relaxed); }

  /// Changes what waits for `to` by `change(Mail&)` and tells its worker, once until it takes it.
  template <typename F>
  void send(End to, F change) {
    Slot& slot = slots_[static_cast<std::size_t>(to)];
    bool first = false;
    {
      const std::lock_guard lock(slot.mutex);
      change(slot.mail);
      first = !std::exchange(slot.told, true);
    }
    if (first) slot.inbox.send(shared_from_this());
  }
  /// A payload that the sender's inlet has let in; `pool` is the sender's. True when from now on it
  /// is held back: still_held must be asked until it says no.
  [[nodiscard]] bool send_data(End to, ByteView payload, ChunkPtr* whole, ChunkPool& pool);
  struct Held {
    std::size_t chunks = 0;  ///< at the last look
    int unchanged = 0;
  };
  /// To be asked before and after each poll of the sender's loop. Once nothing has come in between,
  /// the other worker is told, and it is no longer held.
  [[nodiscard]] bool still_held(End to, Held& held);
  /// Swaps what waits for `at` with `mail`, which is empty.
  void take(End at, Mail& mail);

 private:
  struct Slot {
    CrossingInbox& inbox;
    std::mutex mutex{};
    Mail mail{};
    bool told = false;
    bool held = false;
  };
  const CircuitId id_;
  const ServiceId service_;
  const DeviceId dialer_;
  std::atomic<bool> cut_{false};
  std::array<Slot, 2> slots_;  // by End
};

}  // namespace sally::router
