// SPDX-License-Identifier: Apache-2.0
#include "base/metrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

namespace sally::metrics {
namespace {

std::string number(double v) {
  return fmt::format("{:.9g}", v);
}

void escape(std::string& out, std::string_view text, bool quote) {
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quote) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
}

// When this program was started, near enough: its statics are made before main.
const std::int64_t start_ms = system_clock().unix_ms();

}  // namespace

void Latency::observe_us(std::int64_t us) {
  if (us < 0) us = 0;
  const double s = static_cast<double>(us) / 1e6;
  std::size_t i = 0;
  while (i < kBounds.size() && s > kBounds[i]) ++i;
  buckets_[i].fetch_add(1, std::memory_order_relaxed);
  sum_us_.fetch_add(static_cast<std::uint64_t>(us), std::memory_order_relaxed);
}

Latency::Values Latency::values() const {
  Values v;
  for (std::size_t i = 0; i < buckets_.size(); ++i)
    v.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
  v.sum_us = sum_us_.load(std::memory_order_relaxed);
  return v;
}

void Latency::Values::add(const Values& other) {
  for (std::size_t i = 0; i < buckets.size(); ++i) buckets[i] += other.buckets[i];
  sum_us += other.sum_us;
}

void Text::family(std::string_view name, std::string_view help, std::string_view type) {
  name_ = name;
  out_ += "# HELP ";
  out_ += name;
  out_ += ' ';
  escape(out_, help, false);
  out_ += "\n# TYPE ";
  out_ += name;
  out_ += ' ';
  out_ += type;
  out_ += '\n';
}
Text& Text::counter(std::string_view name, std::string_view help) {
  family(name, help, "counter");
  return *this;
}
Text& Text::gauge(std::string_view name, std::string_view help) {
  family(name, help, "gauge");
  return *this;
}
Text& Text::histogram(std::string_view name, std::string_view help) {
  family(name, help, "histogram");
  return *this;
}

void Text::sample(std::string_view suffix, Labels labels, Label more, std::string_view value) {
  out_ += name_;
  out_ += suffix;
  char before = '{';
  const auto label = [&](const Label& l) {
    out_ += before;
    out_ += l.first;
    out_ += "=\"";
    // A value that is no text would spoil the whole scrape.
    escape(out_, printable_utf8(l.second) ? l.second : std::string_view("?"), true);
    out_ += '"';
    before = ',';
  };
  for (const auto& l : labels) label(l);
  if (!more.first.empty()) label(more);
  if (before == ',') out_ += '}';
  out_ += ' ';
  out_ += value;
  out_ += '\n';
}

Text& Text::value(std::uint64_t v, Labels labels) {
  sample("", labels, {}, std::to_string(v));
  return *this;
}
Text& Text::real(double v, Labels labels) {
  sample("", labels, {}, number(v));
  return *this;
}
Text& Text::latency(const Latency::Values& v, Labels labels) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < v.buckets.size(); ++i) {
    sum += v.buckets[i];
    const std::string le = i < Latency::kBounds.size() ? number(Latency::kBounds[i]) : "+Inf";
    sample("_bucket", labels, {"le", le}, std::to_string(sum));
  }
  sample("_sum", labels, {}, number(static_cast<double>(v.sum_us) / 1e6));
  sample("_count", labels, {}, std::to_string(sum));
  return *this;
}

ProcessFigures process_figures() {
  ProcessFigures f;
  rusage use{};
  if (::getrusage(RUSAGE_SELF, &use) == 0) {
    const auto us = [](const timeval& t) {
      return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000 +
             static_cast<std::uint64_t>(t.tv_usec);
    };
    f.cpu_us = us(use.ru_utime) + us(use.ru_stime);
  }
  if (const int fd = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC); fd >= 0) {
    std::array<char, 128> text{};
    const auto n = ::read(fd, text.data(), text.size());
    ::close(fd);
    if (n > 0) {
      const auto parts = split({text.data(), static_cast<std::size_t>(n)}, ' ');
      const auto pages = parts.size() > 1 ? parse_u64(parts[1]) : std::nullopt;
      f.rss_bytes = pages.value_or(0) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    }
  }
  if (DIR* dir = ::opendir("/proc/self/fd"); dir != nullptr) {
    while (const dirent* e = ::readdir(dir))  // NOLINT(concurrency-mt-unsafe): our own stream
      if (e->d_name[0] != '.') ++f.open_fds;
    ::closedir(dir);
    if (f.open_fds > 0) --f.open_fds;  // the look itself
  }
  return f;
}

void write_process(Text& out, std::string_view program, std::string_view version) {
  out.gauge("sally_build_info", "The program and its version; always 1.")
      .value(1, {{"program", program}, {"version", version}});
  const std::int64_t now = system_clock().unix_ms();
  out.gauge("sally_start_time_seconds", "When the program started, in Unix time.")
      .real(static_cast<double>(start_ms) / 1e3);
  out.gauge("sally_uptime_seconds", "Seconds since then.")
      .real(static_cast<double>(now - start_ms) / 1e3);
  const auto f = process_figures();
  out.counter("sally_process_cpu_seconds_total", "CPU time of all threads, user and system.")
      .real(static_cast<double>(f.cpu_us) / 1e6);
  if (f.rss_bytes != 0)
    out.gauge("sally_process_resident_memory_bytes", "Resident memory.").value(f.rss_bytes);
  if (f.open_fds != 0) out.gauge("sally_process_open_fds", "Open descriptors.").value(f.open_fds);
  const auto lines = log::counts();
  out.counter("sally_log_lines_total", "Lines logged, by level.");
  constexpr std::array kLevels = {"debug", "info", "warn", "error"};
  for (std::size_t i = 0; i < kLevels.size(); ++i)
    out.value(lines.lines[i], {{"level", kLevels[i]}});
  out.counter("sally_log_lines_suppressed_total",
              "Lines left out because their code came too often.")
      .value(lines.suppressed);
}

}  // namespace sally::metrics
