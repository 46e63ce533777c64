// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace sally::metrics {

/// A number that only grows. Owned by the object it counts for. One thread adds, any thread reads:
/// no lock and no locked instruction, so that it may stand on the data path. Never fails.
class Counter {
 public:
  void add(std::uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// Times in buckets from 0.5 ms to 10 s. Owned by the object it measures. Any thread; not for what
/// happens per frame. Never fails.
class Latency {
 public:
  static constexpr std::array<double, 14> kBounds = {
      0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
  void observe_us(std::int64_t us);

  struct Values {
    std::array<std::uint64_t, kBounds.size() + 1> buckets{};  ///< the last one: more than that
    std::uint64_t sum_us = 0;
    void add(const Values& other);
  };
  [[nodiscard]] Values values() const;

 private:
  std::array<std::atomic<std::uint64_t>, kBounds.size() + 1> buckets_{};
  std::atomic<std::uint64_t> sum_us_{0};
};

using Label = std::pair<std::string_view, std::string_view>;
using Labels = std::initializer_list<Label>;

/// Writes the Prometheus text format 0.0.4. Owned by whoever answers a scrape; one thread. A family
/// begins with counter(), gauge() or histogram(), its samples follow at once. Names are constant
/// text; label values are escaped. Never fails.
class Text {
 public:
  Text& counter(std::string_view name, std::string_view help);
  Text& gauge(std::string_view name, std::string_view help);
  Text& histogram(std::string_view name, std::string_view help);
  Text& value(std::uint64_t v, Labels labels = {});
  /// A number with a fraction.
  Text& real(double v, Labels labels = {});
  Text& latency(const Latency::Values& v, Labels labels = {});
  [[nodiscard]] std::string take() { return std::exchange(out_, {}); }

  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  void family(std::string_view name, std::string_view help, std::string_view type);
  void sample(std::string_view suffix, Labels labels, Label more, std::string_view number);
  std::string out_;
  std::string name_;
};

/// What every program says of itself: build, start, CPU, memory, descriptors, log lines. From
/// /proc/self; a figure that cannot be read is left out.
void write_process(Text& out, std::string_view program, std::string_view version);

/// Of this process; 0 where /proc does not say.
struct ProcessFigures {
  std::uint64_t cpu_us = 0;
  std::uint64_t rss_bytes = 0;
  std::uint64_t open_fds = 0;
};
ProcessFigures process_figures();

}  // namespace sally::metrics
