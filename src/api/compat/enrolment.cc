// SPDX-License-Identifier: Apache-2.0
// What anybody may ask, and enrolment: docs/compatible-enrolment.md.
#include "api/compat/compat.h"
#include "api/compat/lists.h"
#include "base/log.h"
#include "base/text.h"
#include "crypto/jws.h"
#include "pki/publish.h"

namespace sally::api::compat {

Response version(const Deps& d) {
  const json::object edge{
      {"v1", json::object{{"path", "/edge/client/v1"},
                          {"apiBaseUrls", json::array{d.url + "/edge/client/v1"}}}}};
  return envelope(json::object{{"version", "v2.1.0"},
                               {"revision", "sallyport-" SALLY_VERSION},
                               {"buildDate", "2026-01-01T00:00:00Z"},
                               {"runtimeVersion", "c++23"},
                               {"apiVersions", json::object{{"edge", edge}, {"edge-client", edge}}},
                               {"capabilities", json::array()}});
}

Response cacerts(const Deps& d, const Request& request, bool prefixed) {
  const std::string one_line = to_base64(crypto::to_pkcs7(d.authority->bundle()));
  Response r;
  r.headers.emplace_back("content-type", "application/pkcs7-mime");
  r.headers.emplace_back("content-transfer-encoding", "base64");
  // Clients disagree (docs/compatible-enrolment.md): lines of 64 without a final LF here, one line
  // with it at the root.
  if (prefixed || request.header("user-agent").starts_with("libest")) {
    for (std::size_t i = 0; i < one_line.size(); i += 64) {
      if (i != 0) r.body += '\n';
      r.body += one_line.substr(i, 64);
    }
  } else {
    r.body = one_line + "\n";
  }
  return r;
}

Response network_jwts(const Deps& d) {
  const auto rest = d.rest();
  const std::string header = "{\"alg\":\"" +
                             std::string(crypto::jws_algorithm(rest->key->public_key())) +
                             "\",\"kid\":\"" + rest->leaf.sha1_hex() + "\",\"typ\":\"JWT\"}";
  const json::object payload{{"iss", d.url + "/"},
                             {"sub", d.url + "/"},
                             {"aud", json::array{"openziti-enroller"}},
                             {"jti", d.random.uuid()},
                             {"em", "network"}};
  const auto token = crypto::sign_jws(header, json::serialize(payload), *rest->key);
  if (!token) return refuse(d, 500, "UNHANDLED", "internal error");
  return list_envelope({json::object{{"name", "default"}, {"token", *token}}}, Paging(), 1);
}

Response protocols(const Deps& d) {
  std::string address = d.url;
  if (const auto at = address.find("://"); at != std::string::npos) address.erase(0, at + 3);
  return envelope(json::object{{"https", json::object{{"address", address}}}});
}

namespace {

// A token is its id; our own client sends the whole JWT, so that an altered or foreign one is named
// as such.
Result<std::string> token_id(const Deps& d, const std::string& token) {
  if (token.find('.') == std::string::npos) return token;
  const auto altered = [] {
    return fail(pki::Errc::kTokenAltered, "the token was altered or cut; copy it again");
  };
  const auto jws = crypto::split_jws(token, 4096);
  if (!jws) return altered();
  boost::system::error_code ec;
  const json::value header = json::parse(jws->header, ec);
  if (ec || !header.is_object()) return altered();
  const json::value payload = json::parse(jws->payload, ec);
  if (ec || !payload.is_object()) return altered();
  const auto text = [](const json::object& o, std::string_view name) -> std::string {
    const json::value* v = o.if_contains(name);
    return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
  };
  const auto& claims = payload.get_object();
  const json::value* own = claims.if_contains("sally");
  const std::string network =
      own != nullptr && own->is_object() ? text(own->get_object(), "network") : "";
  if (network != d.network.str())
    return fail(pki::Errc::kTokenForeign, "the token is of another network");
  if (!crypto::verify_jws(*jws, text(header.get_object(), "alg"), d.rest()->key->public_key()))
    return altered();
  // What else we sign with this key is no enrolment token.
  const json::value* audience = claims.if_contains("aud");
  if (text(claims, "em") != "ott" || text(claims, "iss") != d.url || audience == nullptr ||
      *audience != json::value(json::array{""}))
    return fail(pki::Errc::kTokenForeign, "the token is for something else");
  return text(claims, "jti");
}

bool json_accepted(std::string_view accept) {
  if (accept.empty()) return true;
  const std::string a = lower(accept);
  return a.find("application/json") != std::string::npos || a.find("*/*") != std::string::npos ||
         a.find("application/*") != std::string::npos;
}

Response refuse_enrollment(const Deps& d, const Error& e) {
  using pki::Errc;
  if (e.is(Errc::kTokenExpired))
    return refuse(d, 400, "ENROLLMENT_EXPIRED", "the enrollment token has expired", &e);
  if (e.is(Errc::kTokenUnknown) || e.is(Errc::kTokenUsed) || e.is(Errc::kTokenRevoked) ||
      e.is(Errc::kTokenAltered) || e.is(Errc::kTokenForeign) || e.is(Errc::kIdentityInactive))
    return refuse(d, 400, "INVALID_ENROLLMENT_TOKEN", "the enrollment token is not valid", &e);
  if (e.code().starts_with("crypto.") && e.source() == Source::kPeer)
    return refuse(d, 400, "COULD_NOT_PROCESS_CSR", "the certificate request was refused", &e);
  if (e.retry()) return refuse(d, 503, "TIMEOUT", "try again");
  return refuse(d, 500, "UNHANDLED", "internal error");
}

Result<json::value> enroll(const Deps& d, const std::string& token, const std::string& csr,
                           const MayAudit& may_audit) {
  TRY_ASSIGN(const auto id, token_id(d, token));
  const std::int64_t now = d.clock.unix_ms();
  {
    TRY_ASSIGN(const auto read, d.store.read(d.network));
    TRY_ASSIGN(const bool known, d.door.knows(*read, id));
    if (!known) return fail(pki::Errc::kTokenUnknown, "no such token in this network");
  }
  TRY_ASSIGN(auto tx, d.store.begin(d.network, now));
  // Our own client sends the whole token, and what it enrols renews by itself; others never do.
  const bool renews = token.find('.') != std::string::npos;
  auto done = d.door.enroll(*tx, id, as_bytes(csr), now, d.random, renews ? d.renewing_life_s : 0);
  if (!done) {
    const Error& e = done.error();
    // A token was there; a used one is no secret any more.
    if (e.source() != Source::kInternal && may_audit()) {
      TRY(tx->audit("unknown", "enroll.refused", "",
                    "{\"door\":\"token\",\"code\":\"" + std::string(e.code()) + "\"}"));
      TRY(tx->commit());
    }
    return fail(e);
  }
  const auto& identity = done->identity;
  json::array routers;
  TRY_ASSIGN(const auto rows, tx->identities(store::Kind::kRouter, {64, 0}));
  for (const auto& r : rows) {
    TRY_ASSIGN(const auto info, tx->router_info(r.id));
    if (info && r.standing == store::Standing::kActive)
      for (const auto& a : info->addresses) routers.emplace_back(a);
  }
  json::object own{{"network", d.network.str()},    {"id", identity.id},
                   {"name", identity.name},         {"kind", store::kind_name(identity.kind)},
                   {"routers", std::move(routers)}, {"controller", d.url}};
  if (identity.kind == store::Kind::kDevice) {
    TRY_ASSIGN(const auto card, pki::make_card(d.network, identity, *d.signer(), now));
    own["card"] = to_base64(card);
  }
  TRY(tx->commit());
  tx.reset();
  d.live.changed();
  log::info("api.enrolled", {{"kind", store::kind_name(identity.kind)},
                             {"id", identity.id},
                             {"name", identity.name},
                             {"serial", done->issued.leaf.serial_hex()}});
  return json::object{{"cert", done->issued.chain_pem()},
                      {"ca", crypto::to_pem(d.authority->bundle())},
                      {"sally", std::move(own)}};
}

}  // namespace

Response enroll_request(const Deps& d, const Request& r, bool json_only, const MayAudit& may_audit,
                        std::string_view& result) {
  if (r.body.size() > kMaxBody)
    return refuse(d, 413, "REQUEST_ENTITY_TOO_LARGE", "request is too large");
  std::string type = lower(trim(split(r.header("content-type"), ';').front()));
  std::string token = query_value(r.query, "token").value_or("");
  std::string csr;
  if (json_only || type == "application/json") {
    boost::system::error_code ec;
    const json::value body = r.body.empty() ? json::value(json::object()) : json::parse(r.body, ec);
    if (ec || !body.is_object())
      return refuse(d, 400, "COULD_NOT_PARSE_BODY", "body is not a JSON object");
    const auto text = [&](std::string_view name) -> std::string {
      const json::value* v = body.get_object().if_contains(name);
      return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
    };
    csr = text("clientCsr");
    if (csr.empty()) csr = text("certCsr");
    if (token.empty()) token = text("token");
  } else if (type.empty() || type == "text/plain" || type == "application/x-pem-file" ||
             type == "application/pkcs7" || type == "application/pkcs10") {
    if (!json_accepted(r.header("accept")))
      return refuse(d, 415, "UNSUPPORTED_MEDIA", "the answer is JSON; allow it in Accept");
    csr = r.body;
  } else {
    return refuse(d, 415, "UNSUPPORTED_MEDIA",
                  "send the request as text/plain or application/json");
  }
  if (!json_only) {
    const std::string method = query_value(r.query, "method").value_or("ott");
    if (method != "ott")
      return refuse(d, 400, "INVALID_ENROLL_METHOD", "only ott tokens are known");
  }
  auto done = enroll(d, token, csr, may_audit);
  result = done ? "done" : done.error().code();
  if (done) return envelope(std::move(*done));
  log::warn(
      "api.enrolment_refused",
      {{"code", done.error().code()}, {"context", done.error().context()}, {"remote", r.remote}});
  return refuse_enrollment(d, done.error());
}

}  // namespace sally::api::compat
