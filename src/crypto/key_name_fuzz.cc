// SPDX-License-Identifier: Apache-2.0
#include "crypto/key_name.h"

#include "base/bytes.h"
#include "base/check.h"

using namespace sally;
using namespace sally::crypto;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto name = parse_key_name(as_text({data, size}));
  if (!name) return 0;
  // What was read once is read again as the same.
  const auto again = parse_key_name(name->str());
  if (again) SALLY_CHECK(again->str() == name->str());
  return 0;
}
