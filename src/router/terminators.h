// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/random.h"
#include "wire/messages.h"

namespace sally::lane {
class Lane;
}

namespace sally::router {

/// One place where a service is hosted: a device's instance behind a lane of this router.
struct LocalTerminator {
  wire::Terminator record;  ///< what the directory says of it, bind proof included
  lane::Lane* lane = nullptr;
  std::uint32_t circuits = 0;  ///< live now
  std::uint32_t failures = 0;  ///< dials refused in a row; a success clears it
};

/// Soft state: who hosts what at this router.
/// Owner: the router. Thread: the worker's. Failure: caps; a full table refuses.
class Terminators {
 public:
  static constexpr std::size_t kMaxPerLane = 1'000;

  /// Replaces the entry of the same service, device and instance. Null when the lane has too many.
  LocalTerminator* put(wire::Terminator record, lane::Lane& lane);
  bool remove(const std::string& service, const wire::InstanceId& instance, const lane::Lane& lane);
  /// All of a lane that is gone; true when there was one.
  bool remove_lane(const lane::Lane& lane);
  /// Calls `f(const LocalTerminator&)`; removes those for which it returns true. True when one was
  /// removed.
  template <typename F>
  bool remove_if(F f) {
    const auto n = std::erase_if(
        all_, [&](const auto& t) { return f(static_cast<const LocalTerminator&>(*t)); });
    return n != 0;
  }
  /// Candidates for a dial, best first: precedence, then cost with failures and live circuits, then
  /// by chance.
  [[nodiscard]] std::vector<LocalTerminator*> choose(const std::string& service,
                                                     Random& random) const;
  [[nodiscard]] LocalTerminator* find(const std::string& id) const;
  [[nodiscard]] wire::Terminators report() const;
  [[nodiscard]] std::size_t size() const { return all_.size(); }

 private:
  std::vector<std::unique_ptr<LocalTerminator>> all_;
};

}  // namespace sally::router
