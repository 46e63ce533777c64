// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::pki {

enum class Errc : std::uint8_t {
  kTokenUnknown,  ///< no such token in this network
  kTokenUsed,     ///< single use
  kTokenExpired,
  kTokenRevoked,      ///< withdrawn by an admin, or its identity was removed
  kTokenAltered,      ///< the JWT's signature does not verify
  kTokenForeign,      ///< a JWT of another network or controller
  kIdentityInactive,  ///< suspended, revoked or removed
  kNoAuthority,       ///< the network has no such CA
  kNoSuccessor,       ///< the CA is revoked, and the next one is not there yet
  kKeyFile,           ///< a key file is missing, unreadable or readable by others
  kExists,            ///< there is one already
  kInfrastructure,    ///< the CA without which there is no network
  kBadSubject,        ///< an identity that fits no profile
  // renewal
  kCertificateUnknown,  ///< a request by no certificate of this network
  kCertificateRevoked,
  kCertificateExpired,
  kBeyondGrace,     ///< it ended too long ago, even for recovery
  kKeyNotCurrent,   ///< the identity has been given another key since
  kRequestForeign,  ///< of another network
  kNotYours,        ///< the request is another identity's than the certificate or the lane
  kRequestTime,     ///< more than a few minutes off
  kRequestReplayed,
  kTooOften,   ///< more renewals than an identity needs
  kNameAsked,  ///< a request with names in it that are not the identity's
  kCaAsked,    ///< a request to be a CA
  // session certificates
  kSessionNotHere,  ///< only a device gets one, over its lane, and nothing else with it
  kSessionKey,      ///< a session certificate for the device's own key
  kDeviceKeyOnly,   ///< the device may not have one: tag device-key-only
};
std::string_view error_name(Errc e);

}  // namespace sally::pki
