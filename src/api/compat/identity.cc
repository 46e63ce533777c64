// SPDX-License-Identifier: Apache-2.0
// The session and the identity of who asks.
#include "api/compat/compat.h"
#include "api/compat/lists.h"
#include "base/text.h"
#include "crypto/certificate.h"
#include "pki/renew.h"

namespace sally::api::compat {
namespace {

// One authenticator: the certificate. Its id is the identity's, so that it outlives a renewal.
Result<json::object> authenticator(const Client& c) {
  TRY_ASSIGN(const auto leaf, crypto::Certificate::from_der(c.certificate.der));
  auto o = entity("./authenticators/" + c.identity.id, c.identity.id, c.certificate.issued_ms);
  o["method"] = "cert";
  o["identityId"] = c.identity.id;
  o["identity"] = reference("identities", c.identity.id, c.identity.name);
  o["fingerprint"] = leaf.sha1_hex();
  o["certPem"] = leaf.pem();
  o["isIssuedByNetwork"] = true;
  o["lastAuthResolvedToRoot"] = true;
  return o;
}

Result<Response> session(Client& c) {
  auto data = session_json(c.deps, c.session, c.identity);
  // Nobody keeps it; who asks has it.
  data["token"] = c.request.header("zt-session");
  return envelope(std::move(data));
}

Result<Response> logout(Client& c) {
  TRY(c.deps.sessions->close(*c.write, c.session, "device/" + c.identity.id));
  return envelope(json::object());
}

// Who has a certificate needs none for the session.
Result<Response> session_certificates(Client& c) {
  const auto p = paging(c.deps, c.request.query);
  if (!p) return p.error();
  return list_envelope({}, *p, 0);
}
Result<Response> no_session_certificates(Client& c) {
  return refuse(c.deps, 501, "NOT_IMPLEMENTED",
                "an identity here has a certificate; sessions get none of their own");
}

// There are no posture checks, so nothing is kept. The two codes differ, and SDKs know (H14).
Result<Response> posture(Client&) {
  return envelope(json::object(), 201);
}
Result<Response> posture_bulk(Client&) {
  return envelope(json::object{{"services", json::array()}});
}

Result<Response> identity(Client& c) {
  const auto& i = c.identity;
  auto o = entity("./identities/" + i.id, i.id, i.created_ms, i.changed_ms);
  json::array tags;
  for (const auto& t : i.tags) tags.emplace_back(t);
  TRY_ASSIGN(const auto proof, authenticator(c));
  const json::object more{
      {"name", i.name},
      {"type", reference("identity-types", "Default", "Default")},
      {"typeId", "Default"},
      {"isAdmin", false},
      {"isDefaultAdmin", false},
      {"isMfaEnabled", false},
      {"roleAttributes", std::move(tags)},
      {"permissions", json::array()},
      {"appData", json::object()},
      {"authPolicyId", "default"},
      {"authPolicy", reference("auth-policies", "default", "Default")},
      {"authenticators",
       json::object{
           {"cert", json::object{{"id", i.id}, {"fingerprint", proof.at("fingerprint")}}}}},
      {"enrollment", json::object()},
      {"envInfo", json::object()},
      {"sdkInfo", json::object()},
      {"externalId", nullptr},
      {"disabled", false},
      {"defaultHostingCost", 0},
      {"defaultHostingPrecedence", "default"},
      {"serviceHostingCosts", json::object()},
      {"serviceHostingPrecedences", json::object()},
      {"hasApiSession", true},
      {"hasEdgeRouterConnection", false},
      {"edgeRouterConnectionStatus", "unknown"}};
  for (const auto& [name, value] : more) o[name] = value;
  return envelope(std::move(o));
}

Result<Response> authenticators(Client& c) {
  const auto p = paging(c.deps, c.request.query);
  if (!p) return p.error();
  TRY_ASSIGN(auto one, authenticator(c));
  return page_of_all({std::move(one)}, *p);
}

// Another's id is no id.
bool extends(const Client& c) {
  return c.params[0] == c.identity.id && c.deps.renewals != nullptr;
}

Result<Response> one_authenticator(Client& c) {
  if (c.params[0] != c.identity.id) return not_found(c);
  TRY_ASSIGN(auto one, authenticator(c));
  return envelope(std::move(one));
}

// The next certificate for who holds this one, which lives on until the next is proven.
Result<Response> extend(Client& c) {
  if (!extends(c)) return not_found(c);
  const std::string_view csr = text_of(c.body, "clientCertCsr");
  if (csr.empty()) return refuse_field(c.deps, "clientCertCsr", "clientCertCsr is missing", "");
  const auto issued = c.deps.renewals->extend(*c.write, c.identity, c.certificate, as_bytes(csr),
                                              c.now_ms, c.deps.random);
  if (!issued) {
    const Error& e = issued.error();
    if (e.is(pki::Errc::kTooOften))
      return refuse(c.deps, 429, "SERVER_TOO_MANY_REQUESTS", "try again later");
    if (e.is(pki::Errc::kCaAsked) ||
        (e.code().starts_with("crypto.") && e.source() == Source::kPeer))
      return refuse(c.deps, 400, "COULD_NOT_PROCESS_CSR", "the certificate request was refused",
                    &e);
    return fail(e);
  }
  // Never without `ca`: a client puts it in the place of what it has (H15).
  return envelope(json::object{{"clientCert", issued->chain_pem()},
                               {"ca", crypto::to_pem(c.deps.authority->bundle())}});
}

Result<Response> extend_verify(Client& c) {
  if (!extends(c)) return not_found(c);
  const auto shown = crypto::Certificate::list_from_pem(text_of(c.body, "clientCert"), 8);
  if (!shown || shown->empty())
    return refuse(c.deps, 400, "INVALID_CERT_PEM", "clientCert is no certificate in PEM");
  const auto ok =
      c.deps.renewals->received(*c.write, c.identity, c.certificate, shown->front(), c.now_ms);
  if (!ok && ok.error().is(pki::Errc::kCertificateUnknown))
    return refuse(c.deps, 400, "INVALID_CLIENT_CERT", "that is not the certificate of extend");
  TRY(ok);
  return envelope(json::object());
}

}  // namespace

json::object session_json(const Deps& d, const store::ApiSession& s, const store::Identity& who) {
  auto o = entity("./current-api-session", s.id, s.created_ms, s.active_ms);
  o["_links"].as_object()["current-identity"] = json::object{{"href", "./current-identity"}};
  json::array types;
  for (const auto& t : s.config_types) types.emplace_back(t);
  const std::int64_t until = d.sessions->expires_ms(s);
  const json::object more{{"identityId", who.id},
                          {"identity", reference("identities", who.id, who.name)},
                          {"ipAddress", s.address},
                          {"configTypes", std::move(types)},
                          {"authQueries", json::array()},
                          {"isMfaRequired", false},
                          {"isMfaComplete", false},
                          {"authenticatorId", who.id},
                          {"isCertExtendable", d.renewals != nullptr},
                          {"isCertExtendRequested", false},
                          {"isCertKeyRollRequested", false},
                          {"improperClientCertChain", false},
                          {"lastActivityAt", format_time(s.active_ms)},
                          {"cachedLastActivityAt", format_time(s.active_ms)},
                          {"expiresAt", format_time(until)},
                          {"expirationSeconds", (until - s.active_ms) / 1000}};
  for (const auto& [name, value] : more) o[name] = value;
  return o;
}

std::vector<Route> identity_routes() {
  return {{"GET", "/current-api-session", false, session},
          {"DELETE", "/current-api-session", true, logout},
          {"GET", "/current-api-session/certificates", false, session_certificates},
          {"POST", "/current-api-session/certificates", false, no_session_certificates},
          {"GET", "/current-identity", false, identity},
          {"POST", "/posture-response", false, posture},
          {"POST", "/posture-response-bulk", false, posture_bulk},
          {"GET", "/current-identity/authenticators", false, authenticators},
          {"GET", "/current-identity/authenticators/{id}", false, one_authenticator},
          {"POST", "/current-identity/authenticators/{id}/extend", true, extend},
          {"POST", "/current-identity/authenticators/{id}/extend-verify", true, extend_verify}};
}

}  // namespace sally::api::compat
