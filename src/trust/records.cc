// SPDX-License-Identifier: Apache-2.0
#include "trust/records.h"

#include <algorithm>

namespace sally::trust {

/// The only maker of Verified<T>.
struct Believe {
  template <typename T>
  static Verified<T> it(T value) {
    return Verified<T>(std::move(value));
  }
};

namespace {

using wire::EnvelopeType;

Result<Bytes> open_signed(ByteView envelope, EnvelopeType type, const Context& ctx) {
  return open(envelope, type, ctx.network(), ctx.signers, ctx.now_ms / 1000);
}

Status in_network(const std::string& network, const Context& ctx) {
  if (network != ctx.network()) return fail(Errc::kWrongNetwork, network);
  return {};
}

Status not_past(std::int64_t not_after_ms, const Context& ctx) {
  if (not_after_ms <= ctx.now_ms) return fail(Errc::kExpired, std::to_string(not_after_ms));
  return {};
}

Status not_future(std::int64_t time_ms, const Context& ctx) {
  if (time_ms > ctx.now_ms + kMaxSkewMs) return fail(Errc::kTime, std::to_string(time_ms));
  return {};
}

Status check_party(const VerifiedCard& card, std::string_view leaf_id, const VerifiedRecord& record,
                   const std::vector<std::string>& expressions) {
  if (card->network != record->network) return fail(Errc::kWrongNetwork, card->network);
  if (leaf_id.empty() || card->id != leaf_id)
    return fail(Errc::kWrongIdentity, "card is not of the certificate's owner");
  if (!policy::matches_any(expressions, subject(*card))) return fail(Errc::kNotGranted, card->id);
  return {};
}

}  // namespace

Result<Bytes> make_card(const wire::Card& card, const crypto::Signer& signer) {
  return seal(EnvelopeType::kCard, card.network, wire::encode(card), signer);
}

Result<VerifiedCard> verify_card(ByteView envelope, const Context& ctx) {
  TRY_ASSIGN(const auto payload, open_signed(envelope, EnvelopeType::kCard, ctx));
  TRY_ASSIGN(auto card, wire::decode_card(payload));
  TRY(in_network(card.network, ctx));
  TRY(not_past(card.not_after_ms, ctx));
  if (ctx.revocation != nullptr &&
      !ctx.revocation->identity_alive(card.id, card.credential_epoch)) {
    return fail(Errc::kRevoked, card.id);
  }
  return Believe::it(std::move(card));
}

Result<Bytes> make_service_record(const wire::ServiceRecord& record, const crypto::Signer& signer) {
  return seal(EnvelopeType::kServiceRecord, record.network, wire::encode(record), signer);
}

Result<VerifiedRecord> verify_service_record(ByteView envelope, const Context& ctx) {
  TRY_ASSIGN(const auto payload, open_signed(envelope, EnvelopeType::kServiceRecord, ctx));
  TRY_ASSIGN(auto record, wire::decode_service_record(payload));
  TRY(in_network(record.network, ctx));
  TRY(not_past(record.not_after_ms, ctx));
  return Believe::it(std::move(record));
}

Result<Bytes> make_state_head(const wire::StateHead& head, const crypto::Signer& signer) {
  return seal(EnvelopeType::kStateHead, head.network, wire::encode(head), signer);
}

Result<Verified<wire::StateHead>> verify_state_head(ByteView envelope, const Context& ctx) {
  TRY_ASSIGN(const auto payload, open_signed(envelope, EnvelopeType::kStateHead, ctx));
  TRY_ASSIGN(auto head, wire::decode_state_head(payload));
  TRY(in_network(head.network, ctx));
  TRY(not_future(head.time_ms, ctx));
  return Believe::it(std::move(head));
}

Result<Bytes> make_snapshot_head(const wire::SnapshotHead& head, const crypto::Signer& signer) {
  return seal(EnvelopeType::kStateSnapshot, head.network, wire::encode(head), signer);
}

Result<Verified<wire::SnapshotHead>> verify_snapshot_head(ByteView envelope, const Context& ctx) {
  TRY_ASSIGN(const auto payload, open_signed(envelope, EnvelopeType::kStateSnapshot, ctx));
  TRY_ASSIGN(auto head, wire::decode_snapshot_head(payload));
  TRY(in_network(head.network, ctx));
  TRY(not_future(head.time_ms, ctx));
  return Believe::it(std::move(head));
}

Status check_key(const VerifiedCard& card, const crypto::Certificate& leaf) {
  if (!leaf.session_parent().empty() && std::ranges::contains(card->attributes, kDeviceKeyOnly))
    return fail(Errc::kDeviceKeyOnly, card->id);
  return {};
}

Result<std::string> make_session_token(const wire::SessionToken& token,
                                       const crypto::Signer& signer) {
  if (token.use == wire::SessionUse::kUnset ||
      (token.use == wire::SessionUse::kApi) != token.service.empty())
    return fail(Errc::kInvalid, "use and service of a session token", Source::kInternal);
  TRY_ASSIGN(const auto envelope,
             seal(EnvelopeType::kSession, token.network, wire::encode(token), signer));
  return std::string(kSessionPrefix) + to_base64url(envelope);
}

Result<VerifiedSession> verify_session_token(std::string_view text, wire::SessionUse use,
                                             std::string_view leaf_id, const Context& ctx) {
  if (text.size() > kMaxSessionText || !text.starts_with(kSessionPrefix))
    return fail(Errc::kWrongType, "no session token");
  const auto envelope = from_base64url(text.substr(kSessionPrefix.size()));
  if (!envelope) return fail(Errc::kWrongType, "no session token");
  TRY_ASSIGN(const auto payload, open_signed(*envelope, EnvelopeType::kSession, ctx));
  TRY_ASSIGN(auto token, wire::decode_session_token(payload));
  TRY(in_network(token.network, ctx));
  if (token.use != use) return fail(Errc::kWrongType, "a token for something else");
  TRY(not_past(token.not_after_ms, ctx));
  TRY(not_future(token.issued_ms, ctx));
  if (leaf_id.empty() || token.identity != leaf_id)
    return fail(Errc::kWrongIdentity, "token is not of the certificate's owner");
  if (ctx.revocation != nullptr &&
      !ctx.revocation->identity_alive(token.identity, token.credential_epoch))
    return fail(Errc::kRevoked, token.identity);
  return Believe::it(std::move(token));
}

policy::Subject subject(const wire::Card& card) {
  return {card.id, card.attributes};
}

Status check_host(const VerifiedCard& card, std::string_view leaf_id,
                  const VerifiedRecord& record) {
  return check_party(card, leaf_id, record, record->bind);
}

Status check_caller(const VerifiedCard& card, std::string_view leaf_id,
                    const VerifiedRecord& record) {
  return check_party(card, leaf_id, record, record->dial);
}

}  // namespace sally::trust
