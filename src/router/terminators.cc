// SPDX-License-Identifier: Apache-2.0
#include "router/terminators.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace sally::router {

void Terminators::forget(const lane::Lane* lane) {
  const auto it = of_lane_.find(lane);
  if (--it->second == 0) of_lane_.erase(it);
}

std::optional<std::string> Terminators::put(wire::Terminator record, unsigned worker,
                                            lane::Lane& lane) {
  const std::lock_guard lock(mutex_);
  const auto known = by_service_.find(record.service);
  if (known != by_service_.end()) {
    for (Entry& e : known->second) {
      if (e.record.device != record.device || e.record.instance != record.instance) continue;
      ++of_lane_[&lane];
      forget(e.at.lane);
      e.at.worker = worker;
      e.at.lane = &lane;
      record.id = e.at.id;  // circuits opened before count on it
      e.record = std::move(record);
      return e.at.id;
    }
  }
  std::size_t& used = of_lane_[&lane];
  if (used >= kMaxPerLane) return std::nullopt;
  ++used;
  Candidate at{.id = record.id,
               .service = record.service,
               .device = DeviceId(record.device),
               .instance = record.instance,
               .worker = worker,
               .lane = &lane,
               .load = std::make_shared<TerminatorLoad>()};
  auto& entries = by_service_[at.service];
  entries.push_back({.record = std::move(record), .at = std::move(at)});
  return entries.back().at.id;
}

bool Terminators::remove(const std::string& service, const wire::InstanceId& instance,
                         const lane::Lane& lane) {
  const std::lock_guard lock(mutex_);
  const auto known = by_service_.find(service);
  if (known == by_service_.end()) return false;
  const bool any = erase_from(known->second, [&](const Entry& e) {
    return e.at.lane == &lane && e.record.instance == instance;
  });
  if (known->second.empty()) by_service_.erase(known);
  return any;
}

bool Terminators::remove_lane(const lane::Lane& lane) {
  const std::lock_guard lock(mutex_);
  if (!of_lane_.contains(&lane)) return false;
  return erase_if([&](const Entry& e) { return e.at.lane == &lane; });
}

std::vector<Candidate> Terminators::choose(const std::string& service, Random& random) const {
  struct Ranked {
    std::tuple<std::uint32_t, std::uint64_t, std::uint64_t> rank;
    Candidate candidate;
  };
  std::vector<Ranked> found;
  {
    const std::lock_guard lock(mutex_);
    const auto known = by_service_.find(service);
    if (known == by_service_.end()) return {};
    for (const Entry& e : known->second)
      found.push_back({{e.record.precedence, e.record.cost + e.at.load->cost(), 0}, e.at});
  }
  for (auto& f : found) std::get<2>(f.rank) = random.u64();
  std::ranges::sort(found, {}, &Ranked::rank);
  std::vector<Candidate> out;
  out.reserve(found.size());
  for (auto& f : found) out.push_back(std::move(f.candidate));
  return out;
}

std::optional<Candidate> Terminators::find(const std::string& service,
                                           const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto known = by_service_.find(service);
  if (known == by_service_.end()) return std::nullopt;
  const auto it =
      std::ranges::find_if(known->second, [&](const Entry& e) { return e.at.id == id; });
  return it == known->second.end() ? std::nullopt : std::optional(it->at);
}

wire::Terminators Terminators::report() const {
  const std::lock_guard lock(mutex_);
  wire::Terminators out;
  for (const auto& [service, entries] : by_service_) {
    for (const Entry& e : entries) out.entries.push_back(e.record);
  }
  return out;
}

}  // namespace sally::router
