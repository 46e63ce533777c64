// SPDX-License-Identifier: Apache-2.0
// Certificates: which there are, which end soon, and the wish to renew one now.
#include <array>

#include "api/call.h"
#include "base/text.h"

namespace sally::api {
namespace {

constexpr std::int64_t kMaxWithinS = 30LL * 86'400;

// What a certificate is worth now, in one word.
std::string_view state_of(const store::CertificateRow& r, std::int64_t now_ms) {
  if (r.superseded) return "superseded";
  if (r.revoked_ms != 0) return "revoked";
  if (r.not_after_s * 1000 <= now_ms) return "expired";
  return r.request.empty() || r.used_ms != 0 ? "active" : "unproven";
}

Result<json::object> show(const Call& c, const store::CertificateRow& r) {
  TRY_ASSIGN(const auto of, c.tx.identity(r.identity));
  return json::object{
      {"serial", r.serial},
      {"identity", r.identity},
      {"name", of ? json::value(of->name) : json::value(nullptr)},
      {"profile", r.profile},
      {"state", state_of(r, c.now_ms)},
      {"key", r.key_hash},
      {"issued_at", time_text(r.issued_ms)},
      {"not_before", time_text(r.not_before_s * 1000)},
      {"expires_at", time_text(r.not_after_s * 1000)},
      {"days_left", (r.not_after_s * 1000 - c.now_ms) / 86'400'000},
      {"used_at", time_text(r.used_ms)},
      {"revoked_at", time_text(r.revoked_ms)},
  };
}

Result<store::Identity> find_any(const Call& c, std::string_view ref) {
  using store::Kind;
  for (const Kind kind :
       {Kind::kDevice, Kind::kRouter, Kind::kAdmin, Kind::kController, Kind::kSigner}) {
    auto found = find_identity(c, kind, ref);
    if (found || !found.error().is(Errc::kUnknown)) return found;
  }
  return fail(Errc::kUnknown, "nobody is named '" + std::string(ref) + "'");
}

Result<json::value> list(Call& c) {
  store::CertificateQuery q{.identity = {}, .after_s = c.now_ms / 1000, .before_s = 0};
  if (const auto of = query_value(c.request.query, "identity")) {
    // The ids of the controller and the signer are in no table of names.
    const auto identity = find_any(c, *of);
    if (!identity && !identity.error().is(Errc::kUnknown)) return fail(identity.error());
    q.identity = identity ? identity->id : *of;
    if (!identity) {
      TRY_ASSIGN(const auto theirs, c.tx.certificates_of(q.identity));
      if (theirs.empty()) return fail(identity.error());
    }
  }
  if (query_value(c.request.query, "all") == "1") q.after_s = 0;
  if (const auto within = query_value(c.request.query, "ends_within_s")) {
    const auto s = parse_u64(*within);
    if (!s || *s > 100ULL * 365 * 86'400)
      return fail(Errc::kBadField, "ends_within_s is a number of seconds");
    q.before_s = c.now_ms / 1000 + static_cast<std::int64_t>(*s);
  }
  TRY_ASSIGN(const auto rows, c.tx.certificates(q, page_of(c.request)));
  json::array items;
  for (const auto& r : rows) {
    TRY_ASSIGN(auto o, show(c, r));
    items.push_back(std::move(o));
  }
  return json::object{{"items", std::move(items)}};
}

Result<json::value> get(Call& c) {
  TRY_ASSIGN(const auto row, c.tx.certificate(lower(c.params[0])));
  if (!row) return fail(Errc::kUnknown, "no certificate '" + c.params[0] + "'");
  TRY_ASSIGN(auto o, show(c, *row));
  TRY_ASSIGN(const auto leaf, crypto::Certificate::from_der(row->der));
  o["pem"] = leaf.pem();
  o["request"] = row->request;
  return json::value(std::move(o));
}

template <store::Kind kind>
Result<json::value> renew(Call& c) {
  TRY_ASSIGN(const auto i, find_identity(c, kind, c.params[0]));
  TRY_ASSIGN(const auto within_s, opt_int(c.body, "within_s", 0, 0, kMaxWithinS));
  if (i.standing != store::Standing::kActive)
    return fail(Errc::kInUse, "'" + i.name + "' is " + std::string(standing_name(i.standing)) +
                                  "\nput it back into service first: sally resume " + i.name);
  TRY(c.audit("certificate.renew_asked", i.id, {{"name", i.name}, {"within_s", within_s}}));
  c.on_commit = [&live = c.deps.live, id = i.id, within_s] { live.renew_now(id, within_s * 1000); };
  TRY_ASSIGN(const auto certs, c.tx.certificates_of(i.id));
  return json::object{
      {"id", i.id},
      {"name", i.name},
      {"serial", certs.empty() ? json::value(nullptr) : json::value(certs.front().serial)}};
}

}  // namespace

std::vector<Route> certificate_routes() {
  using store::Kind;
  return {
      {"GET", "/fleet/v1/certificates", false, list},
      {"GET", "/fleet/v1/certificates/{serial}", false, get},
      {"POST", "/fleet/v1/devices/{device}/renew", true, renew<Kind::kDevice>},
      {"POST", "/fleet/v1/routers/{router}/renew", true, renew<Kind::kRouter>},
  };
}

}  // namespace sally::api
