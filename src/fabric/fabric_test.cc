// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "base/random.h"
#include "fabric/end.h"
#include "fabric/hop.h"
#include "fabric/labels.h"
#include "fabric/scheduler.h"

namespace sally::fabric {
namespace {

Bytes record(std::size_t size, std::uint8_t fill = 1) {
  return Bytes(size, fill);
}

TEST(SendWindow, StopsAtCreditAndAtTheRetainBudget) {
  SendWindow w;
  while (w.has_room()) w.push(record(16000));
  EXPECT_GE(w.retained(), kRetain);
  EXPECT_LT(w.retained(), kRetain + 16000);
  std::uint64_t sent = 0;
  while (auto p = w.next()) sent += p->payload.size();
  EXPECT_EQ(sent, 16000U);
  w.on_credit(10000);  // lower than before: nothing changes
  EXPECT_FALSE(w.sendable());
  w.on_credit(20000);  // too little for a record, and for a part that is worth it
  EXPECT_FALSE(w.sendable());
  w.on_credit(90000);  // the last part ends inside a record
  while (auto p = w.next()) sent += p->payload.size();
  EXPECT_EQ(sent, 90000U);
  w.on_credit(96000);
  while (auto p = w.next()) sent += p->payload.size();
  EXPECT_EQ(sent, 96000U);
  ASSERT_TRUE(w.on_ack(50000));
  EXPECT_TRUE(w.has_room());
  EXPECT_TRUE(w.on_ack(96001).error().is(Errc::kBadAck));
  w.on_credit(2 << 20);  // what the next hop takes may be kept too
  while (w.has_room()) w.push(record(16000));
  EXPECT_EQ(w.end_offset(), (2U << 20U) / 16000 * 16000 + 16000);
}

TEST(SendWindow, ARecordInAChunkIsLentAsAWholeOnly) {
  ChunkPool pool;
  SendWindow w;
  w.push(pool.copy_of(record(16000, 1)));
  w.push(pool.copy_of(record(16000, 2)));
  const auto first = w.next();
  ASSERT_TRUE(first && first->whole != nullptr);
  EXPECT_EQ(first->whole->begin, Chunk::kHeadroom);
  EXPECT_EQ(first->payload.data(), first->whole->view().data());
  // A part of one: what is in front of it was sent and may be sent again.
  w.on_credit(24000);
  EXPECT_EQ(w.next()->whole, nullptr);
  w.on_credit(64000);
  const auto rest = w.next();
  EXPECT_EQ(rest->whole, nullptr);
  EXPECT_EQ(rest->payload.size(), 8000U);
  EXPECT_EQ(pool.in_use(), 2U);
  ASSERT_TRUE(w.on_ack(16000));
  EXPECT_EQ(pool.in_use(), 1U);
  ASSERT_TRUE(w.restart(16000));
  w.on_credit(64000);
  EXPECT_EQ(to_bytes(w.next()->payload), record(16000, 2));
}

TEST(SendWindow, FinIsAcknowledgedLikeOneByte) {
  SendWindow w;
  w.push(record(10));
  w.push_fin();
  EXPECT_FALSE(w.has_room());
  EXPECT_FALSE(w.next()->fin);
  const auto fin = w.next();
  ASSERT_TRUE(fin && fin->fin);
  EXPECT_EQ(fin->offset, 10U);
  EXPECT_FALSE(w.next());
  ASSERT_TRUE(w.on_ack(10));
  EXPECT_FALSE(w.fin_acked());
  ASSERT_TRUE(w.on_ack(11));
  EXPECT_TRUE(w.fin_acked());
  EXPECT_FALSE(w.on_ack(12));
}

TEST(SendWindow, FinCannotBeAcknowledgedBeforeItIsSent) {
  SendWindow w;
  w.push(record(10));
  w.push_fin();
  (void)w.next();
  EXPECT_TRUE(w.on_ack(11).error().is(Errc::kBadAck));
}

TEST(SendWindow, RestartSendsTheSameBytesAgain) {
  SendWindow w;
  for (std::uint8_t i = 0; i < 6; ++i) w.push(record(100, i));
  w.push_fin();
  while (w.next()) {
  }
  ASSERT_TRUE(w.on_ack(150));
  ASSERT_TRUE(w.restart(250));
  Bytes again;
  bool fin = false;
  while (auto p = w.next()) {
    if (!p->fin) {
      EXPECT_EQ(p->offset, 250 + again.size());
    }
    append(again, p->payload);
    fin = p->fin;
  }
  EXPECT_TRUE(fin);
  ASSERT_EQ(again.size(), 350U);
  EXPECT_EQ(again[0], 2);
  EXPECT_EQ(again[50], 3);
  EXPECT_FALSE(w.restart(99));
  EXPECT_FALSE(w.restart(601));
}

/// A clock for windows: far enough apart that they do not grow, unless a test says so.
WindowConditions slow() {
  static std::int64_t now = 0;
  return {.now_us = now += 1'000'000};
}

TEST(RecvWindow, DuplicatesGapsAndCredit) {
  RecvWindow w;
  EXPECT_EQ(w.take_credit(slow()), kFirstWindow);
  EXPECT_FALSE(w.credit_due());
  EXPECT_EQ(w.on_data(0, record(100))->size(), 100U);
  EXPECT_EQ(w.on_data(50, record(100))->size(), 50U);
  EXPECT_EQ(w.on_data(0, record(150))->size(), 0U);
  EXPECT_TRUE(w.on_data(151, record(1)).error().is(Errc::kGap));
  EXPECT_TRUE(w.on_data(150, record(kFirstWindow)).error().is(Errc::kBeyondCredit));
  EXPECT_FALSE(w.take_ack(false));
  EXPECT_EQ(w.take_ack(true), 150U);
  EXPECT_FALSE(w.take_ack(true));
  EXPECT_TRUE(w.on_fin(149).error().is(Errc::kBadFin));
  ASSERT_TRUE(w.on_fin(150));
  EXPECT_TRUE(w.on_data(150, record(1)).error().is(Errc::kAfterFin));
  EXPECT_EQ(w.take_ack(false), 151U);
}

/// A hop whose two halves are on one worker.
struct Hop {
  HopInlet in;
  HopOutlet out;
  Status on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole, ChunkPool& pool) {
    TRY(in.on_data(offset, payload.size()));
    out.push(payload, whole, pool);
    return {};
  }
  Status on_fin(std::uint64_t offset) {
    TRY(in.on_fin(offset));
    out.push_fin();
    return {};
  }
  std::optional<std::uint64_t> grant(const WindowConditions& now = slow()) {
    return in.grant(out.forwarded(), now);
  }
};

TEST(Hop, OneByteFramesCannotPinMemory) {
  ChunkPool pool;
  Hop hop;
  ASSERT_EQ(hop.grant(), kFirstWindow);
  for (std::uint64_t i = 0; i < 60000; ++i) {
    ASSERT_TRUE(hop.on_data(i, record(1), nullptr, pool));
  }
  EXPECT_LE(hop.out.queued_chunks(), 4U);
  EXPECT_EQ(pool.in_use(), hop.out.queued_chunks());
}

TEST(Hop, LargePayloadsAreNotCopied) {
  ChunkPool pool;
  Hop hop;
  auto c = pool.copy_of(record(kMaxPayload));
  const auto* where = c->data;
  ASSERT_TRUE(hop.on_data(0, c->view(), &c, pool));
  EXPECT_EQ(c, nullptr);
  EXPECT_EQ(hop.out.next()->chunk->data, where);
}

TEST(Hop, RefusesWhatTheUpstreamMayNotSend) {
  ChunkPool pool;
  Hop hop;
  EXPECT_TRUE(hop.on_data(1, record(10), nullptr, pool).error().is(Errc::kGap));
  ASSERT_TRUE(hop.on_data(0, record(16000), nullptr, pool));
  EXPECT_TRUE(hop.on_data(16000, record(385), nullptr, pool).error().is(Errc::kBeyondCredit));
  EXPECT_TRUE(hop.on_fin(1).error().is(Errc::kBadFin));
  ASSERT_TRUE(hop.on_fin(16000));
  EXPECT_TRUE(hop.on_data(16000, record(10), nullptr, pool).error().is(Errc::kAfterFin));
}

TEST(Hop, WhereMemoryIsScarceNothingIsPromised) {
  ChunkPool pool;
  Hop hop;
  WindowConditions scarce = slow();
  scarce.most = kInitialCredit;
  EXPECT_FALSE(hop.grant(scarce));
  ASSERT_TRUE(hop.on_data(0, record(12289), nullptr, pool));
  EXPECT_FALSE(hop.grant(scarce));
  ASSERT_TRUE(hop.out.next());
  EXPECT_EQ(hop.grant(scarce), 12289 + kInitialCredit);  // it flows all the same
  // What was granted before is kept, and less of it comes after.
  Hop large;
  EXPECT_EQ(large.grant(), kFirstWindow);
  std::uint64_t at = 0;
  std::uint64_t granted = kFirstWindow;
  for (int i = 0; i < 40; ++i) {
    if (at + 4000 > granted) break;
    ASSERT_TRUE(large.on_data(at, record(4000), nullptr, pool));
    large.out.on_credit(1 << 30);
    while (large.out.next()) {
    }
    at += 4000;
    if (const auto more = large.grant(scarce)) granted = *more;
    ASSERT_GE(granted, at);
  }
  EXPECT_EQ(at, 160'000U);
  EXPECT_LE(granted - at, kInitialCredit);
}

TEST(Hop, StalledIsWhatHasNotMovedSinceTheMark) {
  ChunkPool pool;
  Hop hop;
  hop.out.mark();
  EXPECT_FALSE(hop.out.stalled());  // nothing waits
  ASSERT_TRUE(hop.on_data(0, record(9000), nullptr, pool));
  EXPECT_FALSE(hop.out.stalled());  // it came after
  hop.out.mark();
  EXPECT_TRUE(hop.out.stalled());
  ASSERT_TRUE(hop.on_data(9000, record(5000), nullptr, pool));
  EXPECT_TRUE(hop.out.stalled());  // what comes behind it moves nothing
  ASSERT_TRUE(hop.out.next());
  EXPECT_FALSE(hop.out.stalled());
}

// An outlet on another worker tells in steps that the inlet chose; nothing is stuck in between,
// however small the window, and whatever the sizes.
TEST(Hop, StepsOfTheFartherHalfNeverStick) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SeededRandom random(seed);
    ChunkPool pool;
    SendWindow sender;
    Hop hop;
    std::uint64_t told = 0;
    std::uint64_t got = 0;
    hop.out.on_credit(1 << 30);
    while (got < 500'000) {
      while (sender.has_room()) sender.push(record(1 + random.below(kMaxPayload)));
      const auto before = got;
      while (const auto piece = sender.next())
        ASSERT_TRUE(hop.on_data(piece->offset, piece->payload, nullptr, pool));
      while (auto piece = hop.out.next()) {
        got += piece->chunk->size();
        if (const auto f = hop.out.take_forwarded(hop.in.quantum())) told = *f;
      }
      WindowConditions now = slow();
      now.most = random.below(2) == 0 ? kInitialCredit : kFirstWindow;
      if (const auto limit = hop.in.grant(told, now)) sender.on_credit(*limit);
      ASSERT_GT(got, before) << "stuck, seed " << seed;
      ASSERT_TRUE(sender.on_ack(got));
    }
  }
}

