// SPDX-License-Identifier: Apache-2.0
// A status request of a stranger: parsed, looked at from all sides, answered.
#include "base/check.h"
#include "crypto/status.h"
#include "crypto/test_pki.h"

using namespace sally;
using namespace sally::crypto;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const TestPki pki;
  const auto request = OcspRequest::parse({data, size});
  if (!request) return 0;
  SALLY_CHECK(size <= OcspRequest::kMaxSize && request->size() >= 1 &&
              request->size() <= OcspRequest::kMaxCertificates);
  for (std::size_t i = 0; i < request->size(); ++i) {
    SALLY_CHECK(request->serial_hex(i).size() <= 40);
    (void)request->is_of(i, pki.devices);
  }
  const std::vector<OcspAnswer> answers(
      request->size(), {.status = OcspStatus::kRevoked, .revoked_s = TestPki::kNow, .reason = 1});
  SALLY_CHECK(
      sign_ocsp(*request, answers, pki.devices, *pki.devices_key, TestPki::kNow, TestPki::kNow + 60)
          .has_value());
  return 0;
}
