// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/error.h"

namespace sally::cli {

/// A QR code of `text` for a terminal: two modules a character, dark on light with the quiet zone
/// that cameras need. kUsage for a text that is too long for one code (about 2,900 bytes).
Result<std::string> qr_code(const std::string& text);

}  // namespace sally::cli
