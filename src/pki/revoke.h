// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pki/authority.h"
#include "store/store.h"

namespace sally::pki {

// The one path by which anything dies early: rows and change-log entries in the caller's
// transaction, which it audits and commits. What routers get is the standing of identities and
// serials of certificates, those of a CA included; whatever else dies, dies by one of the two.

/// Reasons that people give; kCertificateHold and kCaCompromise are not among them.
std::optional<store::Reason> parse_reason(std::string_view text);

struct Revoked {
  std::uint64_t devices = 0;
  std::uint64_t certificates = 0;
};

/// Marks the row and appends. `superseded`: a renewed one is in use, what is up with this one lives
/// on. One that was only superseded can still be revoked for good.
Status revoke_certificate(store::Transaction& tx, store::CertificateRow row, std::int64_t now_ms,
                          bool superseded = false,
                          store::Reason reason = store::Reason::kUnspecified);
/// All of an identity that goes on; how many of them had not ended.
Result<std::size_t> revoke_certificates(store::Transaction& tx, std::string_view identity,
                                        std::int64_t now_ms, store::Reason reason);

/// For good: certificates, cards (credential epoch) and unused tokens die with it. Nothing to do
/// for one that is revoked. `removed`: it also leaves the lists, its id is never used again.
Result<Revoked> revoke_identity(store::Transaction& tx, store::Identity identity,
                                store::Reason reason, std::int64_t now_ms, bool removed = false);
/// The same path, reversible: its cards die, its certificates wait.
Status suspend_identity(store::Transaction& tx, store::Identity identity, std::int64_t now_ms);
/// Active again. What was revoked stays dead: routers are told its serials before it comes back.
Status resume_identity(store::Transaction& tx, store::Identity identity, std::int64_t now_ms);
/// All of a batch that are not revoked.
Result<Revoked> revoke_batch(store::Transaction& tx, std::string_view batch, store::Reason reason,
                             std::int64_t now_ms);
/// The CA of that name and everything it ever issued. Only one that issues devices: without the
/// other one there is no network (kInfrastructure). kNoAuthority where there is none.
Result<Revoked> revoke_authority(store::Transaction& tx, std::string_view name,
                                 store::Reason reason, std::int64_t now_ms);

}  // namespace sally::pki
