// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::tls {

enum class Errc : std::uint8_t {
  kConfig,         ///< context cannot be made from these certificates and keys
  kHandshake,      ///< protocol error; the context holds the library's reason
  kPeerRefused,    ///< the peer sent an alert; the context names it
  kNoCertificate,  ///< the peer sent none
  kCertificate,  ///< the peer's certificate failed; the context holds our reason, the peer only saw
                 ///< alert 42
  kWrongPeer,    ///< valid, but not the id or host name that was asked for
  kTruncated,    ///< end of stream without close_notify
  kClosed,       ///< close_notify or our own close
  kTimeout,      ///< handshake took too long
  kTooMuch,      ///< more bytes before authentication than allowed
  kHelloRetry,   ///< peer's key shares do not fit
  kIo,           ///< socket error
};
std::string_view error_name(Errc e);

}  // namespace sally::tls
