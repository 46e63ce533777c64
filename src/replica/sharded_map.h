// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sally::replica {

/// Rows by id, for tables that grow with the network: copies share all but the shard that changed,
/// so that one change costs the same with 100 rows and nearly the same with 100,000.
/// A value; copies are made by the owner's thread only, each is immutable where it is shared.
/// Never fails.
template <typename T>
class ShardedMap {
 public:
  ShardedMap() { shards_.fill(empty()); }
  ShardedMap(const ShardedMap& o) : shards_(o.shards_), size_(o.size_) { o.mine_.reset(); }
  ShardedMap& operator=(const ShardedMap& o) {
    if (this == &o) return *this;
    shards_ = o.shards_;
    size_ = o.size_;
    o.mine_.reset();
    mine_.reset();
    return *this;
  }
  ~ShardedMap() = default;

  [[nodiscard]] const T* find(std::string_view id) const {
    const Shard& shard = *shards_[place(id)];
    const auto it = shard.find(id);
    return it == shard.end() ? nullptr : &it->second;
  }
  [[nodiscard]] bool contains(std::string_view id) const { return find(id) != nullptr; }
  [[nodiscard]] std::size_t size() const { return size_; }
  void put(const std::string& id, T row) {
    if (change(place(id)).insert_or_assign(id, std::move(row)).second) ++size_;
  }
  /// Takes away the rows for which `f(row)`.
  template <typename F>
  void erase_if(F f) {
    for (std::size_t i = 0; i < kShards; ++i) {
      const auto gone = [&](const auto& row) { return f(row.second); };
      if (std::ranges::any_of(*shards_[i], gone)) size_ -= std::erase_if(change(i), gone);
    }
  }
  /// `f(id, row)` for all rows by id in byte order.
  template <typename F>
  void for_each(F f) const {
    std::vector<const typename Shard::value_type*> rows;
    rows.reserve(size_);
    for (const auto& shard : shards_)
      for (const auto& row : *shard) rows.push_back(&row);
    std::ranges::sort(rows, {}, [](const auto* row) -> const std::string& { return row->first; });
    for (const auto* row : rows) f(row->first, row->second);
  }
  /// `f(id)` for those whose rows differ between the two.
  template <typename F>
  static void for_each_difference(const ShardedMap& a, const ShardedMap& b, F f) {
    for (std::size_t i = 0; i < kShards; ++i) {
      if (a.shards_[i] == b.shards_[i]) continue;
      for (const auto& [id, row] : *a.shards_[i]) {
        const T* other = b.find(id);
        if (other == nullptr || !(row == *other)) f(id);
      }
      for (const auto& [id, row] : *b.shards_[i])
        if (!a.contains(id)) f(id);
    }
  }

 private:
  using Shard = std::map<std::string, T, std::less<>>;
  static constexpr std::size_t kShards = 512;
  static std::size_t place(std::string_view id) {
    return std::hash<std::string_view>{}(id) % kShards;
  }
  static const std::shared_ptr<Shard>& empty() {
    static const auto none = std::make_shared<Shard>();
    return none;
  }
  Shard& change(std::size_t at) {
    if (!mine_[at]) shards_[at] = std::make_shared<Shard>(*shards_[at]);
    mine_.set(at);
    return *shards_[at];
  }

  std::array<std::shared_ptr<Shard>, kShards> shards_;
  std::size_t size_ = 0;
  mutable std::bitset<kShards> mine_;  ///< no copy shares these
};

}  // namespace sally::replica
