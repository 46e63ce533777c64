// SPDX-License-Identifier: Apache-2.0
#include "api/compat/sessions.h"

#include <algorithm>

#include "crypto/hash.h"
#include "pki/publish.h"
#include "trust/records.h"

namespace sally::api {
namespace {

SourceRates::Source key_of(std::string_view identity) {
  SourceRates::Source out{};
  const auto hash = crypto::sha256(as_bytes(identity));
  std::copy_n(hash.begin(), out.size(), out.begin());
  return out;
}

}  // namespace

Sessions::Sessions(NetworkId network, Bytes mac_key, std::int64_t life_s)
    : network_(std::move(network)),
      mac_key_(std::move(mac_key)),
      life_ms_(std::max(kLeastLifeS, life_s) * 1000) {}

Bytes Sessions::mac(std::string_view token) const {
  std::string text = "api-session\n" + network_.str() + "\n";
  text += token;
  const auto m = crypto::hmac_sha256(mac_key_, as_bytes(text));
  wipe(text);
  return {m.begin(), m.end()};
}

std::int64_t Sessions::expires_ms(const store::ApiSession& row) const {
  return std::min(row.active_ms + life_ms_, token_ends_ms(row));
}

Result<Sessions::Proven> Sessions::prove(const store::Transaction& tx, const Caller* caller,
                                         std::int64_t now_ms) const {
  if (caller == nullptr) return fail(Errc::kNoSession, "no client certificate");
  if (caller->network != network_.str() || caller->role != crypto::Role::kDevice)
    return fail(Errc::kNoSession, "not a device of this network");
  TRY_ASSIGN(auto identity, tx.identity(caller->id));
  if (!identity || identity->kind != store::Kind::kDevice || identity->removed_ms != 0 ||
      identity->standing != store::Standing::kActive)
    return fail(Errc::kNoSession, "device " + caller->id + " is not active");
  TRY_ASSIGN(auto certificate, tx.certificate(caller->serial));
  if (!certificate || certificate->identity != caller->id || certificate->revoked_ms != 0)
    return fail(Errc::kNoSession, "certificate of " + caller->id + " is not valid any more");
  Proven out{.identity = std::move(*identity), .certificate = std::move(*certificate)};
  if (out.certificate.used_ms == 0) {
    TRY_ASSIGN(const auto older, pki::older_certificates(tx, caller->id, caller->serial, now_ms));
    out.first_use = !older.empty();
  }
  return out;
}

// One device that logs in or asks without end takes from nobody else.
Status Sessions::admit(std::string_view identity, std::int64_t now_us) {
  const std::scoped_lock lock(mutex_);
  if (own_.take(key_of(identity), now_us) && logins_.take(now_us)) return {};
  return fail(Errc::kTooMany, "too many logins of " + std::string(identity) + ", or at once");
}

Status Sessions::admit_request(std::string_view identity, std::int64_t now_us) {
  const std::scoped_lock lock(mutex_);
  if (requests_.take(key_of(identity), now_us)) return {};
  return fail(Errc::kTooMany, "too many requests of " + std::string(identity));
}

Result<Sessions::Opened> Sessions::open(store::Transaction& tx, const Proven& who,
                                        std::vector<std::string> config_types, std::string address,
                                        const crypto::Signer& signer, const Clock& clock,
                                        Random& random) {
  const store::Identity& identity = who.identity;
  const std::int64_t now = clock.unix_ms();
  TRY_ASSIGN(const auto others, tx.api_sessions_of(identity.id));
  for (std::size_t i = 0; i + kPerIdentity <= others.size(); ++i)
    TRY(tx.remove_api_session(others[i].id));
  Opened out;
  out.row.id = random.hex(12);
  out.row.identity = identity.id;
  out.row.credential_epoch = identity.credential_epoch;
  out.row.config_types = std::move(config_types);
  out.row.address = std::move(address);
  out.row.created_ms = out.row.active_ms = now;
  TRY_ASSIGN(out.token, trust::make_session_token({.network = network_.str(),
                                                   .identity = identity.id,
                                                   .credential_epoch = identity.credential_epoch,
                                                   .session = out.row.id,
                                                   .use = wire::SessionUse::kApi,
                                                   .service = {},
                                                   .issued_ms = now,
                                                   .not_after_ms = token_ends_ms(out.row)},
                                                  signer));
  out.row.token_mac = mac(out.token);
  TRY(tx.put_api_session(out.row));
  TRY(tx.audit("device/" + identity.id, "session.open", identity.id,
               "{\"session\":\"" + out.row.id + "\",\"serial\":\"" + who.certificate.serial +
                   "\",\"key\":\"" + who.certificate.key_hash + "\"}"));
  return out;
}

Result<Sessions::Found> Sessions::find(const store::Transaction& tx, std::string_view token,
                                       const Caller* caller, std::int64_t now_ms) {
  // The leaf first: who proves nothing learns nothing of tokens.
  TRY_ASSIGN(auto proven, prove(tx, caller, now_ms));
  const store::Identity& identity = proven.identity;
  if (token.empty() || token.size() > trust::kMaxSessionText)
    return fail(Errc::kNoSession, "no session token");
  const Bytes wanted = mac(token);
  TRY_ASSIGN(auto row, tx.api_session_by_mac(wanted));
  if (!row || !equal_constant_time(row->token_mac, wanted) || row->identity != identity.id ||
      row->credential_epoch != identity.credential_epoch)
    return fail(Errc::kNoSession, "unknown session");
  *row = current(std::move(*row));
  if (now_ms >= row->active_ms + life_ms_ + kSlackMs ||
      now_ms >= token_ends_ms(*row) - kLeastLeftMs)
    return fail(Errc::kSessionExpired, row->id);
  if (now_ms > row->active_ms) {
    const std::scoped_lock lock(mutex_);
    active_[row->id] = row->active_ms = now_ms;
  }
  return Found{std::move(proven), std::move(*row)};
}

store::ApiSession Sessions::current(store::ApiSession row) const {
  const std::scoped_lock lock(mutex_);
  const auto used = active_.find(row.id);
  if (used != active_.end()) row.active_ms = std::max(row.active_ms, used->second);
  return row;
}

Status Sessions::close(store::Transaction& tx, const store::ApiSession& row,
                       std::string_view actor) {
  TRY(tx.remove_api_session(row.id));
  return tx.audit(actor, "session.close", row.identity, "{\"session\":\"" + row.id + "\"}");
}

Status Sessions::flush(store::Store& store, std::int64_t now_ms) {
  std::map<std::string, std::int64_t> used;
  {
    const std::scoped_lock lock(mutex_);
    used = active_;
  }
  TRY_ASSIGN(auto tx, store.begin(network_, now_ms));
  for (const auto& [id, at] : used) TRY(tx->touch_api_session(id, at));
  TRY(tx->expire_api_sessions(now_ms - life_ms_ - kSlackMs, now_ms - kMaxAgeMs));
  TRY(tx->commit());
  // Kept until here: in between somebody may have asked.
  const std::scoped_lock lock(mutex_);
  std::erase_if(active_, [&](const auto& e) {
    const auto written = used.find(e.first);
    return written != used.end() && written->second == e.second;
  });
  return {};
}

}  // namespace sally::api
