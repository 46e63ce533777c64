// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/ids.h"
#include "fabric/hop.h"
#include "lane/attachment.h"
#include "lane/lane.h"
#include "router/accounts.h"
#include "router/crossing.h"
#include "router/terminators.h"
#include "router/usage.h"
#include "wire/messages.h"

namespace sally::router {

class Circuit;
struct Opening;
struct Asked;

/// One side of a circuit in a router: the lane to the dialing end, or the one to the host.
/// Owner: a Circuit. Thread: the worker's. Failure: a neighbour that breaks credit or order loses
/// its lane.
class HopSide final : public lane::Attachment {
 public:
  explicit HopSide(Circuit& circuit) : circuit_(circuit) {}

  Status on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) override;
  Status on_fin(std::uint64_t offset) override;
  void on_credit(std::uint64_t limit) override;
  Status on_ack(std::uint64_t offset) override;
  Status on_setup_ok(ByteView payload) override;
  void on_setup_err(const wire::SetupErr& err) override;
  void on_reset(const wire::Reset& reset) override;
  bool next_frame(Out& out) override;

  [[nodiscard]] fabric::HopOutlet& outlet() { return out_; }

 private:
  friend class Circuit;
  void grant(std::uint64_t forwarded);
  void tell_forwarded();
  [[nodiscard]] UsageCell* counted() const;
  void wake();

  Circuit& circuit_;
  fabric::HopInlet in_;    // what comes from this lane
  fabric::HopOutlet out_;  // what waits to leave on it
};

/// What a circuit tells its worker.
class CircuitOwner {
 public:
  virtual ~CircuitOwner() = default;
  /// The host's answer to the SETUP (payload: SetupOkFrame). An error is the host's fault and
  /// closes its lane.
  virtual Status on_circuit_answer(Circuit& circuit, ByteView payload) = 0;
  virtual void on_circuit_refused(Circuit& circuit, const wire::SetupErr& err) = 0;
  /// Over on one side; the owner ends the other side and drops the circuit, not inside this call.
  virtual void on_circuit_over(Circuit& circuit, const wire::Reset& reset) = 0;
  /// See Crossing::still_held.
  virtual void on_crossing_held(const CrossingPtr& crossing, Crossing::End to) = 0;
  /// What decides about the next credit to whoever sends on `upstream`.
  [[nodiscard]] virtual fabric::WindowConditions window_conditions(
      const lane::Lane& upstream) const = 0;
  /// Data came while the router's memory is scarce.
  virtual void on_memory_scarce() = 0;
  [[nodiscard]] virtual const ChunkBudget& budget() const = 0;
};

/// A circuit through this router: two sides that hand frames to each other; or, where their lanes
/// live on different workers, one of two such objects, with one side each and a Crossing between
/// them. Idle it is small: what only its opening needs is gone by then, names are its neighbours'.
/// Owner: a worker's table. Thread: the worker's. Failure: any side's end is the end of both.
class Circuit {
 public:
  /// `dialer` counts as a circuit where the dialer's lane is, as nothing at the hosting half.
  Circuit(CircuitOwner& owner, CircuitId id, Share dialer);
  ~Circuit();
  Circuit(const Circuit&) = delete;
  Circuit& operator=(const Circuit&) = delete;

  [[nodiscard]] const CircuitId& id() const { return id_; }
  [[nodiscard]] const std::string& dialer() const { return dialer_.account().name(); }
  /// The host of the current attempt; null before the first one.
  [[nodiscard]] const CandidatePtr& host() const { return host_; }
  void set_host(CandidatePtr host) { host_ = std::move(host); }
  /// Null while it is not on a lane here.
  [[nodiscard]] HopSide* dialing() { return dialing_.get(); }
  [[nodiscard]] HopSide* hosting() { return hosting_.get(); }
  HopSide& make_dialing();
  HopSide& make_hosting();
  /// Where the dialer's side counts; the owner's. Null before it is open, and at a hosting half.
  [[nodiscard]] UsageCell* usage() const { return usage_; }
  void set_usage(UsageCell* cell) { usage_ = cell; }
  [[nodiscard]] CircuitOwner& owner() { return owner_; }
  [[nodiscard]] bool open() const { return open_; }
  /// Data may flow: what is here of the circuit is attached.
  void opened();

  /// Before anything flows: from now on only the side of `end` is here, the other one behind
  /// `crossing`. Null: both are here.
  void set_crossing(CrossingPtr crossing, Crossing::End end);
  [[nodiscard]] const CrossingPtr& crossing() const { return crossing_; }
  [[nodiscard]] Crossing::End end() const { return end_; }
  /// It stands for another worker's dialer.
  [[nodiscard]] bool hosting_half() const {
    return crossing_ != nullptr && end_ == Crossing::End::kHosting;
  }
  /// Tells the half on the other worker that the circuit is over; once, later calls do nothing.
  void end_beyond(wire::ResetCode code, const std::string& text = {});
  /// The other half has ended by itself: nothing needs to be told.
  void ended_beyond() { told_end_ = true; }
  /// No mail comes to it any more.
  void leave_crossing();
  /// Takes over what flows from the other half: chunks, FIN, credit, acknowledgement.
  void deliver(Crossing::Mail& mail);

  std::unique_ptr<Opening> opening;  ///< where the dialer's lane is, until open
  std::unique_ptr<Asked> asked;      ///< where the host's lane is, until it answered
  static constexpr std::size_t kNowhere = ~std::size_t{0};
  std::size_t place = kNowhere;  ///< in its worker's table

 private:
  friend class HopSide;
  /// Null: it is beyond, or not made yet.
  [[nodiscard]] HopSide* other(const HopSide& side) {
    return &side == dialing_.get() ? hosting_.get() : dialing_.get();
  }

  CircuitOwner& owner_;
  CircuitId id_;
  Share dialer_;
  CandidatePtr host_;
  std::unique_ptr<HopSide> dialing_;
  std::unique_ptr<HopSide> hosting_;
  UsageCell* usage_ = nullptr;
  CrossingPtr crossing_;
  std::uint32_t borrowed_ = 0;  // chunks that came from the other worker since it was told last
  Crossing::End end_ = Crossing::End::kDialing;
  bool open_ = false;
  bool told_end_ = false;
};

}  // namespace sally::router
