// SPDX-License-Identifier: Apache-2.0
// What anybody may ask without a certificate: is another one revoked.
#include "api/call.h"
#include "base/text.h"
#include "crypto/status.h"

namespace sally::api {

// "/crl/devices-1.crl"
Response Api::revocation_list(const Request& request, const std::string& path) const {
  if (request.method != "GET") return error_response(Error(Errc::kMethod, path));
  std::string_view ca = std::string_view(path).substr(std::string_view("/crl/").size());
  if (ca.ends_with(".crl")) ca.remove_suffix(4);
  const auto list = deps_.status != nullptr ? deps_.status->list(ca) : std::nullopt;
  if (!list) return error_response(Error(Errc::kNoRoute, path));
  Response r;
  r.headers.emplace_back("content-type", "application/pkix-crl");
  r.body = as_text(*list);
  return r;
}

// RFC 6960 appendix A: POST of the request, or GET with it in base64 behind the path.
Response Api::certificate_status(const Request& request) const {
  if (deps_.status == nullptr) return error_response(Error(Errc::kNoRoute, "/ocsp"));
  Bytes asked;
  if (request.method == "POST") {
    asked = to_bytes(request.body);
  } else if (request.method == "GET") {
    // The raw path: base64 has slashes, and two of them are not one.
    constexpr std::string_view kPrefix = "/ocsp/";
    const auto text = request.path.starts_with(kPrefix)
                          ? percent_decode(std::string_view(request.path).substr(kPrefix.size()))
                          : std::nullopt;
    if (const auto decoded = text ? from_base64(*text) : std::nullopt) asked = *decoded;
  } else {
    return error_response(Error(Errc::kMethod, "/ocsp"));
  }
  Response r;
  r.headers.emplace_back("content-type", "application/ocsp-response");
  auto tx = deps_.store.read(deps_.network);
  r.body = as_text(tx ? deps_.status->answer(std::move(*tx), asked, deps_.clock.unix_ms())
                      : ocsp_failure(crypto::OcspFailure::kInternal));
  return r;
}

}  // namespace sally::api
