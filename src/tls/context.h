// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "crypto/certificate.h"
#include "crypto/key.h"
#include "tls/errc.h"
#include "tls/peer_identity.h"

namespace sally::tls {

enum class Side : std::uint8_t { kClient, kServer };
/// How the peer's certificate is judged.
enum class Trust : std::uint8_t {
  /// Path validation to `anchors`, identity of `network`: the only one that makes a PeerIdentity.
  kPath,
  /// Enrolment by token only, before anything can be believed: any leaf whose key the handshake
  /// proves is let through and kept in `Session::captured_leaf()`; `peer()` stays null. What is
  /// read over such a connection is not to be believed before the caller has judged that leaf.
  kUnverifiedForEnrolmentOnly,
};
enum class PeerCertificate : std::uint8_t {
  kRequired,  ///< verified or no connection
  kOptional,  ///< servers: none is fine, a bad one is not
  kNone,      ///< servers: not asked for
};

struct ContextOptions {
  Side side = Side::kClient;
  /// What we send, leaf first. May be empty on a client that shows no certificate.
  std::vector<crypto::Certificate> chain;
  std::shared_ptr<const crypto::Signer> key;
  /// Roots believed.
  std::vector<crypto::Certificate> anchors;
  /// Issuing certificates we know already: devices send only their leaf.
  std::vector<crypto::Certificate> issuing;
  /// The peer's trust domain must be this one. Empty only where `any_server_name` trust is wanted
  /// (see below).
  NetworkId network;
  /// Roles the peer may have; empty = any.
  std::vector<Role> roles;
  /// In order of preference. A server refuses a client whose offer has none of them; offering
  /// nothing is accepted only with `alpn_optional`.
  std::vector<std::string> alpn;
  bool alpn_optional = false;
  PeerCertificate peer_certificate = PeerCertificate::kRequired;
  /// A server with several protocols on one port: whoever chose this one shows a certificate of one
  /// of these roles, whatever `peer_certificate` and `roles` say, or sees the alerts of any
  /// refusal; and has X25519 in its key exchange, whatever `allow_p256` says.
  struct Strict {
    std::string alpn;
    std::vector<Role> roles;
  };
  std::optional<Strict> strict;
  /// Runs inside the verify step (revocation and the like), so a refused peer sees the same alert
  /// as any other.
  std::function<Status(const PeerIdentity&)> admit;
  Trust trust = Trust::kPath;
  /// TLS inside a circuit: no middlebox records, fragments capped at 16,346 bytes.
  bool inner = false;
  /// Also accept P-256 key shares (HTTP listeners, for old clients).
  bool allow_p256 = false;
  const Clock* clock = nullptr;  ///< system clock when null
  /// A peer's certificate that begins after that clock's time is good at its beginning.
  bool clock_may_lag = false;
};

/// Settings of many connections of one kind. Made by whoever listens or dials; shared by its
/// sessions. Immutable, any thread. A new trust bundle means a new Context. `create` fails with
/// kConfig: bad chain, key that does not fit the leaf, missing anchors.
class Context {
 public:
  static Result<std::shared_ptr<const Context>> create(ContextOptions options);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  [[nodiscard]] const ContextOptions& options() const;

  struct Impl;
  [[nodiscard]] const Impl& impl() const { return *impl_; }

 private:
  explicit Context(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sally::tls
