// SPDX-License-Identifier: Apache-2.0
#pragma once

// A network with its authorities and doors over a store in memory, for the tests of this folder.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "crypto/csr.h"
#include "crypto/jws.h"
#include "crypto/test_pki.h"
#include "pki/enroll.h"
#include "pki/publish.h"
#include "pki/renew.h"
#include "pki/revoke.h"
#include "trust/records.h"
#include "trust/renewal.h"

namespace sally::pki {
using crypto::must;

inline void ok(const Status& s) {
  if (!s) {
    ADD_FAILURE() << s.error().text();
    std::abort();
  }
}

inline constexpr std::int64_t kNow = 1'800'000'000'000;
inline constexpr std::int64_t kDayMs = 86'400'000;
inline const NetworkId kNet("n-1.sally");

/// A network of its own in memory, keys in a folder that goes with it.
class PkiTest : public testing::Test {
 protected:
  PkiTest() {
    char name[] = "/tmp/sally_pki_XXXXXX";
    dir = mkdtemp(name);
    keys = std::make_unique<KeyDir>(dir + "/keys");
    db = must(store::open_sqlite(":memory:", store_hooks()));
    auto tx = must(db->begin(kNet, kNow));
    ok(tx->put_network({kNet.str(), "test", "https://c:1280", kNow}));
    authority = must(Authority::create(*tx, kNet, *keys, kNow, random));
    auto rest_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    auto issued =
        must(authority->issue(*tx, {"ctrl-1", {"localhost"}, {"127.0.0.1"}}, rest_key->public_key(),
                              Profile::kController, kNow, random));
    rest = std::make_unique<RestIdentity>(RestIdentity{issued.leaf, issued.issuing, rest_key});
    signer_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    signer_cert = std::make_unique<crypto::Certificate>(
        must(authority->issue(*tx, {"1", {}, {}}, signer_key->public_key(), Profile::kSigner, kNow,
                              random))
            .leaf);
    ok(tx->commit());
    door = std::make_unique<TokenDoor>(authority, must(keys->secret("tokens", random)));
  }
  ~PkiTest() override { std::filesystem::remove_all(dir); }

  store::Identity add(const std::string& id, store::Kind kind = store::Kind::kDevice) {
    auto tx = must(db->begin(kNet, kNow));
    store::Identity i;
    i.id = id;
    i.name = "name-" + id;
    i.kind = kind;
    i.tags = {"sensors"};
    i.created_ms = kNow;
    ok(tx->put_identity(i));
    if (kind == store::Kind::kRouter)
      ok(tx->put_router_info({id, {"r.example:3022"}, {"r.example"}, {"10.1.2.3"}}));
    ok(tx->audit("t", "add", id));
    ok(tx->commit());
    return i;
  }
  std::string token(const store::Identity& i, std::string* jwt = nullptr) {
    auto tx = must(db->begin(kNet, kNow));
    auto t =
        must(door->create(*tx, "admin/a", i, *rest, "https://c:1280", kNow, kTokenLifeMs, random));
    ok(tx->commit());
    if (jwt != nullptr) *jwt = t.jwt;
    const std::string payload = must(crypto::split_jws(t.jwt)).payload;
    return payload.substr(payload.find("\"jti\":\"") + 7, 36);
  }
  Result<TokenDoor::Enrolled> enroll(const std::string& jti, const std::string& csr,
                                     std::int64_t now = kNow) {
    auto tx = must(db->begin(kNet, now));
    auto r = door->enroll(*tx, jti, as_bytes(csr), now, random);
    if (r) ok(tx->commit());
    return r;
  }
  std::string csr() { return must(crypto::make_csr(*device_key, "evil-name")); }

