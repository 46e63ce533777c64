// SPDX-License-Identifier: Apache-2.0
#include "router/terminators.h"
#include "wire/frame.h"

#include <gtest/gtest.h>

#include <cstddef>

namespace sally::router {
namespace {

struct TerminatorsTest : ::testing::Test {
  // Never looked into: their addresses name them.
  std::max_align_t places[3] = {};
  Device& on(int i) { return reinterpret_cast<Device&>(places[i]); }
  static wire::Terminator record(const std::string& id, const std::string& service,
                                 std::uint8_t instance, std::uint32_t precedence = 0) {
    wire::Terminator t;
    t.id = id;
    t.service = service;
    t.device = "d";
    t.instance = {instance};
    t.precedence = precedence;
    return t;
  }
  Terminators all;
  SeededRandom random{1};
};

TEST_F(TerminatorsTest, AnInstanceThatMovesKeepsItsIdAndItsOldConnectionTakesNothing) {
  EXPECT_EQ(all.put(record("a", "s", 1), 0, on(0)), "a");
  EXPECT_EQ(all.put(record("b", "s", 1), 1, on(1)), "a");
  EXPECT_FALSE(all.remove("s", {1}, on(0)));
  EXPECT_FALSE(all.remove_all(on(0)));
  EXPECT_FALSE(all.remove_if(0, [](const Candidate&) { return true; }));
  ASSERT_TRUE(all.find("s", "a"));
  EXPECT_EQ(all.find("s", "a")->worker, 1U);
  EXPECT_EQ(all.report().entries.size(), 1U);
  EXPECT_TRUE(all.remove_all(on(1)));
  EXPECT_FALSE(all.find("s", "a"));
  EXPECT_TRUE(all.choose("s", random).empty());
}

TEST_F(TerminatorsTest, PrecedenceThenCostAndLoad) {
  all.put(record("backup", "s", 1, 1), 0, on(0));
  all.put(record("x", "s", 2), 0, on(0));
  all.put(record("y", "s", 3), 1, on(1));
  all.put(record("other", "t", 3), 1, on(1));
  all.find("s", "x")->load->opened();
  auto ranked = all.choose("s", random);
  ASSERT_EQ(ranked.size(), 3U);
  EXPECT_EQ(ranked[0]->id, "y");
  EXPECT_EQ(ranked[2]->id, "backup");
  ranked[0]->load->failed();  // shared by every copy
  EXPECT_EQ(all.choose("s", random)[0]->id, "x");
}

TEST_F(TerminatorsTest, ADeviceHasACapOnAllItsConnections) {
  for (std::size_t i = 0; i < Terminators::kMaxPerDevice; ++i) {
    const std::string n = std::to_string(i);
    ASSERT_TRUE(all.put(record("t" + n, "s" + n, 1), 0, on(i % 2)));
  }
  EXPECT_FALSE(all.put(record("more", "more", 1), 0, on(0)));
  EXPECT_FALSE(all.put(record("more", "more", 1), 1, on(1)));
  EXPECT_TRUE(all.put(record("again", "s7", 1), 0, on(0)));
  EXPECT_TRUE(all.remove("s7", {1}, on(0)));
  EXPECT_TRUE(all.put(record("room", "room", 1), 0, on(0)));
  EXPECT_EQ(all.size(), Terminators::kMaxPerDevice);
  EXPECT_TRUE(all.remove_all(on(0)));
  EXPECT_TRUE(all.remove_all(on(1)));
  EXPECT_EQ(all.size(), 0U);
  EXPECT_TRUE(all.put(record("fresh", "fresh", 1), 0, on(0)));
}

TEST_F(TerminatorsTest, AReportFitsAControlMessage) {
  for (std::size_t i = 0; i < 3'000; ++i) {
    const std::string n = std::to_string(i);
    auto r = record("t" + n, "s", 1, static_cast<std::uint32_t>(i));
    r.device = "d" + n;
    r.proof.resize(4'000);
    ASSERT_TRUE(all.put(std::move(r), 0, on(0)));
  }
  const auto report = all.report();
  EXPECT_GT(report.entries.size(), 1'000U);
  EXPECT_LT(wire::encode(wire::Control{report}).size(), wire::kMaxControlMessage);
}

}  // namespace
}  // namespace sally::router
