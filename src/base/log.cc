// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <unistd.h>

#include <mutex>
#include <unordered_map>

#include "base/clock.h"
#include "base/text.h"
#include "base/token_bucket.h"

namespace sally::log {
namespace {

// A stranger who knocks all the time makes less than 10 MB of lines an hour.
constexpr double kLinesPerSecond = 10;
constexpr double kLinesAtOnce = 50;
constexpr std::size_t kMaxSites = 4096;

struct Site {
  TokenBucket lines{kLinesPerSecond, kLinesAtOnce};
  std::uint64_t suppressed = 0;
};

struct State {
  std::mutex mutex;
  Level level = Level::kInfo;
  bool json = false;
  std::function<void(std::string_view)> sink;
  std::unordered_map<std::string, Site> sites;
  std::string component;
  std::string network;
  Counts counts;
};

State& state() {
  static auto* s = new State;  // outlives every thread that logs at exit
  return *s;
}

constexpr std::string_view kNames[] = {"debug", "info", "warn", "error"};

bool plain(std::string_view v) {
  if (v.empty()) return false;
  for (const char c : v) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f) return false;
  }
  return printable_utf8(v);
}

std::string render(Level level, std::string_view code, std::initializer_list<Field> fields,
                   std::int64_t now_ms, std::uint64_t suppressed, bool json,
                   std::string_view component, std::string_view network) {
  const auto name = kNames[static_cast<std::size_t>(level)];
  std::string line;
  if (json) {
    line = "{\"time\":" + json_quote(format_time(now_ms)) + ",\"level\":" + json_quote(name) +
           ",\"code\":" + json_quote(code) + ",\"component\":" + json_quote(component) +
           ",\"network\":" + json_quote(network);
    if (suppressed != 0) line += ",\"suppressed\":" + std::to_string(suppressed);
    line += ",\"fields\":{";
    std::string_view comma;
    for (const auto& f : fields) {
      line += comma;
      line += json_quote(f.name) + ':' + (f.number ? f.value : json_quote(f.value));
      comma = ",";
    }
    return line + "}}";
  }
  line = format_time(now_ms) + ' ' + std::string(name) + ' ' + std::string(code);
  for (const auto& f : fields) {
    line += ' ' + std::string(f.name) + '=' +
            (f.number || plain(f.value) ? f.value : json_quote(f.value));
  }
  if (suppressed != 0) line += " suppressed=" + std::to_string(suppressed);
  return line;
}

}  // namespace

std::string line(Level level, std::string_view code, std::initializer_list<Field> fields, bool json,
                 std::string_view component) {
  return render(level, code, fields, system_clock().unix_ms(), 0, json, component, {});
}

void set_level(Level level) {
  state().level = level;
}
bool set_level(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == name) {
      set_level(static_cast<Level>(i));
      return true;
    }
  }
  return false;
}
void set_json(bool json) {
  state().json = json;
}
bool set_option(std::string_view word) {
  if (word != "json" && word != "text") return set_level(word);
  set_json(word == "json");
  return true;
}
void set_origin(std::string component, std::string network) {
  const std::lock_guard lock(state().mutex);
  state().component = std::move(component);
  state().network = std::move(network);
}
Counts counts() {
  const std::lock_guard lock(state().mutex);
  return state().counts;
}
void set_sink(std::function<void(std::string_view)> sink) {
  const std::lock_guard lock(state().mutex);
  state().sink = std::move(sink);
}

void write(Level level, std::string_view code, std::initializer_list<Field> fields) {
  State& s = state();
  if (level < s.level) return;
  const std::int64_t now = system_clock().unix_ms();
  const std::lock_guard lock(s.mutex);
  if (s.sites.size() > kMaxSites) s.sites.clear();
  Site& site = s.sites[std::string(code)];
  if (!site.lines.take(system_clock().mono_us())) {
    ++site.suppressed;
    ++s.counts.suppressed;
    return;
  }
  ++s.counts.lines[static_cast<std::size_t>(level)];
  std::string text =
      render(level, code, fields, now, site.suppressed, s.json, s.component, s.network);
  site.suppressed = 0;
  if (s.sink) {
    s.sink(text);
    return;
  }
  text += '\n';
  [[maybe_unused]] const auto n = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace sally::log
