// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>

#include "identity/token.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto token = sally::identity::parse_token(sally::as_text(sally::ByteView(data, size)));
  if (!token) return 0;
  if (token->host.empty() || token->subject.empty() || token->id.empty() || token->expires_s <= 0)
    std::abort();
  return 0;
}
