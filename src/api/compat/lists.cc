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
  return asked < 1 ? kPageRows : std::min(asked, kMaxPage);
}
std::int64_t offset_of(std::int64_t asked) {
  return std::clamp<std::int64_t>(asked, 0, kMaxOffset);
}

}  // namespace

std::expected<Paging, Response> paging(const Deps& d, std::string_view query, std::int64_t rows) {
  Paging p{.limit = rows};
  for (const auto& [name, to] : {std::pair("limit", &p.limit), {"offset", &p.offset}}) {
    const auto text = query_value(query, name);
    if (!text) continue;
    const auto n = whole(*text);
    if (!n)
      return std::unexpected(refuse(d, 400, "INVALID_PAGINATION", "limit and offset are numbers"));
    *to = *n;
  }
  return Paging{.limit = limit_of(p.limit), .offset = offset_of(p.offset)};
}

// SDKs count on meta.pagination.totalCount (H10).
Response list_envelope(json::array page, const Paging& p, std::size_t total, json::array fields) {
  return json_response(
      200, json::object{{"data", std::move(page)},
                        {"meta", json::object{{"pagination", json::object{{"limit", p.limit},
                                                                          {"offset", p.offset},
                                                                          {"totalCount", total}}},
                                              {"filterableFields", std::move(fields)}}}});
}

Response page_of_all(json::array all, const Paging& p) {
  json::array page;
  for (auto i = p.offset; std::cmp_less(i, all.size()) && std::cmp_less(page.size(), p.limit); ++i)
    page.push_back(std::move(all[static_cast<std::size_t>(i)]));
  return list_envelope(std::move(page), p, all.size());
}

std::expected<ListQuery, Response> list_query(const Deps& d, std::string_view query,
                                              const store::filter::Schema& schema) {
  const auto refused = [&](const Error& e) {
    const bool sort = e.is(store::Errc::kBadSort);
    return std::unexpected(
        refuse(d, 400, sort ? "INVALID_SORT_IDENTIFIER" : "INVALID_FILTER", e.context(), &e));
  };
  auto page = paging(d, query);
  if (!page) return std::unexpected(std::move(page).error());
  auto filter = store::filter::parse(query_value(query, "filter").value_or(""), schema);
  if (!filter) return refused(filter.error());
  if (const auto text = query_value(query, "sort"); text && filter->sort.empty()) {
    auto keys = store::filter::parse_sort(*text, schema);
    if (!keys) return refused(keys.error());
    filter->sort = std::move(*keys);
  }
  if (filter->limit) page->limit = limit_of(*filter->limit);
  if (filter->skip) page->offset = offset_of(*filter->skip);
  ListQuery out{.where = std::move(filter->where),
                .sort = std::move(filter->sort),
                .page = *page,
                .fields = {}};
  for (const auto& symbol : schema.symbols) out.fields.emplace_back(symbol.name);
  return out;
}

}  // namespace sally::api::compat
