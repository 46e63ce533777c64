// SPDX-License-Identifier: Apache-2.0
// Requests out of bytes, whole and in two pieces: the same result, and the limits hold.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "http/parser.h"

namespace {

using sally::http::Parser;
constexpr sally::http::ParserLimits kLimits{.head = 1024, .headers = 16, .body = 2048};

struct Seen {
  std::size_t messages = 0;
  std::string text;
  int status = 0;
  bool operator==(const Seen&) const = default;
};

Seen run(sally::ByteView in, std::size_t cut) {
  Parser parser(Parser::Kind::kRequest, kLimits);
  Seen seen;
  std::size_t at = 0;
  while (at < in.size()) {
    const std::size_t end = at < cut ? std::min(cut, in.size()) : in.size();
    std::size_t used = 0;
    const auto state = parser.feed(in.subspan(at, end - at), used);
    if (state == Parser::State::kError) {
      seen.status = parser.error_status();
      if (seen.status < 400) std::abort();
      return seen;
    }
    if (used > end - at) std::abort();
    at += used;
    if (state == Parser::State::kMore) {
      if (at != end) std::abort();
      continue;
    }
    const auto r = parser.take_request();
    if (r.body.size() > kLimits.body || r.target.size() > kLimits.head ||
        r.headers.list().size() > kLimits.headers || r.target.empty() || r.target[0] != '/')
      std::abort();
    (void)sally::http::parse_query(r.query);
    (void)sally::http::percent_decode(r.path);
    ++seen.messages;
    seen.text += r.method + " " + r.target + "\n" + r.body + "\n";
    for (const auto& [n, v] : r.headers.list()) seen.text += n + ":" + v + "\n";
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const sally::ByteView in(data, size);
  const Seen whole = run(in, in.size());
  const Seen pieces = run(in, size == 0 ? 0 : data[0] % size);
  if (!(whole == pieces)) std::abort();
  (void)sally::http::parse_url(sally::as_text(in));
  return 0;
}
