// SPDX-License-Identifier: Apache-2.0
#include "api/http.h"

#include <algorithm>

#include "base/text.h"

namespace sally::api {
namespace {

constexpr std::size_t kMaxPairs = 64;

std::optional<std::string> decode(std::string_view in, bool plus_is_space) {
  std::string out;
  out.reserve(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (in[i] == '%') {
      if (i + 2 >= in.size()) return std::nullopt;
      const auto byte = from_hex(in.substr(i + 1, 2));
      if (!byte) return std::nullopt;
      out += static_cast<char>(byte->front());
      i += 2;
    } else {
      out += plus_is_space && in[i] == '+' ? ' ' : in[i];
    }
  }
  return out;
}

}  // namespace

std::string_view Request::header(std::string_view name) const {
  const std::string wanted = lower(name);
  for (const auto& [k, v] : headers)
    if (lower(k) == wanted) return v;
  return {};
}

std::vector<std::pair<std::string, std::string>> parse_query(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto part : split(query, '&')) {
    if (part.empty() || out.size() == kMaxPairs) continue;
    const std::size_t eq = part.find('=');
    auto key = decode(part.substr(0, eq), true);
    auto value = eq == std::string_view::npos ? std::optional<std::string>(std::string())
                                              : decode(part.substr(eq + 1), true);
    // A broken escape stays as sent: older clients escape only in part.
    out.emplace_back(key ? *key : std::string(part.substr(0, eq)),
                     value ? *value : std::string(part.substr(eq + 1)));
  }
  return out;
}

std::optional<std::string> query_value(std::string_view query, std::string_view name) {
  for (auto& [k, v] : parse_query(query))
    if (k == name) return std::move(v);
  return std::nullopt;
}

std::optional<std::string> percent_decode(std::string_view text) {
  return decode(text, false);
}

std::optional<std::string> clean_path(std::string_view path) {
  const auto decoded = decode(path, false);
  if (!decoded || decoded->empty() || decoded->front() != '/') return std::nullopt;
  std::string out;
  for (const char c : *decoded) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return std::nullopt;
    if (c == '/' && !out.empty() && out.back() == '/') continue;
    out += c;
  }
  if (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

}  // namespace sally::api