TEST(WindowSize, GrowsWhileTheSenderUsesItAndTheWayIsLong) {
  const auto run = [](std::int64_t rtt_us, std::int64_t bytes_per_ms, std::uint64_t most) {
    HopInlet in;
    std::uint64_t drained = 0;
    std::uint64_t granted = in.grant(0, {.now_us = 1'000, .rtt_us = rtt_us, .most = most}).value();
    // Each round trip the sender uses what was granted at its beginning, at its own pace.
    for (std::int64_t us = rtt_us; us < 5'000'000; us += rtt_us) {
      const auto pace = static_cast<std::uint64_t>(bytes_per_ms * rtt_us / 1000);
      const auto used = std::min(granted, drained + pace) - drained;
      EXPECT_TRUE(in.on_data(drained, used));
      drained += used;
      if (const auto more = in.grant(drained, {.now_us = us, .rtt_us = rtt_us, .most = most}))
        granted = *more;
    }
    return granted - drained;
  };
  EXPECT_EQ(run(100'000, 100'000, kMaxWindow), kMaxWindow);  // far and fast
  EXPECT_LE(run(100'000, 100, kMaxWindow), kFirstWindow);    // far and slow
  EXPECT_LE(run(10'000, 20'000, kMaxWindow), 1U << 20U);     // 200 KB a round trip
  EXPECT_GE(run(10'000, 20'000, kMaxWindow), 200'000U);
  EXPECT_EQ(run(100'000, 100'000, 256 * 1024), 256U * 1024);  // as far as it may
}

TEST(LabelTable, CapReuseAndUnknown) {
  LabelTable<int> table(2);
  int a = 0;
  int b = 0;
  EXPECT_EQ(table.allocate(&a), 1U);
  EXPECT_EQ(table.allocate(&b), 2U);
  EXPECT_EQ(table.allocate(&b), 0U);
  table.release(1);
  EXPECT_EQ(table.find(1), nullptr);
  EXPECT_TRUE(table.known(1));
  EXPECT_FALSE(table.known(3));
  EXPECT_EQ(table.find(0), nullptr);
  EXPECT_EQ(table.allocate(&a), 1U);
  table.release(7);
  EXPECT_EQ(table.used(), 2U);
}

struct Sender final : Turn {
  std::size_t frame = 1;
  std::size_t sent = 0;
};

constexpr auto even = [](const Turn&) { return DeficitRoundRobin::kQuantum; };

TEST(Scheduler, SmallAndLargeFramesGetTheSameBytes) {
  DeficitRoundRobin ring;
  Sender senders[3];
  senders[0].frame = 100;
  senders[1].frame = 16384;
  senders[2].frame = 9000;
  for (auto& s : senders) ring.add(s);
  for (int i = 0; i < 20000; ++i) {
    auto* s = static_cast<Sender*>(ring.current(even));
    ASSERT_NE(s, nullptr);
    s->sent += s->frame;
    ring.charge(*s, s->frame);
  }
  const auto [low, high] = std::minmax({senders[0].sent, senders[1].sent, senders[2].sent});
  EXPECT_LT(high - low, 4U * 16384U);
}

TEST(Scheduler, DestroyedSendersLeaveTheRing) {
  DeficitRoundRobin ring;
  {
    Sender gone;
    ring.add(gone);
    ring.add(gone);
    EXPECT_FALSE(ring.empty());
  }
  EXPECT_TRUE(ring.empty());
  EXPECT_EQ(ring.current(even), nullptr);
}

TEST(Scheduler, WhoSaysLittleGoesFirstButNotForEver) {
  DeficitRoundRobin ring;
  Sender bulk[2];
  Sender key;
  for (auto& b : bulk) ring.add(b);
  const auto send = [&](std::size_t bytes) {
    auto* s = static_cast<Sender*>(ring.current(even));
    s->sent += bytes;
    ring.charge(*s, bytes);
    return s;
  };
  for (int i = 0; i < 10; ++i) send(9000);
  // A keystroke does not wait for anybody's quantum.
  ring.add(key);
  EXPECT_EQ(send(50), &key);
  ring.nothing(key);
  // Again at once: it has had its turn before the others.
  ring.add(key);
  EXPECT_NE(send(9000), &key);
  // Whoever always has something is no sparse flow: bulk gets its share.
  Sender greedy;
  ring.add(greedy);
  const std::size_t before = bulk[0].sent;
  for (int i = 0; i < 300; ++i) send(9000);
  EXPECT_GT(bulk[0].sent - before, 300U * 9000 / 5);
  EXPECT_LT(greedy.sent, 300U * 9000 / 3);
}

TEST(Scheduler, AShareByClass) {
  DeficitRoundRobin ring;
  Sender a;
  Sender b;
  ring.add(a);
  ring.add(b);
  for (int i = 0; i < 10'000; ++i) {
    auto* s = static_cast<Sender*>(ring.current(
        [&](const Turn& t) { return (&t == &a ? 2 : 1) * DeficitRoundRobin::kQuantum; }));
    s->sent += s->frame = 5000;
    ring.charge(*s, 5000);
  }
  EXPECT_NEAR(static_cast<double>(a.sent) / static_cast<double>(b.sent), 2.0, 0.02);
}

// A dialer, two hops and a host on lanes that deliver in order but in random interleaving: every
// byte arrives, nobody holds more than a window, and both ends finish.
TEST(Circuit, RandomInterleavingDeliversEverything) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SeededRandom random(seed);
    ChunkPool pool;
    CircuitEnd dialer(CircuitEnd::Role::kDialer);
    CircuitEnd host(CircuitEnd::Role::kHost);
    Hop hops[2];
    const std::uint64_t total = 3'000'000;
    std::uint64_t pushed = 0;
    std::uint64_t got = 0;
    std::uint64_t unread = 0;
    bool fin_got = false;
    std::uint64_t guard = 0;
    while (!(dialer.send().fin_acked() && fin_got)) {
      ASSERT_LT(++guard, 1'000'000U) << "stuck, seed " << seed;
      switch (random.below(6)) {
        case 0:
          if (pushed < total && dialer.send().has_room()) {
            const auto n = std::min<std::uint64_t>(1 + random.below(kMaxPayload), total - pushed);
            dialer.send().push(record(n, static_cast<std::uint8_t>(pushed)));
            pushed += n;
            if (pushed == total) dialer.send().push_fin();
          }
          break;
        case 1:
          if (auto p = dialer.send().next()) {
            if (p->fin) {
              ASSERT_TRUE(hops[0].on_fin(p->offset));
            } else {
              ASSERT_TRUE(hops[0].on_data(p->offset, p->payload, nullptr, pool));
            }
          }
          break;
        case 2:
          if (auto p = hops[0].out.next()) {
            if (p->fin) {
              ASSERT_TRUE(hops[1].on_fin(p->offset));
            } else {
              ASSERT_TRUE(hops[1].on_data(p->offset, p->chunk->view(), &p->chunk, pool));
            }
          }
          break;
        case 3:
          if (auto p = hops[1].out.next()) {
            if (p->fin) {
              ASSERT_TRUE(host.recv().on_fin(p->offset));
              fin_got = true;
            } else {
              const auto fresh = host.recv().on_data(p->offset, p->chunk->view());
              ASSERT_TRUE(fresh);
              got += fresh->size();
              unread += fresh->size();
            }
          }
          break;
        case 4: {
          const auto n = std::min(unread, random.below(100'000));
          host.recv().consumed(n);
          unread -= n;
          break;
        }
        default: {
          const auto due = host.take_due(random.below(2) == 0, slow);
          if (due.credit) hops[1].out.on_credit(*due.credit);
          if (due.ack) {
            ASSERT_TRUE(dialer.send().on_ack(*due.ack));
          }
          if (auto c = hops[1].grant()) hops[0].out.on_credit(*c);
          if (auto c = hops[0].grant()) dialer.send().on_credit(*c);
          break;
        }
      }
      ASSERT_LE(hops[0].out.queued(), kMaxWindow);
      ASSERT_LE(hops[1].out.queued(), kMaxWindow);
    }
    EXPECT_EQ(got, total);
    EXPECT_FALSE(dialer.take_orderly_reset());  // the other direction is still open
    host.send().push_fin();
    const auto p = host.send().next();
    ASSERT_TRUE(p && p->fin);
    ASSERT_TRUE(dialer.recv().on_fin(0));
    ASSERT_TRUE(host.send().on_ack(*dialer.take_due(true, slow).ack));
    EXPECT_TRUE(dialer.take_orderly_reset());
    EXPECT_FALSE(dialer.take_orderly_reset());
    EXPECT_TRUE(host.finished());
    EXPECT_FALSE(host.take_orderly_reset());
  }
}

}  // namespace
}  // namespace sally::fabric
