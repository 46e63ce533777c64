// SPDX-License-Identifier: Apache-2.0
#include "crypto/tpm_wire.h"

using namespace sally;
using namespace sally::crypto;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const ByteView in{data, size};
  (void)tpm::message_size(in);
  for (const bool with_handle : {false, true}) {
    const auto answer = tpm::parse_answer(in, with_handle);
    if (!answer) continue;
    (void)tpm::parse_created(answer->parameters);
    (void)tpm::parse_signature(answer->parameters);
    if (const auto area = tpm::parse_read_public(answer->parameters))
      (void)tpm::parse_public(*area);
  }
  (void)tpm::parse_public(in);
  if (const auto file = tpm::parse_pem(as_text(in))) (void)tpm::parse_public(file->pub);
  return 0;
}
