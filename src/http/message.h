// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "http/errc.h"
#include "loop/fd.h"
#include "tls/peer_identity.h"

namespace sally::http {

/// Header fields in order, repeats kept; names compare without case. Value type; any thread.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> list) : list_(list) {}
  void add(std::string name, std::string value) {
    list_.emplace_back(std::move(name), std::move(value));
  }
  /// Replaces all of that name.
  void set(std::string_view name, std::string value);
  /// The first of that name, or empty.
  [[nodiscard]] std::string_view get(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const;
  [[nodiscard]] std::vector<std::string_view> all(std::string_view name) const;
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& list() const {
    return list_;
  }

 private:
  std::vector<std::pair<std::string, std::string>> list_;
};

/// One request as received. Value type: a worker gets its own copy; nothing in it points into a
/// connection.
struct Request {
  std::string method;  ///< upper case
  std::string target;  ///< as sent
  std::string path;    ///< before '?', still percent-coded
  std::string query;   ///< after '?', raw
  Headers headers;
  std::string body;
  /// Proven by the handshake of this connection; null without a client certificate.
  std::shared_ptr<const tls::PeerIdentity> peer;
  loop::Address source;
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
  bool close = false;  ///< end the connection after it

  /// With Content-Type application/json.
  static Response json(int status, std::string body);
  static Response text(int status, std::string body);
};

/// RFC 9110 reason phrase; "Unknown" for others.
std::string_view reason_phrase(int status);

/// "%41" -> "A"; with `plus` also '+' -> ' '. nullopt for a broken escape.
std::optional<std::string> percent_decode(std::string_view text, bool plus = false);
/// Everything but RFC 3986 unreserved characters.
std::string percent_encode(std::string_view text);
/// Raw query: pairs at '&', then at the first '=' (docs/compatible-enrolment.md H17), both decoded;
/// broken pairs are skipped.
std::vector<std::pair<std::string, std::string>> parse_query(std::string_view raw);

/// https://host[:port][/path][?query]; no user, no fragment.
struct Url {
  std::string host;  ///< IPv6 without brackets
  std::uint16_t port = 443;
  std::string target = "/";  ///< path and query
  /// "https://host:port" without the target.
  [[nodiscard]] std::string origin() const;
};
Result<Url> parse_url(std::string_view text);

}  // namespace sally::http
