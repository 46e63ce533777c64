// SPDX-License-Identifier: Apache-2.0
#include "identity/token.h"

#include <algorithm>

#include "base/clock.h"
#include "base/text.h"
#include "http/message.h"
#include "identity/json.h"

namespace sally::identity {
namespace {

constexpr std::size_t kMaxToken = 4096;

bool plain(std::string_view text, std::size_t max) {
  return !text.empty() && text.size() <= max && printable_utf8(text);
}

std::optional<crypto::Role> role_of(std::string_view kind) {
  for (const auto r : {crypto::Role::kDevice, crypto::Role::kRouter, crypto::Role::kAdmin})
    if (crypto::role_name(r) == kind) return r;
  return std::nullopt;
}

}  // namespace

Result<Token> parse_token(std::string_view text) {
  const auto bad = [](const char* why) {
    return fail(Errc::kBadToken,
                std::string("this is no enrolment token (") + why + "); copy it again, whole");
  };
  Token t;
  t.text = std::string(trim(text));
  auto jws = crypto::split_jws(t.text, kMaxToken);
  if (!jws) return bad("not three parts of base64url");
  t.jws = std::move(*jws);
  const auto header = parse_object(t.jws.header);
  const auto claims = parse_object(t.jws.payload);
  if (!header || !claims) return bad("not JSON");
  t.algorithm = text_at(*header, "alg");
  t.issuer = text_at(*claims, "iss");
  t.subject = text_at(*claims, "sub");
  t.id = text_at(*claims, "jti");
  const std::string method = text_at(*claims, "em");
  if (method.empty()) return bad("no method");
  if (method != "ott")
    return fail(Errc::kMethod, "a token of kind \"" + method.substr(0, 16) +
                                   "\" is not one this program can use; ask for a one-time token");
  while (t.issuer.ends_with('/')) t.issuer.pop_back();
  const auto url = http::parse_url(t.issuer);
  if (!url || url->target != "/") return bad("no controller URL");
  t.host = url->host;
  if (!plain(t.subject, 128) || !plain(t.id, 128)) return bad("no subject or id");
  const boost::json::value* exp = claims->if_contains("exp");
  if (exp == nullptr || !exp->is_int64() || exp->get_int64() <= 0) return bad("no end");
  t.expires_s = exp->get_int64();

  if (const auto* own = object_at(*claims, "sally")) {
    t.network = NetworkId(text_at(*own, "network"));
    t.root_sha256 = text_at(*own, "root");
    t.role = role_of(text_at(*own, "kind"));
    const auto root = from_hex(t.root_sha256);
    if (t.network.empty() || t.network.str().size() > 255 || !root || root->size() != 32 || !t.role)
      return bad("no network, root or kind");
    t.root_sha256 = lower(t.root_sha256);
  }
  return t;
}

Status verify_token(const Token& token, const crypto::Certificate& leaf, std::int64_t now_s) {
  if (const auto ok = crypto::verify_jws(token.jws, token.algorithm, leaf.public_key()); !ok)
    return fail(Errc::kTokenAltered, "the token was not signed by the controller that answers at " +
                                         token.issuer + " (" + std::string(ok.error().code()) +
                                         "): it was altered, or another server answers there");
  if (now_s >= token.expires_s)
    return fail(Errc::kTokenExpired,
                "the token ended at " + format_time(token.expires_s * 1000) + "; make a new one");
  return {};
}

}  // namespace sally::identity
