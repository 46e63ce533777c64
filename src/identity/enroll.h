// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "identity/identity.h"
#include "identity/token.h"
#include "loop/loop.h"

namespace sally::identity {

struct EnrollOptions {
  crypto::KeyType key_type = crypto::KeyType::kP256;
  crypto::SignerPtr key = nullptr;   ///< the one to use, or null: a new one in memory
  std::int64_t timeout_ms = 30'000;  ///< per step
  const Clock* clock = nullptr;      ///< system clock when null
};

/// An enrolment under way. Destroying it cancels; a token the controller has already taken is then
/// used up.
class Enrolling {
 public:
  virtual ~Enrolling() = default;
};
using OnEnrolled = std::move_only_function<void(Result<Identity>)>;

/// One-time token to identity over one connection, trust first (docs/compatible-enrolment.md):
/// fetch the roots; verify the token's signature with the key that the handshake proved, and its
/// end; the roots must contain the one the token names; the proven leaf must be the controller's by
/// those roots, network, role and host name; only then send the request; check that what comes back
/// is for our key and the token's subject. `done` runs once, never from inside this function.
std::unique_ptr<Enrolling> enroll(loop::Loop& loop, const std::string& token, EnrollOptions options,
                                  OnEnrolled done);
/// The same for plain synchronous callers.
Result<Identity> blocking_enroll(const std::string& token, EnrollOptions options = {});

}  // namespace sally::identity
