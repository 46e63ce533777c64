// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstdio>

#include "base/text.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

std::string plain(const json::value& v) {
  if (v.is_null()) return "-";
  if (v.is_string()) return v.get_string().empty() ? "-" : std::string(v.get_string());
  if (v.is_bool()) return v.get_bool() ? "yes" : "no";
  if (v.is_array()) {
    std::string out;
    for (const auto& e : v.get_array()) {
      if (e.is_object()) return std::to_string(v.get_array().size());
      out += (out.empty() ? "" : " ") + plain(e);
    }
    return out.empty() ? "-" : out;
  }
  return json::serialize(v);
}

// Terminals are not to be steered by names that devices chose.
std::string safe(const std::string& text) {
  return printable_utf8(text) ? text : json_quote(text);
}

// Columns on the terminal, not bytes: continuation bytes of UTF-8 take no room.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string csv(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

// Flushed: `sally up` goes on for days, and its lines may go to a file.
void put(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

}  // namespace

Result<Format> parse_format(std::string_view text) {
  if (text == "table") return Format::kTable;
  if (text == "wide") return Format::kWide;
  if (text == "json") return Format::kJson;
  if (text == "jsonl") return Format::kJsonl;
  if (text == "csv") return Format::kCsv;
  if (text == "name") return Format::kName;
  return fail(Errc::kUsage, "-o is one of table, wide, json, jsonl, csv, name", Source::kConfig);
}

std::string cell(const json::object& item, std::string_view path) {
  const json::object* at = &item;
  for (;;) {
    const auto dot = path.find('.');
    const std::string member(path.substr(0, dot));
    const auto* v = at->if_contains(member);
    if (v == nullptr) return "-";
    if (dot == std::string_view::npos) return safe(plain(*v));
    if (!v->is_object()) return "-";
    at = &v->get_object();
    path.remove_prefix(dot + 1);
  }
}

std::string text_of(const json::object& item, std::string_view name) {
  const auto* v = item.if_contains(name);
  return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
}

bool is_true(const json::object& item, std::string_view name) {
  const auto* v = item.if_contains(name);
  return v != nullptr && v->is_bool() && v->get_bool();
}

void Output::list(const json::array& items, const std::vector<Column>& columns) const {
  if (format_ == Format::kJson) return put(json::serialize(items));
  // Where a command has no columns of its own, a program gets all members.
  std::vector<Column> members;
  if (columns.empty() && !items.empty() && items.front().is_object()) {
    for (const auto& m : items.front().get_object()) {
      if (!m.value().is_object()) members.push_back({std::string(m.key()), std::string(m.key())});
    }
  }
  std::vector<const Column*> shown;
  for (const auto& c : columns.empty() ? members : columns) {
    if (!c.wide || format_ != Format::kTable) shown.push_back(&c);
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& v : items) {
    if (!v.is_object()) continue;
    if (format_ == Format::kJsonl) {
      put(json::serialize(v));
      continue;
    }
    if (format_ == Format::kName) {
      const bool named = v.get_object().contains("name") || shown.empty();
      put(cell(v.get_object(), named ? "name" : shown.front()->path));
      continue;
    }
    auto& row = rows.emplace_back();
    for (const auto* c : shown) row.push_back(cell(v.get_object(), c->path));
  }
  if (format_ == Format::kJsonl || format_ == Format::kName) return;
  std::vector<std::string> titles;
  for (const auto* c : shown) titles.push_back(c->title);
  if (format_ == Format::kCsv) {
    rows.insert(rows.begin(), titles);
    for (const auto& row : rows) {
      std::string line;
      for (const auto& text : row) line += (line.empty() ? "" : ",") + csv(text);
      put(line);
    }
    return;
  }
  if (rows.empty()) {
    std::fputs("none\n", stderr);
    return;
  }
  rows.insert(rows.begin(), titles);
  std::vector<std::size_t> widths(shown.size(), 0);
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - width(row[i]) + 2, ' ');
    }
    put(line);
  }
}

void Output::item(const json::object& item, const std::vector<Column>& lines) const {
  if (!for_people()) return list({item}, lines);
  std::size_t title = 0;
  for (const auto& l : lines) title = std::max(title, width(l.title));
  for (const auto& l : lines) {
    if (l.wide && format_ == Format::kTable) continue;
    put(l.title + std::string(title - width(l.title) + 2, ' ') + cell(item, l.path));
  }
}

void Output::say(const std::string& line) const {
  if (for_people()) put(line);
}

void Output::done(const std::string& line, const json::object& facts) const {
  if (for_people()) return put(line);
  item(facts, {});
}

void Output::failure(const Failure& f) const {
  if (format_ != Format::kJson && format_ != Format::kJsonl) {
    std::fprintf(stderr, "sally: %s (%s)\n", safe(f.message).c_str(), f.code.c_str());
    if (!f.fix.empty()) std::fprintf(stderr, "  fix: %s\n", safe(f.fix).c_str());
    return;
  }
  const json::object error{{"error", json::object{{"code", f.code},
                                                  {"message", f.message},
                                                  {"fix", f.fix},
                                                  {"exit", static_cast<int>(f.exit)}}}};
  std::fprintf(stderr, "%s\n", json::serialize(error).c_str());
}

}  // namespace sally::cli
