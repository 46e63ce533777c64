// SPDX-License-Identifier: Apache-2.0
#include "crypto/csr.h"

using namespace sally;
using namespace sally::crypto;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  (void)parse_csr(ByteView{data, size});
  return 0;
}
