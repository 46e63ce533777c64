// SPDX-License-Identifier: Apache-2.0
#include "replica/tables.h"

#include <algorithm>

#include "crypto/hash.h"
#include "replica/errc.h"

namespace sally::replica {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kNoHead:
      return "replica.no_head";
    case Errc::kRollback:
      return "replica.rollback";
    case Errc::kFork:
      return "replica.fork";
    case Errc::kGap:
      return "replica.gap";
    case Errc::kHash:
      return "replica.hash";
    case Errc::kSnapshot:
      return "replica.snapshot";
    case Errc::kDiverged:
      return "replica.diverged";
    case Errc::kDamaged:
      return "replica.damaged";
    case Errc::kAhead:
      return "replica.ahead";
    case Errc::kTooLarge:
      return "replica.too_large";
    case Errc::kChain:
      return "replica.chain";
  }
  return "replica.unknown";
}

wire::Hash chain_hash(const wire::Hash& before, ByteView entry) {
  return crypto::sha256(before, entry);
}

Status Tables::apply(const wire::StateOp& op, std::string_view network) {
  if (const auto* put = std::get_if<wire::RouterEntry>(&op.op)) {
    routers_.change().insert_or_assign(put->id, *put);
  } else if (const auto* gone = std::get_if<wire::RemoveRouter>(&op.op)) {
    if (routers_->contains(gone->id)) routers_.change().erase(gone->id);
  } else if (const auto* service = std::get_if<wire::PutService>(&op.op)) {
    TRY_ASSIGN(const auto envelope, wire::decode_envelope(service->record));
    TRY_ASSIGN(auto record, wire::decode_service_record(envelope.payload));
    if (envelope.network != network || record.network != network) {
      return fail(trust::Errc::kWrongNetwork, envelope.network);
    }
    const auto id = record.id;
    services_.change().insert_or_assign(id, ServiceView{service->record, std::move(record), false});
  } else if (const auto* removed = std::get_if<wire::RemoveService>(&op.op)) {
    if (services_->contains(removed->id)) services_.change().erase(removed->id);
  } else if (const auto* identity = std::get_if<wire::IdentityState>(&op.op)) {
    identities_.put(identity->id, *identity);
  } else if (const auto* revoked = std::get_if<wire::RevokedCertificate>(&op.op)) {
    revoked_.put(revoked->serial, *revoked);
  }
  return {};
}

void Tables::forget_ended(std::int64_t now_ms) {
  constexpr std::int64_t kLaterMs = 24LL * 3600 * 1000;  // whatever anybody's clock says
  revoked_.erase_if([&](const wire::RevokedCertificate& row) {
    return row.not_after_ms != 0 && row.not_after_ms + kLaterMs < now_ms;
  });
}

Bytes Tables::snapshot() const {
  wire::Snapshot s;
  s.ops.reserve(rows());
  for (const auto& [id, r] : *routers_) s.ops.push_back(wire::encode(wire::StateOp{r}));
  for (const auto& [id, v] : *services_)
    s.ops.push_back(wire::encode(wire::StateOp{wire::PutService{v.envelope}}));
  const auto add = [&](const auto&, const auto& row) {
    s.ops.push_back(wire::encode(wire::StateOp{row}));
  };
  identities_.for_each(add);
  revoked_.for_each(add);
  return wire::encode(s);
}

std::size_t Tables::verify_services(const trust::Context& ctx) {
  const auto open = [](const auto& row) { return !row.second.verified; };
  if (std::ranges::none_of(*services_, open)) return 0;
  std::size_t left = 0;
  for (auto& [id, view] : services_.change()) {
    if (!view.verified)
      view.verified = trust::verify_service_record(view.envelope, ctx).has_value();
    if (!view.verified) ++left;
  }
  return left;
}

}  // namespace sally::replica
