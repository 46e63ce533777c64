// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/error.h"
#include "identity/identity.h"

namespace sally::cli {

/// The file of a device in its folder.
inline constexpr char kIdentityFile[] = "identity.json";

/// Uses up a token and keeps what it makes as DIR/`file`. `token` is the token, the file that holds
/// it, or "-" for standard input. Whatever can be known before is checked before: the kind of
/// token, that the folder takes a file, that nothing of another identity is there (one of the same
/// identity is replaced: it is enrolled again). On failure a folder that was made goes again.
/// `key` is "file" (in the identity's file), "tpm" (wrapped, DIR/key.tpm; with ?device=... after it
/// on another TPM than the machine's) or a name (crypto/key_name.h); a key in hardware that is not
/// there yet is made there.
Result<identity::Identity> enroll_into(const std::string& dir, const std::string& file,
                                       const std::string& token, crypto::Role role,
                                       const std::string& key = "file");

}  // namespace sally::cli
