// SPDX-License-Identifier: Apache-2.0
// What a run of the load generator measures around itself: CPU of named processes, of itself and of
// everybody else, and a JSON line of the result.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sally::bench {

/// CPU time of processes and of the machine at one moment. Value; any thread; a process that is
/// gone counts as 0.
struct CpuSample {
  static CpuSample now(const std::vector<pid_t>& watched);
  std::chrono::steady_clock::time_point at;
  std::vector<double> watched_s;  ///< of each watched process, all its threads
  double own_s = 0;
  double busy_s = 0;  ///< the whole machine, steal not counted
  double steal_s = 0;
};

/// One JSON object, built field by field. Value; never fails.
class Json {
 public:
  Json& add(std::string_view name, double value);
  Json& add(std::string_view name, std::uint64_t value);
  Json& add(std::string_view name, std::string_view value);
  Json& add(std::string_view name, const std::vector<double>& values);
  [[nodiscard]] std::string text() const { return text_ + "}"; }

 private:
  void name(std::string_view n);
  std::string text_ = "{";
};

/// Adds seconds, cpu (per watched process), own_cpu, foreign (share of all cores) and steal.
void add_cpu(Json& json, const CpuSample& from, const CpuSample& to);

/// Value at the share `q` of the sorted values; 0 of none.
double quantile(std::vector<double> values, double q);

/// "1,2,3" to process ids.
std::vector<pid_t> pid_list(const std::string& text);
std::vector<std::string> text_list(const std::string& text);

}  // namespace sally::bench
