// SPDX-License-Identifier: Apache-2.0
#include "trust/renewal.h"

#include "trust/envelope.h"

namespace sally::trust {

Result<Bytes> make_renewal(const wire::RenewalRequest& request, const crypto::Signer& current) {
  return seal(wire::EnvelopeType::kRenewal, request.network, wire::encode(request), current);
}

Result<wire::RenewalRequest> read_renewal(ByteView envelope, std::string_view network) {
  TRY_ASSIGN(const auto e, wire::decode_envelope(envelope));
  if (e.type != wire::EnvelopeType::kRenewal) return fail(Errc::kWrongType, "not a renewal");
  TRY_ASSIGN(auto request, wire::decode_renewal_request(e.payload));
  if (e.network != network || request.network != network)
    return fail(Errc::kWrongNetwork, request.network);
  return request;
}

Status verify_renewal(ByteView envelope, std::string_view network, const crypto::PublicKey& key) {
  if (auto payload = open(envelope, wire::EnvelopeType::kRenewal, network, key); !payload)
    return fail(std::move(payload).error());
  return {};
}

}  // namespace sally::trust
