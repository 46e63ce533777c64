// SPDX-License-Identifier: Apache-2.0
// The C interface from several threads, against a router on a thread of its own.
#include <gtest/gtest.h>
#include <sally/sally.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <future>
#include <thread>

#include "abi_world.h"

namespace sally::sim {
namespace {

void pause() {
  constexpr std::chrono::milliseconds kPause{1};
  std::this_thread::sleep_for(kPause);  // NOLINT(sally-sleep): between two looks
}

class AbiTest : public AbiWorld {
 protected:
  ~AbiTest() override {
    sally_listener_close(listener);
    sally_close(pump);
    sally_close(host);
  }
  sally_context* open(const char* id) {
    const std::string path = dir + "/" + id + ".json";
    sally_options o = SALLY_OPTIONS_INIT;
    o.identity_path = path.c_str();
    sally_context* ctx = nullptr;
    EXPECT_EQ(sally_open(&o, &ctx), SALLY_OK) << sally_last_error();
    EXPECT_EQ(sally_wait_online(ctx, 10'000), SALLY_OK) << sally_last_error();
    return ctx;
  }
  void bring_up(sally_bind_options o = SALLY_BIND_OPTIONS_INIT) {
    host = open("host");
    pump = open("pump");
    ASSERT_EQ(sally_bind(host, "plant-mqtt", &o, &listener), SALLY_OK);
    for (int i = 0; i < 5'000 && sally_listener_status(listener) != SALLY_OK; ++i) pause();
    ASSERT_EQ(sally_listener_status(listener), SALLY_OK) << sally_last_error();
  }
  sally_stream* dial() {
    sally_stream* s = nullptr;
    EXPECT_EQ(sally_dial(pump, "plant-mqtt", nullptr, &s), SALLY_OK) << sally_last_error();
    return s;
  }
  sally_stream* accept() {
    sally_stream* s = nullptr;
    EXPECT_EQ(sally_accept(listener, 10'000, &s), SALLY_OK) << sally_last_error();
    return s;
  }

  static void wait_without_streams(sally_context* ctx) {
    sally_status status{};
    status.size = sizeof status;
    for (int i = 0; i < 5'000; ++i) {
      ASSERT_EQ(sally_get_status(ctx, &status), SALLY_OK);
      if (status.streams == 0) return;
      pause();
    }
    ADD_FAILURE() << status.streams << " streams";
  }

  sally_context* host = nullptr;
  sally_context* pump = nullptr;
  sally_listener* listener = nullptr;
};

std::string read_all(sally_stream* s) {
  std::string out;
  char buffer[5'000];
  for (;;) {
    const std::int64_t n = sally_read(s, buffer, sizeof buffer);
    EXPECT_GE(n, 0) << sally_last_error();
    if (n <= 0) return out;
    out.append(buffer, static_cast<std::size_t>(n));
  }
}

TEST_F(AbiTest, ArgumentsAreChecked) {
  sally_context* ctx = nullptr;
  sally_options o = SALLY_OPTIONS_INIT;
  EXPECT_EQ(sally_open(nullptr, &ctx), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_open(&o, &ctx), SALLY_E_ARGUMENT);
  o.identity_path = "/nonexistent/x.json";
  EXPECT_EQ(sally_open(&o, nullptr), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_open(&o, &ctx), SALLY_E_IDENTITY);
  EXPECT_STRNE(sally_last_error(), "");
  o.size = 3;
  EXPECT_EQ(sally_open(&o, &ctx), SALLY_E_ARGUMENT);
  pump = open("pump");
  sally_stream* s = nullptr;
  sally_listener* l = nullptr;
  EXPECT_EQ(sally_dial(nullptr, "x", nullptr, &s), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_dial(pump, nullptr, nullptr, &s), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_dial(pump, "", nullptr, &s), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_dial(pump, "x", nullptr, nullptr), SALLY_E_ARGUMENT);
  sally_dial_options d = SALLY_DIAL_OPTIONS_INIT;
  d.app_data_len = 1;
  EXPECT_EQ(sally_dial(pump, "x", &d, &s), SALLY_E_ARGUMENT);
  d.app_data = "x";
  d.app_data_len = 1'025;
  EXPECT_EQ(sally_dial(pump, "x", &d, &s), SALLY_E_ARGUMENT);
  d = SALLY_DIAL_OPTIONS_INIT;
  d.timeout_ms = 0;
  EXPECT_EQ(sally_dial(pump, "x", &d, &s), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_dial(pump, std::string(5'000, 'x').c_str(), nullptr, &s), SALLY_E_NO_SERVICE);
  EXPECT_EQ(sally_bind(pump, "", nullptr, &l), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_accept(nullptr, 0, &s), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_read(nullptr, nullptr, 0), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_write(nullptr, "x", 1), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_stream_fd(nullptr), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_get_status(pump, nullptr), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_stream_peer(nullptr), nullptr);
  EXPECT_STREQ(sally_error_name(SALLY_E_NO_HOST), "sally.no_host");
  EXPECT_STREQ(sally_error_name(-99), "sally.unknown");
  EXPECT_STREQ(sally_error_name(7), "sally.unknown");
  sally_stream_close(nullptr);
  sally_stream_reset(nullptr);
  sally_listener_close(nullptr);
  sally_close(nullptr);
}

TEST_F(AbiTest, EchoWithHalfCloseFromTwoThreads) {
  bring_up();
  std::thread server([&] {
    sally_stream* s = accept();
    ASSERT_NE(s, nullptr);
    EXPECT_STREQ(sally_stream_peer(s)->id, "pump");
    char buffer[9'000];
    std::int64_t n = 0;
    while ((n = sally_read(s, buffer, sizeof buffer)) > 0) {
      EXPECT_EQ(sally_write(s, buffer, static_cast<std::size_t>(n)), n);
    }
    EXPECT_EQ(n, 0) << sally_last_error();
    sally_stream_close(s);
  });
  sally_stream* s = dial();
  ASSERT_NE(s, nullptr);
  EXPECT_STREQ(sally_stream_peer(s)->id, "host");
  std::string data(3'000'000, 0);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 256);
  std::thread writer([&] {
    EXPECT_EQ(sally_write(s, data.data(), data.size()), static_cast<std::int64_t>(data.size()));
    EXPECT_EQ(sally_shutdown_write(s), SALLY_OK);
    EXPECT_EQ(sally_write(s, "x", 1), SALLY_E_CLOSED);
  });
  EXPECT_TRUE(read_all(s) == data);
  writer.join();
  server.join();
  sally_stream_close(s);
  sally_status status{};
  status.size = sizeof status;
  for (int i = 0; i < 5'000; ++i) {
    ASSERT_EQ(sally_get_status(pump, &status), SALLY_OK);
    if (status.streams == 0) break;
    pause();
  }
  EXPECT_EQ(status.streams, 0U);
  EXPECT_EQ(status.online, 1);
}

TEST_F(AbiTest, AResetIsNoEndAndWhatIsWrittenBeforeCloseArrives) {
  bring_up();
  sally_stream* a = dial();
  sally_stream* b = accept();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  sally_stream_reset(a);
  char c = 0;
  EXPECT_EQ(sally_read(b, &c, 1), SALLY_E_RESET);
  EXPECT_EQ(sally_write(b, &c, 1), SALLY_E_RESET);
  sally_stream_close(b);
  a = dial();
  b = accept();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  const std::string data(700'000, 'z');
  EXPECT_EQ(sally_write(a, data.data(), data.size()), 700'000);
  sally_stream_close(a);
  EXPECT_TRUE(read_all(b) == data);
  sally_stream_close(b);
}

TEST_F(AbiTest, DescriptorsInsteadOfHandles) {
  bring_up();
  for (int round = 0; round < 20; ++round) {
    sally_stream* a = dial();
    sally_stream* b = accept();
    ASSERT_TRUE(a != nullptr && b != nullptr);
    EXPECT_EQ(sally_write(b, "first", 5), 5);
    const int fa = sally_stream_fd(a);
    ASSERT_GE(fa, 0) << sally_last_error();
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    std::promise<int> done;
    ASSERT_EQ(
        sally_stream_attach(
            b, pair[0],
            [](void* user, int code) { static_cast<std::promise<int>*>(user)->set_value(code); },
            &done),
        SALLY_OK);
    char buffer[16] = {};
    EXPECT_EQ(::recv(fa, buffer, 5, MSG_WAITALL), 5);
    EXPECT_STREQ(buffer, "first");
    EXPECT_EQ(::send(fa, "ping", 4, MSG_NOSIGNAL), 4);
    EXPECT_EQ(::recv(pair[1], buffer, 4, MSG_WAITALL), 4);
    EXPECT_EQ(::close(fa), 0);
    EXPECT_EQ(::recv(pair[1], buffer, 4, 0), 0);
    EXPECT_EQ(::close(pair[1]), 0);
    EXPECT_EQ(done.get_future().get(), SALLY_OK);
  }
}

TEST_F(AbiTest, RefusalsReachTheCaller) {
  sally_bind_options o = SALLY_BIND_OPTIONS_INIT;
  o.on_request = [](void* user, sally_request* r) {
    EXPECT_STREQ(sally_request_peer(r)->id, "pump");
    sally_request_refuse(r, *static_cast<std::atomic<int>*>(user), "the target is down");
  };
  std::atomic<int> code = SALLY_E_REFUSED;
  o.user = &code;
  bring_up(o);
  sally_stream* s = nullptr;
  EXPECT_EQ(sally_dial(pump, "plant-mqtt", nullptr, &s), SALLY_E_REFUSED);
  EXPECT_NE(std::strstr(sally_last_error(), "the target is down"), nullptr);
  EXPECT_EQ(s, nullptr);
  code = SALLY_E_BUSY;
  EXPECT_EQ(sally_dial(pump, "plant-mqtt", nullptr, &s), SALLY_E_BUSY);
  EXPECT_EQ(sally_dial(pump, "nothing", nullptr, &s), SALLY_E_NO_SERVICE);
}

struct Held {
  std::promise<sally_request*> request;
  std::promise<void*> token;
};

TEST_F(AbiTest, TimeoutsAndALateWelcome) {
  Held held;
  sally_bind_options o = SALLY_BIND_OPTIONS_INIT;
  o.user = &held;
  o.on_request = [](void* user, sally_request* r) {
    static_cast<Held*>(user)->request.set_value(r);
  };
  o.on_stream = [](void* user, sally_stream* s, void* token) {
    EXPECT_EQ(s, nullptr);
    static_cast<Held*>(user)->token.set_value(token);
  };
  bring_up(o);
  sally_stream* s = nullptr;
  EXPECT_EQ(sally_accept(listener, 20, &s), SALLY_E_TIMEOUT);
  sally_dial_options d = SALLY_DIAL_OPTIONS_INIT;
  d.timeout_ms = 200;
  EXPECT_EQ(sally_dial(pump, "plant-mqtt", &d, &s), SALLY_E_TIMEOUT);
  // Too late: the token comes back.
  int token = 0;
  sally_request_accept(held.request.get_future().get(), &token);
  EXPECT_EQ(held.token.get_future().get(), &token);
}

TEST_F(AbiTest, CloseWhileOthersBlock) {
  bring_up();
  sally_stream* a = dial();
  sally_stream* b = accept();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  sally_stream* c = dial();
  sally_stream* d = accept();
  ASSERT_TRUE(c != nullptr && d != nullptr);
  std::vector<std::thread> blocked;
  blocked.emplace_back([&] {
    char byte = 0;
    EXPECT_EQ(sally_read(d, &byte, 1), SALLY_E_CLOSED);
    sally_stream_close(d);
  });
  blocked.emplace_back([&] {
    sally_stream* s = nullptr;
    EXPECT_EQ(sally_accept(listener, -1, &s), SALLY_E_CLOSED);
  });
  blocked.emplace_back([&] {  // nobody reads: it fills every window, then blocks
    const std::string data(8'000'000, 'x');
    const auto n = sally_write(a, data.data(), data.size());
    EXPECT_TRUE(n == SALLY_E_RESET || n == SALLY_E_CLOSED) << n;
  });
  sally_close(host);
  host = nullptr;
  for (auto& t : blocked) t.join();
  char byte = 0;
  EXPECT_EQ(sally_read(c, &byte, 1), SALLY_E_RESET);
  EXPECT_EQ(sally_listener_status(listener), SALLY_E_CLOSED);
  // Handles outlive their context.
  sally_close(pump);
  pump = nullptr;
  EXPECT_LT(sally_write(c, "x", 1), 0);
  EXPECT_EQ(sally_stream_fd(c), SALLY_E_CLOSED);
  sally_stream_close(a);
  EXPECT_EQ(sally_read(b, &byte, 1), SALLY_E_CLOSED);
  sally_stream_reset(b);
}

TEST_F(AbiTest, AClassIsOneOfThree) {
  bring_up();
  sally_stream* a = dial();
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(sally_stream_set_class(a, SALLY_CLASS_BULK), SALLY_OK);
  EXPECT_EQ(sally_stream_set_class(a, SALLY_CLASS_INTERACTIVE), SALLY_OK);
  EXPECT_EQ(sally_stream_set_class(a, 0), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_stream_set_class(a, 4), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_stream_set_class(nullptr, SALLY_CLASS_BULK), SALLY_E_ARGUMENT);
  EXPECT_EQ(sally_write(a, "x", 1), 1);
  sally_stream_close(a);
}

TEST_F(AbiTest, WhatWasDeliveredIsReadAfterTheSenderHasGone) {
  bring_up();
  sally_stream* a = dial();
  sally_stream* b = accept();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  const std::string data(700'000, 'z');
  EXPECT_EQ(sally_write(a, data.data(), data.size()), 700'000);
  sally_stream_close(a);
  sally_close(pump);  // returns when b's end has all of it, though nobody has read a byte yet
  pump = nullptr;
  wait_without_streams(host);
  EXPECT_TRUE(read_all(b) == data);
  sally_stream_close(b);
}

TEST_F(AbiTest, WhatWasDeliveredReachesADescriptorAfterTheSenderHasGone) {
  bring_up();
  sally_stream* a = dial();
  sally_stream* b = accept();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  const int fd = sally_stream_fd(b);  // takes less than what is sent
  ASSERT_GE(fd, 0);
  const std::string data(700'000, 'z');
  EXPECT_EQ(sally_write(a, data.data(), data.size()), 700'000);
  sally_stream_close(a);
  sally_close(pump);
  pump = nullptr;
  wait_without_streams(host);
  std::string got;
  char buffer[5'000];
  ssize_t n = 0;
  while ((n = ::recv(fd, buffer, sizeof buffer, 0)) > 0)
    got.append(buffer, static_cast<std::size_t>(n));
  EXPECT_EQ(n, 0);
  EXPECT_TRUE(got == data) << got.size();
  EXPECT_EQ(::close(fd), 0);
}

TEST_F(AbiTest, WhatADescriptorWasGivenArrivesAlthoughAllIsClosedAtOnce) {
  bring_up();
  const std::string data(600'000, 'x');
  for (int round = 0; round < 5; ++round) {
    sally_stream* s = dial();
    ASSERT_NE(s, nullptr);
    const int fd = sally_stream_fd(s);
    ASSERT_GE(fd, 0);
    sally_stream* served = accept();
    ASSERT_NE(served, nullptr);
    sally_shutdown_write(served);
    std::string got;
    std::thread reader([&] { got = read_all(served); });
    std::size_t at = 0;
    while (at < data.size()) {
      const ssize_t n = ::write(fd, data.data() + at, data.size() - at);
      if (n <= 0) break;
      at += static_cast<std::size_t>(n);
    }
    ::close(fd);
    sally_close(pump);
    reader.join();
    sally_stream_close(served);
    EXPECT_EQ(got.size(), data.size());
    pump = open("pump");
  }
}

TEST_F(AbiTest, AStreamThatNobodyAcceptedEndsWithItsListener) {
  bring_up();
  sally_stream* a = dial();
  ASSERT_NE(a, nullptr);
  sally_stream* b = accept();
  sally_stream* c = dial();
  ASSERT_TRUE(b != nullptr && c != nullptr);
  sally_listener_close(listener);
  listener = nullptr;
  char byte = 0;
  EXPECT_EQ(sally_read(c, &byte, 1), SALLY_E_RESET);
  // Streams that were accepted go on.
  EXPECT_EQ(sally_write(a, "x", 1), 1);
  EXPECT_EQ(sally_read(b, &byte, 1), 1);
  for (auto* s : {a, b, c}) sally_stream_close(s);
  sally_stream* none = nullptr;
  EXPECT_EQ(sally_dial(pump, "plant-mqtt", nullptr, &none), SALLY_E_NO_HOST);
}

TEST_F(AbiTest, BlockingCallsInCallbacksAreRefused) {
  host = open("host");
  pump = open("pump");
  struct Result {
    sally_context* ctx;
    std::promise<std::pair<int, int>> codes;
  } result{pump, {}};
  ASSERT_EQ(sally_dial_async(
                pump, "plant-mqtt", nullptr,
                [](void* user, int code, const char*, sally_stream*) {
                  auto& r = *static_cast<Result*>(user);
                  sally_stream* s = nullptr;
                  r.codes.set_value({code, sally_dial(r.ctx, "plant-mqtt", nullptr, &s)});
                },
                &result),
            SALLY_OK);
  EXPECT_EQ(result.codes.get_future().get(),
            std::make_pair(int{SALLY_E_NO_HOST}, int{SALLY_E_WOULD_DEADLOCK}));
}

}  // namespace
}  // namespace sally::sim
