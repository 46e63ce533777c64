// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sally {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;
using MutableBytes = std::span<std::uint8_t>;

/// Views and copies between text and bytes; no encoding is changed.
ByteView as_bytes(std::string_view text);
std::string_view as_text(ByteView bytes);
Bytes to_bytes(std::string_view text);
std::string to_text(ByteView bytes);
Bytes to_bytes(ByteView view);
void append(Bytes& to, ByteView more);

/// Lower-case hex; `from_hex` accepts both cases and nothing else.
std::string to_hex(ByteView bytes);
std::optional<Bytes> from_hex(std::string_view text);

/// RFC 4648 base64 with padding on one line; the decoder skips white space and wants correct
/// padding.
std::string to_base64(ByteView bytes);
std::optional<Bytes> from_base64(std::string_view text);
/// RFC 4648 section 5 without padding; the decoder accepts neither padding nor white space.
std::string to_base64url(ByteView bytes);
std::optional<Bytes> from_base64url(std::string_view text);

/// Compares without an early exit; lengths are not secret.
bool equal_constant_time(ByteView a, ByteView b);
/// Overwrites in a way the optimiser keeps.
void wipe(MutableBytes secret);
void wipe(std::string& secret);

/// Big-endian cursor over bytes a peer sent: total, never reads outside, sticky failure.
class Reader {
 public:
  explicit Reader(ByteView in) : in_(in) {}
  std::uint64_t big(std::size_t width);     ///< width 1..8
  std::uint64_t little(std::size_t width);  ///< width 1..8
  ByteView take(std::size_t n);
  [[nodiscard]] std::size_t left() const { return in_.size(); }
  /// False after the first read past the end; all later reads return zeroes or empty views.
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  ByteView in_;
  bool ok_ = true;
};

void put_big(Bytes& out, std::uint64_t value, std::size_t width);
void put_little(std::uint8_t* out, std::uint64_t value, std::size_t width);
std::uint64_t get_little(const std::uint8_t* in, std::size_t width);

}  // namespace sally
