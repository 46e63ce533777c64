// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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
class ForeignSide;
class HopSide;
struct Opening;
struct Asked;

/// One side of a circuit in a router: a connection of one of its ends, and what waits to leave on
/// it. Owner: a Circuit. Thread: the worker's.
class Side {
 public:
  explicit Side(Circuit& circuit) : circuit_(circuit) {}
  virtual ~Side() = default;
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;

  /// It stands on its connection.
  [[nodiscard]] virtual bool attached() const = 0;
  /// The outlet has something.
  virtual void wake() = 0;
  /// What came from here was passed on up to `forwarded`: more of it may come.
  virtual void grant(std::uint64_t forwarded) = 0;
  /// The end beyond the other side has everything up to here.
  virtual void pass_ack(std::uint64_t offset) = 0;
  virtual void set_class(wire::Class cls) = 0;
  /// The circuit is over: tells this end, and is off its connection. on_circuit_over is not called.
  virtual void end(wire::ResetCode code, const std::string& text) = 0;
  /// What waits has not moved since the last mark, or is of no use before more comes.
  [[nodiscard]] virtual bool stalled() const { return out_.stalled(); }
  /// Chunks that wait here.
  [[nodiscard]] virtual std::size_t chunks() const { return out_.queued_chunks(); }
  /// Null for a foreign end's.
  [[nodiscard]] virtual HopSide* on_lane() { return nullptr; }
  [[nodiscard]] virtual ForeignSide* foreign() { return nullptr; }

  [[nodiscard]] fabric::HopOutlet& outlet() { return out_; }

 protected:
  friend class Circuit;
  /// To the other side, here or on another worker; false: that has gone.
  bool pass_on(wire::Class cls, ByteView payload, ChunkPtr* whole);
  std::optional<fabric::HopOutlet::Piece> next_piece();
  void set_quantum(std::uint32_t bytes);
  [[nodiscard]] UsageCell* counted() const;

  Circuit& circuit_;
  fabric::HopOutlet out_;

 private:
  void tell_forwarded();
};

/// The lane to the dialing end, or the one to the host. Failure: a neighbour that breaks credit or
/// order loses its lane.
class HopSide final : public Side, public lane::Attachment {
 public:
  using Side::Side;

  // Side
  [[nodiscard]] bool attached() const override { return lane() != nullptr; }
  void wake() override;
  void grant(std::uint64_t forwarded) override;
  void pass_ack(std::uint64_t offset) override;
  void set_class(wire::Class cls) override { set_traffic_class(cls); }
  void end(wire::ResetCode code, const std::string& text) override;
  [[nodiscard]] HopSide* on_lane() override { return this; }

  // lane::Attachment
  Status on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) override;
  Status on_fin(std::uint64_t offset) override;
  void on_credit(std::uint64_t limit) override;
  Status on_ack(std::uint64_t offset) override;
  Status on_setup_ok(ByteView payload) override;
  void on_setup_err(const wire::SetupErr& err) override;
  void on_reset(const wire::Reset& reset) override;
  bool next_frame(Out& out) override;

 private:
  fabric::HopInlet in_;  // what comes from this lane
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
  /// A host's SDK has taken the call; `key` is its part of the encryption between the ends.
  virtual void on_foreign_answer(Circuit& circuit, Bytes key) = 0;
  /// The SDK that dials does not wait any more.
  virtual void on_dialer_gone(Circuit& circuit) = 0;
  /// Of what a foreign end sent, so much may wait for the other one.
  [[nodiscard]] virtual std::uint64_t most_waiting() const = 0;
  [[nodiscard]] virtual const ChunkBudget& budget() const = 0;
  /// The worker's.
  [[nodiscard]] virtual ChunkPool& pool() = 0;
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
  /// Null while it is not on a connection here.
  [[nodiscard]] Side* dialing() { return dialing_.get(); }
  [[nodiscard]] Side* hosting() { return hosting_.get(); }
  /// On a lane.
  HopSide& make_dialing();
  HopSide& make_hosting();
  void set_dialing(std::unique_ptr<Side> side) { dialing_ = std::move(side); }
  void set_hosting(std::unique_ptr<Side> side) { hosting_ = std::move(side); }
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
  /// The end here has gone, and what it sent is still on its way.
  void tell_gone();
  /// The end beyond has gone.
  [[nodiscard]] bool gone_beyond() const { return gone_beyond_; }
  /// Both have: nothing need be delivered.
  [[nodiscard]] bool abandoned() {
    const Side* side = end_ == Crossing::End::kDialing ? dialing_.get() : hosting_.get();
    return gone_beyond_ && open_ && side != nullptr && !side->attached();
  }
  /// No mail comes to it any more.
  void leave_crossing();
  /// Takes over what flows from the other half: chunks, FIN, credit, acknowledgement.
  void deliver(Crossing::Mail& mail);

  std::unique_ptr<Opening> opening;  ///< where the dialer's lane is, until open
  std::unique_ptr<Asked> asked;      ///< where the host's lane is, until it answered
  static constexpr std::size_t kNowhere = ~std::size_t{0};
  std::size_t place = kNowhere;  ///< in its worker's table

 private:
  friend class Side;
  friend class HopSide;
  /// Null: it is beyond, or not made yet.
  [[nodiscard]] Side* other(const Side& side) {
    return &side == dialing_.get() ? hosting_.get() : dialing_.get();
  }

  CircuitOwner& owner_;
  CircuitId id_;
  Share dialer_;
  CandidatePtr host_;
  std::unique_ptr<Side> dialing_;
  std::unique_ptr<Side> hosting_;
  UsageCell* usage_ = nullptr;
  CrossingPtr crossing_;
  std::uint32_t borrowed_ = 0;  // chunks that came from the other worker since it was told last
  Crossing::End end_ = Crossing::End::kDialing;
  bool open_ = false;
  bool told_end_ = false;
  bool gone_beyond_ = false;
};

}  // namespace sally::router
