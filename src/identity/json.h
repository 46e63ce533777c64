// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to identity/: members of JSON objects that others wrote.
#include <boost/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace sally::identity {

/// Total: nullopt for anything that is no object.
inline std::optional<boost::json::object> parse_object(std::string_view text) {
  boost::system::error_code ec;
  boost::json::value v = boost::json::parse({text.data(), text.size()}, ec);
  if (ec || !v.is_object()) return std::nullopt;
  return std::move(v.get_object());
}
inline const boost::json::object* object_at(const boost::json::object& o, std::string_view name) {
  const boost::json::value* v = o.if_contains({name.data(), name.size()});
  return v != nullptr ? v->if_object() : nullptr;
}
/// Empty when absent or no string.
inline std::string text_at(const boost::json::object& o, std::string_view name) {
  const boost::json::value* v = o.if_contains({name.data(), name.size()});
  const boost::json::string* s = v != nullptr ? v->if_string() : nullptr;
  return s != nullptr ? std::string(s->data(), s->size()) : std::string();
}

}  // namespace sally::identity
