// SPDX-License-Identifier: Apache-2.0
#include "router/terminators.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace sally::router {

LocalTerminator* Terminators::put(wire::Terminator record, lane::Lane& lane) {
  std::size_t of_lane = 0;
  for (const auto& t : all_) {
    if (t->record.service == record.service && t->record.device == record.device &&
        t->record.instance == record.instance) {
      record.id = std::move(t->record.id);  // circuits opened before count on it
      t->record = std::move(record);
      t->lane = &lane;
      return t.get();
    }
    of_lane += t->lane == &lane ? 1 : 0;
  }
  if (of_lane >= kMaxPerLane) return nullptr;
  all_.push_back(std::make_unique<LocalTerminator>(
      LocalTerminator{.record = std::move(record), .lane = &lane}));
  return all_.back().get();
}

bool Terminators::remove(const std::string& service, const wire::InstanceId& instance,
                         const lane::Lane& lane) {
  return remove_if([&](const LocalTerminator& t) {
    return t.lane == &lane && t.record.service == service && t.record.instance == instance;
  });
}

bool Terminators::remove_lane(const lane::Lane& lane) {
  return remove_if([&](const LocalTerminator& t) { return t.lane == &lane; });
}

std::vector<LocalTerminator*> Terminators::choose(const std::string& service,
                                                  Random& random) const {
  struct Candidate {
    std::tuple<std::uint32_t, std::uint64_t, std::uint64_t> rank;
    LocalTerminator* terminator;
  };
  std::vector<Candidate> found;
  for (const auto& t : all_) {
    if (t->record.service != service) continue;
    const std::uint64_t cost =
        t->record.cost + std::uint64_t{20} * t->failures + std::uint64_t{2} * t->circuits;
    found.push_back({{t->record.precedence, cost, random.u64()}, t.get()});
  }
  std::ranges::sort(found, {}, &Candidate::rank);
  std::vector<LocalTerminator*> out;
  out.reserve(found.size());
  for (const auto& c : found) out.push_back(c.terminator);
  return out;
}

LocalTerminator* Terminators::find(const std::string& id) const {
  const auto it = std::ranges::find_if(all_, [&](const auto& t) { return t->record.id == id; });
  return it == all_.end() ? nullptr : it->get();
}

wire::Terminators Terminators::report() const {
  wire::Terminators out;
  for (const auto& t : all_) out.entries.push_back(t->record);
  return out;
}

}  // namespace sally::router
