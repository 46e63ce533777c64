// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sally {

std::vector<std::string_view> split(std::string_view text, char at);
std::string_view trim(std::string_view text);
std::string lower(std::string_view text);
/// Decimal digits only, the whole text, no sign.
std::optional<std::uint64_t> parse_u64(std::string_view text);
/// RFC 8259 string with quotes; invalid UTF-8 bytes become U+FFFD.
std::string json_quote(std::string_view text);
/// True for well-formed UTF-8 without control characters.
bool printable_utf8(std::string_view text);
/// A name people give: 1 to 64 of [A-Za-z0-9._-], first alphanumeric.
bool valid_name(std::string_view text);

/// An IPv4 or IPv6 address, no brackets.
bool valid_address(std::string_view text);
/// An IP address (no brackets) or a DNS host name of RFC 1123: labels of letters, digits and inner
/// hyphens, 253 characters at most, the last label not all digits.
bool valid_host(std::string_view text);

/// HOST:PORT, [IPv6]:PORT; port 1 to 65535.
struct HostPort {
  std::string host;
  std::uint16_t port = 0;
  [[nodiscard]] std::string str() const;
};
/// With `default_port` > 0 the port may be missing.
std::optional<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port = 0);
/// ADDRESS:PORT to listen on: "*" is every address, port 0 lets the system choose.
std::optional<HostPort> parse_listen(std::string_view text);

}  // namespace sally
