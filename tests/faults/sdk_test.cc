// SPDX-License-Identifier: Apache-2.0
// The C interface where memory ends or the connection is gone, at every call.
#include <netinet/in.h>
#include <sally/sally.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <set>

#include "../sim/abi_world.h"
#include "base/log.h"
#include "memory.h"

namespace sally::faults {
namespace {

#ifdef SALLY_SANITIZED
constexpr std::uint64_t kStride = 61;
#else
constexpr std::uint64_t kStride = 11;
#endif

std::size_t descriptors() {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator("/proc/self/fd")) ++n;
  return n;
}

class Sdk : public sim::AbiWorld {
 protected:
  void SetUp() override {
    log::set_level(log::Level::kError);
    host = open("host");
    pump = open("pump");
    ASSERT_EQ(sally_bind(host, "plant-mqtt", nullptr, &listener), SALLY_OK);
    ASSERT_TRUE(eventually([&] { return sally_listener_status(listener) == SALLY_OK; }));
  }
  void TearDown() override {
    sally_listener_close(listener);
    sally_close(pump);
    sally_close(host);
  }
  sally_context* open(const std::string& who) {
    const std::string path = dir + "/" + who + ".json";
    sally_options o = SALLY_OPTIONS_INIT;
    o.identity_path = path.c_str();
    sally_context* ctx = nullptr;
    EXPECT_EQ(sally_open(&o, &ctx), SALLY_OK) << sally_last_error();
    EXPECT_EQ(sally_wait_online(ctx, 10'000), SALLY_OK) << sally_last_error();
    return ctx;
  }
  /// Waits on the SDK's own clock: a call that takes a moment each time.
  bool eventually(const std::function<bool()>& done) {
    sally_stream* none = nullptr;
    for (int i = 0; i < 500; ++i) {
      if (done()) return true;
      (void)sally_accept(listener, 20, &none);
    }
    return false;
  }
  /// Descriptors that are open once nothing of before is still closing.
  std::size_t settled() {
    std::size_t n = 0;
    int same = 0;
    EXPECT_TRUE(eventually([&] {
      same = std::exchange(n, descriptors()) == n ? same + 1 : 0;
      return same == 10;
    }));
    return n;
  }
  struct Pair {
    sally_stream* near = nullptr;
    sally_stream* far = nullptr;
  };
  Pair pair() {
    Pair p;
    // What an earlier dial left behind is not this one's other end.
    for (sally_stream* stale = nullptr; sally_accept(listener, 1, &stale) == SALLY_OK;)
      sally_stream_close(stale);
    for (int i = 0; i < 50 && p.near == nullptr; ++i) {
      if (sally_dial(pump, "plant-mqtt", nullptr, &p.near) != SALLY_OK) {
        p.near = nullptr;
        (void)sally_wait_online(pump, 2'000);
        (void)sally_wait_online(host, 2'000);
      }
    }
    EXPECT_NE(p.near, nullptr) << sally_last_error();
    EXPECT_EQ(sally_accept(listener, 5'000, &p.far), SALLY_OK) << sally_last_error();
    return p;
  }
  void works() {
    Pair p = pair();
    ASSERT_TRUE(p.near != nullptr && p.far != nullptr);
    char c = 0;
    EXPECT_EQ(sally_write(p.near, "x", 1), 1);
    EXPECT_EQ(sally_read(p.far, &c, 1), 1);
    sally_stream_close(p.near);
    sally_stream_close(p.far);
  }
  /// Every allocation of the call fails once: each time it says so, in the end it works. How many.
  static int without_memory(const char* name, const std::function<std::int64_t()>& call,
                            std::set<std::int64_t> allowed = {SALLY_E_MEMORY},
                            const std::function<void()>& undo = nullptr) {
    for (int n = 1; n < 5'000; ++n) {
      fail_allocation(static_cast<std::uint64_t>(n));
      const std::int64_t code = call();
      const bool met = allocations_left() == 0;
      fail_allocation(0);
      if (!met) {
        EXPECT_GE(code, 0) << name << ": " << sally_last_error();
        return n - 1;
      }
      // Where the memory was not needed in the end, it may also just work.
      EXPECT_TRUE(code >= 0 || allowed.contains(code))
          << name << ", allocation " << n << ": " << code << " " << sally_last_error();
      if (code < 0) continue;
      if (undo == nullptr) return n - 1;
      undo();
    }
    ADD_FAILURE() << name << " never works";
    return 0;
  }

  sally_context* host = nullptr;
  sally_context* pump = nullptr;
  sally_listener* listener = nullptr;
};

TEST_F(Sdk, WithoutMemoryEveryCallSaysSoAndNothingIsLeftBehind) {
  const std::size_t before = settled();
  const std::string path = dir + "/pump.json";
  sally_options options = SALLY_OPTIONS_INIT;
  options.identity_path = path.c_str();
  int failed = 0;
  for (const int flags : {0, SALLY_CALLER_LOOP}) {
    options.flags = flags;
    sally_context* ctx = nullptr;
    failed += without_memory(
        "open", [&] { return sally_open(&options, &ctx); }, {SALLY_E_MEMORY},
        [&] { sally_close(std::exchange(ctx, nullptr)); });
    EXPECT_NE(ctx, nullptr);
    sally_close(ctx);
    ctx = nullptr;
  }
  EXPECT_GT(failed, 100);
  EXPECT_TRUE(eventually([&] { return descriptors() == before; }))
      << descriptors() << " of " << before;

  sally_status status{};
  status.size = sizeof status;
  failed = without_memory("status", [&] { return sally_get_status(pump, &status); });
  failed += without_memory("services", [&] {
    return sally_services(pump, [](void*, const sally_service*) {}, nullptr);
  });
  sally_stream* s = nullptr;
  sally_stream* t = nullptr;
  failed += without_memory("dial", [&] { return sally_dial(pump, "plant-mqtt", nullptr, &s); });
  ASSERT_NE(s, nullptr);
  failed += without_memory("accept", [&] { return sally_accept(listener, 5'000, &t); });
  ASSERT_NE(t, nullptr);
  std::promise<sally_stream*> promise;
  failed += without_memory("dial_async", [&] {
    return sally_dial_async(
        pump, "plant-mqtt", nullptr,
        [](void* user, int, const char*, sally_stream* stream) {
          static_cast<std::promise<sally_stream*>*>(user)->set_value(stream);
        },
        &promise);
  });
  sally_stream* u = promise.get_future().get();
  sally_stream* v = nullptr;
  ASSERT_NE(u, nullptr);
  ASSERT_EQ(sally_accept(listener, 5'000, &v), SALLY_OK);

  // What a refused write was given is not sent: the other end counts.
  const std::string data(20'000, 'z');
  std::int64_t sent = 0;
  failed += without_memory("write", [&] {
    const auto n = sally_write(s, data.data(), data.size());
    if (n > 0) sent += n;
    return n;
  });
  failed += without_memory("try_write", [&] {
    const auto n = sally_try_write(s, data.data(), 3);
    if (n > 0) sent += n;
    return n;
  });
  failed += without_memory("shutdown", [&] { return sally_shutdown_write(s); });
  std::int64_t got = 0;
  char buffer[30'000];
  failed += without_memory("read", [&] {
    const auto n = sally_read(t, buffer, sizeof buffer);
    if (n > 0) got += n;
    return n;
  });
  for (std::int64_t n = 0; (n = sally_read(t, buffer, sizeof buffer)) > 0;) got += n;
  EXPECT_EQ(got, sent);
  failed += without_memory("try_read", [&] {
    return sally_try_read(s, buffer, 1) == SALLY_E_MEMORY ? SALLY_E_MEMORY : 0;
  });
  failed += without_memory(
      "watch", [&] { return sally_stream_watch(t, [](void*, sally_stream*) {}, nullptr); });
  sally_stream_close(s);
  sally_stream_close(t);

  int fd = -1;
  failed += without_memory("stream_fd", [&] { return fd = sally_stream_fd(u); });
  ASSERT_GE(fd, 0);
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  failed +=
      without_memory("attach", [&] { return sally_stream_attach(v, fds[0], nullptr, nullptr); });
  EXPECT_EQ(::write(fds[1], "hello", 5), 5);
  EXPECT_EQ(::recv(fd, buffer, 5, MSG_WAITALL), 5) << "refused attaches took nothing";
  ::close(fd);
  ::close(fds[1]);

  sally_listener* second = nullptr;
  failed +=
      without_memory("bind", [&] { return sally_bind(pump, "plant-mqtt", nullptr, &second); });
  failed += without_memory("listener_status", [&] {
    const int code = sally_listener_status(second);
    return code == SALLY_E_MEMORY ? code : 0;
  });
  sally_listener_close(second);
  EXPECT_GT(failed, 25);
  works();
  EXPECT_TRUE(eventually([&] { return descriptors() == before; }))
      << descriptors() << " of " << before;
}

TEST_F(Sdk, WithNobodyToTellTheProcessEnds) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Pair p = pair();
  ASSERT_TRUE(p.near != nullptr && p.far != nullptr);
  EXPECT_EXIT(
      {
        fail_allocation(1);
        sally_stream_reset(p.near);
      },
      ::testing::KilledBySignal(SIGABRT), "bad_alloc|terminate");
  sally_stream_close(p.near);
  sally_stream_close(p.far);
}

// OpenSSL without memory: the call says that it could not, or the process ends; it never goes on
// with half a key.
TEST_F(Sdk, OpenSslWithoutMemoryIsAnErrorOrTheEnd) {
  const std::string path = dir + "/pump.json";
  sally_options options = SALLY_OPTIONS_INIT;
  options.identity_path = path.c_str();
  options.flags = SALLY_CALLER_LOOP;  // a forked process has no other threads
  int refused = 0;
  int ended = 0;
  for (std::uint64_t n = 1;; n += n < 50 ? 1 : kStride) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::freopen("/dev/null", "w", stderr);
      sally_context* ctx = nullptr;
      fail_crypto_allocation(n);
      const int code = sally_open(&options, &ctx);
      const bool met = allocations_left() == 0;
      fail_allocation(0);
      if (code == SALLY_OK && sally_loop_run(ctx) != SALLY_OK) ::_exit(3);
      if (code == SALLY_OK) sally_close(ctx);
      ::_exit(!met ? 9 : code == SALLY_OK ? 0 : ctx == nullptr ? 1 : 2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
      ASSERT_EQ(WTERMSIG(status), SIGABRT) << "allocation " << n;
      ++ended;
      continue;
    }
    ASSERT_LT(WEXITSTATUS(status) % 9, 2) << "allocation " << n << ": " << WEXITSTATUS(status);
    if (WEXITSTATUS(status) == 9) break;
    refused += WEXITSTATUS(status);
  }
  EXPECT_GT(refused, 20);
  std::printf("%d refused, %d ended\n", refused, ended);
}

// ---- closed sockets

class Cut : public Sdk {
 protected:
  /// All connections of devices to routers of this process end, from below.
  void cut() {
    std::set<std::uint16_t> routers;
    for (const int way : {0, 1}) {
      for (const auto& e : std::filesystem::directory_iterator("/proc/self/fd")) {
        const int fd = std::atoi(e.path().filename().c_str());
        sockaddr_in at{};
        socklen_t n = sizeof at;
        int listening = 0;
        socklen_t m = sizeof listening;
        if (way == 0) {
          if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &m) == 0 && listening != 0 &&
              ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &n) == 0)
            routers.insert(at.sin_port);
        } else if (::getpeername(fd, reinterpret_cast<sockaddr*>(&at), &n) == 0 &&
                   at.sin_family == AF_INET && routers.contains(at.sin_port)) {
          ::shutdown(fd, SHUT_RDWR);
        }
      }
    }
  }
};

TEST_F(Cut, EveryCallOnAConnectionThatIsGoneHasAnAnswer) {
  works();
  const std::size_t before = settled();
  char c = 0;
  const auto ended = [](std::int64_t code) {
    return code == SALLY_E_RESET || code == SALLY_E_CLOSED || code == SALLY_E_UNREACHABLE;
  };
  struct Case {
    const char* name;
    std::function<void(Pair&)> call;
  };
  std::atomic<int> done = 0;
  const Case cases[] = {
      {"read", [&](Pair& p) { EXPECT_TRUE(ended(sally_read(p.near, &c, 1))); }},
      {"write",
       [&](Pair& p) {
         std::int64_t n = 0;
         for (int i = 0; i < 10'000 && n >= 0; ++i) n = sally_write(p.near, "x", 1);
         if (n >= 0) n = sally_read(p.near, &c, 1);
         EXPECT_TRUE(ended(n)) << n;
       }},
      {"try_read",
       [&](Pair& p) {
         const auto n = sally_try_read(p.near, &c, 1);
         EXPECT_TRUE(ended(n) || n == SALLY_E_WOULD_BLOCK) << n;
       }},
      {"try_write",
       [&](Pair& p) {
         const auto n = sally_try_write(p.near, &c, 1);
         EXPECT_TRUE(ended(n) || n == 1) << n;
       }},
      {"watch",
       [&](Pair& p) {
         EXPECT_EQ(sally_stream_watch(p.near, [](void*, sally_stream*) {}, nullptr), SALLY_OK);
       }},
      {"shutdown",
       [&](Pair& p) {
         EXPECT_EQ(sally_shutdown_write(p.near), SALLY_OK);
         EXPECT_TRUE(ended(sally_read(p.near, &c, 1)));
       }},
      {"stream_fd",
       [&](Pair& p) {
         const int fd = sally_stream_fd(p.near);
         p.near = nullptr;
         EXPECT_TRUE(fd >= 0 || ended(fd));
         if (fd < 0) return;
         EXPECT_LE(::recv(fd, &c, 1, MSG_WAITALL), 0);
         ::close(fd);
       }},
      {"attach",
       [&](Pair& p) {
         int fds[2];
         ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
         const int was = done;
         const int code = sally_stream_attach(
             p.near, fds[0], [](void* user, int) { ++*static_cast<std::atomic<int>*>(user); },
             &done);
         p.near = nullptr;
         EXPECT_TRUE(code == SALLY_OK || ended(code));
         EXPECT_LE(::recv(fds[1], &c, 1, MSG_WAITALL), 0);
         ::close(fds[1]);
         EXPECT_TRUE(eventually([&] { return done == was + (code == SALLY_OK ? 1 : 0); }));
       }},
      {"close", [&](Pair& p) { sally_stream_close(std::exchange(p.near, nullptr)); }},
      {"reset", [&](Pair& p) { sally_stream_reset(std::exchange(p.near, nullptr)); }},
      {"dial",
       [&](Pair&) {
         sally_dial_options o = SALLY_DIAL_OPTIONS_INIT;
         o.timeout_ms = 1'000;
         sally_stream* s = nullptr;
         const int code = sally_dial(pump, "plant-mqtt", &o, &s);
         EXPECT_TRUE(code == SALLY_OK || ended(code) || code == SALLY_E_TIMEOUT ||
                     code == SALLY_E_NO_SERVICE || code == SALLY_E_NO_HOST || code == SALLY_E_BUSY)
             << code;
         EXPECT_EQ(code == SALLY_OK, s != nullptr);
         sally_stream* far = nullptr;
         if (code == SALLY_OK) {
           EXPECT_EQ(sally_accept(listener, 5'000, &far), SALLY_OK);
         }
         sally_stream_close(s);
         sally_stream_close(far);
       }},
      {"accept",
       [&](Pair&) {
         sally_stream* s = nullptr;
         EXPECT_EQ(sally_accept(listener, 50, &s), SALLY_E_TIMEOUT);
       }},
      {"bind",
       [&](Pair&) {
         sally_listener* l = nullptr;
         ASSERT_EQ(sally_bind(host, "plant-mqtt", nullptr, &l), SALLY_OK);
         const int code = sally_listener_status(l);
         EXPECT_TRUE(code == SALLY_OK || code == SALLY_E_UNREACHABLE) << code;
         sally_listener_close(l);
       }},
      {"status",
       [&](Pair&) {
         sally_status s{};
         s.size = sizeof s;
         EXPECT_EQ(sally_get_status(pump, &s), SALLY_OK);
         EXPECT_EQ(sally_services(pump, [](void*, const sally_service*) {}, nullptr), SALLY_OK);
       }},
  };
  for (const Case& at : cases) {
    SCOPED_TRACE(at.name);
    const std::int64_t start = system_clock().mono_us();
    Pair p = pair();
    ASSERT_TRUE(p.near != nullptr && p.far != nullptr);
    cut();
    at.call(p);
    // The other end hears of it, too.
    EXPECT_LE(sally_read(p.far, &c, 1), p.near == nullptr ? 1 : 0);
    sally_stream_close(p.near);
    sally_stream_close(p.far);
    EXPECT_EQ(sally_wait_online(pump, 5'000), SALLY_OK);
    EXPECT_EQ(sally_wait_online(host, 5'000), SALLY_OK);
    EXPECT_TRUE(eventually([&] { return sally_listener_status(listener) == SALLY_OK; }));
    works();
    EXPECT_LT(system_clock().mono_us() - start, 10'000'000) << "no call may hang";
  }
  EXPECT_TRUE(eventually([&] { return descriptors() == before; }))
      << descriptors() << " of " << before;
}

}  // namespace
}  // namespace sally::faults
