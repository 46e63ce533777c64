// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

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
    prev_->next_ = next_;
    next_->prev_ = prev_;
    next_ = prev_ = nullptr;
    deficit_ = 0;
  }
  Turn* next_ = nullptr;
  Turn* prev_ = nullptr;
  std::int64_t deficit_ = 0;
  bool fresh_ = true;
};

/// Deficit round robin: each waiting circuit sends up to a quantum of bytes, then the next one
/// does. Owner: a lane. Thread: its worker's. Cannot fail.
class DeficitRoundRobin {
 public:
  static constexpr std::int64_t kQuantum = 16384;

  DeficitRoundRobin() { head_.next_ = head_.prev_ = &head_; }
  ~DeficitRoundRobin() {
    while (head_.next_ != &head_) head_.next_->unlink();
    head_.next_ = head_.prev_ = nullptr;
  }
  DeficitRoundRobin(const DeficitRoundRobin&) = delete;
  DeficitRoundRobin& operator=(const DeficitRoundRobin&) = delete;

  /// Puts it at the end of the ring, unless it waits already.
  void add(Turn& turn) {
    if (turn.waiting()) return;
    turn.prev_ = head_.prev_;
    turn.next_ = &head_;
    head_.prev_->next_ = &turn;
    head_.prev_ = &turn;
    turn.deficit_ = 0;
    turn.fresh_ = true;
  }
  static void remove(Turn& turn) { turn.unlink(); }
  [[nodiscard]] bool empty() const { return head_.next_ == &head_; }

  /// Whose turn it is; nullptr when nobody waits.
  [[nodiscard]] Turn* current() {
    if (empty()) return nullptr;
    Turn* turn = head_.next_;
    if (turn->fresh_) {
      turn->deficit_ += kQuantum;
      turn->fresh_ = false;
    }
    return turn;
  }
  /// `turn`, the current one, has sent `bytes`; when its quantum is used up the next one is
  /// current.
  void charge(Turn& turn, std::size_t bytes) {
    turn.deficit_ -= static_cast<std::int64_t>(bytes);
    if (turn.deficit_ > 0 || !turn.waiting()) return;
    const std::int64_t debt = turn.deficit_;
    turn.unlink();
    add(turn);
    turn.deficit_ = debt;
  }

 private:
  Turn head_;
};

}  // namespace sally::fabric
