// SPDX-License-Identifier: Apache-2.0
// Programs with an event loop of their own: two contexts, one thread, poll(2).
#include <gtest/gtest.h>
#include <poll.h>
#include <sally/sally.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "abi_world.h"

namespace sally::sim {
namespace {

class CallerLoopTest : public AbiWorld {
 protected:
  sally_context* open(const char* id) {
    const std::string path = dir + "/" + id + ".json";
    sally_options o = SALLY_OPTIONS_INIT;
    o.identity_path = path.c_str();
    o.flags = SALLY_CALLER_LOOP;
    sally_context* ctx = nullptr;
    EXPECT_EQ(sally_open(&o, &ctx), SALLY_OK) << sally_last_error();
    contexts.push_back(ctx);
    return ctx;
  }
  // Exactly what the header promises: sleep no longer than asked, on these descriptors, then run.
  bool until(const std::function<bool()>& done, int seconds = 10) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::vector<pollfd> fds;
      int wait = 1'000;
      for (auto* ctx : contexts) {
        fds.push_back({.fd = sally_loop_fd(ctx), .events = POLLIN, .revents = 0});
        const int t = sally_loop_timeout(ctx);
        if (t >= 0) wait = std::min(wait, t);
      }
      ::poll(fds.data(), fds.size(), wait);
      ++turns;
      for (auto* ctx : contexts) EXPECT_EQ(sally_loop_run(ctx), SALLY_OK) << sally_last_error();
    }
    return true;
  }
  ~CallerLoopTest() override {
    sally_listener_close(listener);
    for (auto* ctx : contexts) sally_close(ctx);
  }
  std::vector<sally_context*> contexts;
  sally_listener* listener = nullptr;
  int turns = 0;
};

bool online(sally_context* ctx) {
  sally_status status{};
  status.size = sizeof status;
  return sally_get_status(ctx, &status) == SALLY_OK && status.online != 0;
}

