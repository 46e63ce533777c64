// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace sally::crypto {

using Sha256 = std::array<std::uint8_t, 32>;
using Sha1 = std::array<std::uint8_t, 20>;

Sha256 sha256(ByteView data);
/// SHA-256 of the two parts one after the other.
Sha256 sha256(ByteView first, ByteView second);
/// Only for names the compatible API fixes (fingerprints, "kid"); never for trust.
Sha1 sha1(ByteView data);
Sha256 hmac_sha256(ByteView key, ByteView data);

}  // namespace sally::crypto
