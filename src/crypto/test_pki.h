// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests of every folder above crypto/: a small hierarchy with the profiles of docs/pki.md.
// Aborts on failure.
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "crypto/issue.h"
#include "crypto/path.h"

namespace sally::crypto {

template <typename T>
T must(Result<T> r) {
  if (!r) {
    std::string text = r.error().text();
    std::fprintf(stderr, "must: %s\n", text.c_str());
    std::abort();
  }
  return std::move(*r);
}

struct TestLeaf {
  FileKeyPtr key;
  Certificate cert;
};

/// Root -> devices and infrastructure -> leafs of one network. Times are around `now_s`.
class TestPki {
 public:
  static constexpr std::int64_t kNow = 1'800'000'000;

  explicit TestPki(std::string network_name = "net-a.sally", std::int64_t now = kNow)
      : network(std::move(network_name)),
        now_s(now),
        root_key(must(FileKey::generate(KeyType::kP384))),
        devices_key(must(FileKey::generate(KeyType::kP256))),
        infra_key(must(FileKey::generate(KeyType::kP256))),
        root(must(sign_certificate(ca_spec("Test Root", 20, {}, 0), root_key->public_key(), nullptr,
                                   *root_key, random()))),
        devices(must(sign_certificate(
            ca_spec("Test Devices", 5, 0, kEkuClientAuth | kEkuServerAuth | kEkuOcspSigning),
            devices_key->public_key(), &root, *root_key, random()))),
        infrastructure(must(sign_certificate(
            ca_spec("Test Infrastructure", 5, 0,
                    kEkuClientAuth | kEkuServerAuth | kEkuOcspSigning | kEkuSigner),
            infra_key->public_key(), &root, *root_key, random()))) {}

  [[nodiscard]] CertSpec ca_spec(const std::string& cn, int years, std::optional<int> path_length,
                                 std::uint32_t eku) const {
    CertSpec s;
    s.organization = network;
    s.common_name = cn;
    s.not_before_s = now_s - 3600;
    s.not_after_s = now_s + years * 365LL * 86400;
    s.ca = true;
    s.path_length = path_length;
    s.eku = eku;
    return s;
  }
  [[nodiscard]] CertSpec leaf_spec(Role role, const std::string& id) const {
    CertSpec s;
    s.common_name = id;
    s.not_before_s = now_s - 3600;
    s.not_after_s = now_s + 90LL * 86400;
    s.eku = role == Role::kSigner  ? kEkuSigner
            : role == Role::kAdmin ? kEkuClientAuth
                                   : kEkuClientAuth | kEkuServerAuth;
    s.uris = {IdentityName{network, role, id}.uri()};
    if (role == Role::kController || role == Role::kRouter) {
      s.dns = {"localhost"};
      s.ips = {"127.0.0.1"};
    }
    return s;
  }
  /// Signed by the CA that the role belongs to.
  [[nodiscard]] TestLeaf leaf(Role role, const std::string& id,
                              KeyType type = KeyType::kP256) const {
    return leaf(leaf_spec(role, id), role == Role::kDevice, type);
  }
  [[nodiscard]] TestLeaf leaf(const CertSpec& spec, bool by_devices,
                              KeyType type = KeyType::kP256) const {
    auto key = must(FileKey::generate(type));
    auto cert =
        must(sign_certificate(spec, key->public_key(), by_devices ? &devices : &infrastructure,
                              by_devices ? *devices_key : *infra_key, random()));
    return {std::move(key), std::move(cert)};
  }
  [[nodiscard]] const Certificate& issuing(Role role) const {
    return role == Role::kDevice ? devices : infrastructure;
  }
  [[nodiscard]] PathPolicy policy(Purpose purpose) const {
    PathPolicy p;
    p.anchors = {root};
    p.known_issuing = {devices, infrastructure};
    p.purpose = purpose;
    p.now_s = now_s;
    p.network = network;
    return p;
  }

  std::string network;
  std::int64_t now_s;
  FileKeyPtr root_key, devices_key, infra_key;
  Certificate root, devices, infrastructure;

 private:
  static Random& random() { return system_random(); }
};

}  // namespace sally::crypto
