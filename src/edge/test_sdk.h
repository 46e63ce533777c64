// SPDX-License-Identifier: Apache-2.0
// What a Ziti SDK says and hears, for tests: messages by the hand of the test, read without a cap.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "edge/message.h"

namespace sally::edge::test {

inline Bytes le32(std::uint32_t v) {
  Bytes out(4);
  put_little(out.data(), v, 4);
  return out;
}
inline Bytes le16(std::uint16_t v) {
  Bytes out(2);
  put_little(out.data(), v, 2);
  return out;
}

using Fields = std::vector<std::pair<Id, Bytes>>;
inline Bytes message(Type type, std::int32_t sequence, const Fields& headers, ByteView body = {}) {
  Bytes out;
  MessageWriter m(out, type, sequence);
  for (const auto& [id, value] : headers) m.put(id, ByteView(value));
  m.body(body);
  return out;
}
inline Bytes message(Type type, std::int32_t sequence, const Fields& headers,
                     std::string_view body) {
  return message(type, sequence, headers, as_bytes(body));
}

/// A message as somebody heard it.
struct Heard {
  Type type{};
  std::int32_t sequence = 0;
  std::map<Id, Bytes> headers;
  Bytes body;
  [[nodiscard]] bool has(Id id) const { return headers.contains(id); }
  [[nodiscard]] std::uint32_t u32(Id id) const {
    const auto it = headers.find(id);
    return it == headers.end() || it->second.size() != 4
               ? 0xdead'beef
               : static_cast<std::uint32_t>(get_little(it->second.data(), 4));
  }
  [[nodiscard]] std::string text(Id id) const {
    const auto it = headers.find(id);
    return it == headers.end() ? "" : to_text(it->second);
  }
  [[nodiscard]] std::string said() const { return to_text(body); }
};

/// Cuts a stream into messages.
class Ear {
 public:
  void hear(ByteView bytes) {
    append(in_, bytes);
    for (;;) {
      if (in_.size() < kFixedSize) return;
      const auto at = [this](std::size_t i) {
        return static_cast<std::uint32_t>(get_little(in_.data() + i, 4));
      };
      const std::size_t size = kFixedSize + at(12) + std::size_t{at(16)};
      if (in_.size() < size) return;
      Heard m{.type = static_cast<Type>(at(4)),
              .sequence = static_cast<std::int32_t>(at(8)),
              .headers = {},
              .body = {}};
      std::size_t h = kFixedSize;
      for (const std::size_t end = h + at(12); h < end;) {
        const std::size_t n = at(h + 4);
        m.headers[static_cast<Id>(at(h))] = to_bytes(ByteView(in_).subspan(h + 8, n));
        h += 8 + n;
      }
      m.body = to_bytes(ByteView(in_).subspan(h, at(16)));
      messages.push_back(std::move(m));
      in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(size));
    }
  }
  /// The oldest message that was not taken yet.
  std::optional<Heard> take() {
    if (messages.empty()) return std::nullopt;
    Heard m = std::move(messages.front());
    messages.pop_front();
    return m;
  }
  std::deque<Heard> messages;

 private:
  Bytes in_;
};

}  // namespace sally::edge::test
