// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "trust/trust.h"

namespace sally::trust {

/// Signs `payload` as it is and returns the encoded envelope. kInvalid for a network of 0 or > 255
/// bytes or type none, or what the signer says. May take as long as the signer does.
Result<Bytes> seal(wire::EnvelopeType type, std::string_view network, ByteView payload,
                   const crypto::Signer& signer);

/// The payload, after type, network, key id and signature were checked against `key`.
Result<Bytes> open(ByteView envelope, wire::EnvelopeType type, std::string_view network,
                   const crypto::PublicKey& key);
/// The same for one of the network's signers, whose certificate must be in its time at `now_s`.
Result<Bytes> open(ByteView envelope, wire::EnvelopeType type, std::string_view network,
                   const SignerSet& signers, std::int64_t now_s);

}  // namespace sally::trust