/// Echoes what comes, holding back what the stream does not take.
struct Echo {
  std::string held;
  sally_stream* stream = nullptr;
  bool over = false;
  static void ready(void* user, sally_stream* s) {
    auto& e = *static_cast<Echo*>(user);
    for (;;) {
      if (!e.held.empty()) {
        const std::int64_t n = sally_try_write(s, e.held.data(), e.held.size());
        if (n == SALLY_E_WOULD_BLOCK) return;
        ASSERT_GE(n, 0);
        e.held.erase(0, static_cast<std::size_t>(n));
        continue;
      }
      char buffer[20'000];
      const std::int64_t n = sally_try_read(s, buffer, sizeof buffer);
      if (n == SALLY_E_WOULD_BLOCK) return;
      if (n <= 0) {
        e.over = true;
        e.stream = nullptr;
        sally_stream_close(s);  // from within its own call
        return;
      }
      e.held.assign(buffer, static_cast<std::size_t>(n));
    }
  }
};

TEST_F(CallerLoopTest, EchoOfMegabytesOnOneThread) {
  auto* host = open("host");
  auto* pump = open("pump");
  Echo echo;
  sally_bind_options b = SALLY_BIND_OPTIONS_INIT;
  b.user = &echo;
  b.on_stream = [](void* user, sally_stream* s, void*) {
    if (s == nullptr) return;
    static_cast<Echo*>(user)->stream = s;
    EXPECT_STREQ(sally_stream_peer(s)->id, "pump");
    sally_stream_watch(s, &Echo::ready, user);
    Echo::ready(user, s);
  };
  ASSERT_EQ(sally_bind(host, "plant-mqtt", &b, &listener), SALLY_OK);
  ASSERT_TRUE(until([&] { return online(pump) && sally_listener_status(listener) == SALLY_OK; }));

  struct Dialed {
    int code = 1;
    sally_stream* stream = nullptr;
  } dialed;
  ASSERT_EQ(sally_dial_async(
                pump, "plant-mqtt", nullptr,
                [](void* user, int code, const char*, sally_stream* s) {
                  *static_cast<Dialed*>(user) = {code, s};
                },
                &dialed),
            SALLY_OK);
  ASSERT_TRUE(until([&] { return dialed.code != 1; }));
  ASSERT_EQ(dialed.code, SALLY_OK);

  constexpr std::size_t kAll = 5'000'000;
  std::string sent(kAll, 0);
  for (std::size_t i = 0; i < kAll; ++i) sent[i] = static_cast<char>(i * 2'654'435'761U >> 13U);
  std::string got;
  std::size_t at = 0;
  bool ended = false;
  int woken = 0;
  ASSERT_EQ(
      sally_stream_watch(
          dialed.stream, [](void* user, sally_stream*) { ++*static_cast<int*>(user); }, &woken),
      SALLY_OK);
  int seen = -1;
  const auto pump_once = [&] {
    if (woken == seen) return got.size() == kAll && ended;  // nothing was announced
    seen = woken;
    for (bool more = true; more;) {
      more = false;
      if (at < kAll) {
        const std::int64_t n = sally_try_write(dialed.stream, sent.data() + at, kAll - at);
        if (n > 0) at += static_cast<std::size_t>(n);
        if (at == kAll) sally_shutdown_write(dialed.stream);
        more = n > 0 && at < kAll;
      }
      char buffer[30'000];
      const std::int64_t n = sally_try_read(dialed.stream, buffer, sizeof buffer);
      if (n > 0) got.append(buffer, static_cast<std::size_t>(n));
      more = more || n > 0;
      ended = ended || n == 0;
    }
    return got.size() == kAll && ended;
  };
  ASSERT_TRUE(until(pump_once, 30)) << got.size() << " of " << kAll << ", woken " << woken;
  EXPECT_EQ(got, sent);
  EXPECT_TRUE(echo.over);
  sally_stream_close(dialed.stream);
}

TEST_F(CallerLoopTest, ItSleepsWhenNothingHappens) {
  auto* pump = open("pump");
  ASSERT_EQ(sally_wait_online(pump, 10'000), SALLY_OK) << sally_last_error();
  ASSERT_TRUE(until([&] { return sally_loop_timeout(pump) > 100; }));
  const int before = turns;
  EXPECT_FALSE(until([] { return false; }, 2));
  EXPECT_LT(turns - before, 60);  // probes of the lane each second, nothing that spins
}

TEST_F(CallerLoopTest, NobodyComesBackIntoAContextThatEnds) {
  auto* host = open("host");
  auto* pump = open("pump");
  struct Seen {
    sally_context* ctx = nullptr;
    sally_stream* stream = nullptr;
    int called = 0;
    int run = 0;
  } seen{.ctx = host};
  sally_bind_options b = SALLY_BIND_OPTIONS_INIT;
  b.user = &seen;
  b.on_stream = [](void* user, sally_stream* s, void*) {
    auto& x = *static_cast<Seen*>(user);
    x.stream = s;
    char byte = 0;
    (void)sally_stream_watch(
        s,
        [](void* u, sally_stream*) {
          auto& y = *static_cast<Seen*>(u);
          ++y.called;
          y.run = sally_loop_run(y.ctx);
          sally_close(y.ctx);
        },
        user);
    EXPECT_EQ(sally_try_read(s, &byte, 1), SALLY_E_WOULD_BLOCK);
  };
  ASSERT_EQ(sally_bind(host, "plant-mqtt", &b, &listener), SALLY_OK);
  ASSERT_TRUE(until([&] { return online(pump) && sally_listener_status(listener) == SALLY_OK; }));
  sally_stream* dialed = nullptr;
  ASSERT_EQ(sally_dial_async(
                pump, "plant-mqtt", nullptr,
                [](void* user, int, const char*, sally_stream* s) {
                  *static_cast<sally_stream**>(user) = s;
                },
                &dialed),
            SALLY_OK);
  ASSERT_TRUE(until([&] { return dialed != nullptr && seen.stream != nullptr; }));
  sally_listener_close(listener);
  listener = nullptr;
  std::erase(contexts, host);
  sally_close(host);  // tells the watcher that the stream is over
  EXPECT_EQ(seen.called, 1);
  EXPECT_EQ(seen.run, SALLY_E_WOULD_DEADLOCK);
  sally_stream_close(seen.stream);
  sally_stream_close(dialed);
}

TEST_F(CallerLoopTest, TheWrongThreadAndTheWrongMomentAreRefused) {
  auto* pump = open("pump");
  std::thread([pump] {
    EXPECT_EQ(sally_loop_run(pump), SALLY_E_WOULD_DEADLOCK);
    EXPECT_EQ(sally_loop_fd(pump), SALLY_E_WOULD_DEADLOCK);
    sally_close(pump);
    EXPECT_STRNE(sally_last_error(), "");
  }).join();
  sally_stream* s = nullptr;
  EXPECT_EQ(sally_dial(pump, "plant-mqtt", nullptr, &s), SALLY_E_WOULD_DEADLOCK);
  struct Inside {
    sally_context* ctx;
    int run = 0;
    int wait = 0;
    bool called = false;
  } inside{.ctx = pump};
  ASSERT_EQ(sally_dial_async(
                pump, "no-such-service", nullptr,
                [](void* user, int, const char*, sally_stream*) {
                  auto& i = *static_cast<Inside*>(user);
                  i.run = sally_loop_run(i.ctx);
                  i.wait = sally_wait_online(i.ctx, 10);
                  sally_close(i.ctx);
                  i.called = true;
                },
                &inside),
            SALLY_OK);
  ASSERT_TRUE(until([&] { return inside.called; }));
  EXPECT_EQ(inside.run, SALLY_E_WOULD_DEADLOCK);
  EXPECT_EQ(inside.wait, SALLY_E_WOULD_DEADLOCK);
  // Nor from a callback inside a call that waits.
  struct Waiting {
    sally_context* ctx = nullptr;
    int run = 1;
  } waiting;
  const std::string host_path = dir + "/host.json";
  sally_options w = SALLY_OPTIONS_INIT;
  w.identity_path = host_path.c_str();
  w.flags = SALLY_CALLER_LOOP;
  w.user = &waiting;
  w.on_event = [](void* user, sally_event, const char*) {
    auto& x = *static_cast<Waiting*>(user);
    if (x.run == 1) x.run = sally_loop_run(x.ctx);
    sally_close(x.ctx);
  };
  ASSERT_EQ(sally_open(&w, &waiting.ctx), SALLY_OK);
  EXPECT_EQ(sally_wait_online(waiting.ctx, 10'000), SALLY_OK);
  EXPECT_EQ(waiting.run, SALLY_E_WOULD_DEADLOCK);
  sally_close(waiting.ctx);
  // A context with a thread of its own has no such loop.
  const std::string path = dir + "/host.json";
  sally_options o = SALLY_OPTIONS_INIT;
  o.identity_path = path.c_str();
  o.size = offsetof(sally_options, flags);  // a program that was built before flags
  sally_context* own = nullptr;
  ASSERT_EQ(sally_open(&o, &own), SALLY_OK);
  EXPECT_EQ(sally_loop_run(own), SALLY_E_ARGUMENT);
  sally_close(own);
  o = SALLY_OPTIONS_INIT;
  o.identity_path = path.c_str();
  for (const int wrong : {8, SALLY_SESSION_KEY_ALWAYS | SALLY_SESSION_KEY_NEVER}) {
    o.flags = wrong;
    EXPECT_EQ(sally_open(&o, &own), SALLY_E_ARGUMENT) << wrong;
  }
}

}  // namespace
}  // namespace sally::sim
