// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "crypto/hardware.h"
#include "crypto/key_name.h"

namespace sally::crypto {

/// A chip makes a key in seconds; one that is silent for longer is broken.
inline constexpr int kTpmAnswerMs = 30'000;

/// The key of a file that its TPM 2.0 has wrapped, or a persistent one. It speaks to the device
/// itself (the kernel's resource manager, or a socket such as swtpm's) and needs no library.
/// `answer_ms`: how long one command is waited for; its connection is given up with it.
/// kTokenMissing, kKeyMissing, kKeyMayLeave, kUnsupportedKey.
Result<std::unique_ptr<Token>> open_tpm(const KeyName& name, int answer_ms = kTpmAnswerMs);
/// Has the TPM make a P-256 key under its storage root and writes what it wrapped to the name's
/// file (mode 0600), which must not be there.
Status make_tpm(const KeyName& name);

}  // namespace sally::crypto
