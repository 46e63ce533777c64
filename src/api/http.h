// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "crypto/path.h"

namespace sally::api {

/// The proven peer of a connection, copied from tls::PeerIdentity in one place (controller/); never
/// from a header.
struct Caller {
  std::string network;
  crypto::Role role = crypto::Role::kDevice;
  std::string id;
  std::string serial;  ///< of the leaf, lower-case hex
};

/// One HTTP request as a value. `path` and `query` are raw text as sent, without '?'.
struct Request {
  std::string method;
  std::string path;
  std::string query;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::optional<Caller> caller;
  std::string remote;                     ///< address for the log
  std::array<std::uint8_t, 16> source{};  ///< what limits count by: IPv4 address or IPv6 /64

  /// First header of that name (any case), or empty.
  [[nodiscard]] std::string_view header(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string refused{};  ///< stable code of a refusal, for the audit; not on the wire
};

/// Pairs split at '&', then at the first '='; percent-decoded, '+' is a space
/// (docs/compatible-enrolment.md H17).
std::vector<std::pair<std::string, std::string>> parse_query(std::string_view query);
std::optional<std::string> query_value(std::string_view query, std::string_view name);
/// Percent-decoded and nothing else; nullopt for bad escapes.
std::optional<std::string> percent_decode(std::string_view text);
/// Percent-decoded without duplicate slashes and without a trailing one; nullopt for bad escapes
/// and control characters.
std::optional<std::string> clean_path(std::string_view path);

}  // namespace sally::api
