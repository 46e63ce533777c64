// SPDX-License-Identifier: Apache-2.0
#include "store/filter.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/clock.h"

namespace sally::store::filter {
namespace {

constexpr Symbol kServiceSymbols[] = {{"id"}, {"name"}, {"port", Type::kNumber}};
constexpr Schema kService{kServiceSymbols};
constexpr Symbol kSymbols[] = {{"id"},
                               {"name"},
                               {"cost", Type::kNumber},
                               {"createdAt", Type::kTime},
                               {"isAdmin", Type::kBool},
                               {"primary.cert.allowed", Type::kBool},
                               {"tags", Type::kTags},
                               {"roleAttributes", Type::kStrings},
                               {"services", Type::kLinks, &kService}};
constexpr Schema kSchema{kSymbols};

struct TestRow final : Row {
  std::map<std::string, Value, std::less<>> values;
  std::vector<std::string> roles;
  std::vector<TestRow> services;
  [[nodiscard]] Value value(std::string_view symbol) const override {
    const auto it = values.find(symbol);
    return it == values.end() ? Value() : it->second;
  }
  [[nodiscard]] std::vector<std::string> set(std::string_view symbol) const override {
    if (symbol == "roleAttributes") return roles;
    std::vector<std::string> ids;
    for (const auto& s : services) ids.push_back(std::get<std::string>(s.value("id")));
    return ids;
  }
  void linked(std::string_view, const std::function<bool(const Row&)>& f) const override {
    for (const auto& s : services) {
      if (!f(s)) return;
    }
  }
};

TestRow full() {
  TestRow r;
  r.values = {
      {"id", Value("i-1")},      {"name", Value("Cam \"7\"")},
      {"cost", Value(15.0)},     {"createdAt", Value(Time{*parse_time("2026-01-02T03:04:05Z")})},
      {"isAdmin", Value(true)},  {"tags.site", Value("b4")},
      {"tags.floor", Value(3.0)}};
  r.roles = {"cam", "hall"};
  for (const char* id : {"s-1", "s-2"}) {
    TestRow s;
    s.values = {
        {"id", Value(id)}, {"name", Value(std::string("web-") + id)}, {"port", Value(443.0)}};
    r.services.push_back(std::move(s));
  }
  return r;
}

bool takes(std::string_view text, const TestRow& row = full()) {
  const auto q = parse(text, kSchema);
  EXPECT_TRUE(q) << text << ": " << (q ? "" : q.error().text());
  return q && matches(q->where, row);
}

std::string refusal(std::string_view text) {
  const auto q = parse(text, kSchema);
  return q ? "taken" : std::string(q.error().code());
}

TEST(Filter, TakesWhatClientsSend) {
  for (const char* text : {"",
                           "  ",
                           "true",
                           "true limit none",
                           "sort by name limit none",
                           "true skip 0 limit 2",
                           "id=\"i-1\"",
                           "id = \"x\" or id=\"i-1\"",
                           R"(name="Cam \"7\"")",
                           R"( name icontains "cAM")",
                           R"(name icontains "cam" and anyOf(roleAttributes) = "hall")",
                           R"(anyOf(roleAttributes) contains "ca" skip 5 limit 20)",
                           R"(name in ["a","Cam \"7\""])",
                           "createdAt > datetime(2025-01-02T03:04:05Z)",
                           R"(tags.site = "b4")",
                           "not isEmpty(services)",
                           "isAdmin=true",
                           "isAdmin",
                           R"('tags.site' = "b4")",
                           "TRUE Sort By name DESC",
                           "createdAt >= datetime( 2026-01-02T04:04:05+01:00 ) and createdAt <= "
                           "datetime(2026-01-02T03:04:05.000Z)",
                           "\tcost<16\nand cost>=15"})
    EXPECT_TRUE(takes(text)) << text;
  for (const char* text :
       {"false", R"(id="I-1")", R"(anyOf(roleAttributes)="x" or allOf(roleAttributes)="cam")",
        "cost between 10 and 15", "cost > 15", R"(name in ["a"])", "isEmpty(services)"})
    EXPECT_FALSE(takes(text)) << text;
}

