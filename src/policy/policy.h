// SPDX-License-Identifier: Apache-2.0
// Who may do what: pure functions over values. Whoever calls has verified the facts (card, record)
// before.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace sally::policy {

enum class Errc : std::uint8_t {
  kEmpty,      ///< no selector where one is needed
  kSyntax,     ///< not '*', '#tag', a name, or (in records) '@id'
  kTooMany,    ///< more than kMaxSelectors
  kDuplicate,  ///< the same selector twice in a list
};
std::string_view error_name(Errc e);

inline constexpr std::size_t kMaxSelectors = 64;

/// Facts of a verified card. Views: the card outlives the call.
struct Subject {
  std::string_view id;
  std::span<const std::string> attributes;  ///< tags without '#'
};

/// One term. People write kAll, kTag, kName; service records hold kAll, kTag, kId.
struct Selector {
  enum class Kind : std::uint8_t { kAll, kTag, kName, kId };
  Kind kind = Kind::kAll;
  std::string value;  ///< tag without '#', name or id
  /// "*", "#tag", "name", "@id".
  [[nodiscard]] std::string str() const;
  friend bool operator==(const Selector&, const Selector&) = default;
};

/// What a person writes: '*', '#tag' or the name of a device; white space around it is ignored.
/// kSyntax names the text and what is allowed.
Result<Selector> parse_selector(std::string_view text);
/// A comma list of them, 1 to kMaxSelectors, none twice.
Result<std::vector<Selector>> parse_selectors(std::string_view text);
/// A term of a service record: '*', '#tag', '@id'; no white space.
Result<Selector> parse_expression(std::string_view text);

/// One expression of a record against the facts. What does not parse matches nobody.
bool matches(std::string_view expression, const Subject& subject);
/// Any one of `expressions` is enough; none, or a subject without id: false.
bool matches_any(std::span<const std::string> expressions, const Subject& subject);

/// The record's dial expressions let the subject open circuits to the service.
inline bool may_dial(const Subject& subject, std::span<const std::string> dial) {
  return matches_any(dial, subject);
}
/// The record's bind expressions let the subject host the service.
inline bool may_bind(const Subject& subject, std::span<const std::string> bind) {
  return matches_any(bind, subject);
}

}  // namespace sally::policy
