// SPDX-License-Identifier: Apache-2.0
#include "trust/trust.h"

#include <algorithm>

namespace sally::trust {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kWrongType:
      return "trust.wrong_type";
    case Errc::kWrongNetwork:
      return "trust.wrong_network";
    case Errc::kUnknownKey:
      return "trust.unknown_key";
    case Errc::kBadSignature:
      return "trust.bad_signature";
    case Errc::kSignerExpired:
      return "trust.signer_expired";
    case Errc::kExpired:
      return "trust.expired";
    case Errc::kTime:
      return "trust.time";
    case Errc::kWrongIdentity:
      return "trust.wrong_identity";
    case Errc::kRevoked:
      return "trust.revoked";
    case Errc::kUnknownRouter:
      return "trust.unknown_router";
    case Errc::kMismatch:
      return "trust.mismatch";
    case Errc::kNotGranted:
      return "trust.not_granted";
    case Errc::kNotOnPath:
      return "trust.not_on_path";
    case Errc::kReplay:
      return "trust.replay";
    case Errc::kFull:
      return "trust.full";
    case Errc::kDeviceKeyOnly:
      return "trust.device_key_only";
    case Errc::kInvalid:
      return "trust.invalid";
  }
  return "trust.unknown";
}

namespace {

crypto::PathPolicy path_policy(const Anchors& anchors, crypto::Purpose purpose, crypto::Role role,
                               std::int64_t now_s) {
  crypto::PathPolicy p;
  p.anchors = anchors.roots;
  p.known_issuing = anchors.issuing;
  p.purpose = purpose;
  p.now_s = now_s;
  p.network = anchors.network;
  p.roles = {role};
  return p;
}

Result<crypto::VerifiedPath> validate(ByteView leaf, ByteView issuing,
                                      const crypto::PathPolicy& policy) {
  TRY_ASSIGN(const auto cert, crypto::Certificate::from_der(leaf));
  std::vector<crypto::Certificate> presented;
  if (!issuing.empty()) {
    TRY_ASSIGN(auto ca, crypto::Certificate::from_der(issuing));
    presented.push_back(std::move(ca));
  }
  return crypto::validate_path(cert, presented, policy);
}

}  // namespace

std::vector<std::string> serials_of(const crypto::Certificate& leaf) {
  std::vector<std::string> out{leaf.serial_hex()};
  if (!leaf.session_parent().empty()) out.push_back(leaf.session_parent());
  return out;
}

Status SignerSet::add(const wire::SignerChain& chain, const Anchors& anchors, std::int64_t now_s) {
  // The same comes with every update: validated once, it stays valid for as long as its times say.
  for (const auto& [id, entry] : keys_) {
    const auto& path = entry.path;
    if (entry.chain == chain && path.network == anchors.network &&
        std::ranges::contains(anchors.roots, path.root) && now_s >= entry.from_s &&
        now_s <= entry.until_s)
      return {};
  }
  TRY_ASSIGN(auto path, validate(chain.leaf, chain.issuing,
                                 path_policy(anchors, crypto::Purpose::kSigner,
                                             crypto::Role::kSigner, now_s)));
  const auto id = path.leaf.public_key().key_id();
  const auto from =
      std::max({path.leaf.not_before(), path.issuing.not_before(), path.root.not_before()});
  const auto until =
      std::min({path.leaf.not_after(), path.issuing.not_after(), path.root.not_after()});
  keys_.insert_or_assign(id, Entry{std::move(path), chain, from, until});
  return {};
}

void SignerSet::remove_serial(std::string_view serial_hex) {
  std::erase_if(keys_,
                [&](const auto& e) { return e.second.path.leaf.serial_hex() == serial_hex; });
}

void SignerSet::remove_revoked(const Revocation& revocation) {
  std::erase_if(keys_, [&](const auto& e) {
    return revocation.serial_revoked(e.second.path.leaf.serial_hex());
  });
}

Result<crypto::PublicKey> SignerSet::find(const wire::KeyId& id, std::int64_t now_s) const {
  const auto it = keys_.find(id);
  if (it == keys_.end()) return fail(Errc::kUnknownKey, to_hex(id));
  const auto& leaf = it->second.path.leaf;
  if (now_s < leaf.not_before() || now_s > leaf.not_after())
    return fail(Errc::kSignerExpired, leaf.serial_hex());
  return leaf.public_key();
}

std::vector<wire::SignerChain> SignerSet::chains() const {
  std::vector<wire::SignerChain> out;
  out.reserve(keys_.size());
  for (const auto& [id, entry] : keys_) out.push_back(entry.chain);
  return out;
}

Result<crypto::VerifiedPath> verify_leaf(ByteView leaf, ByteView issuing, crypto::Role role,
                                         const Context& ctx) {
  TRY_ASSIGN(auto path, validate(leaf, issuing,
                                 path_policy(ctx.anchors, crypto::Purpose::kTlsClient, role,
                                             ctx.now_ms / 1000)));
  if (ctx.revocation == nullptr) return path;
  auto serials = serials_of(path.leaf);
  serials.push_back(path.issuing.serial_hex());
  for (const auto& serial : serials)
    if (ctx.revocation->serial_revoked(serial))
      return fail(Errc::kRevoked, "certificate " + serial);
  if (!ctx.revocation->identity_active(path.id)) return fail(Errc::kRevoked, path.id);
  return path;
}

}  // namespace sally::trust
