// SPDX-License-Identifier: Apache-2.0
#include "crypto/jws.h"

using namespace sally;
using namespace sally::crypto;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const FileKeyPtr kKey = FileKey::generate(KeyType::kP256).value();
  if (auto j = split_jws(as_text({data, size}))) (void)verify_jws(*j, "ES256", kKey->public_key());
  return 0;
}
