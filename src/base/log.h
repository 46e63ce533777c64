// SPDX-License-Identifier: Apache-2.0
#pragma once

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

/// Constant `message`, facts in `fields`. Any thread. At most 50 lines per second and message; what
/// is dropped is counted in the next line of that message as "suppressed".
void write(Level level, std::string_view message, std::initializer_list<Field> fields = {});
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

/// Process-wide settings, before the first thread starts. Default: info, text, standard error.
void set_level(Level level);
void set_json(bool json);
/// "debug", "info", "warn", "error"; false for another word.
bool set_level(std::string_view name);
/// Where finished lines (no newline) go; nullptr restores standard error. For tests.
void set_sink(std::function<void(std::string_view)> sink);

}  // namespace sally::log
