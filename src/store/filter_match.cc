// SPDX-License-Identifier: Apache-2.0
// What a filter says of a row. Two-valued: what is null is unequal to everything and in no range.
#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "store/filter.h"

namespace sally::store::filter {
namespace {

// Of a number its digits.
std::optional<std::string> text_of(const Value& v) {
  if (const auto* text = std::get_if<std::string>(&v)) return *text;
  const double* n = std::get_if<double>(&v);
  if (n == nullptr) return std::nullopt;
  char digits[32];
  return std::string(digits, std::to_chars(digits, digits + sizeof digits, *n).ptr);
}

/// The operation without its negation, for a value of the literals' type.
bool holds(const Node& n, const Value& v) {
  const Value& first = n.values.front();
  if (n.op == Op::kContains || n.op == Op::kIcontains) {
    const auto text = text_of(v);
    const auto part = text_of(first);
    if (!text || !part) return false;
    return n.op == Op::kContains ? text->contains(*part) : lower(*text).contains(lower(*part));
  }
  if (n.op == Op::kEqual && n.type == Type::kBool && std::holds_alternative<std::monostate>(v) &&
      std::holds_alternative<bool>(first))
    return !std::get<bool>(first);  // what is not there is false
  if (v.index() != first.index()) return false;
  switch (n.op) {
    case Op::kEqual:
      return v == first;
    case Op::kLess:
      return v < first;
    case Op::kLessOrEqual:
      return v <= first;
    case Op::kGreater:
      return v > first;
    case Op::kGreaterOrEqual:
      return v >= first;
    case Op::kIn:
      return std::ranges::contains(n.values, v);
    case Op::kBetween:
      return v >= first && v < n.values.back();
    default:
      return false;
  }
}

bool compares(const Node& n, const Value& v) {
  return holds(n, v) != n.negated;
}

// How many; stops at `enough`.
std::size_t members(const Node& n, const Row& row, std::size_t enough) {
  if (n.children.empty()) return row.set(n.symbol).size();
  std::size_t count = 0;
  row.linked(n.symbol, [&](const Row& one) {
    if (matches(n.children.front(), one)) ++count;
    return count < enough;
  });
  return count;
}

bool operation(const Node& n, const Row& row) {
  const auto holds_for = [&](const std::string& v) { return compares(n, Value(v)); };
  switch (n.over) {
    case Over::kField:
      return compares(n, row.value(n.symbol));
    case Over::kAny:
      return std::ranges::any_of(row.set(n.symbol), holds_for);
    case Over::kAll:
      return std::ranges::all_of(row.set(n.symbol), holds_for);
    case Over::kCount:
      return compares(n, Value(static_cast<double>(members(n, row, SIZE_MAX))));
  }
  return false;
}

bool chain(const Node& n, const Row& row) {
  for (std::size_t i = 0; i < n.ands.size(); ++i) {
    const bool one = matches(n.children[i], row);
    if (one != n.ands[i]) return one;
  }
  return matches(n.children.back(), row);
}

}  // namespace

bool matches(const Node& where, const Row& row) {
  switch (where.op) {
    case Op::kTrue:
      return true;
    case Op::kChain:
      return chain(where, row);
    case Op::kNot:
      return !matches(where.children.front(), row);
    case Op::kIsEmpty:
      return members(where, row, 1) == 0;
    default:
      return operation(where, row);
  }
}

std::strong_ordering compare(const std::vector<SortKey>& sort, const Row& a, const Row& b) {
  const auto by = [&](std::string_view symbol) {
    const Value left = a.value(symbol);
    const Value right = b.value(symbol);
    if (left < right) return std::strong_ordering::less;
    return right < left ? std::strong_ordering::greater : std::strong_ordering::equal;
  };
  for (const SortKey& key : sort) {
    const auto order = by(key.symbol);
    if (order != 0) return key.descending ? 0 <=> order : order;
  }
  return by("id");
}

}  // namespace sally::store::filter
