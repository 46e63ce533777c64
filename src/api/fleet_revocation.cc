// SPDX-License-Identifier: Apache-2.0
// What dies early, and what of it comes back: devices, certificates, batches, CAs.
#include <algorithm>

#include "api/call.h"
#include "base/text.h"
#include "pki/revoke.h"

namespace sally::api {
namespace {

using store::Reason;

Result<Reason> reason_of(const json::object& body) {
  TRY_ASSIGN(const auto text, opt_text(body, "reason", 32));
  const auto reason = pki::parse_reason(text.empty() ? "unspecified" : text);
  if (reason) return *reason;
  return fail(Errc::kBadField,
              "reason is unspecified, key-compromise, affiliation-changed, superseded, "
              "cessation-of-operation or privilege-withdrawn");
}

json::object shown(const store::Identity& i, store::Standing standing) {
  return {{"id", i.id}, {"name", i.name}, {"standing", store::standing_name(standing)}};
}

Result<json::value> suspend(Call& c) {
  TRY_ASSIGN(const auto i, find_identity(c, store::Kind::kDevice, c.params[0]));
  if (i.standing == store::Standing::kRevoked)
    return fail(Errc::kInUse, "'" + i.name + "' is revoked; there is nothing to suspend" +
                                  "\nput it back first: sally resume " + i.name);
  TRY(pki::suspend_identity(*c.write, i, c.now_ms));
  TRY_ASSIGN(auto keys, keys_of(c, i.id));
  TRY(c.audit("device.suspend", i.id, {{"certificates", std::move(keys)}}));
  return json::value(shown(i, store::Standing::kSuspended));
}

Result<json::value> activate(Call& c) {
  TRY_ASSIGN(const auto i, find_identity(c, store::Kind::kDevice, c.params[0]));
  TRY(pki::resume_identity(*c.write, i, c.now_ms));
  TRY(c.audit("device.activate", i.id, {{"was", store::standing_name(i.standing)}}));
  auto out = shown(i, store::Standing::kActive);
  TRY_ASSIGN(const auto certificates, c.tx.certificates_of(i.id));
  out["enrolled"] = std::ranges::any_of(certificates, [&](const store::CertificateRow& r) {
    return r.revoked_ms == 0 && r.not_after_s * 1000 > c.now_ms;
  });
  return json::value(std::move(out));
}

Result<json::value> revoke_device(Call& c) {
  TRY_ASSIGN(const auto i, find_identity(c, store::Kind::kDevice, c.params[0]));
  TRY_ASSIGN(const auto reason, reason_of(c.body));
  TRY_ASSIGN(auto keys, keys_of(c, i.id));
  TRY_ASSIGN(const auto done, pki::revoke_identity(*c.write, i, reason, c.now_ms));
  TRY(c.audit("device.revoke", i.id,
              {{"reason", store::reason_name(reason)}, {"certificates", std::move(keys)}}));
  auto out = shown(i, store::Standing::kRevoked);
  out["certificates"] = done.certificates;
  return json::value(std::move(out));
}

// Of a key that somebody else has, every certificate is dead; otherwise it is the one that is
// named.
Result<json::value> revoke_certificate(Call& c) {
  TRY_ASSIGN(const auto named, c.tx.certificate(lower(c.params[0])));
  if (!named) return fail(Errc::kUnknown, "no certificate with the serial " + c.params[0]);
  TRY_ASSIGN(const auto reason, reason_of(c.body));
  if (named->profile == "controller" || named->profile == "signer")
    return fail(Errc::kInUse,
                "this certificate is the network's own, and renews itself\nnothing is to be done");
  TRY_ASSIGN(auto rows, c.tx.certificates_of(named->identity));
  std::erase_if(rows, [&](const store::CertificateRow& r) {
    return r.serial != named->serial &&
           (reason != Reason::kKeyCompromise || r.key_hash != named->key_hash);
  });
  json::array keys;
  for (const auto& r : rows) {
    if (r.serial == c.request.caller->serial)
      return fail(Errc::kInUse, "you are using this certificate\nlet another admin do it");
    TRY(pki::revoke_certificate(*c.write, r, c.now_ms, false, reason));
    keys.push_back(json::object{{"serial", r.serial}, {"key", r.key_hash}});
  }
  TRY(c.audit("certificate.revoke", named->identity,
              {{"reason", store::reason_name(reason)}, {"certificates", keys}}));
  TRY_ASSIGN(const auto owner, c.tx.identity(named->identity));
  return json::object{{"serial", named->serial},
                      {"identity", named->identity},
                      {"name", owner ? owner->name : named->identity},
                      {"certificates", keys.size()}};
}

Result<json::value> revoke_batch(Call& c) {
  TRY_ASSIGN(const auto reason, reason_of(c.body));
  TRY_ASSIGN(const auto members, c.tx.batch(c.params[0]));
  if (members.empty()) return fail(Errc::kUnknown, "no device is of a batch '" + c.params[0] + "'");
  for (const auto& i : members) {
    if (i.standing == store::Standing::kRevoked) continue;
    TRY_ASSIGN(auto keys, keys_of(c, i.id));
    TRY(c.audit("device.revoke", i.id,
                {{"reason", store::reason_name(reason)},
                 {"batch", c.params[0]},
                 {"certificates", std::move(keys)}}));
  }
  TRY_ASSIGN(const auto done, pki::revoke_batch(*c.write, c.params[0], reason, c.now_ms));
  TRY(c.audit("batch.revoke", c.params[0],
              {{"reason", store::reason_name(reason)},
               {"devices", done.devices},
               {"certificates", done.certificates}}));
  return json::object{
      {"batch", c.params[0]}, {"devices", done.devices}, {"certificates", done.certificates}};
}

Result<json::value> revoke_ca(Call& c) {
  const auto& authority = *c.deps.authority;
  const bool issuing = c.params[0] == authority.devices_name();
  const Reason reason = Reason::kCaCompromise;
  TRY_ASSIGN(const auto done, pki::revoke_authority(*c.write, c.params[0], reason, c.now_ms));
  TRY(c.audit("ca.revoke", c.params[0],
              {{"reason", store::reason_name(reason)}, {"certificates", done.certificates}}));
  json::object out{{"ca", c.params[0]}, {"certificates", done.certificates}};
  if (!issuing) return out;
  auto next = authority.prepare_successor(*c.write, c.actor, c.now_ms, c.deps.random);
  out["successor"] = next ? json::value(next->name()) : json::value(nullptr);
  if (next) {
    c.on_commit = [&authority, next = std::move(*next)]() mutable {
      authority.succeed(std::move(next));
    };
  } else {
    // The root's key is away, as it should be: what was stolen ends all the same.
    out["why"] = next.error().text();
    TRY(c.audit("ca.no_successor", c.params[0], {{"code", next.error().code()}}));
  }
  return out;
}

}  // namespace

Result<json::array> keys_of(const Call& c, std::string_view identity) {
  TRY_ASSIGN(const auto rows, c.tx.certificates_of(identity));
  json::array out;
  for (const auto& r : rows)
    if (r.not_after_s * 1000 > c.now_ms)
      out.push_back(json::object{{"serial", r.serial}, {"key", r.key_hash}});
  return out;
}

std::vector<Route> revocation_routes() {
  return {
      {"POST", "/fleet/v1/devices/{device}/suspend", true, suspend},
      {"POST", "/fleet/v1/devices/{device}/activate", true, activate},
      {"POST", "/fleet/v1/devices/{device}/revoke", true, revoke_device},
      {"POST", "/fleet/v1/certificates/{serial}/revoke", true, revoke_certificate},
      {"POST", "/fleet/v1/batches/{batch}/revoke", true, revoke_batch},
      {"POST", "/fleet/v1/cas/{ca}/revoke", true, revoke_ca},
  };
}

}  // namespace sally::api
