// SPDX-License-Identifier: Apache-2.0
// The filter language of lists (management-api spec, chapter 2): text to a typed query, and what it
// says of a row.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "store/errc.h"

namespace sally::store::filter {

inline constexpr std::size_t kMaxText = 64 * 1024;
inline constexpr int kMaxDepth = 64;                 ///< of parentheses, `not` and subqueries
inline constexpr std::size_t kMaxTerms = 1'000;      ///< operations and values of lists in a text
inline constexpr std::size_t kMaxSortKeys = 5;       ///< more are dropped
inline constexpr std::int64_t kNoLimit = INT64_MAX;  ///< "limit none"

enum class Type : std::uint8_t {
  kString,
  kNumber,
  kTime,
  kBool,
  kTags,     ///< "tags.site": any type, the literal decides
  kStrings,  ///< a set: anyOf, allOf, count, isEmpty
  kLinks,    ///< a set of other entities, by id; may be looked into with `from`
};

struct Schema;
struct Symbol {
  std::string_view name;  ///< "name"; of kTags "tags", for all that begins with "tags."
  Type type = Type::kString;
  const Schema* linked = nullptr;  ///< of kLinks
};
/// What may be asked of an entity; static data.
struct Schema {
  std::span<const Symbol> symbols;
};

struct Time {
  std::int64_t ms = 0;  ///< Unix
  friend auto operator<=>(const Time&, const Time&) = default;
};
/// monostate: null, or not there.
using Value = std::variant<std::monostate, bool, double, Time, std::string>;

/// An entity that is asked. Calls come with names of its schema.
class Row {
 public:
  virtual ~Row() = default;
  /// A symbol that is no set; "tags.KEY" for kTags.
  [[nodiscard]] virtual Value value(std::string_view symbol) const = 0;
  [[nodiscard]] virtual std::vector<std::string> set(std::string_view) const { return {}; }
  /// Calls `f` with each linked entity until it returns false.
  virtual void linked(std::string_view, const std::function<bool(const Row&)>&) const {}
};

enum class Op : std::uint8_t {
  kTrue,
  kChain,  ///< children joined from the right: a and b or c is a and (b or c)
  kNot,    ///< of the one child
  kEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kIn,
  kBetween,  ///< the lower bound belongs to it, the upper one does not
  kContains,
  kIcontains,  ///< letters beyond ASCII are not folded
  kIsEmpty,
};
/// What an operation is about.
enum class Over : std::uint8_t { kField, kAny, kAll, kCount };

struct Node {
  Op op = Op::kTrue;
  Over over = Over::kField;
  bool negated = false;  ///< the operation itself: of each element of a set
  Type type = Type::kString;
  std::string symbol;
  std::vector<Value> values;
  std::vector<Node> children;  ///< of kChain and kNot; of kIsEmpty and kCount: the `where`, if any
  std::vector<bool> ands;      ///< of kChain: between children, false = or
};

struct SortKey {
  std::string symbol;
  bool descending = false;
};

struct Query {
  Node where;
  std::vector<SortKey> sort;
  std::optional<std::int64_t> skip;
  std::optional<std::int64_t> limit;  ///< or kNoLimit
};

/// Total. An empty text is `true`. kBadFilter with place and reason; kBadSort for what rows cannot
/// be sorted by.
Result<Query> parse(std::string_view text, const Schema& schema);
/// "name asc, createdAt desc".
Result<std::vector<SortKey>> parse_sort(std::string_view text, const Schema& schema);

bool matches(const Node& where, const Row& row);
/// Null before all else, then false before true; `id` decides at the end.
std::strong_ordering compare(const std::vector<SortKey>& sort, const Row& a, const Row& b);

}  // namespace sally::store::filter
