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
#include "edge/channel.h"
#include "loop/mailbox.h"
#include "router/accounts.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace sally::router {

class Circuit;
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

  /// To the hosting end: ask the host. Of a foreign dialer there is a call, no set-up and no route.
  struct Order {
    CircuitId circuit;
    Share dialer;
    std::string service;
    Bytes setup;
    Bytes route;
    std::uint32_t attempt = 0;
    std::uint32_t epoch = 0;
    std::string terminator;
    std::unique_ptr<edge::Call> call{};
  };
  /// To the dialing end: not this host.
  struct Refusal {
    wire::SetupCode code = wire::SetupCode::kNone;
    std::string hop;
    std::string text;
  };
  struct Mail {
    std::optional<Order> order;
    std::optional<Bytes> answer;  ///< sealed by the hosting end; of a foreign host its key
    std::optional<Refusal> refusal;
    std::vector<ChunkPtr> chunks;            ///< let go by the sender's pool
    wire::Class cls = wire::Class::kNormal;  ///< of the last one
    bool fin = false;
    bool gone = false;  ///< a foreign end there has closed: what comes to it is dropped
    std::optional<std::uint64_t> forwarded;  ///< of what came from there
    std::vector<ChunkPtr> spares;            ///< as many as came from there: no pool runs dry
    std::optional<std::uint64_t> ack;
    std::optional<wire::Reset> reset;
  };
  using MailPtr = std::unique_ptr<Mail>;

  /// What is never taken leaves the budget with it.
  Crossing(CrossingInbox& dialing, CrossingInbox& hosting, ChunkBudget& budget)
      : budget_(budget), slots_{Slot{dialing}, Slot{hosting}} {}
  ~Crossing();
  Crossing(const Crossing&) = delete;
  Crossing& operator=(const Crossing&) = delete;

  /// The half at `end`; null when it is over. That end's thread only.
  [[nodiscard]] Circuit* half(End end) const { return halves_[index(end)]; }
  void set_half(End end, Circuit* half) { halves_[index(end)] = half; }
  /// How much the outlet at the other end should have passed on before it tells the inlet at
  /// `end`; set by that inlet.
  [[nodiscard]] std::uint32_t quantum(End end) const {
    return quanta_[index(end)].load(std::memory_order_relaxed);
  }
  void set_quantum(End end, std::uint32_t bytes) {
    quanta_[index(end)].store(bytes, std::memory_order_relaxed);
  }
  /// Which end the owner of `inbox` is.
  [[nodiscard]] End end_of(const CrossingInbox& inbox) const {
    return &slots_[0].inbox == &inbox ? End::kDialing : End::kHosting;
  }
  /// True for the first caller: a circuit that both ends cut counts once.
  [[nodiscard]] bool first_cut() { return !cut_.exchange(true, std::memory_order_relaxed); }

  /// Changes what waits for `to` by `change(Mail&)` and tells its worker, once until it takes it.
  template <typename F>
  void send(End to, F change) {
    Slot& slot = slots_[index(to)];
    bool first = false;
    {
      const std::lock_guard lock(slot.mutex);
      change(slot.open());
      first = !std::exchange(slot.told, true);
    }
    if (first) slot.inbox.send(shared_from_this());
  }
  /// A payload that the sender's inlet has let in; `pool` is the sender's. True when from now on it
  /// is held back: still_held must be asked until it says no.
  [[nodiscard]] bool send_data(End to, wire::Class cls, ByteView payload, ChunkPtr* whole,
                               ChunkPool& pool);
  struct Held {
    std::size_t chunks = 0;  ///< at the last look
    int unchanged = 0;
  };
  /// To be asked before and after each poll of the sender's loop. Once nothing has come in between,
  /// the other worker is told, and it is no longer held.
  [[nodiscard]] bool still_held(End to, Held& held);
  /// What waits for `at`; null when nothing does.
  [[nodiscard]] MailPtr take(End at);

 private:
  struct Slot {
    CrossingInbox& inbox;
    std::mutex mutex{};
    MailPtr mail{};  // none while idle
    bool told = false;
    bool held = false;
    Mail& open() {
      if (mail == nullptr) mail = std::make_unique<Mail>();
      return *mail;
    }
  };
  static constexpr std::size_t index(End end) { return static_cast<std::size_t>(end); }

  ChunkBudget& budget_;
  std::array<Circuit*, 2> halves_{};  // by End
  std::array<std::atomic<std::uint32_t>, 2> quanta_{4096, 4096};
  std::atomic<bool> cut_{false};
  std::array<Slot, 2> slots_;  // by End
};

}  // namespace sally::router
