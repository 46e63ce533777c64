// SPDX-License-Identifier: Apache-2.0
#include "policy/policy.h"

#include <algorithm>

#include "base/text.h"

namespace sally::policy {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kEmpty:
      return "policy.empty";
    case Errc::kSyntax:
      return "policy.syntax";
    case Errc::kTooMany:
      return "policy.too_many";
    case Errc::kDuplicate:
      return "policy.duplicate";
  }
  return "policy.unknown";
}

std::string Selector::str() const {
  switch (kind) {
    case Kind::kAll:
      return "*";
    case Kind::kTag:
      return "#" + value;
    case Kind::kName:
      return value;
    case Kind::kId:
      return "@" + value;
  }
  return {};
}

namespace {

/// What the text may look like in an error: short and printable.
std::string shown(std::string_view text) {
  const auto cut = text.substr(0, 80);
  return printable_utf8(cut) ? "'" + std::string(cut) + "'" : "text that cannot be printed";
}

}  // namespace

Result<Selector> parse_selector(std::string_view text) {
  const auto t = trim(text);
  if (t.empty())
    return fail(Errc::kEmpty, "a selector is '*', '#tag' or a device name", Source::kConfig);
  if (t == "*") return Selector{};
  if (t.front() == '#') {
    if (!valid_name(t.substr(1))) {
      return fail(
          Errc::kSyntax,
          shown(t) + ": a tag is '#' and 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit",
          Source::kConfig);
    }
    return Selector{Selector::Kind::kTag, std::string(t.substr(1))};
  }
  if (!valid_name(t)) {
    return fail(Errc::kSyntax, shown(t) + ": a selector is '*', '#tag' or a device name",
                Source::kConfig);
  }
  return Selector{Selector::Kind::kName, std::string(t)};
}

Result<std::vector<Selector>> parse_selectors(std::string_view text) {
  std::vector<Selector> out;
  for (const auto part : split(text, ',')) {
    if (out.size() == kMaxSelectors) {
      return fail(Errc::kTooMany, "at most " + std::to_string(kMaxSelectors) + " selectors",
                  Source::kConfig);
    }
    TRY_ASSIGN(auto one, parse_selector(part));
    if (std::ranges::find(out, one) != out.end()) {
      return fail(Errc::kDuplicate, shown(one.str()) + " is there twice", Source::kConfig);
    }
    out.push_back(std::move(one));
  }
  return out;
}

Result<Selector> parse_expression(std::string_view text) {
  if (text == "*") return Selector{};
  if (text.size() > 1 && (text.front() == '#' || text.front() == '@') &&
      valid_name(text.substr(1))) {
    const auto kind = text.front() == '#' ? Selector::Kind::kTag : Selector::Kind::kId;
    return Selector{kind, std::string(text.substr(1))};
  }
  return fail(Errc::kSyntax, shown(text) + ": an expression is '*', '#tag' or '@id'");
}

bool matches(std::string_view expression, const Subject& subject) {
  if (subject.id.empty()) return false;
  if (expression == "*") return true;
  if (expression.size() < 2) return false;
  const auto value = expression.substr(1);
  if (!valid_name(value)) return false;
  if (expression.front() == '@') return value == subject.id;
  if (expression.front() == '#')
    return std::ranges::find(subject.attributes, value) != subject.attributes.end();
  return false;
}

bool matches_any(std::span<const std::string> expressions, const Subject& subject) {
  return std::ranges::any_of(expressions,
                             [&](const std::string& e) { return matches(e, subject); });
}

}  // namespace sally::policy
