// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/random.h"

namespace sally {

/// A name that cannot be mixed up with another kind of name. Text inside; empty means "none".
template <typename Tag>
class StrongId {
 public:
  StrongId() = default;
  explicit StrongId(std::string text) : text_(std::move(text)) {}
  [[nodiscard]] const std::string& str() const { return text_; }
  [[nodiscard]] bool empty() const { return text_.empty(); }
  friend auto operator<=>(const StrongId&, const StrongId&) = default;
  friend bool operator==(const StrongId&, const StrongId&) = default;

 private:
  std::string text_;
};

/// The network (tenant): its trust domain, for example "n-3f9a.sally".
using NetworkId = StrongId<struct NetworkTag>;
/// A device's, router's, controller's or service's id inside its network.
using DeviceId = StrongId<struct DeviceTag>;
using RouterId = StrongId<struct RouterTag>;
using ServiceId = StrongId<struct ServiceTag>;

/// 128 random bits that name a circuit for all its epochs.
struct CircuitId {
  std::array<std::uint8_t, 16> raw{};
  [[nodiscard]] std::string hex() const { return to_hex(raw); }
  friend auto operator<=>(const CircuitId&, const CircuitId&) = default;
};

}  // namespace sally

template <typename Tag>
struct std::hash<sally::StrongId<Tag>> {
  std::size_t operator()(const sally::StrongId<Tag>& id) const noexcept {
    return std::hash<std::string>{}(id.str());
  }
};
template <>
struct std::hash<sally::CircuitId> {
  /// Keyed by a secret of the process: whoever chooses circuit ids cannot choose where they fall.
  std::size_t operator()(const sally::CircuitId& id) const noexcept {
    __extension__ using Wide = unsigned __int128;
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    std::memcpy(&a, id.raw.data(), 8);
    std::memcpy(&b, id.raw.data() + 8, 8);
    const std::uint64_t secret = sally::hash_secret();
    const Wide product = Wide{a ^ secret} * (b ^ (secret << 32U | secret >> 32U));
    return static_cast<std::size_t>(product >> 64U) ^ static_cast<std::size_t>(product);
  }
};
