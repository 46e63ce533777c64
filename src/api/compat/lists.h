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
inline constexpr std::int64_t kMaxPage = 500;
inline constexpr std::int64_t kMaxOffset = 100'000;

struct Paging {
  std::int64_t limit = kPageRows;  ///< store::filter::kNoLimit: all
  std::int64_t offset = 0;
};
/// `limit` and `offset` of a query text (management-api spec 1.7); `rows` where it does not say how
/// many. The answer to send otherwise.
std::expected<Paging, Response> paging(const Deps& d, std::string_view query,
                                       std::int64_t rows = kPageRows);
Response list_envelope(json::array page, const Paging& p, std::size_t total,
                       json::array fields = {"id", "name"});
/// The page of `all` that was asked for.
Response page_of_all(json::array all, const Paging& p);

struct ListQuery {
  store::filter::Node where;
  std::vector<store::filter::SortKey> sort;
  Paging page;
  json::array fields;  ///< that may be asked for
};
/// `filter`, `sort` and the page of a query text; what the filter says of the last two wins. The
/// answer to send otherwise.
std::expected<ListQuery, Response> list_query(const Deps& d, std::string_view query,
                                              const store::filter::Schema& schema);

/// Of `rows` (Row subclasses) those that were asked for, each as `to_json` says.
template <typename R, typename F>
Response list_of(ListQuery query, std::vector<R> rows, F to_json) {
  std::erase_if(rows, [&](const R& row) { return !store::filter::matches(query.where, row); });
  std::ranges::sort(
      rows, [&](const R& a, const R& b) { return store::filter::compare(query.sort, a, b) < 0; });
  const auto size = std::ssize(rows);
  json::array page;
  for (auto i = query.page.offset; i < size && std::cmp_less(page.size(), query.page.limit); ++i)
    page.push_back(to_json(rows[static_cast<std::size_t>(i)]));
  return list_envelope(std::move(page), query.page, rows.size(), std::move(query.fields));
}

}  // namespace sally::api::compat
