// SPDX-License-Identifier: Apache-2.0
// GHSA-j952-6x8x-jmj6: whoever is not known yet must not make us keep a body twice.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

#include "http/parser.h"

namespace {

std::atomic<std::size_t> allocated{0};  // bytes, by the whole program

}  // namespace

// All forms end here; only sums are kept.
[[gnu::noinline]] void* operator new(std::size_t n) {
  allocated += n;
  void* p = std::malloc(n);  // NOLINT(bugprone-unhandled-exception-at-new): a test
  if (p == nullptr) std::abort();
  return p;
}
[[gnu::noinline]] void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  allocated += n;
  return std::malloc(n);
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}

namespace sally::http {
namespace {

/// Bytes allocated from the first byte of the request until a handler has it.
std::size_t cost(const std::string& head, const std::string& rest) {
  constexpr std::size_t kRecord = 16 * 1024;
  Parser parser(Parser::Kind::kRequest);
  const std::size_t before = allocated;
  Parser::State state = Parser::State::kMore;
  const auto feed = [&](std::string_view bytes) {
    while (!bytes.empty() && state == Parser::State::kMore) {
      const auto piece = as_bytes(bytes.substr(0, kRecord));
      std::size_t used = 0;
      state = parser.feed(piece, used);
      bytes.remove_prefix(used);
    }
  };
  feed(head);
  feed(rest);
  EXPECT_EQ(state, Parser::State::kComplete);
  const Request request = parser.take_request();
  EXPECT_EQ(request.body.size(), ParserLimits{}.body);
  return allocated - before;
}

TEST(Body, GhsaJ9526x8xJmj6ABodyAtTheCapIsKeptOnce) {
  const std::size_t cap = ParserLimits{}.body;
  const std::string head = "POST /enroll HTTP/1.1\r\nHost: x\r\n";
  const std::string body(cap, 'a');
  EXPECT_LE(cost(head + "Content-Length: " + std::to_string(cap) + "\r\n\r\n", body),
            cap + cap / 10);
  for (const std::size_t piece : {std::size_t{1'000}, std::size_t{65'536}}) {
    std::string chunks;
    for (std::size_t at = 0; at < cap; at += piece) {
      const std::size_t n = std::min(piece, cap - at);
      char size[16];
      std::snprintf(size, sizeof size, "%zx\r\n", n);
      chunks += size + std::string(n, 'a') + "\r\n";
    }
    chunks += "0\r\n\r\n";
    EXPECT_LE(cost(head + "Transfer-Encoding: chunked\r\n\r\n", chunks), cap + cap / 10) << piece;
  }
}

}  // namespace
}  // namespace sally::http
