// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <array>

namespace sally {
namespace {

constexpr std::string_view kStd =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kUrl =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string encode64(ByteView in, std::string_view alphabet, bool pad) {
  std::string out;
  out.reserve((in.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < in.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, in.size() - i);
    std::uint32_t v = static_cast<std::uint32_t>(in[i]) << 16;
    if (n > 1) v |= static_cast<std::uint32_t>(in[i + 1]) << 8;
    if (n > 2) v |= in[i + 2];
    for (std::size_t k = 0; k <= n; ++k) out.push_back(alphabet[(v >> (18 - 6 * k)) & 63]);
    if (pad) out.append(3 - n, '=');
  }
  return out;
}

constexpr std::array<std::int8_t, 256> table(std::string_view alphabet) {
  std::array<std::int8_t, 256> t{};
  t.fill(-1);
  for (std::size_t i = 0; i < alphabet.size(); ++i) {
    t[static_cast<unsigned char>(alphabet[i])] = static_cast<std::int8_t>(i);
  }
  return t;
}

// Decodes symbols without padding; a leftover of one symbol or set spare bits is an error.
std::optional<Bytes> decode64(std::string_view text, const std::array<std::int8_t, 256>& t) {
  if (text.size() % 4 == 1) return std::nullopt;
  Bytes out;
  out.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t acc = 0;
  unsigned bits = 0;
  for (const char c : text) {
    const std::int8_t v = t[static_cast<unsigned char>(c)];
    if (v < 0) return std::nullopt;
    acc = acc << 6 | static_cast<std::uint32_t>(v);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<std::uint8_t>(acc >> bits));
      acc &= (1U << bits) - 1;
    }
  }
  if (acc != 0) return std::nullopt;
  return out;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
Bytes to_bytes(std::string_view text) {
  return to_bytes(as_bytes(text));
}
std::string to_text(ByteView bytes) {
  return std::string(as_text(bytes));
}
Bytes to_bytes(ByteView view) {
  return {view.begin(), view.end()};
}
void append(Bytes& to, ByteView more) {
  to.insert(to.end(), more.begin(), more.end());
}

std::string to_hex(ByteView bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const auto b : bytes) {
    out.push_back(digits[b >> 4]);
    out.push_back(digits[b & 15]);
  }
  return out;
}

std::optional<Bytes> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  Bytes out(text.size() / 2);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int hi = hex_digit(text[2 * i]);
    const int lo = hex_digit(text[2 * i + 1]);
    if (hi < 0 || lo < 0) return std::nullopt;
    out[i] = static_cast<std::uint8_t>(hi << 4 | lo);
  }
  return out;
}

std::string to_base64(ByteView bytes) {
  return encode64(bytes, kStd, true);
}
std::string to_base64url(ByteView bytes) {
  return encode64(bytes, kUrl, false);
}

std::optional<Bytes> from_base64(std::string_view text) {
  static constexpr auto kTable = table(kStd);
  std::string clean;
  clean.reserve(text.size());
  for (const char c : text) {
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') clean.push_back(c);
  }
  if (clean.size() % 4 != 0) return std::nullopt;
  for (int i = 0; i < 2 && !clean.empty() && clean.back() == '='; ++i) clean.pop_back();
  return decode64(clean, kTable);
}

std::optional<Bytes> from_base64url(std::string_view text) {
  static constexpr auto kTable = table(kUrl);
  return decode64(text, kTable);
}

bool equal_constant_time(ByteView a, ByteView b) {
  if (a.size() != b.size()) return false;
  unsigned diff = 0;
  for (std::size_t i = 0; i < a.size(); ++i) diff |= static_cast<unsigned>(a[i] ^ b[i]);
  return diff == 0;
}

void wipe(MutableBytes secret) {
  volatile std::uint8_t* p = secret.data();
  for (std::size_t i = 0; i < secret.size(); ++i) p[i] = 0;
}
void wipe(std::string& secret) {
  wipe(MutableBytes(reinterpret_cast<std::uint8_t*>(secret.data()), secret.size()));
  secret.clear();
}

ByteView Reader::take(std::size_t n) {
  if (!ok_ || n > in_.size()) {
    ok_ = false;
    return {};
  }
  const ByteView out = in_.first(n);
  in_ = in_.subspan(n);
  return out;
}
std::uint64_t Reader::big(std::size_t width) {
  std::uint64_t v = 0;
  for (const auto b : take(width)) v = v << 8 | b;
  return v;
}
std::uint64_t Reader::little(std::size_t width) {
  const ByteView raw = take(width);
  return raw.empty() ? 0 : get_little(raw.data(), raw.size());
}

void put_big(Bytes& out, std::uint64_t value, std::size_t width) {
  for (std::size_t i = width; i-- > 0;) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}
void put_little(std::uint8_t* out, std::uint64_t value, std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * i));
}
std::uint64_t get_little(const std::uint8_t* in, std::size_t width) {
  std::uint64_t v = 0;
  for (std::size_t i = width; i-- > 0;) v = v << 8 | in[i];
  return v;
}

}  // namespace sally
