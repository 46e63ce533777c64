// SPDX-License-Identifier: Apache-2.0
#include "pki/revoke.h"

#include "pki/test_office.h"

namespace sally::pki {
namespace {

/// A network with one device, dev-1, that has a certificate of 30 days and a token nobody used.
class RevokeTest : public PkiTest {
 protected:
  RevokeTest() {
    add("dev-1");
    change([&](store::Transaction& tx) {
      store::Enrollment e;
      e.id = "t1";
      e.token_mac = {1};
      e.identity = "dev-1";
      return tx.put_enrollment(e);
    });
    first = issue();
  }

  /// What routers hear of it.
  std::vector<wire::StateOp> change(const std::function<Status(store::Transaction&)>& what) {
    auto tx = must(db->begin(kNet, now));
    const auto from = must(tx->log_head()).version;
    ok(what(*tx));
    ok(tx->audit("t", "t", "t"));
    ok(tx->commit());
    tx.reset();
    EXPECT_EQ(rows_say(), log_says());
    std::vector<wire::StateOp> ops;
    for (const auto& row : must(must(db->read(kNet))->log_after(from, 100)))
      ops.push_back(must(wire::decode_state_op(must(wire::decode_log_entry(row.entry)).op)));
    return ops;
  }
  template <typename F>
  std::vector<wire::StateOp> with_device(F what) {
    return change([&](store::Transaction& tx) -> Status {
      TRY_ASSIGN(const auto i, tx.identity("dev-1"));
      return what(tx, *i);
    });
  }
  std::vector<wire::StateOp> revoke() {
    return with_device([&](auto& tx, const auto& i) -> Status {
      TRY(revoke_identity(tx, i, store::Reason::kKeyCompromise, now));
      return {};
    });
  }
  std::vector<wire::StateOp> resume() {
    return with_device([&](auto& tx, const auto& i) { return resume_identity(tx, i, now); });
  }
  std::vector<wire::StateOp> suspend() {
    return with_device([&](auto& tx, const auto& i) { return suspend_identity(tx, i, now); });
  }
  std::string issue() {
    std::string serial;
    change([&](store::Transaction& tx) -> Status {
      TRY_ASSIGN(const auto issued,
                 authority->issue(tx, {"dev-1", {}, {}}, device_key->public_key(), Profile::kDevice,
                                  now, random, kRenewingLifeS));
      serial = issued.leaf.serial_hex();
      return {};
    });
    return serial;
  }
  void end(const std::string& serial, bool superseded = false) {
    change([&](store::Transaction& tx) -> Status {
      TRY_ASSIGN(const auto one, tx.certificate(serial));
      return revoke_certificate(tx, *one, now, superseded);
    });
  }
  store::CertificateRow row(const std::string& serial) {
    return *must(must(db->read(kNet))->certificate(serial));
  }
  // The rows that routers have follow from those of the store, at any time.
  std::vector<Bytes> rows_say() {
    auto ops = must(snapshot_ops(*must(db->read(kNet)), now));
    std::ranges::sort(ops);
    return ops;
  }
  std::vector<Bytes> log_says() {
    auto tx = must(db->read(kNet));
    std::map<std::string, Bytes> rows;
    for (const auto& r : must(tx->log_after(0, 1'000))) {
      const auto bytes = must(wire::decode_log_entry(r.entry)).op;
      const auto op = must(wire::decode_state_op(bytes));
      const auto* c = std::get_if<wire::RevokedCertificate>(&op.op);
      if (c != nullptr && c->not_after_ms <= now) continue;
      rows[c != nullptr ? c->serial : std::get<wire::IdentityState>(op.op).id] = bytes;
    }
    std::vector<Bytes> ops;
    for (auto& [id, bytes] : rows) ops.push_back(std::move(bytes));
    std::ranges::sort(ops);
    return ops;
  }
  /// At the recovery door, with the certificate of that serial and its key.
  std::string recover(const std::string& serial) {
    const wire::RenewalRequest request{
        .network = kNet.str(),
        .id = "dev-1",
        .serial = serial,
        .csr = to_bytes(as_bytes(must(crypto::make_csr(*device_key, "dev-1")))),
        .time_ms = now};
    auto tx = must(db->begin(kNet, now));
    const RenewalDoor desk(authority);
    const auto done =
        desk.open(*tx, must(trust::make_renewal(request, *device_key))).and_then([&](auto from) {
          return desk.recover(*tx, std::move(from), now, random);
        });
    return done ? "ok" : std::string(done.error().code());
  }
  static wire::IdentityState identity(const wire::StateOp& op) {
    const auto* i = std::get_if<wire::IdentityState>(&op.op);
    return i == nullptr ? wire::IdentityState{} : *i;
  }

  std::int64_t now = kNow;
  std::string first;
};

TEST_F(RevokeTest, SuspensionIsOneRowEachWay) {
  auto ops = suspend();
  ASSERT_EQ(ops.size(), 1U);
  EXPECT_EQ(identity(ops[0]).standing, wire::Standing::kSuspended);
  EXPECT_EQ(identity(ops[0]).credential_epoch, 1U) << "its cards are dead";
  EXPECT_TRUE(suspend().empty());
  ops = resume();
  ASSERT_EQ(ops.size(), 1U);
  EXPECT_EQ(identity(ops[0]).standing, wire::Standing::kActive);
  EXPECT_EQ(identity(ops[0]).credential_epoch, 1U);
  EXPECT_TRUE(resume().empty());
  EXPECT_EQ(row(first).revoked_ms, 0);
}

TEST_F(RevokeTest, RoutersHearOfWhatDiedBeforeItsDeviceComesBack) {
  issue();
  auto ops = revoke();
  ASSERT_EQ(ops.size(), 1U) << "however many certificates";
  EXPECT_EQ(identity(ops[0]).standing, wire::Standing::kRevoked);
  EXPECT_EQ(identity(ops[0]).credential_epoch, 1U);
  EXPECT_TRUE(revoke().empty());
  EXPECT_TRUE(suspend().empty());
  EXPECT_EQ(row(first).reason, store::Reason::kKeyCompromise);
  EXPECT_EQ(row(first).issuer, "devices-1");
  EXPECT_EQ(must(must(db->read(kNet))->enrollment("t1"))->revoked_ms, kNow);
  ops = resume();
  ASSERT_EQ(ops.size(), 3U);
  EXPECT_TRUE(std::holds_alternative<wire::RevokedCertificate>(ops[0].op));
  EXPECT_TRUE(std::holds_alternative<wire::RevokedCertificate>(ops[1].op));
  EXPECT_EQ(identity(ops[2]).standing, wire::Standing::kActive);
  revoke();
  EXPECT_EQ(resume().size(), 1U) << "they are told once";
}

// Superseded: lanes that are up live on. Revoked, they do not.
TEST_F(RevokeTest, ASupersededCertificateIsRevokedWithItsDevice) {
  end(first, true);
  now += 1'000;
  const auto ops = revoke();
  ASSERT_EQ(ops.size(), 2U);
  const auto& told = std::get<wire::RevokedCertificate>(ops[1].op);
  EXPECT_EQ(told.serial, first);
  EXPECT_FALSE(told.superseded);
}

// A router whose clock is behind would still take it.
TEST_F(RevokeTest, RoutersHearOfOneThatEndedWithinTheDay) {
  now += kRenewingLifeS * 1000 + 3'600'000;
  const auto tell = [&] {
    return change([&](store::Transaction& tx) -> Status {
      TRY_ASSIGN(const auto one, tx.certificate(first));
      return revoke_certificate(tx, *one, now);
    });
  };
  EXPECT_EQ(tell().size(), 1U);
  EXPECT_TRUE(tell().empty()) << "once";
}

// A certificate that has ended still renews its device for 400 days, at the recovery door.
TEST_F(RevokeTest, NothingThatHadEndedBringsARevokedDeviceBack) {
  now += 40 * kDayMs;
  ASSERT_EQ(recover(first), "ok");
  EXPECT_EQ(revoke().size(), 1U);
  EXPECT_EQ(recover(first), "pki.identity_inactive");
  EXPECT_EQ(resume().size(), 1U) << "what has ended needs no telling";
  EXPECT_EQ(recover(first), "pki.certificate_revoked");
}

TEST_F(RevokeTest, AnOlderCertificateDoesNotReplaceTheOneThatWasRevoked) {
  now += 20 * kDayMs;
  const auto second = issue();
  end(first, true);
  now += 40 * kDayMs;
  ASSERT_EQ(recover(first), "ok");
  end(second);
  EXPECT_EQ(recover(second), "pki.certificate_revoked");
  EXPECT_EQ(recover(first), "pki.certificate_revoked");
}

TEST_F(RevokeTest, ARevokedCaIsOneRowAndEverythingItIssuedIsDead) {
  const auto second = issue();
  end(first, true);
  const auto ops = change([&](store::Transaction& tx) -> Status {
    TRY_ASSIGN(const auto done,
               revoke_authority(tx, "devices-1", store::Reason::kCaCompromise, now));
    EXPECT_EQ(done.certificates, 2U);
    return {};
  });
  ASSERT_EQ(ops.size(), 1U);
  EXPECT_EQ(std::get<wire::RevokedCertificate>(ops[0].op).serial,
            authority->devices().serial_hex());
  EXPECT_EQ(row(second).reason, store::Reason::kCaCompromise);
  // Until it has a successor nothing is issued, also after a restart.
  const auto restarted = must(Authority::load(*must(db->read(kNet)), kNet, *keys));
  for (const auto& a : {authority, restarted}) {
    auto tx = must(db->begin(kNet, now));
    const auto issued =
        a->issue(*tx, {"dev-1", {}, {}}, device_key->public_key(), Profile::kDevice, now, random);
    ASSERT_FALSE(issued);
    EXPECT_TRUE(issued.error().is(Errc::kNoSuccessor)) << issued.error().text();
  }
  now += 40 * kDayMs;
  EXPECT_EQ(recover(first), "pki.certificate_revoked");
  EXPECT_EQ(recover(second), "pki.certificate_revoked");
}

}  // namespace
}  // namespace sally::pki
