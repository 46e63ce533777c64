// SPDX-License-Identifier: Apache-2.0
// What the network's signer signs: cards, service records, heads of the replicated state, tokens of
// foreign ends.
#pragma once

#include "policy/policy.h"
#include "trust/envelope.h"
#include "trust/trust.h"

namespace sally::trust {

using VerifiedCard = Verified<wire::Card>;
using VerifiedRecord = Verified<wire::ServiceRecord>;
using VerifiedSession = Verified<wire::SessionToken>;

Result<Bytes> make_card(const wire::Card& card, const crypto::Signer& signer);
/// Signature, network, not after; with a revocation view also standing and credential epoch.
Result<VerifiedCard> verify_card(ByteView envelope, const Context& ctx);

Result<Bytes> make_service_record(const wire::ServiceRecord& record, const crypto::Signer& signer);
Result<VerifiedRecord> verify_service_record(ByteView envelope, const Context& ctx);

Result<Bytes> make_state_head(const wire::StateHead& head, const crypto::Signer& signer);
/// Not from the future; how old it may be is the caller's (grace).
Result<Verified<wire::StateHead>> verify_state_head(ByteView envelope, const Context& ctx);
Result<Bytes> make_snapshot_head(const wire::SnapshotHead& head, const crypto::Signer& signer);
Result<Verified<wire::SnapshotHead>> verify_snapshot_head(ByteView envelope, const Context& ctx);

/// Never "ey": a foreign SDK would take the token for a JWT and look into it.
inline constexpr std::string_view kSessionPrefix = "sy1.";
inline constexpr std::size_t kMaxSessionText = 2'048;
/// What a foreign end shows: the prefix and the envelope in base64url, some 350 characters.
/// kInvalid where use and service do not go together.
Result<std::string> make_session_token(const wire::SessionToken& token,
                                       const crypto::Signer& signer);
/// Signature, network, use (kWrongType), times; with a revocation view also standing and credential
/// epoch. `leaf_id` is the proven leaf's: a token of another identity is kWrongIdentity.
Result<VerifiedSession> verify_session_token(std::string_view text, wire::SessionUse use,
                                             std::string_view leaf_id, const Context& ctx);

/// Tag of a device whose own key signs everything: it gets no session certificate, and one that it
/// has is refused.
inline constexpr std::string_view kDeviceKeyOnly = "device-key-only";
/// That the card's device may prove itself with this certificate. kDeviceKeyOnly.
Status check_key(const VerifiedCard& card, const crypto::Certificate& leaf);

/// View of a card for policy/; the card outlives it.
policy::Subject subject(const wire::Card& card);

/// A dialer's check of whoever answered inside the circuit: `leaf_id` is the id the inner handshake
/// proved.
Status check_host(const VerifiedCard& card, std::string_view leaf_id, const VerifiedRecord& record);
/// A host's check of whoever called.
Status check_caller(const VerifiedCard& card, std::string_view leaf_id,
                    const VerifiedRecord& record);

}  // namespace sally::trust
