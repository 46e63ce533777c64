// SPDX-License-Identifier: Apache-2.0
#include "router/terminators.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace sally::router {

void Terminators::forget(const Device* connection, const std::string& device) {
  const auto it = on_.find(connection);
  if (--it->second == 0) on_.erase(it);
  const auto own = of_device_.find(device);
  if (--own->second == 0) of_device_.erase(own);
  --size_;
}

std::optional<std::string> Terminators::put(wire::Terminator record, unsigned worker, Device& on,
                                            std::optional<ForeignBinding> foreign,
                                            CandidatePtr* before) {
  const std::lock_guard lock(mutex_);
  const auto known = by_service_.find(record.service);
  if (known != by_service_.end()) {
    for (Entry& e : known->second) {
      if (e.record.device != record.device || e.record.instance != record.instance) continue;
      if (before != nullptr) *before = e.at;
      if (const auto old = on_.find(e.at->on); --old->second == 0) on_.erase(old);
      ++on_[&on];
      Candidate at = *e.at;  // with its id and load: circuits opened before count on them
      at.worker = worker;
      at.on = &on;
      at.foreign = std::move(foreign);
      e.at = std::make_shared<const Candidate>(std::move(at));
      record.id = e.at->id;
      e.record = std::move(record);
      return e.at->id;
    }
  }
  if (const auto own = of_device_.find(record.device);
      own != of_device_.end() && own->second >= kMaxPerDevice)
    return std::nullopt;
  ++of_device_[record.device];
  ++on_[&on];
  ++size_;
  Candidate at{.id = record.id,
               .service = record.service,
               .device = DeviceId(record.device),
               .instance = record.instance,
               .worker = worker,
               .on = &on,
               .foreign = std::move(foreign),
               .load = std::make_shared<TerminatorLoad>()};
  auto& entries = by_service_[at.service];
  entries.push_back(
      {.record = std::move(record), .at = std::make_shared<const Candidate>(std::move(at))});
  return entries.back().at->id;
}

bool Terminators::remove(const std::string& service, const wire::InstanceId& instance,
                         const Device& on) {
  const std::lock_guard lock(mutex_);
  const auto known = by_service_.find(service);
  if (known == by_service_.end()) return false;
  const bool any = erase_from(known->second, [&](const Entry& e) {
    return e.at->on == &on && e.record.instance == instance;
  });
  if (known->second.empty()) by_service_.erase(known);
  return any;
}

bool Terminators::remove_all(const Device& on) {
  const std::lock_guard lock(mutex_);
  if (!on_.contains(&on)) return false;
  return erase_if([&](const Entry& e) { return e.at->on == &on; });
}

std::vector<CandidatePtr> Terminators::choose(const std::string& service, Random& random) const {
  struct Ranked {
    std::tuple<std::uint32_t, std::uint64_t, std::uint64_t> rank;
    CandidatePtr candidate;
  };
  std::vector<Ranked> found;
  {
    const std::lock_guard lock(mutex_);
    const auto known = by_service_.find(service);
    if (known == by_service_.end()) return {};
    for (const Entry& e : known->second)
      found.push_back({{e.record.precedence, e.record.cost + e.at->load->cost(), 0}, e.at});
  }
  for (auto& f : found) std::get<2>(f.rank) = random.u64();
  std::ranges::sort(found, {}, &Ranked::rank);
  std::vector<CandidatePtr> out;
  out.reserve(found.size());
  for (auto& f : found) out.push_back(std::move(f.candidate));
  return out;
}

CandidatePtr Terminators::find(const std::string& service, const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto known = by_service_.find(service);
  if (known == by_service_.end()) return nullptr;
  const auto it =
      std::ranges::find_if(known->second, [&](const Entry& e) { return e.at->id == id; });
  return it == known->second.end() ? nullptr : it->at;
}

wire::Terminators Terminators::report() const {
  const std::lock_guard lock(mutex_);
  wire::Terminators out;
  std::size_t bytes = 0;
  for (const auto& [service, entries] : by_service_) {
    for (const Entry& e : entries) {
      constexpr std::size_t kOverhead = 64;
      bytes += kOverhead + e.record.id.size() + e.record.service.size() + e.record.device.size() +
               e.record.router.size() + e.record.proof.size() + e.record.leaf.size() +
               e.record.issuing.size();
      if (bytes > kMaxReport) return out;
      out.entries.push_back(e.record);
    }
  }
  return out;
}

std::size_t Terminators::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

}  // namespace sally::router
