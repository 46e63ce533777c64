// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/random.h"
#include "wire/messages.h"

namespace sally::router {

struct Device;

/// What is going on at one terminator: counted by the workers that dial it.
/// Owner: shared by its entry and its circuits. Thread: any. Never fails.
class TerminatorLoad {
 public:
  void opened() {
    circuits_.fetch_add(1, std::memory_order_relaxed);
    failures_.store(0, std::memory_order_relaxed);
  }
  void closed() { circuits_.fetch_sub(1, std::memory_order_relaxed); }
  /// A dial was refused; a success clears them.
  void failed() { failures_.fetch_add(1, std::memory_order_relaxed); }
  /// What the load adds to the cost.
  [[nodiscard]] std::uint64_t cost() const {
    return std::uint64_t{20} * failures_.load(std::memory_order_relaxed) +
           std::uint64_t{2} * circuits_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint32_t> circuits_{0};  // live now
  std::atomic<std::uint32_t> failures_{0};  // in a row
};

/// Of a foreign host: what its SDK knows the binding by.
struct ForeignBinding {
  std::uint32_t conn = 0;
  std::string instance;  ///< by which a dial may ask for it; empty: it has no name
};

/// One place where a service is hosted, as a dial sees it. Immutable; a binding that changes is
/// another one.
struct Candidate {
  std::string id;
  std::string service;
  DeviceId device;
  wire::InstanceId instance{};
  unsigned worker = 0;   ///< whose the host's connection is
  Device* on = nullptr;  ///< that worker's thread only, and only until it removes the connection
  std::optional<ForeignBinding> foreign;
  std::shared_ptr<TerminatorLoad> load;
};
using CandidatePtr = std::shared_ptr<const Candidate>;

/// Soft state: who hosts what at this router, on which worker.
/// Owner: the router. Thread: any; one lock, held while the terminators of one service are ranked,
/// or one pass over all when a connection goes, a policy changes or the list is reported. A worker
/// adds and removes what stands on its own connections only. Failure: caps; a device with too many
/// is refused.
class Terminators {
 public:
  static constexpr std::size_t kMaxPerDevice = 1'000;
  /// Bytes of a report, below what a control message may have.
  static constexpr std::size_t kMaxReport = std::size_t{6} << 20U;

  /// Replaces the entry of the same service, device and instance, whichever connection has it
  /// (`before`), and keeps its id. The entry's id; none when the device has too many, on all of
  /// them.
  std::optional<std::string> put(wire::Terminator record, unsigned worker, Device& on,
                                 std::optional<ForeignBinding> foreign = std::nullopt,
                                 CandidatePtr* before = nullptr);
  bool remove(const std::string& service, const wire::InstanceId& instance, const Device& on);
  /// All of a connection that is gone; true when there was one.
  bool remove_all(const Device& on);
  /// Those of `worker`'s connections for which `f(const Candidate&)`, which must not come back
  /// here, is true. True when one was removed.
  template <typename F>
  bool remove_if(unsigned worker, F f) {
    const std::lock_guard lock(mutex_);
    return erase_if([&](const Entry& e) { return e.at->worker == worker && f(*e.at); });
  }
  /// Candidates for a dial, best first: precedence, then cost with failures and live circuits, then
  /// by chance.
  [[nodiscard]] std::vector<CandidatePtr> choose(const std::string& service, Random& random) const;
  [[nodiscard]] CandidatePtr find(const std::string& service, const std::string& id) const;
  /// As many as one report may carry; the rest is not listed at the controller, and dialed all the
  /// same.
  [[nodiscard]] wire::Terminators report() const;
  [[nodiscard]] std::size_t size() const;

 private:
  struct Entry {
    wire::Terminator record;  ///< what the directory says of it, bind proof included
    CandidatePtr at;
  };
  template <typename F>
  bool erase_if(F f) {
    bool any = false;
    for (auto it = by_service_.begin(); it != by_service_.end();) {
      any |= erase_from(it->second, f);
      it = it->second.empty() ? by_service_.erase(it) : std::next(it);
    }
    return any;
  }
  template <typename F>
  bool erase_from(std::vector<Entry>& entries, F f) {
    const auto n = std::erase_if(entries, [&](const Entry& e) {
      if (!f(e)) return false;
      forget(e.at->on, e.record.device);
      return true;
    });
    return n != 0;
  }
  void forget(const Device* on, const std::string& device);

  mutable std::mutex mutex_;  // all below
  std::unordered_map<std::string, std::vector<Entry>> by_service_;
  std::unordered_map<const Device*, std::size_t> on_;
  std::unordered_map<std::string, std::size_t> of_device_;
  std::size_t size_ = 0;
};

}  // namespace sally::router
