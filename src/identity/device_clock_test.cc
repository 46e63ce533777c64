// SPDX-License-Identifier: Apache-2.0
#include "identity/device_clock.h"

#include <gtest/gtest.h>

namespace sally::identity {
namespace {

constexpr std::int64_t kDay = 86'400'000;
constexpr std::int64_t kFloor = 1'800'000'000'000;
constexpr std::int64_t kEnd = kFloor + 30 * kDay;

TEST(DeviceClock, TheMachinesClockCountsWhereItCanBeRight) {
  FakeClock machine(kFloor + 5 * kDay);
  const DeviceClock clock(machine, kFloor, kEnd);
  EXPECT_EQ(clock.unix_ms(), kFloor + 5 * kDay);
  EXPECT_FALSE(clock.in_doubt());
  machine.advance_ms(1'000);
  EXPECT_EQ(clock.unix_ms(), kFloor + 5 * kDay + 1'000);
}

TEST(DeviceClock, NeverSetOrFarAheadItIsTheFloorThatTicks) {
  for (const std::int64_t wrong :
       {std::int64_t{0}, kFloor - 1, kEnd + 1, kFloor + 14 * 365 * kDay}) {
    FakeClock machine(wrong);
    const DeviceClock clock(machine, kFloor, kEnd);
    EXPECT_TRUE(clock.in_doubt()) << wrong;
    EXPECT_EQ(clock.unix_ms(), kFloor);
    EXPECT_EQ(clock.guess_ms(), wrong);
    machine.advance_ms(7);
    // One ms before the floor it is right meanwhile.
    EXPECT_EQ(clock.unix_ms(), wrong == kFloor - 1 ? kFloor + 6 + 1 : kFloor + 7);
  }
}

TEST(DeviceClock, WhatOnePeerToldCanBeForgotten) {
  FakeClock machine(kFloor + 1'000);
  DeviceClock clock(machine, kFloor, kEnd);
  clock.learn(kEnd - 1);
  EXPECT_EQ(clock.unix_ms(), kEnd - 1);
  clock.forget();
  EXPECT_EQ(clock.unix_ms(), kFloor + 1'000);
}

TEST(DeviceClock, WhatAPeerTellsReplacesItButNotTheFloor) {
  FakeClock machine(0);
  DeviceClock clock(machine, kFloor, kEnd);
  clock.learn(kFloor + 3 * kDay);
  EXPECT_FALSE(clock.in_doubt());
  EXPECT_EQ(clock.unix_ms(), kFloor + 3 * kDay);
  machine.set_unix_ms(kFloor + 9 * kDay);  // somebody sets it, wrongly
  machine.advance_ms(10);
  EXPECT_EQ(clock.unix_ms(), kFloor + 3 * kDay + 10);
  clock.learn(kFloor - kDay);
  EXPECT_EQ(clock.unix_ms(), clock.floor_ms()) << "a peer that is behind does not take us back";
}

TEST(DeviceClock, TheFloorOnlyRises) {
  FakeClock machine(0);
  DeviceClock clock(machine, kFloor, kEnd);
  EXPECT_FALSE(clock.raise(kFloor - 1));
  EXPECT_TRUE(clock.raise(kFloor + kDay));
  EXPECT_FALSE(clock.raise(kFloor + kDay));
  EXPECT_EQ(clock.unix_ms(), kFloor + kDay);
  // Nothing at all is known: the program's own age.
  EXPECT_EQ(DeviceClock(machine, 0, kEnd).unix_ms(), kEarliestMs);
}

TEST(DeviceClock, ANewCertificateMovesTheEnd) {
  FakeClock machine(kEnd + kDay);  // slept, and the clock is right
  DeviceClock clock(machine, kFloor, kEnd);
  EXPECT_TRUE(clock.in_doubt());
  clock.raise(kEnd + kDay - 3'600'000);
  clock.set_end(kEnd + 31 * kDay);
  EXPECT_FALSE(clock.in_doubt());
  EXPECT_EQ(clock.unix_ms(), kEnd + kDay);
}

}  // namespace
}  // namespace sally::identity
