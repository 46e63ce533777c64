// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "crypto/certificate.h"

namespace sally::crypto {

/// The certificates of a certificates-only PKCS#7 in DER or BER, in their order
/// (docs/compatible-enrolment.md: original controllers do not sort the set). kMalformed, kTooLarge
/// (more than `max`, or 64 KiB), and what Certificate::from_native refuses.
Result<std::vector<Certificate>> from_pkcs7(ByteView der, std::size_t max = 16);

}  // namespace sally::crypto
