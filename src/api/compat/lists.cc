// SPDX-License-Identifier: Apache-2.0
#include "api/compat/lists.h"

#include <charconv>
#include <optional>
#include <string>

namespace sally::api::compat {
namespace {

/// nullopt: no whole number.
std::optional<std::int64_t> whole(std::string_view text) {
  std::int64_t n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size()) return std::nullopt;
  return n;
}

// Management-api spec 1.7.
std::int64_t limit_of(std::int64_t asked) {
  if (asked == -1 || asked == store::filter::kNoLimit) return store::filter::kNoLimit;
  return asked < 1 ? kPageRows : std::min<std::int64_t>(asked, kMaxPage);
}
std::int64_t offset_of(std::int64_t asked) {
  return std::clamp<std::int64_t>(asked, 0, kMaxOffset);
}

}  // namespace

std::expected<ListQuery, Response> list_query(const Deps& d, std::string_view query,
                                              const store::filter::Schema& schema) {
  const auto refused = [&](const Error& e) {
    const bool sort = e.is(store::Errc::kBadSort);
    return std::unexpected(
        refuse(d, 400, sort ? "INVALID_SORT_IDENTIFIER" : "INVALID_FILTER", e.context(), &e));
  };
  ListQuery out;
  for (const auto& [name, to] : {std::pair("limit", &out.limit), {"offset", &out.offset}}) {
    const auto text = query_value(query, name);
    if (!text) continue;
    const auto n = whole(*text);
    if (!n)
      return std::unexpected(refuse(d, 400, "INVALID_PAGINATION", "limit and offset are numbers"));
    *to = *n;
  }
  auto filter = store::filter::parse(query_value(query, "filter").value_or(""), schema);
  if (!filter) return refused(filter.error());
  if (const auto text = query_value(query, "sort"); text && filter->sort.empty()) {
    auto keys = store::filter::parse_sort(*text, schema);
    if (!keys) return refused(keys.error());
    filter->sort = std::move(*keys);
  }
  out.limit = limit_of(filter->limit.value_or(out.limit));
  out.offset = offset_of(filter->skip.value_or(out.offset));
  out.where = std::move(filter->where);
  out.sort = std::move(filter->sort);
  for (const auto& symbol : schema.symbols) out.fields.emplace_back(symbol.name);
  return out;
}

Response listed(json::array page, ListQuery query, std::size_t total) {
  return json_response(
      200, json::object{{"data", std::move(page)},
                        {"meta", json::object{{"pagination", json::object{{"limit", query.limit},
                                                                          {"offset", query.offset},
                                                                          {"totalCount", total}}},
                                              {"filterableFields", std::move(query.fields)}}}});
}

}  // namespace sally::api::compat
