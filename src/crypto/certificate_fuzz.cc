// SPDX-License-Identifier: Apache-2.0
#include "crypto/path.h"

using namespace sally;
using namespace sally::crypto;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (auto c = Certificate::from_der({data, size})) {
    (void)c->matches_host("localhost");
    (void)validate_path(*c, {*c},
                        PathPolicy{{*c}, {}, Purpose::kTlsClient, 1'800'000'000, "n", {}});
  }
  (void)Certificate::list_from_pem(as_text({data, size}), 4);
  (void)parse_identity_uri(as_text({data, size}));
  return 0;
}
