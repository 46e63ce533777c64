// SPDX-License-Identifier: Apache-2.0
#include "policy/policy.h"

#include <gtest/gtest.h>

namespace sally::policy {
namespace {

using Kind = Selector::Kind;

TEST(Policy, AnyOneExpressionIsEnough) {
  const std::vector<std::string> tags = {"sensors", "eu"};
  const Subject s{"d-1", tags};
  const struct {
    std::vector<std::string> expressions;
    bool want;
  } cases[] = {
      {{}, false},
      {{"*"}, true},
      {{"#sensors"}, true},
      {{"#us", "#eu"}, true},
      {{"#us"}, false},
      {{"@d-1"}, true},
      {{"@d-2", "#us"}, false},
      {{"@D-1"}, false},      // ids are exact
      {{"#Sensors"}, false},  // tags are exact
      {{"sensors"}, false},   // no sign: not an expression
      {{"d-1"}, false},
      {{""}, false},
      {{"#"}, false},
      {{"@"}, false},
      {{"**"}, false},
      {{"# sensors"}, false},
      {{"#*"}, false},
      {{"#sensors,#eu"}, false},
      {{"!#us"}, false},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(may_dial(s, c.expressions), c.want)
        << (c.expressions.empty() ? "none" : c.expressions[0]);
    EXPECT_EQ(may_bind(s, c.expressions), c.want);
  }
}

TEST(Policy, AMissingFactDenies) {
  const std::vector<std::string> all = {"*"};
  EXPECT_FALSE(may_dial(Subject{}, all));
  const std::vector<std::string> empty_tag = {""};
  const std::vector<std::string> odd = {"#", "@"};
  EXPECT_FALSE(may_dial(Subject{"d", empty_tag}, odd));
}

TEST(Policy, SelectorsOfPeople) {
  const auto got = parse_selectors(" #sensors, pump-17 ,*");
  ASSERT_TRUE(got) << got.error().text();
  EXPECT_EQ(*got, (std::vector<Selector>{
                      {Kind::kTag, "sensors"}, {Kind::kName, "pump-17"}, {Kind::kAll, ""}}));
  EXPECT_EQ((*got)[0].str(), "#sensors");
  EXPECT_EQ((*got)[1].str(), "pump-17");
  EXPECT_EQ((*got)[2].str(), "*");
  const struct {
    std::string text;
    Errc want;
  } bad[] = {
      {"", Errc::kEmpty},
      {"a,,b", Errc::kEmpty},
      {"a,", Errc::kEmpty},
      {"#", Errc::kSyntax},
      {"#a b", Errc::kSyntax},
      {"@id", Errc::kSyntax},
      {"#a & cert<14d", Errc::kSyntax},
      {"-x", Errc::kSyntax},
      {"a,a", Errc::kDuplicate},
      {"ä", Errc::kSyntax},
      {std::string("a\0b", 3), Errc::kSyntax},
      {std::string(65, 'a'), Errc::kSyntax},
  };
  for (const auto& c : bad) {
    const auto r = parse_selectors(c.text);
    ASSERT_FALSE(r) << c.text;
    EXPECT_TRUE(r.error().is(c.want)) << c.text << ": " << r.error().text();
    EXPECT_FALSE(r.error().context().empty());
  }
  std::string many = "a0";
  for (std::size_t i = 1; i <= kMaxSelectors; ++i) many += ",a" + std::to_string(i);
  EXPECT_TRUE(parse_selectors(many).error().is(Errc::kTooMany));
}

TEST(Policy, ExpressionsOfRecords) {
  EXPECT_EQ(*parse_expression("*"), (Selector{}));
  EXPECT_EQ(*parse_expression("#a"), (Selector{Kind::kTag, "a"}));
  EXPECT_EQ(*parse_expression("@d-1"), (Selector{Kind::kId, "d-1"}));
  EXPECT_EQ(parse_expression("@d-1")->str(), "@d-1");
  for (const char* bad : {"", "a", "#", "@", " #a", "#a ", "* "})
    EXPECT_FALSE(parse_expression(bad)) << bad;
}

}  // namespace
}  // namespace sally::policy
