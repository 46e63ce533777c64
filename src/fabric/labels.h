// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sally::fabric {

/// Dense table from the labels we gave out on a lane to what they stand for. Label 0 is the lane
/// itself. Owner: a lane. Thread: its worker's. Failure: allocate returns 0 when the cap is
/// reached. The pointers are not owned.
template <typename T>
class LabelTable {
 public:
  explicit LabelTable(std::size_t cap) : cap_(cap) {}

  [[nodiscard]] std::uint32_t allocate(T* what) {
    if (!free_.empty()) {
      const std::uint32_t label = free_.back();
      free_.pop_back();
      slots_[label - 1] = what;
      ++used_;
      return label;
    }
    if (slots_.size() >= cap_) return 0;
    slots_.push_back(what);
    ++used_;
    return static_cast<std::uint32_t>(slots_.size());
  }
  [[nodiscard]] T* find(std::uint32_t label) const {
    return label == 0 || label > slots_.size() ? nullptr : slots_[label - 1];
  }
  /// True for a label that was given out at least once: a late frame for it is harmless.
  [[nodiscard]] bool known(std::uint32_t label) const {
    return label != 0 && label <= slots_.size();
  }
  void release(std::uint32_t label) {
    if (find(label) == nullptr) return;
    slots_[label - 1] = nullptr;
    free_.push_back(label);
    --used_;
  }
  /// The label stays given out, but stands for something else.
  void replace(std::uint32_t label, T* what) {
    if (find(label) != nullptr) slots_[label - 1] = what;
  }
  [[nodiscard]] std::size_t used() const { return used_; }
  /// The highest label ever given out.
  [[nodiscard]] std::uint32_t highest() const { return static_cast<std::uint32_t>(slots_.size()); }
  template <typename F>
  void for_each(F f) const {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i] != nullptr) f(static_cast<std::uint32_t>(i + 1), slots_[i]);
    }
  }

 private:
  std::size_t cap_;
  std::size_t used_ = 0;
  std::vector<T*> slots_;
  std::vector<std::uint32_t> free_;
};

}  // namespace sally::fabric