TEST(Filter, ChainsJoinFromTheRightAndNotTakesAll) {
  EXPECT_FALSE(takes("false and false or true")) << "false and (false or true)";
  EXPECT_TRUE(takes("(false and false) or true"));
  EXPECT_TRUE(takes("true or true and false"));
  EXPECT_TRUE(takes("not true and false")) << "not (true and false)";
  EXPECT_FALSE(takes("(not true) and false"));
  EXPECT_TRUE(takes("true and not false and false"));
}

TEST(Filter, WhatIsNotThereIsUnequalToAllAndFalse) {
  const TestRow none;
  for (const char* text :
       {R"(name != "x")", R"(name not contains "x")", R"(name not icontains "x")",
        R"(name not in ["x"])", "cost not between 1 and 2", "name = null", "isAdmin = false",
        "isAdmin != true", R"(not (name = "x"))", R"(allOf(roleAttributes) = "x")",
        "isEmpty(roleAttributes)", "count(roleAttributes) = 0", R"(not (tags.none = "x"))"})
    EXPECT_TRUE(takes(text, none)) << text;
  for (const char* text : {R"(name = "x")", "cost < 1", R"(name in ["x"])", R"(name contains "x")",
                           "cost between 0 and 9", "name != null", "isAdmin", "isAdmin = true",
                           R"(anyOf(roleAttributes) != "x")"})
    EXPECT_FALSE(takes(text, none)) << text;
}

TEST(Filter, NumbersTagsAndSets) {
  EXPECT_TRUE(takes("cost = 15.0"));
  EXPECT_TRUE(takes("cost contains 5"));
  EXPECT_TRUE(takes("cost contains \"15\""));
  EXPECT_TRUE(takes("cost between 15 and 15.5"));
  EXPECT_TRUE(takes("tags.floor > 2"));
  EXPECT_FALSE(takes(R"(tags.floor = "3")")) << "of another type: as if it were not there";
  EXPECT_TRUE(takes(R"(anyOf(roleAttributes) != "cam")")) << "one differs";
  EXPECT_FALSE(takes(R"(not (anyOf(roleAttributes) = "cam"))"));
  EXPECT_TRUE(takes(R"(anyOf(services) = "s-2")"));
  EXPECT_TRUE(takes("count(services) >= 2"));
  EXPECT_TRUE(takes(R"(not isEmpty(from services where name = "web-s-1"))"));
  EXPECT_TRUE(takes(R"(isEmpty(from services where port < 80 sort by name limit 1))"));
  EXPECT_TRUE(takes(R"(count(from services where name contains "s-2") = 1)"));
}

TEST(Filter, RefusesWithThePlace) {
  for (const char* text : {"bogus",
                           "bogus = 1",
                           "name",
                           "name =",
                           "name = x",
                           "name = 1",
                           "cost = \"1\"",
                           "name = 'x'",
                           "name < true",
                           "name < null",
                           "isAdmin < true",
                           "not(true)",
                           "anyOf (roleAttributes) = \"x\"",
                           "roleAttributes = \"x\"",
                           "anyOf(name) = \"x\"",
                           "isEmpty(name)",
                           "name in []",
                           "name in [\"a\", 1]",
                           "name between \"a\" and \"b\"",
                           "cost between 1 and datetime(2026-01-01T00:00:00Z)",
                           "createdAt contains \"2\"",
                           "cost icontains \"1\"",
                           "name = \"open",
                           R"(name = "\q")",
                           "(true",
                           "true)",
                           "true true",
                           "true and",
                           "cost = 01",
                           "cost = 1e999",
                           "limit -1",
                           "skip 1.5",
                           "limit 1 skip 1",
                           "createdAt = datetime(yesterday)",
                           "tags = \"x\"",
                           "tags. = \"x\"",
                           "isEmpty(from roleAttributes where true)",
                           "isEmpty(from services where cost = 1)",
                           "anyOf(from services where true) = \"x\"",
                           "and = 1",
                           "name=\"a\"and true"})
    EXPECT_EQ(refusal(text), "store.bad_filter") << text;
  for (const char* text :
       {"sort by bogus", "sort by tags.site", "sort by roleAttributes", "sort by services"})
    EXPECT_EQ(refusal(text), "store.bad_sort") << text;
  EXPECT_EQ(parse("cost = 1 or bogus = 1", kSchema).error().context(),
            "at 13: unknown name 'bogus'");
}

