// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/random.h"
#include "crypto/certificate.h"
#include "crypto/issue.h"
#include "crypto/path.h"
#include "pki/errc.h"
#include "pki/key_dir.h"
#include "store/store.h"

namespace sally::pki {

/// What a certificate is for; its fields are fixed by docs/pki.md and by nothing a requester says.
enum class Profile : std::uint8_t {
  kDevice,
  kSession,  ///< of a device, for a key in its memory, beside the certificate it dies with; no row
  kRouter,
  kController,
  kAdmin,
  kSigner,
  kOcspDevices,         ///< answers status requests for the CA of devices; no identity
  kOcspInfrastructure,  ///< the same for the other one
};
std::string_view profile_name(Profile profile);
/// The profile of an identity's kind.
Profile profile_of(store::Kind kind);

/// Days a leaf lives, unless its issuer ends before. One year for all that cannot renew themselves
/// yet.
int lifetime_days(Profile profile);
/// A leaf of who renews by itself lives this long.
inline constexpr std::int64_t kRenewingLifeS = 30LL * 86'400;
/// A session certificate lives this long at most, and never beyond the one it stands for.
inline constexpr std::int64_t kSessionLifeS = 12LL * 3'600;

/// Names of a leaf. They come from the registry.
struct Subject {
  std::string id;
  std::vector<std::string> dns;  ///< routers and controllers
  std::vector<std::string> ips;
  /// Of a session certificate: the certificate that it stands for.
  std::optional<crypto::Certificate> parent{};
};

struct Issued {
  crypto::Certificate leaf;
  crypto::Certificate issuing;
  /// Leaf and issuing, as peers and files want it.
  [[nodiscard]] std::string chain_pem() const { return leaf.pem() + issuing.pem(); }
};

/// The CAs of one network with the keys of the issuing ones.
/// Owned by the controller's network object, shared with its handlers; immutable but for the CA of
/// devices, which a successor replaces; any thread. issue() fails with kBadSubject or what crypto
/// says.
class Authority {
 public:
  struct Issuer {
    std::string name;
    crypto::Certificate certificate;
    crypto::SignerPtr key;
  };
  using IssuerPtr = std::shared_ptr<const Issuer>;
  /// Root (P-384, 20 years), `devices` and `infrastructure` (P-256, 5 years, path length 0) in
  /// generation 1: keys, rows and one audit row. The caller commits. `token`: the keys are made in
  /// this PKCS#11 token (a name without an object), called after network and purpose.
  static Result<std::shared_ptr<const Authority>> create(store::Transaction& tx,
                                                         const NetworkId& network,
                                                         const KeyDir& keys, std::int64_t now_ms,
                                                         Random& random,
                                                         const std::string& token = {});
  /// From rows and key files; the root's key is not read.
  static Result<std::shared_ptr<const Authority>> load(const store::Transaction& tx,
                                                       const NetworkId& network,
                                                       const KeyDir& keys);

  /// The one function that issues a leaf. Writes the certificate's row, but for one that dies with
  /// another; the caller audits and commits. `life_s` 0: as long as the profile says.
  [[nodiscard]] Result<Issued> issue(store::Transaction& tx, const Subject& subject,
                                     const crypto::PublicKey& key, Profile profile,
                                     std::int64_t now_ms, Random& random,
                                     std::int64_t life_s = 0) const;

  [[nodiscard]] const NetworkId& network() const { return network_; }
  [[nodiscard]] const crypto::Certificate& root() const { return root_; }
  [[nodiscard]] crypto::Certificate devices() const { return issuer(true)->certificate; }
  [[nodiscard]] std::string devices_name() const { return issuer(true)->name; }
  /// The CA of devices as it is now, or the other one. Its key signs what pki/ makes only.
  [[nodiscard]] IssuerPtr issuer(bool of_devices) const {
    if (!of_devices) return infrastructure_;
    const std::scoped_lock lock(mutex_);
    return devices_;
  }
  [[nodiscard]] const crypto::Certificate& infrastructure() const {
    return infrastructure_->certificate;
  }
  /// The next generation of the CA of devices: key file (the root's key is read), row, audit. The
  /// caller commits, and then says succeed().
  class Successor {
   public:
    [[nodiscard]] const std::string& name() const { return issuer_->name; }

   private:
    friend class Authority;
    std::shared_ptr<const Issuer> issuer_;
  };
  [[nodiscard]] Result<Successor> prepare_successor(store::Transaction& tx, std::string_view actor,
                                                    std::int64_t now_ms, Random& random) const;
  void succeed(Successor next) const;

  /// Root and issuing certificates in a stable order.
  [[nodiscard]] std::vector<crypto::Certificate> bundle() const {
    return {root_, devices(), infrastructure()};
  }
  /// Policy to verify a peer of this network.
  [[nodiscard]] crypto::PathPolicy policy(crypto::Purpose purpose, std::int64_t now_s) const;

 private:
  Authority(NetworkId network, KeyDir keys, crypto::Certificate root, IssuerPtr devices,
            IssuerPtr infrastructure)
      : network_(std::move(network)),
        keys_(std::move(keys)),
        root_(std::move(root)),
        infrastructure_(std::move(infrastructure)),
        devices_(std::move(devices)) {}
  [[nodiscard]] static Result<IssuerPtr> make_issuing(const NetworkId& network, const KeyDir& keys,
                                                      const std::string& token,
                                                      const crypto::Certificate& root,
                                                      const crypto::Signer& root_key,
                                                      bool of_devices, std::uint32_t generation,
                                                      std::int64_t now_ms, Random& random);
  NetworkId network_;
  KeyDir keys_;
  crypto::Certificate root_;
  IssuerPtr infrastructure_;
  mutable std::mutex mutex_;
  mutable IssuerPtr devices_;  // under mutex_
};
using AuthorityPtr = std::shared_ptr<const Authority>;

}  // namespace sally::pki
