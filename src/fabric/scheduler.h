// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace sally::fabric {

/// What takes turns on a lane. Embedded in the attachment of a circuit; leaves the ring when
/// destroyed.
class Turn {
 public:
  Turn() = default;
  virtual ~Turn() { unlink(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  [[nodiscard]] bool waiting() const { return next_ != nullptr; }

 private:
  friend class DeficitRoundRobin;
  void unlink() {
    if (next_ == nullptr) return;
    prev_->next_ = next_;  // NOLINT(clang-analyzer-core.NullDereference): both or none
    next_->prev_ = prev_;
    next_ = prev_ = nullptr;
  }
  void link_before(Turn& at) {
    prev_ = at.prev_;
    next_ = &at;
    at.prev_->next_ = this;
    at.prev_ = this;
  }
  Turn* next_ = nullptr;
  Turn* prev_ = nullptr;
  std::int32_t deficit_ = 0;
  bool fresh_ : 1 = false;   // its quantum is still to come
  bool sparse_ : 1 = false;  // in the ring of those
};

/// Deficit round robin: each waiting circuit sends up to its quantum of bytes, then the next one
/// does. Who had nothing to send for a whole round goes first, for one quantum: a keystroke does
/// not wait behind bulk, whatever it says of itself (the sparse flows of RFC 8290, section 4.1).
/// Owner: a lane. Thread: its worker's. Cannot fail.
class DeficitRoundRobin {
 public:
  static constexpr std::int32_t kQuantum = 16384;

  DeficitRoundRobin() {
    for (Turn* ring : {&sparse_, &busy_}) ring->next_ = ring->prev_ = ring;
  }
  ~DeficitRoundRobin() {
    for (Turn* ring : {&sparse_, &busy_}) {
      while (ring->next_ != ring) ring->next_->unlink();
      ring->next_ = ring->prev_ = nullptr;
    }
  }
  DeficitRoundRobin(const DeficitRoundRobin&) = delete;
  DeficitRoundRobin& operator=(const DeficitRoundRobin&) = delete;

  /// It has something to send.
  void add(Turn& turn) {
    if (turn.waiting()) return;
    turn.link_before(sparse_);
    turn.sparse_ = turn.fresh_ = true;
    turn.deficit_ = 0;
  }
  static void remove(Turn& turn) { turn.unlink(); }
  [[nodiscard]] bool empty() const { return sparse_.next_ == &sparse_ && busy_.next_ == &busy_; }

  /// Whose turn it is; nullptr when nobody waits. `quantum(Turn&)`: what it may send in a round.
  template <typename F>
  [[nodiscard]] Turn* current(F quantum) {
    for (;;) {
      Turn* turn = sparse_.next_ != &sparse_ ? sparse_.next_ : busy_.next_;
      if (turn == &busy_) return nullptr;
      if (turn->fresh_) turn->deficit_ += quantum(*turn);
      turn->fresh_ = false;
      if (turn->deficit_ > 0) return turn;
      to_end(*turn);  // still in debt
    }
  }
  /// `turn`, the current one, has sent `bytes`; when its quantum is used up the next one is
  /// current.
  void charge(Turn& turn, std::size_t bytes) {
    turn.deficit_ -= static_cast<std::int32_t>(bytes);
    if (turn.deficit_ <= 0 && turn.waiting()) to_end(turn);
  }
  /// `turn`, the current one, has nothing to send. A sparse one waits for a round before it may be
  /// that again.
  void nothing(Turn& turn) {
    turn.deficit_ = 0;
    if (turn.sparse_) {
      to_end(turn);
    } else {
      turn.unlink();
    }
  }

 private:
  void to_end(Turn& turn) {
    turn.unlink();
    turn.link_before(busy_);
    turn.sparse_ = false;
    turn.fresh_ = true;
  }
  Turn sparse_;
  Turn busy_;
};

}  // namespace sally::fabric
