// SPDX-License-Identifier: Apache-2.0
#include "trust/envelope.h"

namespace sally::trust {

Result<Bytes> seal(wire::EnvelopeType type, std::string_view network, ByteView payload,
                   const crypto::Signer& signer) {
  if (type == wire::EnvelopeType::kNone || network.empty() || network.size() > wire::kMaxNetwork) {
    return fail(Errc::kInvalid, "type or network", Source::kInternal);
  }
  wire::Envelope e;
  e.network = network;
  e.type = type;
  e.payload = to_bytes(payload);
  e.key_id = signer.public_key().key_id();
  TRY_ASSIGN(e.signature, signer.sign(wire::signed_bytes(network, type, e.key_id, payload)));
  return wire::encode(e);
}

namespace {

Result<wire::Envelope> unpack(ByteView bytes, wire::EnvelopeType type, std::string_view network) {
  TRY_ASSIGN(auto e, wire::decode_envelope(bytes));
  if (e.type != type) {
    return fail(Errc::kWrongType, std::to_string(static_cast<unsigned>(e.type)) + ", wanted " +
                                      std::to_string(static_cast<unsigned>(type)));
  }
  if (network.empty() || e.network != network) return fail(Errc::kWrongNetwork, e.network);
  return e;
}

Result<Bytes> check(wire::Envelope e, const crypto::PublicKey& key) {
  if (e.key_id != key.key_id()) return fail(Errc::kUnknownKey, to_hex(e.key_id));
  if (!key.verify(wire::signed_bytes(e.network, e.type, e.key_id, e.payload), e.signature)) {
    return fail(Errc::kBadSignature, "key " + to_hex(e.key_id));
  }
  return std::move(e.payload);
}

}  // namespace

Result<Bytes> open(ByteView envelope, wire::EnvelopeType type, std::string_view network,
                   const crypto::PublicKey& key) {
  TRY_ASSIGN(auto e, unpack(envelope, type, network));
  return check(std::move(e), key);
}

Result<Bytes> open(ByteView envelope, wire::EnvelopeType type, std::string_view network,
                   const SignerSet& signers, std::int64_t now_s) {
  TRY_ASSIGN(auto e, unpack(envelope, type, network));
  TRY_ASSIGN(const auto key, signers.find(e.key_id, now_s));
  return check(std::move(e), key);
}

}  // namespace sally::trust
