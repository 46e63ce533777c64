// SPDX-License-Identifier: Apache-2.0
#include "identity/renew.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace sally::identity {
namespace {

TEST(Schedule, LiesAroundTwoThirdsOfTheLife) {
  SeededRandom random{7};
  const std::int64_t life_s = 30LL * 86'400;
  for (int i = 0; i < 10'000; ++i) {
    const std::string id = random.hex(8);
    const std::int64_t at = renew_at_ms(id, 1'000, 1'000 + life_s);
    EXPECT_GE(at, 1'000'000 + life_s * 566);
    EXPECT_LE(at, 1'000'000 + life_s * 767);
    EXPECT_EQ(at, renew_at_ms(id, 1'000, 1'000 + life_s));
  }
}

// All enrolled in the same second: a fifth of the life to spread over.
TEST(Schedule, TenThousandEnrolledTogetherAreNoHerd) {
  SeededRandom random{11};
  const std::int64_t life_s = 5LL * 3'600;  // its fifth is 60 minutes
  std::map<std::int64_t, int> minutes;
  for (int i = 0; i < 10'000; ++i) ++minutes[renew_at_ms(random.hex(8), 0, life_s) / 60'000];
  int most = 0;
  for (const auto& [minute, n] : minutes) most = std::max(most, n);
  EXPECT_LE(most, 1.5 * 10'000 / 60);
}

}  // namespace
}  // namespace sally::identity
