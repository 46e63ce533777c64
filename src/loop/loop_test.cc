// SPDX-License-Identifier: Apache-2.0
#include "loop/loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>
#include <vector>

#include "loop/mailbox.h"
#include "loop/net.h"
#include "loop/process.h"

namespace sally::loop {
namespace {

constexpr std::int64_t kLimit = 10'000;

struct Pair {
  Fd a, b;
  Pair() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    a = Fd(fds[0]);
    b = Fd(fds[1]);
  }
};

TEST(Loop, TimersDeferAndStop) {
  Loop loop;
  std::vector<int> order;
  Timer t(loop.timers(), [&] {
    order.push_back(1);
    loop.defer([&] {
      order.push_back(3);
      loop.stop();
    });
    order.push_back(2);
  });
  t.arm(5);
  const auto before = loop.now_ms();
  loop.run();
  EXPECT_GE(loop.now_ms() - before, 5);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(Loop, RunUntilSeesTimersAndDeferredAtOnce) {
  Loop loop;
  bool done = false;
  Timer t(loop.timers(), [&] { loop.defer([&] { done = true; }); });
  t.arm(2);
  const auto before = loop.now_ms();
  EXPECT_TRUE(loop.run_until([&] { return done; }, 30'000));
  EXPECT_LT(loop.now_ms() - before, 5'000);
}

TEST(Loop, PostFromAnotherThreadAndStopBeforeRun) {
  Loop loop;
  int n = 0;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE(loop.post([&] { ++n; }));
  });
  EXPECT_TRUE(loop.run_until([&] { return n == 1000; }, kLimit));
  other.join();
  loop.stop();
  loop.run();  // returns at once
}

TEST(Loop, ACrowdOfCostlyCallsHoldsNothingElseUp) {
  Loop loop;
  int costly = 0;
  int most = 0;
  for (int i = 0; i < 100; ++i) loop.defer_costly([&] { ++costly; });
  while (costly < 100) {
    const int before = costly;
    loop.run_once(true);  // does not sleep over what waits
    most = std::max(most, costly - before);
  }
  EXPECT_LE(most, 16);
  // In their order, and not in the turn in which they are asked for again.
  std::vector<int> seen;
  for (int i = 0; i < 8; ++i)
    loop.defer_costly([&, i] {
      seen.push_back(i);
      if (i == 0) loop.defer_costly([&] { seen.push_back(8); });
    });
  EXPECT_TRUE(loop.run_until([&] { return seen.size() == 9; }, kLimit));
  EXPECT_TRUE(std::ranges::is_sorted(seen));
}

TEST(Watcher, TwoWatchersChangeEachOther) {
  // The libuv trap: changing another descriptor's poll inside a batch must not lose its event.
  Loop loop;
  Pair one;
  Pair two;
  int seen_one = 0;
  int seen_two = 0;
  std::unique_ptr<Watcher> w1;
  std::unique_ptr<Watcher> w2;
  const auto eat = [](int fd) {
    char c;
    return ::read(fd, &c, 1);
  };
  w1 = std::make_unique<Watcher>(loop, one.a.get(), [&](Watcher::Ready r) {
    if (r.readable) seen_one += eat(one.a.get()) == 1;
    w2->want(true, true);
    w2->want(true, false);
  });
  w2 = std::make_unique<Watcher>(loop, two.a.get(), [&](Watcher::Ready r) {
    if (r.readable) seen_two += eat(two.a.get()) == 1;
    w1->want(true, true);
    w1->want(true, false);
  });
  w1->want_read(true);
  w2->want_read(true);
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(::write(one.b.get(), "x", 1), 1);
    ASSERT_EQ(::write(two.b.get(), "x", 1), 1);
    ASSERT_TRUE(loop.run_until([&] { return seen_one == i + 1 && seen_two == i + 1; }, kLimit));
  }
}

TEST(Watcher, DestroyedByItselfAndByTheOther) {
  Loop loop;
  Pair one;
  Pair two;
  int calls = 0;
  std::unique_ptr<Watcher> w1;
  std::unique_ptr<Watcher> w2;
  const auto kill_both = [&](Watcher::Ready) {
    ++calls;
    w1.reset();
    w2.reset();
    one.a.reset();
    two.a.reset();
  };
  w1 = std::make_unique<Watcher>(loop, one.a.get(), kill_both);
  w2 = std::make_unique<Watcher>(loop, two.a.get(), kill_both);
  w1->want(true, true);
  w2->want(true, true);
  EXPECT_TRUE(loop.run_until([&] { return calls > 0; }, kLimit));
  for (int i = 0; i < 3; ++i) loop.run_once(false);
  EXPECT_EQ(calls, 1);
}

TEST(Net, ListenConnectRefuseAndPause) {
  Loop loop;
  std::vector<Fd> accepted;
  Address source;
  auto listener = Listener::tcp(loop, "127.0.0.1", 0, [&](Fd fd, const Address& from) {
    accepted.push_back(std::move(fd));
    source = from;
  });
  ASSERT_TRUE(listener) << listener.error().text();
  const auto port = (*listener)->port();
  Fd mine;
  auto c = connect_tcp(loop, "127.0.0.1", port, kLimit, [&](Result<Fd> r) {
    ASSERT_TRUE(r) << r.error().text();
    mine = std::move(*r);
  });
  ASSERT_TRUE(loop.run_until([&] { return mine.valid() && !accepted.empty(); }, kLimit));
  EXPECT_EQ(source, Address::of_local(mine.get()));
  EXPECT_EQ(source.ip_text(), "127.0.0.1");
  EXPECT_TRUE(source.is_loopback());

  (*listener)->pause();
  Fd second;
  c = connect_tcp(loop, "localhost", port, kLimit, [&](Result<Fd> r) {
    ASSERT_TRUE(r) << r.error().text();
    second = std::move(*r);
  });
  ASSERT_TRUE(loop.run_until([&] { return second.valid(); }, kLimit));
  EXPECT_EQ(accepted.size(), 1u);
  (*listener)->resume();
  ASSERT_TRUE(loop.run_until([&] { return accepted.size() == 2; }, kLimit));

  listener->reset();
  std::optional<Error> refused;
  c = connect_tcp(loop, "127.0.0.1", port, kLimit, [&](Result<Fd> r) {
    ASSERT_FALSE(r);
    refused = r.error();
    c.reset();  // allowed inside
  });
  ASSERT_TRUE(loop.run_until([&] { return refused.has_value(); }, kLimit));
  EXPECT_TRUE(refused->is(Errc::kConnect)) << refused->text();
  EXPECT_TRUE(refused->retry());
  // Cancelled while the look-up may still be running on libuv's threads.
  c = connect_tcp(loop, "localhost", port, kLimit, [&](Result<Fd>) { ADD_FAILURE(); });
  c.reset();
  EXPECT_FALSE(Listener::tcp(loop, "no-address", 0, [](Fd, const Address&) {}));
}

TEST(Net, LocalSocket) {
  Loop loop;
  char dir[] = "/tmp/sally-loop-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  const std::string path = std::string(dir) + "/s";
  int n = 0;
  const auto count = [&](Fd, const Address&) { ++n; };
  {
    auto listener = Listener::local(loop, path, count);
    ASSERT_TRUE(listener) << listener.error().text();
    EXPECT_TRUE(Listener::local(loop, path, count).error().is(Errc::kBind));
    ASSERT_TRUE(connect_local(path));
    ASSERT_TRUE(loop.run_until([&] { return n >= 1; }, kLimit));
  }
  EXPECT_TRUE(connect_local(path).error().is(Errc::kConnect));
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
  ::rmdir(dir);
}

TEST(Address, SourceKeyCountsV6BySlash64) {
  Address a;
  a.ip = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9};
  Address b = a;
  b.ip[15] = 1;
  EXPECT_EQ(a.source_key(), b.source_key());
  b.ip[7] = 2;
  EXPECT_NE(a.source_key(), b.source_key());
}

TEST(Process, ExitCodeSignalEnvironmentAndFailure) {
  Loop loop;
  std::optional<Process::Exit> exit;
  const auto keep = [&](Process::Exit e) { exit = e; };
  auto p = Process::spawn(
      loop, {.program = "/bin/sh", .args = {"-c", "exit $CODE"}, .env = {{"CODE=7"}}}, keep);
  ASSERT_TRUE(p) << p.error().text();
  ASSERT_TRUE(loop.run_until([&] { return exit.has_value(); }, kLimit));
  EXPECT_EQ(exit->code, 7);
  EXPECT_FALSE((*p)->running());
  exit.reset();
  p = Process::spawn(loop, {.program = "/bin/sh", .args = {"-c", "exec sleep 60"}}, keep);
  ASSERT_TRUE(p);
  (*p)->kill(SIGTERM);
  ASSERT_TRUE(loop.run_until([&] { return exit.has_value(); }, kLimit));
  EXPECT_EQ(exit->signal, SIGTERM);
  EXPECT_TRUE(Process::spawn(loop, {.program = "/no/such/program"}, keep).error().is(Errc::kSpawn));
}

TEST(Signals, CallsBack) {
  Loop loop;
  int got = 0;
  Signals signals(loop, {SIGUSR1}, [&](int s) { got = s; });
  ::kill(::getpid(), SIGUSR1);
  EXPECT_TRUE(loop.run_until([&] { return got == SIGUSR1; }, kLimit));
}

TEST(Inbox, ManyProducersNothingLostAndInOrder) {
  constexpr int kProducers = 4;
  constexpr int kItems = 20'000;
  Loop loop;
  std::vector<int> last(kProducers, -1);
  int total = 0;
  Inbox<std::pair<int, int>> box(loop, [&](std::pair<int, int> item) {
    EXPECT_EQ(item.second, last[item.first] + 1);
    last[item.first] = item.second;
    ++total;
  });
  std::vector<std::thread> threads;
  for (int p = 0; p < kProducers; ++p)
    threads.emplace_back([&box, p] {
      for (int i = 0; i < kItems; ++i) box.send({p, i});
    });
  EXPECT_TRUE(loop.run_until([&] { return total == kProducers * kItems; }, 60'000));
  for (auto& t : threads) t.join();
}

}  // namespace
}  // namespace sally::loop
