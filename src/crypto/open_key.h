// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "crypto/key.h"
#include "crypto/key_name.h"

namespace sally::crypto {

/// The private key of a name: the one function that opens keys. One in hardware is opened once in a
/// process, however many ask for it, so that a PIN is shown once and a TPM holds it once. Where the
/// hardware is not there it fails, and says what is missing: no other key is ever used in its
/// place. Errors: of the name, a file's, and those of pkcs11.h and tpm.h.
Result<SignerPtr> open_key(std::string_view name);

/// Makes a key where `name` says: a file, or hardware that never gives it away. What is there
/// already is not replaced. `type` is kP256 for a TPM, kP256 or kP384 for a token.
Result<SignerPtr> make_key(std::string_view name, KeyType type);

/// What an option says, as a name: "tpm" and "tpm:?device=/path" are a wrapped key in `dir`,
/// key.tpm; anything else is the name itself. kBadKeyName for one that is not in hardware.
Result<std::string> hardware_name(std::string_view option, const std::string& dir);

/// The key of the name; one in hardware is made where there is none yet.
Result<SignerPtr> open_or_make_key(std::string_view name, KeyType type);

}  // namespace sally::crypto
