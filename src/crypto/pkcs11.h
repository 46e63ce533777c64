// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "crypto/hardware.h"
#include "crypto/key_name.h"

namespace sally::crypto {

/// The key that `name` names, by the PKCS#11 library of its module-path, or p11-kit's, which knows
/// every library that is set up on this machine. kModuleMissing, kTokenMissing, kKeyMissing,
/// kPinNeeded, kPinRefused, kKeyMayLeave, kUnsupportedKey.
Result<std::unique_ptr<Token>> open_pkcs11(const KeyName& name);
/// Has the token make a key pair (P-256 or P-384) that it never gives away; the name says what it
/// is called (object, and id or a random one). kExists is kKeyOperation.
Status make_pkcs11(const KeyName& name, KeyType type);

}  // namespace sally::crypto
