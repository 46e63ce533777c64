// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cli/errors.h"

namespace sally::cli {

enum class Format : std::uint8_t { kTable, kWide, kJson, kJsonl, kCsv, kName };
Result<Format> parse_format(std::string_view text);

/// A column of a table: title, and a dotted path into each item ("hosted_by" of a list gives its
/// length).
struct Column {
  std::string title;
  std::string path;
  bool wide = false;  ///< only with -o wide
};

/// Prints what a command found, in the format that was asked for. Text goes to standard output; a
/// table fits people, the other formats are for programs and stable.
class Output {
 public:
  explicit Output(Format format = Format::kTable) : format_(format) {}
  [[nodiscard]] bool for_people() const {
    return format_ == Format::kTable || format_ == Format::kWide;
  }
  void list(const boost::json::array& items, const std::vector<Column>& columns) const;
  /// One thing: for people as "title  value" lines.
  void item(const boost::json::object& item, const std::vector<Column>& lines) const;
  /// A sentence for people, what it says as members for programs.
  void done(const std::string& line, const boost::json::object& facts) const;
  /// A line for people only.
  void say(const std::string& line) const;
  /// To standard error, in any format; "-o json" gets an object.
  void failure(const Failure& failure) const;

 private:
  Format format_;
};

/// What stands at `path`, as text for people; "-" for null or missing.
std::string cell(const boost::json::object& item, std::string_view path);

/// A member that is a text, as it stands; empty where there is none.
std::string text_of(const boost::json::object& item, std::string_view name);
/// A member that is true.
bool is_true(const boost::json::object& item, std::string_view name);

}  // namespace sally::cli
