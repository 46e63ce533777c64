// SPDX-License-Identifier: Apache-2.0
#include "tls/errc.h"

namespace sally::tls {

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kConfig:
      return "tls.config";
    case Errc::kHandshake:
      return "tls.handshake";
    case Errc::kPeerRefused:
      return "tls.peer_refused";
    case Errc::kNoCertificate:
      return "tls.no_certificate";
    case Errc::kCertificate:
      return "tls.certificate";
    case Errc::kWrongPeer:
      return "tls.wrong_peer";
    case Errc::kTruncated:
      return "tls.truncated";
    case Errc::kClosed:
      return "tls.closed";
    case Errc::kTimeout:
      return "tls.timeout";
    case Errc::kTooMuch:
      return "tls.too_much";
    case Errc::kHelloRetry:
      return "tls.hello_retry";
    case Errc::kIo:
      return "tls.io";
  }
  return "tls.unknown";
}

}  // namespace sally::tls
