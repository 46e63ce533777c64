// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdio>

namespace sally {
namespace {

// Length of the well-formed UTF-8 sequence at the start of `in`, 0 if there is none.
std::size_t utf8_length(std::string_view in) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(in[i]); };
  const unsigned char c = at(0);
  if (c < 0x80) return 1;
  const std::size_t n = c >= 0xc2 && c <= 0xdf   ? 2
                        : (c & 0xf0) == 0xe0     ? 3
                        : c >= 0xf0 && c <= 0xf4 ? 4
                                                 : 0;
  if (n == 0 || in.size() < n) return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  if ((c == 0xe0 && at(1) < 0xa0) || (c == 0xed && at(1) > 0x9f) || (c == 0xf0 && at(1) < 0x90) ||
      (c == 0xf4 && at(1) > 0x8f)) {
    return 0;
  }
  return n;
}

bool alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> out;
  for (;;) {
    const auto i = text.find(at);
    out.push_back(text.substr(0, i));
    if (i == std::string_view::npos) return out;
    text.remove_prefix(i + 1);
  }
}

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (auto& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::optional<std::uint64_t> parse_u64(std::string_view text) {
  if (text.empty() || text.size() > 20) return std::nullopt;
  std::uint64_t v = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    const auto d = static_cast<std::uint64_t>(c - '0');
    if (v > (UINT64_MAX - d) / 10) return std::nullopt;
    v = v * 10 + d;
  }
  return v;
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const char c = text.front();
    const std::size_t n = utf8_length(text);
    if (n == 0) {
      out += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (n == 1 && (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\u%04x", static_cast<unsigned>(c));
      out += hex;
    } else {
      out += text.substr(0, n);
    }
    text.remove_prefix(std::max<std::size_t>(n, 1));
  }
  return out + '"';
}

bool printable_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t n = utf8_length(text);
    if (n == 0 ||
        (n == 1 && (static_cast<unsigned char>(text.front()) < 0x20 || text.front() == 0x7f)))
      return false;
    text.remove_prefix(n);
  }
  return true;
}

bool valid_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 && alnum(text.front()) &&
         std::ranges::all_of(text,
                             [](char c) { return alnum(c) || c == '.' || c == '_' || c == '-'; });
}

bool valid_address(std::string_view text) {
  in6_addr address{};
  const std::string zero_ended(text);
  const int family = text.find(':') != std::string_view::npos ? AF_INET6 : AF_INET;
  return zero_ended.find('\0') == std::string::npos &&
         ::inet_pton(family, zero_ended.c_str(), &address) == 1;
}

bool valid_host(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  if (text.find(':') != std::string_view::npos ||
      text.find_first_not_of("0123456789.") == std::string_view::npos)
    return valid_address(text);
  const auto labels = split(text, '.');
  return std::ranges::all_of(labels,
                             [](std::string_view label) {
                               return !label.empty() && label.size() <= 63 &&
                                      label.front() != '-' && label.back() != '-' &&
                                      std::ranges::all_of(
                                          label, [](char c) { return alnum(c) || c == '-'; });
                             }) &&
         labels.back().find_first_not_of("0123456789") != std::string_view::npos;
}

std::string HostPort::str() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::optional<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port) {
  HostPort out;
  std::string_view rest;
  if (!text.empty() && text.front() == '[') {
    const auto close = text.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    out.host = text.substr(1, close - 1);
    rest = text.substr(close + 1);
  } else {
    const auto colon = text.find(':');
    out.host = text.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
  }
  if (out.host.empty() || out.host.size() > 253 || !printable_utf8(out.host)) return std::nullopt;
  if (rest.empty()) {
    out.port = default_port;
    return default_port == 0 ? std::nullopt : std::optional(out);
  }
  if (rest.front() != ':') return std::nullopt;
  const auto port = parse_u64(rest.substr(1));
  if (!port || *port == 0 || *port > 65535) return std::nullopt;
  out.port = static_cast<std::uint16_t>(*port);
  return out;
}

std::optional<HostPort> parse_listen(std::string_view text) {
  if (!text.ends_with(":0")) return parse_host_port(text);
  auto at = parse_host_port(text.substr(0, text.size() - 2), 1);
  if (at) at->port = 0;
  return at;
}

}  // namespace sally
