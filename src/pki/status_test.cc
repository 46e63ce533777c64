// SPDX-License-Identifier: Apache-2.0
#include "pki/status.h"

#include "crypto/status.h"
#include "crypto/test_status.h"
#include "pki/test_office.h"

namespace sally::pki {
namespace {

class StatusTest : public PkiTest {
 protected:
  void change(const std::function<Status(store::Transaction&)>& what) {
    auto tx = must(db->begin(kNet, kNow));
    ok(what(*tx));
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
  }
  crypto::Certificate device(const std::string& id) {
    add(id);
    std::optional<crypto::Certificate> out;
    change([&](store::Transaction& tx) -> Status {
      TRY_ASSIGN(const auto issued, authority->issue(tx, {id, {}, {}}, device_key->public_key(),
                                                     Profile::kDevice, kNow, random));
      out = issued.leaf;
      return {};
    });
    return *out;
  }
  bool renew(std::int64_t now_ms) {
    bool made = false;
    change([&](store::Transaction& tx) -> Status {
      TRY_ASSIGN(made, desk->renew(tx, now_ms, random));
      return {};
    });
    ok(desk->use(*must(db->read(kNet))));
    return made;
  }
  /// Serial to reason, as a stock library reads the list.
  std::map<std::string, int> list(const std::string& ca) {
    ok(desk->refresh(must(db->read(kNet)), kNow));
    const auto der = desk->list(ca);
    EXPECT_TRUE(der);
    const auto issuer = ca == "root"                       ? authority->root()
                        : ca.starts_with("infrastructure") ? authority->infrastructure()
                                                           : authority->devices();
    auto rows = crypto::crl_rows(*der, issuer);
    EXPECT_TRUE(rows.believed);
    EXPECT_GT(rows.number, number) << "each is newer than the one before";
    number = rows.number;
    return std::move(rows.reasons);
  }
  /// What the answer says, to somebody who believes the network's root alone.
  std::string ask(const crypto::Certificate& leaf, const crypto::Certificate& issuer,
                  std::int64_t now_ms = kNow) {
    const Bytes request = crypto::ocsp_request({{leaf, issuer}});
    const Bytes answer = desk->answer(must(db->read(kNet)), request, now_ms);
    return crypto::ocsp_says(answer, request, {leaf, issuer}, authority->root(), now_ms / 1000);
  }
  store::Identity identity(store::Transaction& tx, const std::string& id) {
    return *must(tx.identity(id));
  }

