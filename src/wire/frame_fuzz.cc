// SPDX-License-Identifier: Apache-2.0
// A header that decodes encodes to the same 16 bytes.
#include <algorithm>
#include <array>

#include "base/check.h"
#include "wire/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sally::wire;
  for (; size >= kFrameHeaderSize; data += kFrameHeaderSize, size -= kFrameHeaderSize) {
    std::array<std::uint8_t, kFrameHeaderSize> in{};
    std::copy_n(data, kFrameHeaderSize, in.begin());
    const auto h = decode_header(in);
    if (!h) continue;
    std::array<std::uint8_t, kFrameHeaderSize> out{};
    encode(*h, out);
    SALLY_CHECK(in == out);
    SALLY_CHECK(h->length <= kMaxPayload);
  }
  return 0;
}
