// SPDX-License-Identifier: Apache-2.0
#include "router/accounts.h"

#include <gtest/gtest.h>

#include <vector>

namespace sally::router {
namespace {

constexpr std::int64_t kSecond = 1'000'000;

TEST(Accounts, LimitsAreOfTheNameHoweverManyConnectionsItHas) {
  Accounts accounts({.lanes = 2, .openings = 3, .circuits = 1});
  const Share one = accounts.open("d1", Use::kLane);
  {
    const Share two = accounts.open("d1", Use::kLane);
    ASSERT_TRUE(one && two);
    EXPECT_EQ(&one.account(), &two.account());
    EXPECT_FALSE(accounts.open("d1", Use::kLane));
    EXPECT_TRUE(accounts.open("d2", Use::kLane));  // another one's
  }
  EXPECT_TRUE(accounts.open("d1", Use::kLane));  // given back
  std::vector<Share> openings;
  for (int i = 0; i < 3; ++i) openings.push_back(one.more(Use::kOpening));
  EXPECT_FALSE(one.more(Use::kOpening));
  openings.clear();
  EXPECT_TRUE(one.more(Use::kOpening));
  EXPECT_EQ(one.account().used(Use::kLane), 1U);
  EXPECT_EQ(one.account().used(Use::kOpening), 0U);
}

TEST(Accounts, ComingBackDoesNotFillARate) {
  Accounts accounts({.dials_per_s = 1, .dial_burst = 5, .binds_per_s = 10, .bind_burst = 20});
  std::int64_t now = kSecond;
  const auto dials = [&] {
    int n = 0;
    const Share lane = accounts.open("d", Use::kLane);
    while (lane.account().may_dial_now(now)) ++n;
    return n;
  };
  EXPECT_EQ(dials(), 5);
  accounts.tidy(now);
  EXPECT_EQ(dials(), 0);
  now += 2 * kSecond;
  accounts.tidy(now);
  EXPECT_EQ(dials(), 2);
  // After the time it takes to fill, nothing is forgotten that matters.
  accounts.tidy(now);
  now += 5 * kSecond;
  accounts.tidy(now);
  EXPECT_EQ(accounts.size(), 0U);
  EXPECT_EQ(dials(), 5);
}

TEST(Accounts, WhatIsUsedStays) {
  Accounts accounts({});
  Share name = accounts.open("d", Use::kNothing);
  accounts.tidy(kSecond);
  accounts.tidy(1'000 * kSecond);
  EXPECT_EQ(name.account().name(), "d");
  name = Share();
  accounts.tidy(2'000 * kSecond);
  EXPECT_EQ(accounts.size(), 1U);  // idle from now on
  accounts.tidy(3'000 * kSecond);
  EXPECT_EQ(accounts.size(), 0U);
}

}  // namespace
}  // namespace sally::router
