// SPDX-License-Identifier: Apache-2.0
// What a list is asked for: filter, order and page, as SDKs and the management API write them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <expected>
#include <string_view>
#include <utility>
#include <vector>

#include "api/compat/compat.h"
#include "store/filter.h"

namespace sally::api::compat {

inline constexpr std::int64_t kPageRows = 10;  ///< where nobody says how many
inline constexpr std::int64_t kMaxOffset = 100'000;

struct ListQuery {
  store::filter::Node where;
  std::vector<store::filter::SortKey> sort;
  std::int64_t limit = kPageRows;
  std::int64_t offset = 0;
  json::array fields;  ///< that may be asked for
};
/// `filter`, `sort`, `limit`, `offset` of a query text; what the filter says of the last three
/// wins. The answer to send otherwise.
std::expected<ListQuery, Response> list_query(const Deps& d, std::string_view query,
                                              const store::filter::Schema& schema);
Response listed(json::array page, ListQuery query, std::size_t total);

/// Of `rows` (Row subclasses) those that were asked for, each as `to_json` says.
template <typename R, typename F>
Response list_of(ListQuery query, std::vector<R> rows, F to_json) {
  std::erase_if(rows, [&](const R& row) { return !store::filter::matches(query.where, row); });
  std::ranges::sort(
      rows, [&](const R& a, const R& b) { return store::filter::compare(query.sort, a, b) < 0; });
  const auto size = std::ssize(rows);
  json::array page;
  for (auto i = query.offset; i < size && std::cmp_less(page.size(), query.limit); ++i)
    page.push_back(to_json(rows[static_cast<std::size_t>(i)]));
  return listed(std::move(page), std::move(query), rows.size());
}

}  // namespace sally::api::compat
