// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace sally::log {

enum class Level : std::uint8_t { kDebug, kInfo, kWarn, kError };

/// One field of a log line. Never a secret, a token or a key.
struct Field {
  std::string_view name;
  std::string value;
  bool number = false;

  Field(std::string_view n, std::string_view v) : name(n), value(v) {}
  Field(std::string_view n, const char* v) : name(n), value(v) {}
  Field(std::string_view n, const std::string& v) : name(n), value(v) {}
  Field(std::string_view n, std::integral auto v)
      : name(n), value(std::to_string(v)), number(true) {}
};

/// `code` is constant text "<folder>.<what>" from the table in docs/logs.md; facts are in `fields`.
/// Any thread. Of one code 50 lines at once and 10 a second; what is dropped is counted in the next
/// line of that code as "suppressed".
void write(Level level, std::string_view code, std::initializer_list<Field> fields = {});
inline void debug(std::string_view m, std::initializer_list<Field> f = {}) {
  write(Level::kDebug, m, f);
}
inline void info(std::string_view m, std::initializer_list<Field> f = {}) {
  write(Level::kInfo, m, f);
}
inline void warn(std::string_view m, std::initializer_list<Field> f = {}) {
  write(Level::kWarn, m, f);
}
inline void error(std::string_view m, std::initializer_list<Field> f = {}) {
  write(Level::kError, m, f);
}

/// The line that write() would make, for the log of another program.
std::string line(Level level, std::string_view code, std::initializer_list<Field> fields, bool json,
                 std::string_view component);

/// Process-wide settings, before the first thread starts. Default: info, text, standard error.
void set_level(Level level);
void set_json(bool json);
/// What each line of this process says of itself in JSON: "router" and the network's id.
void set_origin(std::string component, std::string network);
/// "debug", "info", "warn", "error"; false for another word.
bool set_level(std::string_view name);
/// What `--log` takes: a level, or "json" or "text".
bool set_option(std::string_view word);
/// Lines by level that were written since the start, and those that were suppressed.
struct Counts {
  std::array<std::uint64_t, 4> lines{};
  std::uint64_t suppressed = 0;
};
Counts counts();
/// Where finished lines (no newline) go; nullptr restores standard error. For tests.
void set_sink(std::function<void(std::string_view)> sink);

}  // namespace sally::log
