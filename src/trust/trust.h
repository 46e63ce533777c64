// SPDX-License-Identifier: Apache-2.0
// Common to all verifiers: reasons, anchors, signers, what a verifier knows about revocation.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "crypto/certificate.h"
#include "crypto/key.h"
#include "crypto/path.h"
#include "wire/messages.h"

namespace sally::trust {

/// Why something signed is not believed. Bytes that do not parse give a code of wire/, certificates
/// one of crypto/. For our log only: a peer gets one answer for all of them.
enum class Errc : std::uint8_t {
  kWrongType,      ///< an envelope of another type
  kWrongNetwork,   ///< of another network (in the envelope, the payload or the set-up)
  kUnknownKey,     ///< key id of nobody we trust for this
  kBadSignature,   ///< does not verify with that key
  kSignerExpired,  ///< certificate of the network's signer outside its time
  kExpired,        ///< card, record or route past its end
  kTime,           ///< time outside +-60 s, or a head or route from the future
  kWrongIdentity,  ///< leaf, card, lane, route or answer name different parties
  kRevoked,  ///< certificate revoked, identity suspended or revoked, card of an old credential
             ///< epoch
  kUnknownRouter,  ///< not in the directory
  kMismatch,       ///< a signed field differs from what it came with; the context names it
  kNotGranted,     ///< the card does not satisfy the record
  kNotOnPath,      ///< this router is not where the route says
  kReplay,         ///< circuit, epoch and attempt were seen before
  kFull,           ///< replay memory at its limit: refuse rather than forget
  kDeviceKeyOnly,  ///< a session certificate of a device whose card allows none
  kInvalid,        ///< asked to sign what nobody could verify
};
std::string_view error_name(Errc e);

/// Clocks of two parties may differ by this much.
inline constexpr std::int64_t kMaxSkewMs = 60'000;
/// A route may expire at most this far ahead: an opening takes 5 s at most, and replay memory is
/// kept for this + skew.
inline constexpr std::int64_t kMaxRouteLifeMs = 15'000;

/// A value that a verifier of this folder has checked; nothing else can make one.
template <typename T>
class Verified {
 public:
  const T& operator*() const { return value_; }
  const T* operator->() const { return &value_; }

 private:
  friend struct Believe;
  explicit Verified(T value) : value_(std::move(value)) {}
  T value_;
};

/// What a verifier starts from: one network and its roots. `issuing` are certificates it holds
/// already.
struct Anchors {
  std::string network;
  std::vector<crypto::Certificate> roots;
  std::vector<crypto::Certificate> issuing;
};

/// Serials that a leaf falls with: its own, and of a session certificate that of the certificate it
/// stands for. Whoever asks what is revoked asks for all of them.
std::vector<std::string> serials_of(const crypto::Certificate& leaf);

/// The verifier's knowledge of what died early (a router's replica). Any thread that may use the
/// implementation.
class Revocation {
 public:
  virtual ~Revocation() = default;
  /// Serial as Certificate::serial_hex(), of a leaf or of a CA.
  [[nodiscard]] virtual bool serial_revoked(std::string_view serial_hex) const = 0;
  /// Active, and `credential_epoch` is not below the current one.
  [[nodiscard]] virtual bool identity_alive(std::string_view id,
                                            std::uint64_t credential_epoch) const = 0;
  /// The same without a card, of who shows a certificate.
  [[nodiscard]] bool identity_active(std::string_view id) const {
    return identity_alive(id, UINT64_MAX);
  }
  [[nodiscard]] virtual bool router_known(std::string_view id) const = 0;
};

/// Keys of the network's signer, from certificates whose path was verified.
/// A value, small; owned by a state or a client; immutable where shared.
/// add() refuses with a code of crypto/ or kRevoked; an unknown key makes open() refuse.
class SignerSet {
 public:
  SignerSet() = default;
  /// Validates the path for the purpose signer; a chain already there is fine.
  Status add(const wire::SignerChain& chain, const Anchors& anchors, std::int64_t now_s);
  void remove_serial(std::string_view serial_hex);
  /// Forgets every signer whose certificate is revoked.
  void remove_revoked(const Revocation& revocation);
  /// kUnknownKey, kSignerExpired.
  [[nodiscard]] Result<crypto::PublicKey> find(const wire::KeyId& id, std::int64_t now_s) const;
  [[nodiscard]] bool empty() const { return keys_.empty(); }
  [[nodiscard]] std::size_t size() const { return keys_.size(); }
  /// As they came, to hand on to SDKs.
  [[nodiscard]] std::vector<wire::SignerChain> chains() const;

 private:
  struct Entry {
    crypto::VerifiedPath path;
    wire::SignerChain chain;
    std::int64_t from_s;  ///< all three certificates are valid
    std::int64_t until_s;
  };
  std::map<wire::KeyId, Entry> keys_;
};

/// Everything a verifier needs besides the message. All references outlive the call.
struct Context {
  const Anchors& anchors;
  const SignerSet& signers;
  const Revocation* revocation;  ///< nullptr: a device, which holds no replica
  std::int64_t now_ms;
  [[nodiscard]] const std::string& network() const { return anchors.network; }
};

/// Path of leaf + issuing (DER) in the context's network, role allowed; neither certificate
/// revoked, the identity active.
Result<crypto::VerifiedPath> verify_leaf(ByteView leaf, ByteView issuing, crypto::Role role,
                                         const Context& ctx);

}  // namespace sally::trust