  SeededRandom random{1};
  std::string dir;
  std::unique_ptr<KeyDir> keys;
  std::unique_ptr<store::Store> db;
  AuthorityPtr authority;
  std::unique_ptr<RestIdentity> rest;
  crypto::FileKeyPtr signer_key;
  std::unique_ptr<crypto::Certificate> signer_cert;
  std::unique_ptr<TokenDoor> door;
  crypto::FileKeyPtr device_key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
};

// Requests that ask for more than a key; their own keys are nowhere.
inline constexpr char kCaCsr[] =
    "-----BEGIN CERTIFICATE REQUEST-----\n"
    "MIHqMIGRAgEAMBAxDjAMBgNVBAMMBWRldi0xMFkwEwYHKoZIzj0CAQYIKoZIzj0D\n"
    "AQcDQgAEl37IxJ9WoO0ftQru1Pi4rD35Ivhb8DOptsi9peR0t7XfXkN47hAgSUOQ\n"
    "AAaKhRYRifIWVJedDSC0EIK1DQX/g6AfMB0GCSqGSIb3DQEJDjEQMA4wDAYDVR0T\n"
    "BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEArBNVPe+9FXgPcyqrUqmvBeryMBlL\n"
    "s27N+mq0YhsJRFACIFSbwVSB1rAOoUvhlSovX7TSiHEmx+iZ3eAEAS4hx8wV\n"
    "-----END CERTIFICATE REQUEST-----\n";
inline constexpr char kSanCsr[] =
    "-----BEGIN CERTIFICATE REQUEST-----\n"
    "MIIBBzCBrwIBADAQMQ4wDAYDVQQDDAVkZXYtMTBZMBMGByqGSM49AgEGCCqGSM49\n"
    "AwEHA0IABJd+yMSfVqDtH7UK7tT4uKw9+SL4W/AzqbbIvaXkdLe1315DeO4QIElD\n"
    "kAAGioUWEYnyFlSXnQ0gtBCCtQ0F/4OgPTA7BgkqhkiG9w0BCQ4xLjAsMCoGA1Ud\n"
    "EQQjMCGGH3NwaWZmZTovL24tMS5zYWxseS9kZXZpY2UvZGV2LTIwCgYIKoZIzj0E\n"
    "AwIDRwAwRAIgAzh+ha9NoLpqeB0mC46UM2iVP9cCoZbxn/INz0W8AooCIBo7uDRQ\n"
    "qJM+TsmG9dsNzYAQ2EDfzZue3mndV+qPf0kR\n"
    "-----END CERTIFICATE REQUEST-----\n";

/// A device that was enrolled for 30 days.
class RenewalTest : public PkiTest {
 protected:
  RenewalTest() {
    const auto device = add("dev-1");
    auto tx = must(db->begin(kNet, kNow));
    first = must(authority->issue(*tx, {"dev-1", {}, {}}, device_key->public_key(),
                                  Profile::kDevice, kNow, random, kRenewingLifeS))
                .leaf.serial_hex();
    ok(tx->audit("t", "enroll", "dev-1"));
    ok(tx->commit());
    request = {.network = kNet.str(),
               .id = "dev-1",
               .serial = first,
               .csr = csr_of(*device_key),
               .time_ms = now};
  }
  static Bytes csr_of(const crypto::Signer& key, const std::string& name = "dev-1") {
    return to_bytes(as_bytes(must(crypto::make_csr(key, name))));
  }
  Bytes sealed() const { return must(trust::make_renewal(request, *device_key)); }
  Result<RenewalDoor::Outcome> take(ByteView envelope, const std::string& serial,
                                    const std::string& id = "dev-1") {
    auto tx = must(db->begin(kNet, now));
    auto r = renewals.take(*tx, envelope, {id, serial}, now, random);
    if (r && r->changed) ok(tx->commit());
    return r;
  }
  std::string refusal(ByteView envelope) {
    const auto r = take(envelope, first);
    return r ? "taken" : std::string(r.error().code());
  }
  store::CertificateRow row(const std::string& serial) {
    auto tx = must(db->read(kNet));
    return *must(tx->certificate(serial));
  }
  RenewalDoor renewals{authority};
  std::int64_t now = kNow + 20 * kDayMs;
  std::string first;
  wire::RenewalRequest request;
};

}  // namespace sally::pki