TEST(Filter, HasBounds) {
  EXPECT_EQ(refusal(std::string(kMaxText + 1, ' ')), "store.bad_filter");
  EXPECT_EQ(refusal(std::string(63, '(') + "true" + std::string(63, ')')), "taken");
  EXPECT_EQ(refusal(std::string(64, '(') + "true" + std::string(64, ')')), "store.bad_filter");
  std::string many = "cost = 1";
  for (int i = 0; i < 400; ++i) many += " or cost = 1";
  EXPECT_EQ(refusal(many), "taken") << "a long chain is not deep";
  for (int i = 0; i < 400; ++i) many += " or cost = 1";
  EXPECT_EQ(refusal(many), "store.bad_filter");
}

TEST(Filter, SortsNullsFirstAndByIdAtTheEnd) {
  const auto row = [](const char* id, Value name, Value admin = {}) {
    TestRow r;
    r.values = {{"id", Value(id)}, {"name", std::move(name)}, {"isAdmin", std::move(admin)}};
    return r;
  };
  std::vector<TestRow> rows{row("c", Value("n")), row("b", Value("n"), Value(true)), row("a", {}),
                            row("d", Value("m"), Value(false))};
  const auto order = [&](std::string_view sort) {
    const auto keys = parse_sort(sort, kSchema);
    EXPECT_TRUE(keys) << sort;
    std::ranges::sort(rows, [&](const auto& a, const auto& b) { return compare(*keys, a, b) < 0; });
    std::string ids;
    for (const auto& r : rows) ids += std::get<std::string>(r.value("id"));
    return ids;
  };
  EXPECT_EQ(order("name"), "adbc");
  EXPECT_EQ(order(" name  desc "), "bcda");
  EXPECT_EQ(order("isAdmin desc, name asc"), "bdac");
  EXPECT_EQ(order("id desc"), "dcba");
  const auto q =
      parse("sort by id, name, cost, isAdmin, createdAt, name desc skip 3 limit none", kSchema);
  ASSERT_TRUE(q);
  EXPECT_EQ(q->sort.size(), kMaxSortKeys);
  EXPECT_EQ(q->skip, 3);
  EXPECT_EQ(q->limit, kNoLimit);
}

// Seeds of the fuzz target.
TEST(Filter, WritesSeeds) {
  const char* corpus = std::getenv("SALLY_WRITE_CORPUS");
  if (corpus == nullptr) GTEST_SKIP() << "SALLY_WRITE_CORPUS is not set";
  const std::filesystem::path dir = std::filesystem::path(corpus) / "store_filter_fuzz";
  std::filesystem::create_directories(dir);
  int n = 0;
  for (
      const char* text :
      {R"(name icontains "cam" and anyOf(roleAttributes) = "hall" skip 5 limit none)",
       R"(not isEmpty(from services where port < 80) or count(services) >= 2 sort by name desc, id)",
       R"('tags.site' not in ["a", "b\n"] and createdAt > datetime(2025-01-02T03:04:05Z) or cost between -1.5 and 2e3)"})
    std::ofstream(dir / std::to_string(++n)) << text;
}

}  // namespace
}  // namespace sally::store::filter
