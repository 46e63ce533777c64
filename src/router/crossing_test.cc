// SPDX-License-Identifier: Apache-2.0
#include "router/crossing.h"

#include <gtest/gtest.h>

#include <thread>

#include "fabric/hop.h"

namespace sally::router {
namespace {

using End = Crossing::End;

struct CrossingTest : ::testing::Test {
  loop::Loop loop;
  std::vector<CrossingPtr> told;
  CrossingInbox dialing{loop, [](const CrossingPtr&) {}};
  CrossingInbox hosting{loop, [this](CrossingPtr c) { told.push_back(std::move(c)); }};
  ChunkBudget budget{1 << 20};
  CrossingPtr crossing = std::make_shared<Crossing>(dialing, hosting, budget);
};

TEST_F(CrossingTest, OneByteFramesCannotPinMemoryInFlight) {
  ChunkPool pool;
  for (int i = 0; i < 60'000; ++i)
    EXPECT_FALSE(
        crossing->send_data(End::kHosting, wire::Class::kNormal, as_bytes("x"), nullptr, pool));
  EXPECT_EQ(pool.in_use(), 0U);  // they are nobody's until they are taken
  ASSERT_TRUE(loop.run_until([&] { return !told.empty(); }, 1'000));
  loop.run_once(false);
  EXPECT_EQ(told.size(), 1U);  // one notice
  const auto mail = crossing->take(End::kHosting);
  EXPECT_LE(mail->chunks.size(), 4U);
  std::size_t bytes = 0;
  for (const auto& c : mail->chunks) bytes += c->size();
  EXPECT_EQ(bytes, 60'000U);
}

TEST_F(CrossingTest, LargePayloadsCrossAsTheyAreAndGetANewHome) {
  ChunkPool from;
  ChunkPool to;
  auto chunk = from.copy_of(Bytes(fabric::kMaxPayload, 7));
  const auto* where = chunk->data;
  EXPECT_TRUE(
      crossing->send_data(End::kHosting, wire::Class::kNormal, chunk->view(), &chunk, from));
  EXPECT_EQ(chunk, nullptr);
  auto mail = crossing->take(End::kHosting);
  ASSERT_EQ(mail->chunks.size(), 1U);
  EXPECT_EQ(mail->chunks[0]->data, where);
  to.adopt(*mail->chunks[0]);
  EXPECT_EQ(to.in_use(), 1U);
  mail.reset();
  EXPECT_EQ(to.in_use(), 0U);
  EXPECT_EQ(to.idle(), 1U);
  EXPECT_EQ(from.in_use(), 0U);
}

// Bulk waits while more of it comes, but not for long, and never behind anything else.
TEST_F(CrossingTest, BulkIsHeldForAMomentOnly) {
  ChunkPool pool;
  const auto notices = [&] {
    while (loop.run_until([n = told.size(), this] { return told.size() != n; }, 0)) {
    }
    return std::exchange(told, {}).size();
  };
  const auto send = [&](std::size_t size) {
    ChunkPtr chunk = pool.copy_of(Bytes(size, 1));
    return crossing->send_data(End::kHosting, wire::Class::kNormal, chunk->view(), &chunk, pool);
  };
  // One record, then silence.
  ASSERT_TRUE(send(16'000));
  Crossing::Held held;
  EXPECT_TRUE(crossing->still_held(End::kHosting, held));  // after the turn it came in
  EXPECT_TRUE(crossing->still_held(End::kHosting, held));  // before the next poll
  EXPECT_EQ(notices(), 0U);
  EXPECT_FALSE(crossing->still_held(End::kHosting, held));  // after it
  EXPECT_EQ(notices(), 1U);
  EXPECT_NE(crossing->take(End::kHosting), nullptr);
  // A stream of them: told when there are enough.
  held = {};
  ASSERT_TRUE(send(16'000));
  for (int i = 0; i < 7; ++i) {
    EXPECT_TRUE(crossing->still_held(End::kHosting, held));
    EXPECT_EQ(notices(), 0U) << i;
    EXPECT_FALSE(send(16'000));  // already held
  }
  EXPECT_EQ(notices(), 1U);
  EXPECT_FALSE(crossing->still_held(End::kHosting, held));
  EXPECT_EQ(crossing->take(End::kHosting)->chunks.size(), 8U);
  // Whatever is in a hurry takes it along.
  ASSERT_TRUE(send(16'000));
  EXPECT_FALSE(send(10));
  EXPECT_EQ(notices(), 1U);
  held = {};
  EXPECT_FALSE(crossing->still_held(End::kHosting, held));
  EXPECT_EQ(notices(), 0U);
}

TEST_F(CrossingTest, WindowsAreMergedAndTheEndIsThere) {
  for (std::uint64_t i = 1; i <= 100; ++i) {
    crossing->send(End::kHosting, [&](Crossing::Mail& m) {
      m.forwarded = i;
      m.ack = i * 2;
    });
  }
  crossing->send(End::kHosting, [](Crossing::Mail& m) {
    m.reset = wire::Reset{.code = wire::ResetCode::kPolicy, .text = {}};
  });
  const auto mail = crossing->take(End::kHosting);
  EXPECT_EQ(mail->forwarded, 100U);
  EXPECT_EQ(mail->ack, 200U);
  EXPECT_EQ(mail->reset->code, wire::ResetCode::kPolicy);
  EXPECT_EQ(crossing->take(End::kHosting), nullptr);  // idle it holds nothing
  EXPECT_TRUE(crossing->first_cut());
  EXPECT_FALSE(crossing->first_cut());
}

// What is never taken does not count for ever.
TEST_F(CrossingTest, WhatIsLeftLeavesTheBudget) {
  ChunkPool pool(256, &budget);
  for (int i = 0; i < 40; ++i) {
    ChunkPtr chunk = pool.copy_of(Bytes(16'000, 1));
    (void)crossing->send_data(End::kHosting, wire::Class::kNormal, chunk->view(), &chunk, pool);
  }
  EXPECT_GE(budget.used(), 32 * sizeof(Chunk));
  loop.run_once(false);
  told.clear();
  crossing.reset();
  EXPECT_LE(budget.used(), 16 * sizeof(Chunk));  // the pool tells in batches
}

// Two threads, everything in order, nothing lost, chunks home.
TEST(Crossing, BytesCrossBetweenTwoThreads) {
  loop::Loop loop;
  ChunkPool from;
  ChunkPool to;
  fabric::HopOutlet out;
  std::uint64_t got = 0;
  bool right = true;
  bool fin = false;
  CrossingInbox dialing(loop, [](const CrossingPtr&) {});
  CrossingInbox hosting(loop, [&](const CrossingPtr& c) {
    const auto mail = c->take(End::kHosting);
    for (ChunkPtr& chunk : mail->chunks) {
      to.adopt(*chunk);
      out.push(chunk->view(), &chunk, to);
      chunk.reset();
    }
    if (mail->fin) out.push_fin();
    out.on_credit(1'000'000'000);
    while (auto piece = out.next()) {
      fin |= piece->fin;
      if (piece->fin) continue;
      for (const auto b : piece->chunk->view()) right &= b == static_cast<std::uint8_t>(got++);
    }
  });
  ChunkBudget budget(1 << 20);
  const auto crossing = std::make_shared<Crossing>(dialing, hosting, budget);
  std::thread sender([&] {
    SeededRandom random(1);
    std::uint64_t sent = 0;
    while (sent < 5'000'000) {
      Bytes bytes(1 + random.below(fabric::kMaxPayload));
      for (auto& b : bytes) b = static_cast<std::uint8_t>(sent++);
      ChunkPtr chunk = from.copy_of(bytes);
      (void)crossing->send_data(End::kHosting, wire::Class::kNormal, chunk->view(), &chunk,
                                from);  // the end tells
    }
    crossing->send(End::kHosting, [](Crossing::Mail& m) { m.fin = true; });
  });
  EXPECT_TRUE(loop.run_until([&] { return fin; }, 20'000));
  sender.join();
  EXPECT_TRUE(right);
  EXPECT_GE(got, 5'000'000U);
  EXPECT_EQ(from.in_use(), 0U);
  EXPECT_EQ(to.in_use(), 0U);
}

}  // namespace
}  // namespace sally::router
