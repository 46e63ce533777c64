// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
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
enum class Profile : std::uint8_t { kDevice, kRouter, kController, kAdmin, kSigner };
std::string_view profile_name(Profile profile);
/// The profile of an identity's kind.
Profile profile_of(store::Kind kind);

/// Days a leaf lives, unless its issuer ends before. One year for all that cannot renew themselves
/// yet.
int lifetime_days(Profile profile);
/// A leaf of who renews by itself lives this long.
inline constexpr std::int64_t kRenewingLifeS = 30LL * 86'400;

/// Names of a leaf. They come from the registry.
struct Subject {
  std::string id;
  std::vector<std::string> dns;  ///< routers and controllers
  std::vector<std::string> ips;
};

struct Issued {
  crypto::Certificate leaf;
  crypto::Certificate issuing;
  /// Leaf and issuing, as peers and files want it.
  [[nodiscard]] std::string chain_pem() const { return leaf.pem() + issuing.pem(); }
};

/// The CAs of one network with the keys of the issuing ones.
/// Owned by the controller's network object, shared with its handlers; immutable, any thread.
/// issue() fails with kBadSubject or what crypto says.
class Authority {
 public:
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

  /// The one function that issues a leaf. Writes the certificate's row; the caller audits and
  /// commits. `life_s` 0: as long as the profile says.
  [[nodiscard]] Result<Issued> issue(store::Transaction& tx, const Subject& subject,
                                     const crypto::PublicKey& key, Profile profile,
                                     std::int64_t now_ms, Random& random,
                                     std::int64_t life_s = 0) const;

  [[nodiscard]] const NetworkId& network() const { return network_; }
  [[nodiscard]] const crypto::Certificate& root() const { return root_; }
  [[nodiscard]] const crypto::Certificate& devices() const { return devices_.certificate; }
  [[nodiscard]] const crypto::Certificate& infrastructure() const {
    return infrastructure_.certificate;
  }
  /// Root and issuing certificates in a stable order.
  [[nodiscard]] std::vector<crypto::Certificate> bundle() const {
    return {root_, devices(), infrastructure()};
  }
  /// Policy to verify a peer of this network.
  [[nodiscard]] crypto::PathPolicy policy(crypto::Purpose purpose, std::int64_t now_s) const;

 private:
  struct Issuer {
    crypto::Certificate certificate;
    crypto::SignerPtr key;
  };
  Authority(NetworkId network, crypto::Certificate root, Issuer devices, Issuer infrastructure)
      : network_(std::move(network)),
        root_(std::move(root)),
        devices_(std::move(devices)),
        infrastructure_(std::move(infrastructure)) {}
  NetworkId network_;
  crypto::Certificate root_;
  Issuer devices_;
  Issuer infrastructure_;
};
using AuthorityPtr = std::shared_ptr<const Authority>;

}  // namespace sally::pki
