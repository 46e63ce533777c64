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
  CrossingPtr crossing =
      std::make_shared<Crossing>(CircuitId{}, ServiceId("s"), DeviceId("d"), dialing, hosting);
};

TEST_F(CrossingTest, OneByteFramesCannotPinMemoryInFlight) {
  ChunkPool pool;
  for (int i = 0; i < 60'000; ++i)
    EXPECT_FALSE(crossing->send_data(End::kHosting, as_bytes("x"), nullptr, pool));
  EXPECT_EQ(pool.in_use(), 0U);  // they are nobody's until they are taken
  ASSERT_TRUE(loop.run_until([&] { return !told.empty(); }, 1'000));
  loop.run_once(false);
  EXPECT_EQ(told.size(), 1U);  // one notice
  Crossing::Mail mail;
  crossing->take(End::kHosting, mail);
  EXPECT_LE(mail.chunks.size(), 4U);
  std::size_t bytes = 0;
  for (const auto& c : mail.chunks) bytes += c->size();
  EXPECT_EQ(bytes, 60'000U);
}

TEST_F(CrossingTest, LargePayloadsCrossAsTheyAreAndGetANewHome) {
  ChunkPool from;
  ChunkPool to;
  auto chunk = from.copy_of(Bytes(fabric::kMaxPayload, 7));
  const auto* where = chunk->data;
  EXPECT_TRUE(crossing->send_data(End::kHosting, chunk->view(), &chunk, from));
  EXPECT_EQ(chunk, nullptr);
  Crossing::Mail mail;
  crossing->take(End::kHosting, mail);
  ASSERT_EQ(mail.chunks.size(), 1U);
  EXPECT_EQ(mail.chunks[0]->data, where);
  to.adopt(*mail.chunks[0]);
  EXPECT_EQ(to.in_use(), 1U);
  mail.clear();
  EXPECT_EQ(to.in_use(), 0U);
  EXPECT_EQ(to.idle(), 1U);
  EXPECT_EQ(from.in_use(), 0U);
}

// Bulk waits while more of it comes, but not for long, and never behind anything else.
TEST_F(CrossingTest, BulkIsHeldForAMomentOnly) {
  ChunkPool pool;
  Crossing::Mail mail;
  const auto notices = [&] {
    while (loop.run_until([n = told.size(), this] { return told.size() != n; }, 0)) {
    }
    return std::exchange(told, {}).size();
  };
  const auto send = [&](std::size_t size) {
    ChunkPtr chunk = pool.copy_of(Bytes(size, 1));
    return crossing->send_data(End::kHosting, chunk->view(), &chunk, pool);
  };
  // One record, then silence.
  ASSERT_TRUE(send(16'000));
  Crossing::Held held;
  EXPECT_TRUE(crossing->still_held(End::kHosting, held));  // after the turn it came in
  EXPECT_TRUE(crossing->still_held(End::kHosting, held));  // before the next poll
  EXPECT_EQ(notices(), 0U);
  EXPECT_FALSE(crossing->still_held(End::kHosting, held));  // after it
  EXPECT_EQ(notices(), 1U);
  crossing->take(End::kHosting, mail);
  mail.clear();
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
  crossing->take(End::kHosting, mail);
  EXPECT_EQ(mail.chunks.size(), 8U);
  mail.clear();
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
      m.credit = i;
      m.ack = i * 2;
    });
  }
  crossing->send(End::kHosting, [](Crossing::Mail& m) {
    m.reset = wire::Reset{.code = wire::ResetCode::kPolicy, .text = {}};
  });
  Crossing::Mail mail;
  crossing->take(End::kHosting, mail);
  EXPECT_EQ(mail.credit, 100U);
  EXPECT_EQ(mail.ack, 200U);
  EXPECT_EQ(mail.reset->code, wire::ResetCode::kPolicy);
  mail.clear();
  crossing->take(End::kHosting, mail);
  EXPECT_FALSE(mail.credit || mail.ack || mail.reset || mail.fin);
  EXPECT_TRUE(crossing->first_cut());
  EXPECT_FALSE(crossing->first_cut());
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
    Crossing::Mail mail;
    c->take(End::kHosting, mail);
    for (ChunkPtr& chunk : mail.chunks) {
      to.adopt(*chunk);
      out.push(chunk->view(), &chunk, to);
      chunk.reset();
    }
    if (mail.fin) out.push_fin();
    out.on_credit(1'000'000'000);
    while (auto piece = out.next()) {
      fin |= piece->fin;
      if (piece->fin) continue;
      for (const auto b : piece->chunk->view()) right &= b == static_cast<std::uint8_t>(got++);
    }
  });
  const auto crossing =
      std::make_shared<Crossing>(CircuitId{}, ServiceId("s"), DeviceId("d"), dialing, hosting);
  std::thread sender([&] {
    SeededRandom random(1);
    std::uint64_t sent = 0;
    while (sent < 5'000'000) {
      Bytes bytes(1 + random.below(fabric::kMaxPayload));
      for (auto& b : bytes) b = static_cast<std::uint8_t>(sent++);
      ChunkPtr chunk = from.copy_of(bytes);
      (void)crossing->send_data(End::kHosting, chunk->view(), &chunk, from);  // the end tells
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
