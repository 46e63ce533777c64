// SPDX-License-Identifier: Apache-2.0
#include "http/plain_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "base/clock.h"
#include "base/log.h"
#include "crypto/test_pki.h"

namespace sally::http {
namespace {

TEST(PlainAddress, OnlyThisMachine) {
  for (const char* good : {"127.0.0.1:0", "127.8.8.8:9100", "[::1]:9100", "unix:/run/x"})
    EXPECT_TRUE(parse_plain_address(good)) << good;
  for (const char* bad :
       {"0.0.0.0:9100", "*:9100", "192.0.2.1:80", "[::]:1", "localhost:9100", "127.evil.example:80",
        "127.0.0.1.example.com:80", "unix:x", "unix:", "127.0.0.1", "", "[::ffff:192.0.2.1]:80"})
    EXPECT_TRUE(parse_plain_address(bad).error().is(Errc::kForbidden)) << bad;
}

class Plain : public testing::Test {
 protected:
  Plain() {
    log::set_sink([](std::string_view) {});
    path_ = testing::TempDir() + "plain-" + std::to_string(::getpid()) + ".sock";
    server_ = crypto::must(serve_metrics(loop_, {.path = path_, .host = {}, .port = 0},
                                         [this](std::move_only_function<void(std::string)> reply) {
                                           if (hold_) {
                                             held_ = std::move(reply);
                                           } else {
                                             reply(std::string(big_, 'x') + "sally_up 1\n");
                                           }
                                         }));
  }
  ~Plain() override { log::set_sink(nullptr); }
  loop::Fd connect() { return crypto::must(loop::connect_local(path_)); }
  /// Everything until the end; "" when the server closes without a word.
  std::string read_all(const loop::Fd& fd) {
    std::string got;
    for (int turn = 0; turn < 20'000; ++turn) {
      loop_.run_once(false);
      char buffer[65536];
      const auto n = ::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (n > 0) got.append(buffer, static_cast<std::size_t>(n));
      if (n == 0 || (n < 0 && errno != EAGAIN)) return got;
    }
    return "still open";
  }
  std::string ask(const std::string& request) {
    const auto fd = connect();
    EXPECT_EQ(::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    return read_all(fd);
  }
  FakeClock clock_;
  loop::Loop loop_{clock_};
  std::string path_;
  bool hold_ = false;
  std::size_t big_ = 0;
  std::move_only_function<void(std::string)> held_;
  std::unique_ptr<PlainServer> server_;
};

TEST_F(Plain, ServesAndRefuses) {
  const auto perms = std::filesystem::status(path_).permissions();
  EXPECT_EQ(static_cast<unsigned>(perms) & 077U, 0U);
  struct Case {
    std::string request;
    std::string status;
  };
  const Case cases[] = {
      {"GET /metrics HTTP/1.1\r\nHost: localhost:9\r\n\r\n", "200"},
      {"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "200"},
      {"HEAD /metrics HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "200"},
      {"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403"},
      {"GET /metrics HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n\r\n", "403"},
      {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
      {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"},
      {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "413"},
      {"\x16\x03\x01 rubbish\r\n\r\n", "400"},
      {"GET /metrics HTTP/1.1\r\nHost: x\r\nA: " + std::string(9000, 'a') + "\r\n\r\n", "431"},
  };
  for (const auto& c : cases) {
    const std::string got = ask(c.request);
    EXPECT_EQ(got.substr(0, 13), "HTTP/1.1 " + c.status + " ") << c.request.substr(0, 60) << got;
    EXPECT_EQ(got.find("sally_up 1") != std::string::npos,
              c.status == "200" && !c.request.starts_with("HEAD"));
  }
  big_ = 4 << 20;
  EXPECT_GT(ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").size(), big_);
}

TEST_F(Plain, SlowClientsEndAndTooManyAreClosed) {
  std::vector<loop::Fd> silent;
  for (int i = 0; i < 16; ++i) silent.push_back(connect());
  loop_.run_once(false);
  EXPECT_EQ(ask("GET /metrics HTTP/1.1\r\n\r\n"), "");  // the 17th
  clock_.advance_ms(5'100);
  EXPECT_EQ(read_all(silent.back()), "");
  EXPECT_NE(ask("GET /metrics HTTP/1.1\r\nHost: ::1\r\n\r\n").find("sally_up"), std::string::npos);
}

TEST_F(Plain, AnAnswerMayComeAfterItsClientOrTheServerWent) {
  hold_ = true;
  {
    const auto fd = connect();
    const std::string request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    ASSERT_GT(::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
    for (int turn = 0; turn < 1000 && held_ == nullptr; ++turn) loop_.run_once(false);
    ASSERT_TRUE(held_ != nullptr);
  }
  held_("late");
  loop_.run_once(false);
  server_.reset();
  held_("later");
}

}  // namespace
}  // namespace sally::http
