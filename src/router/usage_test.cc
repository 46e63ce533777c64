// SPDX-License-Identifier: Apache-2.0
#include "router/usage.h"

#include <gtest/gtest.h>

#include "wire/frame.h"

namespace sally::router {
namespace {

const wire::ProcessEpoch kEpoch{1};
const wire::ProcessEpoch kNext{2};

TEST(UsageTable, LiveCircuitsCountAndTheLastWordIsTold) {
  UsageTable table(2);
  UsageCell* a = table.opened("d1", "s1", 1000);
  UsageCell* again = table.opened("d1", "s1", 1500);
  EXPECT_EQ(a, again);
  a->sent += 10;
  a->received += 7;
  const auto first = table.take(5, 2000);
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first[0], (wire::UsageEntry{5, "d1", "s1", 10, 7, 2, 1500}));
  EXPECT_TRUE(table.take(5, 3000).empty());  // idle: nothing to tell
  a->sent += 1;
  UsageTable::closed(*a, 4000);
  UsageTable::closed(*again, 4000);
  const auto last = table.take(6, 9000);
  ASSERT_EQ(last.size(), 1U);
  EXPECT_EQ(last[0], (wire::UsageEntry{6, "d1", "s1", 1, 0, 0, 4000}));
  EXPECT_TRUE(table.take(6, 9000).empty());
  // Full: for nobody in particular, and room again when cells are over.
  UsageCell* x = table.opened("d1", "s1", 0);
  UsageCell* y = table.opened("d2", "s1", 0);
  UsageCell* z = table.opened("d3", "s1", 0);
  z->sent = 3;
  UsageTable::closed(*x, 0);
  UsageTable::closed(*y, 0);
  UsageTable::closed(*z, 0);
  const auto all = table.take(6, 0);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all.back(), (wire::UsageEntry{6, "", "", 3, 0, 1, 0}));
  EXPECT_NE(table.opened("d3", "s1", 0), z);
}

std::uint64_t sum(const wire::Usage& u) {
  std::uint64_t n = 0;
  for (const auto& e : u.entries) n += e.sent;
  return n;
}

TEST(UsageLedger, OneBatchUnderWayTheRestSummedUp) {
  UsageLedger ledger(kEpoch, 2);
  ledger.start(0);
  EXPECT_TRUE(ledger.empty());
  ledger.add({{1, "d1", "s1", 5, 0, 1, 0}});
  const wire::Usage first = ledger.next(2000, {});
  EXPECT_EQ(first.sequence, 1U);
  EXPECT_EQ(first.interval_ms, 2000U);
  ledger.add({{1, "d1", "s1", 6, 0, 0, 0}});
  ledger.add({{1, "d1", "s1", 7, 0, 0, 0}});
  // Sent again until acknowledged, the same.
  EXPECT_EQ(ledger.next(9000, {}).entries, first.entries);
  EXPECT_FALSE(ledger.acknowledged({kNext, 1, 0}));
  EXPECT_FALSE(ledger.acknowledged({kEpoch, 2, 0}));
  EXPECT_TRUE(ledger.acknowledged({kEpoch, 1, 0}));
  EXPECT_FALSE(ledger.acknowledged({kEpoch, 1, 0}));
  EXPECT_FALSE(ledger.empty());
  const wire::Usage second = ledger.next(9000, {});
  EXPECT_EQ(second.sequence, 2U);
  EXPECT_EQ(second.interval_ms, 7000U);
  EXPECT_EQ(sum(second), 13U);
  EXPECT_TRUE(ledger.acknowledged({kEpoch, 2, 0}));
  EXPECT_TRUE(ledger.empty());
  // Beyond the bound bytes are kept, names are not.
  ledger.add({{1, "d1", "s", 1, 0, 0, 0},
              {1, "d2", "s", 2, 0, 0, 0},
              {1, "d3", "s", 4, 0, 0, 0},
              {1, "d4", "s", 8, 0, 0, 0},
              {1, "d2", "s", 16, 0, 0, 0}});
  const wire::Usage third = ledger.next(9001, {});
  EXPECT_EQ(third.interval_ms, 7000U);  // not a millisecond: no absurd rates
  EXPECT_EQ(third.entries.size(), 3U);
  EXPECT_EQ(sum(third), 31U);
}

TEST(UsageLedger, TheNextProcessTellsWhatWasLeft) {
  UsageLedger ledger(kEpoch);
  EXPECT_TRUE(ledger.save().empty());
  ledger.add({{1, "d1", "s1", 5, 0, 1, 0}});
  const auto under_way = ledger.next(1, {}).entries;
  ledger.add({{1, "d2", "s1", 6, 0, 1, 0}});
  const Bytes saved = ledger.save();

  UsageLedger next(kNext);
  for (std::size_t cut : {std::size_t{1}, std::size_t{5}, saved.size() - 1})
    EXPECT_FALSE(next.load(ByteView(saved).first(cut)));
  EXPECT_TRUE(next.empty());
  ASSERT_TRUE(next.load(saved));
  next.add({{1, "d1", "s1", 100, 0, 0, 0}});
  // With the epoch and numbers of before: what had arrived is not counted again.
  EXPECT_EQ(next.next(1, {}).epoch, kEpoch);
  EXPECT_EQ(next.next(1, {}).sequence, 1U);
  EXPECT_EQ(next.next(1, {}).entries, under_way);
  EXPECT_TRUE(next.acknowledged({kEpoch, 1, 0}));
  EXPECT_TRUE(next.more());
  EXPECT_EQ(next.next(1, {}).sequence, 2U);
  EXPECT_EQ(sum(next.next(1, {})), 6U);
  // Killed here, nothing is lost either.
  UsageLedger third(kNext);
  ASSERT_TRUE(third.load(next.save()));
  EXPECT_EQ(sum(third.next(1, {})), 6U);
  EXPECT_TRUE(next.acknowledged({kEpoch, 2, 0}));
  EXPECT_EQ(next.next(1, {}).epoch, kNext);
  EXPECT_EQ(sum(next.next(1, {})), 100U);
}

TEST(UsageLedger, MoreThanABatch) {
  UsageLedger ledger(kEpoch);
  std::vector<wire::UsageEntry> many;
  for (std::size_t i = 0; i < wire::kMaxUsageEntries + 10; ++i)
    many.push_back({1, "d" + std::to_string(i), "s", 1, 0, 0, 0});
  ledger.add(many);
  UsageLedger next(kNext);
  ASSERT_TRUE(next.load(ledger.save()));
  std::uint64_t told = 0;
  for (auto* l : {&ledger, &next}) {
    while (!l->empty()) {
      const wire::Usage u = l->next(1, {});
      EXPECT_LE(u.entries.size(), wire::kMaxUsageEntries);
      EXPECT_LT(wire::encode(wire::Control{u}).size(), wire::kMaxControlMessage);
      told += sum(u);
      EXPECT_TRUE(l->acknowledged({u.epoch, u.sequence, 0}));
    }
  }
  EXPECT_EQ(told, 2 * many.size());
}

}  // namespace
}  // namespace sally::router
