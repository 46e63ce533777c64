// SPDX-License-Identifier: Apache-2.0
#include "loop/timer_wheel.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "base/random.h"

namespace sally::loop {
namespace {

TEST(TimerWheel, FiresOnTimeNeverEarly) {
  FakeClock clock;
  TimerWheel wheel(clock);
  for (std::int64_t ms : {1, 2, 255, 256, 257, 65'535, 65'536, 70'000, 20'000'000}) {
    bool fired = false;
    Timer t(wheel, [&] { fired = true; });
    t.arm(ms);
    clock.advance_ms(ms - 1);
    wheel.advance();
    EXPECT_FALSE(fired) << ms;
    EXPECT_EQ(t.left_ms(), 1) << ms;
    clock.advance_ms(1);
    wheel.advance();
    EXPECT_TRUE(fired) << ms;
    EXPECT_FALSE(t.armed());
  }
  EXPECT_EQ(wheel.next_ms(), -1);
}

TEST(TimerWheel, LongerThanItsReach) {
  FakeClock clock;
  TimerWheel wheel(clock);
  bool fired = false;
  Timer t(wheel, [&] { fired = true; });
  const std::int64_t days_100 = 100LL * 86'400'000;
  t.arm(days_100);
  clock.advance_ms(days_100 - 1);
  wheel.advance();
  EXPECT_FALSE(fired);
  clock.advance_ms(1);
  wheel.advance();
  EXPECT_TRUE(fired);
}

TEST(TimerWheel, CallbackMayDestroyArmAndCancel) {
  FakeClock clock;
  TimerWheel wheel(clock);
  int again = 0;
  std::unique_ptr<Timer> self;
  self = std::make_unique<Timer>(wheel, [&] { self.reset(); });
  bool victim_fired = false;
  Timer victim(wheel, [&] { victim_fired = true; });
  Timer killer(wheel, [&] { victim.cancel(); });
  std::unique_ptr<Timer> repeat;
  repeat = std::make_unique<Timer>(wheel, [&] {
    if (++again < 3) repeat->arm(0);
  });
  self->arm(5);
  victim.arm(5);  // same tick; the killer was armed later and runs first
  killer.arm(5);
  repeat->arm(5);
  clock.advance_ms(5);
  wheel.advance();
  EXPECT_EQ(self, nullptr);
  EXPECT_FALSE(victim_fired);
  EXPECT_EQ(again, 1);  // 0 means the next tick, not this one for ever
  clock.advance_ms(10);
  wheel.advance();
  EXPECT_EQ(again, 3);
  EXPECT_EQ(wheel.size(), 0u);
}

TEST(TimerWheel, AgreesWithASortedMap) {
  FakeClock clock;
  TimerWheel wheel(clock);
  SeededRandom random(7);
  std::vector<std::unique_ptr<Timer>> timers;
  std::vector<std::int64_t> due(300, -1);
  for (std::size_t i = 0; i < due.size(); ++i)
    timers.push_back(std::make_unique<Timer>(wheel, [&, i] {
      EXPECT_EQ(due[i], wheel.now_ms()) << i;
      due[i] = -1;
    }));
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t i = random.below(due.size());
    switch (random.below(4)) {
      case 0:
        timers[i]->cancel();
        due[i] = -1;
        break;
      case 1: {
        const auto ms = static_cast<std::int64_t>(random.below(1ULL << (1 + random.below(22))));
        timers[i]->arm(ms);
        due[i] = wheel.now_ms() + std::max<std::int64_t>(ms, 1);
        break;
      }
      default: {
        // Move to where the wheel says something may happen, or a little less.
        const std::int64_t next = wheel.next_ms();
        const std::int64_t move = next <= 0 ? 1 : std::min<std::int64_t>(next, 50'000);
        for (std::int64_t d : due) {
          if (d >= 0) {
            ASSERT_GE(d, wheel.now_ms() + std::max<std::int64_t>(next, 0));
          }
        }
        clock.advance_ms(move);
        wheel.advance();
        for (std::int64_t d : due) {
          if (d >= 0) {
            ASSERT_GT(d, wheel.now_ms());
          }
        }
      }
    }
  }
  timers.clear();
  EXPECT_EQ(wheel.size(), 0u);
}

}  // namespace
}  // namespace sally::loop
