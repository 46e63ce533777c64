// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "trust/trust.h"

namespace sally::trust {

/// A renewal request, signed by the key of the certificate it names.
Result<Bytes> make_renewal(const wire::RenewalRequest& request, const crypto::Signer& current);

/// What a request says, before anybody has checked a signature: to find that certificate with.
/// kWrongType, kWrongNetwork, or a code of wire/.
Result<wire::RenewalRequest> read_renewal(ByteView envelope, std::string_view network);
/// That `key` signed it. kUnknownKey, kBadSignature.
Status verify_renewal(ByteView envelope, std::string_view network, const crypto::PublicKey& key);

}  // namespace sally::trust
