// SPDX-License-Identifier: Apache-2.0
#include "pki/enroll.h"

#include <algorithm>

#include "base/text.h"
#include "crypto/csr.h"
#include "crypto/hash.h"
#include "crypto/jws.h"
#include "pki/publish.h"
#include "pki/revoke.h"

namespace sally::pki {
namespace {
constexpr std::size_t kMaxTokenId = 128;
}  // namespace

Bytes TokenDoor::mac(std::string_view token_id) const {
  // The network is part of it: the same id in another network is another token.
  Bytes in = to_bytes(authority_->network().str());
  in.push_back(0);
  append(in, as_bytes(token_id));
  const auto h = crypto::hmac_sha256(mac_key_, in);
  return {h.begin(), h.end()};
}

Result<NewToken> TokenDoor::create(store::Transaction& tx, std::string_view actor,
                                   const store::Identity& identity, const RestIdentity& rest,
                                   const std::string& issuer_url, std::int64_t now_ms,
                                   std::int64_t life_ms, Random& random) const {
  if (identity.standing != store::Standing::kActive || identity.removed_ms != 0)
    return fail(Errc::kIdentityInactive, identity.name);
  const std::int64_t life =
      std::clamp<std::int64_t>(life_ms, 5LL * 60 * 1000, 30LL * 86'400 * 1000);
  const std::string jti = random.uuid();
  store::Enrollment row;
  row.id = random.hex(8);
  row.token_mac = mac(jti);
  row.identity = identity.id;
  row.kind = identity.kind;
  row.created_ms = now_ms;
  // Whole seconds: the JWT says no more.
  row.expires_ms = (now_ms + life) / 1000 * 1000;
  TRY(tx.put_enrollment(row));
  TRY(tx.audit(actor, "token.create", identity.id, "{\"token\":\"" + row.id + "\"}"));

  const std::string_view alg = crypto::jws_algorithm(rest.key->public_key());
  const std::string header = "{\"alg\":\"" + std::string(alg) + "\",\"kid\":\"" +
                             rest.leaf.sha1_hex() + "\",\"typ\":\"JWT\"}";
  const std::string payload =
      "{\"iss\":" + json_quote(issuer_url) + ",\"sub\":" + json_quote(identity.id) +
      ",\"aud\":[\"\"],\"exp\":" + std::to_string(row.expires_ms / 1000) + ",\"jti\":\"" + jti +
      "\",\"em\":\"ott\",\"sally\":{\"network\":" + json_quote(authority_->network().str()) +
      ",\"root\":\"" + authority_->root().sha256_hex() + "\",\"kind\":\"" +
      std::string(store::kind_name(identity.kind)) + "\"}}";
  TRY_ASSIGN(auto jwt, crypto::sign_jws(header, payload, *rest.key));
  return NewToken{std::move(jwt), row.id, row.expires_ms};
}

Result<bool> TokenDoor::knows(const store::Transaction& tx, std::string_view token_id) const {
  if (token_id.empty() || token_id.size() > kMaxTokenId) return false;
  TRY_ASSIGN(const auto row, tx.enrollment_by_mac(mac(token_id)));
  return row.has_value();
}

Result<TokenDoor::Enrolled> TokenDoor::enroll(store::Transaction& tx, std::string_view token_id,
                                              ByteView csr_bytes, std::int64_t now_ms,
                                              Random& random, std::int64_t life_s) const {
  if (token_id.empty() || token_id.size() > kMaxTokenId)
    return fail(Errc::kTokenUnknown, "no token");
  TRY_ASSIGN(auto row, tx.enrollment_by_mac(mac(token_id)));
  if (!row) return fail(Errc::kTokenUnknown, "no such token in this network");
  TRY_ASSIGN(auto identity, tx.identity(row->identity));
  // Its tokens died with it; that it is gone says more.
  if (identity && identity->removed_ms != 0) return fail(Errc::kIdentityInactive, row->identity);
  if (row->revoked_ms != 0) return fail(Errc::kTokenRevoked, "token " + row->id);
  if (row->used_ms != 0) return fail(Errc::kTokenUsed, "token " + row->id + "; make a new one");
  if (now_ms >= row->expires_ms)
    return fail(Errc::kTokenExpired, "token " + row->id + "; make a new one");
  if (!identity || identity->standing != store::Standing::kActive || identity->kind != row->kind)
    return fail(Errc::kIdentityInactive, row->identity);
  TRY_ASSIGN(const auto csr, crypto::parse_csr(csr_bytes));

  Subject subject;
  subject.id = identity->id;
  if (row->kind == store::Kind::kRouter) {
    TRY_ASSIGN(const auto info, tx.router_info(identity->id));
    if (!info) return fail(Errc::kBadSubject, "router without addresses", Source::kInternal);
    subject.dns = info->dns;
    subject.ips = info->ips;
  }
  // An admin's older certificate ends with the first use of the new one (api/): who loses the
  // answer is not locked out. Devices and routers prove theirs elsewhere; a new one ends the older
  // at once.
  std::size_t older = 0;
  if (row->kind != store::Kind::kAdmin) {
    TRY_ASSIGN(older, revoke_certificates(tx, identity->id, now_ms, store::Reason::kSuperseded));
  }
  if (older > 0) {
    ++identity->credential_epoch;
    TRY(tx.put_identity(*identity));
    TRY(publish_identity(tx, *identity, now_ms));
  }
  // Admins renew by hand.
  const std::int64_t life = row->kind == store::Kind::kAdmin ? 0 : life_s;
  TRY_ASSIGN(auto issued,
             authority_->issue(tx, subject, csr.key, profile_of(row->kind), now_ms, random, life));
  row->used_ms = now_ms;
  TRY(tx.put_enrollment(*row));
  TRY(tx.audit(std::string(store::kind_name(identity->kind)) + "/" + identity->id, "enroll",
               identity->id,
               "{\"door\":\"token\",\"token\":\"" + row->id + "\",\"serial\":\"" +
                   issued.leaf.serial_hex() + "\",\"key\":\"" + csr.key.hash_hex() + "\"}"));
  return Enrolled{std::move(issued), std::move(*identity)};
}

}  // namespace sally::pki
