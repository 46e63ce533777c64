// SPDX-License-Identifier: Apache-2.0
#include "measure.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iterator>

namespace sally::bench {
namespace {

double seconds(const timespec& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

double cpu_of(pid_t pid) {
  clockid_t clock{};
  timespec t{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &t) != 0) return 0;
  return seconds(t);
}

}  // namespace

CpuSample CpuSample::now(const std::vector<pid_t>& watched) {
  CpuSample s;
  s.at = std::chrono::steady_clock::now();
  for (const pid_t pid : watched) s.watched_s.push_back(cpu_of(pid));
  timespec own{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
  s.own_s = seconds(own);
  if (std::FILE* f = std::fopen("/proc/stat", "re")) {
    unsigned long long user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0,
                       steal = 0;
    if (std::fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle,
                    &wait, &irq, &soft, &steal) == 8) {
      const auto hz = static_cast<double>(::sysconf(_SC_CLK_TCK));
      s.busy_s = static_cast<double>(user + nice + system + irq + soft) / hz;
      s.steal_s = static_cast<double>(steal) / hz;
    }
    std::fclose(f);
  }
  return s;
}

void Json::name(std::string_view n) {
  if (text_.size() > 1) text_ += ",";
  fmt::format_to(std::back_inserter(text_), "\"{}\":", n);
}
Json& Json::add(std::string_view n, double value) {
  name(n);
  fmt::format_to(std::back_inserter(text_), "{:.9g}", value);
  return *this;
}
Json& Json::add(std::string_view n, std::uint64_t value) {
  name(n);
  fmt::format_to(std::back_inserter(text_), "{}", value);
  return *this;
}
Json& Json::add(std::string_view n, std::string_view value) {
  name(n);
  fmt::format_to(std::back_inserter(text_), "\"{}\"", value);
  return *this;
}
Json& Json::add(std::string_view n, const std::vector<double>& values) {
  name(n);
  text_ += "[";
  for (std::size_t i = 0; i < values.size(); ++i)
    fmt::format_to(std::back_inserter(text_), "{}{:.9g}", i == 0 ? "" : ",", values[i]);
  text_ += "]";
  return *this;
}

void add_cpu(Json& json, const CpuSample& from, const CpuSample& to) {
  const double wall = std::chrono::duration<double>(to.at - from.at).count();
  const auto cores = static_cast<double>(::sysconf(_SC_NPROCESSORS_ONLN));
  std::vector<double> cpu;
  double ours = to.own_s - from.own_s;
  for (std::size_t i = 0; i < from.watched_s.size(); ++i) {
    cpu.push_back(to.watched_s[i] - from.watched_s[i]);
    ours += cpu.back();
  }
  json.add("seconds", wall)
      .add("cpu", cpu)
      .add("own_cpu", to.own_s - from.own_s)
      .add("foreign", std::max(0.0, to.busy_s - from.busy_s - ours) / (wall * cores))
      .add("steal", (to.steal_s - from.steal_s) / (wall * cores));
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}

std::vector<std::string> text_list(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    out.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

std::vector<pid_t> pid_list(const std::string& text) {
  std::vector<pid_t> out;
  for (const auto& t : text_list(text)) out.push_back(std::atoi(t.c_str()));
  return out;
}

}  // namespace sally::bench