  std::unique_ptr<StatusDesk> desk = std::make_unique<StatusDesk>(authority, *keys);
  std::int64_t number = 0;
};

TEST_F(StatusTest, ListsAndAnswersSayWhatIsTrueNow) {
  EXPECT_TRUE(renew(kNow));
  const auto good = device("good");
  const auto held = device("held");
  const auto gone = device("gone");
  const auto devices = authority->devices();
  EXPECT_EQ(ask(good, devices), "good");
  EXPECT_TRUE(list("devices-1").empty());
  EXPECT_TRUE(list("infrastructure-1").empty());

  change([&](auto& tx) { return suspend_identity(tx, identity(tx, "held"), kNow); });
  change([&](auto& tx) -> Status {
    TRY(revoke_identity(tx, identity(tx, "gone"), store::Reason::kKeyCompromise, kNow));
    return {};
  });
  const std::map<std::string, int> want{{held.serial_hex(), 6}, {gone.serial_hex(), 1}};
  EXPECT_EQ(list("devices-1"), want);
  EXPECT_EQ(ask(held, devices), "revoked 6");
  EXPECT_EQ(ask(gone, devices), "revoked 1");
  EXPECT_EQ(ask(good, devices), "good");
  // Suspension ends; a revocation does not, whatever its identity is.
  change([&](auto& tx) { return resume_identity(tx, identity(tx, "held"), kNow); });
  change([&](auto& tx) { return resume_identity(tx, identity(tx, "gone"), kNow); });
  EXPECT_EQ(list("devices-1"), (std::map<std::string, int>{{gone.serial_hex(), 1}}));
  EXPECT_EQ(ask(held, devices), "good");
  EXPECT_EQ(ask(gone, devices), "revoked 1");

  // Of nobody here, of another issuer than it says, of another network; and no request at all.
  const crypto::TestPki other("net-b.sally", kNow / 1000);
  const auto stranger = other.leaf(crypto::Role::kDevice, "x").cert;
  const auto never = [&] {  // signed by this CA, and not by what the registry says
    auto tx = must(db->begin(kNet, kNow));
    return must(authority->issue(*tx, {"never", {}, {}}, device_key->public_key(), Profile::kDevice,
                                 kNow, random))
        .leaf;
  }();
  EXPECT_EQ(ask(never, devices), "unknown");
  EXPECT_EQ(ask(stranger, devices), "failure 6");
  EXPECT_EQ(ask(good, authority->infrastructure()), "failure 6");
  EXPECT_EQ(ask(stranger, other.devices), "failure 6");
  EXPECT_EQ(ask(authority->devices(), authority->root()), "failure 6");
  EXPECT_EQ(desk->answer(must(db->read(kNet)), Bytes{1, 2, 3}, kNow),
            crypto::ocsp_failure(crypto::OcspFailure::kMalformed));
}

TEST_F(StatusTest, RespondersLiveAWeekAndAreNobody) {
  EXPECT_TRUE(renew(kNow));
  EXPECT_FALSE(renew(kNow + 3 * kDayMs));
  EXPECT_TRUE(renew(kNow + 4 * kDayMs));
  const auto rows = must(must(db->read(kNet))->certificates_of("ocsp"));
  ASSERT_EQ(rows.size(), 4U);
  for (const auto& row : rows) {
    const auto certificate = must(crypto::Certificate::from_der(row.der));
    EXPECT_EQ(row.not_after_s - row.issued_ms / 1000, 7 * 86'400);
    EXPECT_TRUE(certificate.has_eku(crypto::kEkuOcspSigning));
    // It opens nothing.
    for (const auto purpose :
         {crypto::Purpose::kTlsClient, crypto::Purpose::kTlsServer, crypto::Purpose::kSigner})
      EXPECT_FALSE(validate_path(certificate, {}, authority->policy(purpose, kNow / 1000)));
  }
  EXPECT_EQ(ask(device("a"), authority->devices(), kNow + 4 * kDayMs), "good");
}

TEST_F(StatusTest, ARevokedCaIsInTheRootsListAndItsSuccessorAnswers) {
  renew(kNow);
  const auto old = authority->devices();
  const auto before = device("before");
  change([&](store::Transaction& tx) -> Status {
    TRY(revoke_authority(tx, "devices-1", store::Reason::kCaCompromise, kNow));
    TRY_ASSIGN(auto next, authority->prepare_successor(tx, "t", kNow, random));
    authority->succeed(std::move(next));
    return {};
  });
  EXPECT_EQ(list("root"), (std::map<std::string, int>{{old.serial_hex(), 2}}));
  EXPECT_FALSE(desk->list("devices-1"));
  EXPECT_TRUE(renew(kNow));
  const auto after = device("after");
  EXPECT_EQ(ask(after, authority->devices()), "good");
  EXPECT_EQ(ask(before, old), "failure 6");
  // Without the root's key there is no new list of the root, and soon none; the others go on.
  std::filesystem::remove(dir + "/keys/root.key");
  ok(desk->refresh(must(db->read(kNet)), kNow));
  EXPECT_TRUE(desk->list("root"));
  ok(desk->refresh(must(db->read(kNet)), kNow + kListLifeMs / 2));
  EXPECT_FALSE(desk->list("root"));
  EXPECT_TRUE(desk->list("devices-2"));
}

}  // namespace
}  // namespace sally::pki
