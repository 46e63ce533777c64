// SPDX-License-Identifier: Apache-2.0
#include "api/compat/compat.h"

#include <algorithm>

#include "base/log.h"
#include "base/text.h"

namespace sally::api::compat {

Response json_response(int status, json::value body) {
  Response r;
  r.status = status;
  // Exactly this text: one client compares it literally (H7).
  r.headers.emplace_back("content-type", "application/json");
  r.body = json::serialize(body);
  return r;
}

Response envelope(json::value data, int status) {
  return json_response(status, json::object{{"data", std::move(data)}, {"meta", json::object()}});
}

Response created(std::string_view collection, std::string_view id) {
  const std::string href = "./" + std::string(collection) + "/" + std::string(id);
  return envelope(
      json::object{{"id", id}, {"_links", json::object{{"self", json::object{{"href", href}}}}}},
      201);
}

namespace {
Response refusal(const Deps& d, int status, std::string_view code, std::string_view message,
                 json::object more) {
  json::object error{{"code", code}, {"message", message}, {"requestId", d.random.hex(6)}};
  for (auto& [name, value] : more) error[name] = value;
  Response r =
      json_response(status, json::object{{"error", std::move(error)},
                                         {"meta", json::object{{"apiEnrollmentVersion", "0.0.1"},
                                                               {"apiVersion", "0.0.1"}}}});
  r.refused = code;
  return r;
}
}  // namespace

Response refuse(const Deps& d, int status, std::string_view code, std::string_view message,
                const Error* cause) {
  json::object more;
  if (cause != nullptr) {
    more["cause"] = json::object{{"code", cause->code()}, {"message", cause->context()}};
    more["causeMessage"] = cause->text();
  }
  return refusal(d, status, code, message, std::move(more));
}

Response refuse_field(const Deps& d, std::string_view field, std::string_view reason,
                      std::string_view value) {
  return refusal(
      d, 400, "COULD_NOT_VALIDATE", "the supplied request contains an invalid document",
      {{"cause",
        json::object{{"field", field}, {"reason", reason}, {"value", value.substr(0, 64)}}},
       {"causeMessage", reason}});
}

Response not_found(const Client& c) {
  return refuse(c.deps, 404, "NOT_FOUND", "the resource requested was not found");
}

Response broken(const Deps& d, const Error& e) {
  log::error("api.request_failed", {{"code", e.code()}, {"context", e.context()}});
  if (e.retry()) return refuse(d, 503, "TIMEOUT", "try again");
  return refuse(d, 500, "UNHANDLED", "internal error");
}

json::object entity(std::string_view href, std::string_view id, std::int64_t created_ms,
                    std::int64_t changed_ms) {
  return json::object{{"id", id},
                      {"createdAt", format_time(created_ms)},
                      {"updatedAt", format_time(changed_ms != 0 ? changed_ms : created_ms)},
                      {"tags", json::object()},
                      {"_links", json::object{{"self", json::object{{"href", href}}}}}};
}

json::object reference(std::string_view collection, std::string_view id, std::string_view name) {
  const std::string href = "./" + std::string(collection) + "/" + std::string(id);
  return json::object{{"_links", json::object{{"self", json::object{{"href", href}}}}},
                      {"entity", collection},
                      {"id", id},
                      {"name", name}};
}

std::string_view text_of(const json::object& o, std::string_view name) {
  const json::value* v = o.if_contains(name);
  return v != nullptr && v->is_string() ? std::string_view(v->get_string()) : std::string_view();
}

}  // namespace sally::api::compat
