// SPDX-License-Identifier: Apache-2.0
#include "store/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "base/random.h"

namespace sally::store {
namespace {

// No cryptography in this folder: any mixing function serves the chains' logic.
Hash mix(ByteView data) {
  Hash out{};
  std::uint64_t h = 0xcbf29ce484222325;
  for (std::size_t lane = 0; lane < 4; ++lane) {
    for (const auto b : data) h = (h ^ b) * 0x100000001b3 + lane;
    put_little(out.data() + lane * 8, h, 8);
  }
  return out;
}
Bytes entry(std::uint64_t version, ByteView op) {
  Bytes out;
  put_big(out, version, 8);
  append(out, op);
  return out;
}
constexpr Hooks kHooks{mix, entry};

template <typename T>
T must(Result<T> r) {
  if (!r) {
    ADD_FAILURE() << r.error().text();
    std::abort();
  }
  return std::move(*r);
}
#define OK(expr)                            \
  do {                                      \
    const auto ok_ = (expr);                \
    ASSERT_TRUE(ok_) << ok_.error().text(); \
  } while (false)

struct TempDir {
  TempDir() {
    char name[] = "/tmp/sally_store_XXXXXX";
    path = mkdtemp(name);
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  std::string path;
};

const NetworkId kA("net-a.sally");
const NetworkId kB("net-b.sally");

Identity device(const std::string& id, const std::string& name) {
  Identity d;
  d.id = id;
  d.name = name;
  d.tags = {"sensors", "west"};
  d.created_ms = 5;
  return d;
}

TEST(Store, NetworksDoNotSeeEachOther) {
  auto s = must(open_sqlite(":memory:", kHooks));
  for (const auto& n : {kA, kB}) {
    auto tx = must(s->begin(n, 10));
    OK(tx->put_network({n.str(), "x", "https://c:1280", 1}));
    OK(tx->put_identity(device("d1", "pump")));
    OK(tx->put_service({.id = "s1", .name = "mqtt"}));
    OK(tx->put_grant({"g1", "s1", GrantKind::kDial, "#sensors", 1}));
    OK(tx->put_enrollment({.id = "e1", .token_mac = {1, 2}, .identity = "d1"}));
    OK(tx->put_certificate({.serial = "0a", .identity = "d1"}));
    OK(tx->put_router_info({"r1", {"h:1"}, {"h"}, {"10.0.0.1", "::1"}}));
    OK(tx->audit("system", "test", "d1"));
    EXPECT_EQ(must(tx->append_op(as_bytes("op"))), 1u);
    OK(tx->commit());
  }
  EXPECT_EQ(must(s->networks()).size(), 2u);
  {
    auto tx = must(s->begin(kA, 20));
    OK(tx->remove_service("s1"));
    OK(tx->audit("admin/root", "service.rm", "s1"));
    OK(tx->commit());
  }
  auto a = must(s->read(kA));
  EXPECT_FALSE(must(a->service("s1")));
  EXPECT_TRUE(must(a->grants("")).empty());
  a.reset();
  auto b = must(s->read(kB));
  EXPECT_TRUE(must(b->service_named("mqtt")));
  EXPECT_EQ(must(b->grants("s1")).size(), 1u);
  EXPECT_EQ(must(b->enrollment_by_mac(Bytes{1, 2}))->id, "e1");
  EXPECT_EQ(must(b->router_info("r1"))->ips, (std::vector<std::string>{"10.0.0.1", "::1"}));
  EXPECT_EQ(must(b->audit_rows(0, 10)).size(), 1u);
  b.reset();
  auto c = must(s->read(NetworkId("net-c.sally")));
  EXPECT_FALSE(must(c->identity("d1")));
  EXPECT_TRUE(c->network().error().is(Errc::kNotFound));
}

TEST(Store, IdentitiesAndTombstones) {
  auto s = must(open_sqlite(":memory:", kHooks));
  {
    auto tx = must(s->begin(kA, 10));
    OK(tx->put_identity(device("d1", "pump")));
    OK(tx->audit("a", "b", "c"));
    OK(tx->commit());
  }
  {
    auto tx = must(s->begin(kA, 11));
    EXPECT_TRUE(tx->put_identity(device("d2", "pump")).error().is(Errc::kConflict));
    EXPECT_FALSE(tx->commit());
  }
  {
    auto tx = must(s->begin(kA, 12));
    auto d = *must(tx->identity("d1"));
    EXPECT_EQ(d.tags, (std::vector<std::string>{"sensors", "west"}));
    EXPECT_TRUE(must(tx->special_identities()).empty());
    d.tags = {"west"};
    d.removed_ms = 12;
    d.standing = Standing::kRevoked;
    OK(tx->put_identity(d));
    OK(tx->put_identity(device("d2", "pump")));
    OK(tx->audit("a", "b", "c"));
    OK(tx->commit());
  }
  auto r = must(s->read(kA));
  EXPECT_EQ(must(r->identity_named(Kind::kDevice, "pump"))->id, "d2");
  EXPECT_EQ(must(r->identity("d1"))->standing, Standing::kRevoked);
  EXPECT_EQ(must(r->identity("d1"))->tags, std::vector<std::string>{"west"});
  EXPECT_EQ(must(r->count_identities(Kind::kDevice)), 1u);
  EXPECT_EQ(must(r->special_identities()).front().id, "d1");
  EXPECT_TRUE(must(r->identities(Kind::kRouter, {})).empty());
}

TEST(Store, ExpiringNamesActiveIdentitiesByTheirLastCertificate) {
  auto s = must(open_sqlite(":memory:", kHooks));
  {
    auto tx = must(s->begin(kA, 10));
    const auto certificate = [&](const char* serial, const char* id, std::int64_t not_after,
                                 std::int64_t revoked = 0) {
      CertificateRow c;
      c.serial = serial;
      c.identity = id;
      c.profile = "device";
      c.not_after_s = not_after;
      c.revoked_ms = revoked;
      OK(tx->put_certificate(c));
    };
    for (const char* id : {"d1", "d2", "d3", "d4", "d5"}) OK(tx->put_identity(device(id, id)));
    certificate("01", "d1", 100);
    certificate("02", "d2", 100);
    certificate("03", "d2", 900);  // joined again: the first one does not matter
    certificate("04", "d3", 90);
    certificate("05", "d4", 80, 5);
    certificate("06", "d5", 190);  // it has time to renew itself
    OK(tx->audit("a", "b", "c"));
    OK(tx->commit());
  }
  {
    auto r = must(s->read(kA));
    const auto soon = must(r->expiring(90, 200, 10));
    ASSERT_EQ(soon.size(), 2U);
    EXPECT_EQ(soon[0].name, "d3");
    EXPECT_EQ(soon[1].name, "d1");
    EXPECT_EQ(soon[1].not_after_s, 100);
    EXPECT_EQ(must(r->expiring(90, 95, 10)).size(), 1U);
    EXPECT_EQ(must(r->expiring(90, 200, 1)).size(), 1U);
  }
  EXPECT_TRUE(must(must(s->read(kB))->expiring(90, 200, 10)).empty());
}

// Of an identity, of a batch, of an authority; in one network, and what had ended or died before is
// left as it was.
TEST(Store, WhatDiesTogether) {
  auto s = must(open_sqlite(":memory:", kHooks));
  for (const auto& network : {kA, kB}) {
    auto tx = must(s->begin(network, 50'000));
    for (const char* id : {"d1", "d2", "d3", "d4"}) {
      auto d = device(id, id);
      d.batch = id == std::string("d4") ? "" : "lot";
      d.standing = id == std::string("d3") ? Standing::kSuspended : Standing::kActive;
      OK(tx->put_identity(d));
    }
    const auto certificate = [&](const char* serial, const char* id, std::int64_t not_after,
                                 std::int64_t revoked, const char* issuer) {
      CertificateRow c;
      c.serial = serial;
      c.identity = id;
      c.not_after_s = not_after;
      c.revoked_ms = revoked;
      c.reason = revoked != 0 ? Reason::kSuperseded : Reason::kUnspecified;
      c.issuer = issuer;
      OK(tx->put_certificate(c));
    };
    certificate("01", "d1", 100, 0, "devices-1");
    certificate("02", "d1", 100, 7, "devices-1");  // dead already
    certificate("03", "d1", 40, 0, "devices-1");   // over
    certificate("04", "d2", 100, 0, "devices-1");
    certificate("05", "d3", 100, 0, "devices-1");
    certificate("06", "d3", 100, 0, "devices-2");
    for (const char* id : {"t1", "t2"}) {
      Enrollment e;
      e.id = id;
      e.token_mac = to_bytes(std::string_view(id));
      e.identity = "d1";
      e.used_ms = id == std::string("t1") ? 6 : 0;
      OK(tx->put_enrollment(e));
    }
    OK(tx->audit("a", "b", "c"));
    OK(tx->commit());
  }
  {
    auto tx = must(s->begin(kA, 60'000));
    const auto lot = must(tx->batch("lot"));
    ASSERT_EQ(lot.size(), 3U);
    EXPECT_EQ(lot[0].id, "d1");
    EXPECT_TRUE(must(tx->batch("")).empty());
    EXPECT_EQ(must(tx->revoke_certificates_of("d1", Reason::kKeyCompromise)), 1U);
    EXPECT_EQ(must(tx->revoke_enrollments_of("d1")), 1U);
    EXPECT_EQ(must(tx->revoke_certificates_by("devices-2", Reason::kCaCompromise)), 1U);
    OK(tx->audit("a", "b", "c"));
    OK(tx->commit());
  }
  {
    auto r = must(s->read(kA));
    EXPECT_EQ(must(r->certificate("01"))->revoked_ms, 60'000);
    EXPECT_EQ(must(r->certificate("01"))->reason, Reason::kKeyCompromise);
    EXPECT_FALSE(must(r->certificate("01"))->told);
    EXPECT_EQ(must(r->certificate("02"))->revoked_ms, 7);
    EXPECT_EQ(must(r->certificate("03"))->revoked_ms, 60'000) << "over, and dead";
    EXPECT_EQ(must(r->enrollment("t2"))->revoked_ms, 60'000);
    EXPECT_EQ(must(r->enrollment("t1"))->revoked_ms, 0);
    // For outsiders: the revoked ones, and those of who is suspended; not what is over.
    const auto rows = must(r->revoked_by("devices-1", 60));
    ASSERT_EQ(rows.size(), 3U);
    EXPECT_EQ(rows[0].serial, "01");
    EXPECT_EQ(rows[1].reason, Reason::kSuperseded);
    EXPECT_EQ(rows[2].serial, "05");
    EXPECT_EQ(rows[2].reason, Reason::kCertificateHold);
    EXPECT_EQ(must(r->revoked_by("devices-2", 60)).front().reason, Reason::kCaCompromise);
    EXPECT_TRUE(must(r->revoked_by("devices-1", 100)).empty());
  }
  auto other = must(s->read(kB));
  EXPECT_EQ(must(other->certificate("01"))->revoked_ms, 0);
  EXPECT_EQ(must(other->enrollment("t2"))->revoked_ms, 0);
}

TEST(Sessions, AreOfOneNetworkTakeTheirOwnAlongAndExpire) {
  auto s = must(open_sqlite(":memory:", kHooks));
  const Bytes mac(32, 7);
  for (const auto& n : {kA, kB}) {
    auto tx = must(s->begin(n, 1));
    OK(tx->put_network({n.str(), "n", "https://c:1280", 1}));
    OK(tx->audit("t", "t", "t"));
    OK(tx->commit());
  }
  {
    auto tx = must(s->begin(kA, 1));
    ApiSession row{"a-1", mac, "d-1", 3, {"host.v1", "x"}, "192.0.2.1", 10, 10};
    OK(tx->put_api_session(row));
    EXPECT_FALSE(tx->commit());  // somebody logged in and nobody wrote it down
  }
  {
    auto tx = must(s->begin(kA, 1));
    OK(tx->put_api_session({"a-1", mac, "d-1", 3, {"host.v1", "x"}, "192.0.2.1", 10, 10}));
    OK(tx->put_api_session({"a-2", Bytes(32, 8), "d-1", 3, {}, "", 20, 20}));
    OK(tx->put_service_session({"s-1", "a-1", "svc", GrantKind::kDial, 11}));
    OK(tx->put_service_session({"s-2", "a-1", "svc", GrantKind::kBind, 12}));
    OK(tx->audit("t", "t", "t"));
    OK(tx->commit());
  }
  EXPECT_FALSE(must(must(s->read(kB))->api_session_by_mac(mac)));
  EXPECT_FALSE(must(must(s->read(kB))->api_session("a-2")));
  {
    // A use is no change that somebody must answer for; it never goes back.
    auto tx = must(s->begin(kA, 1));
    OK(tx->touch_api_session("a-1", 50));
    OK(tx->touch_api_session("a-1", 40));
    OK(tx->touch_api_session("nobody", 40));
    OK(tx->commit());
  }
  {
    const auto tx = must(s->read(kA));
    const auto row = must(tx->api_session_by_mac(mac));
    ASSERT_TRUE(row);
    EXPECT_EQ(row->active_ms, 50);
    EXPECT_EQ(row->config_types, (std::vector<std::string>{"host.v1", "x"}));
    EXPECT_EQ(must(tx->api_sessions_of("d-1")).size(), 2U);
    EXPECT_EQ(must(tx->api_session("a-2"))->created_ms, 20);
    EXPECT_FALSE(must(tx->api_session("a-3")));
    EXPECT_EQ(must(tx->service_sessions("a-1", 10)).size(), 2U);
    EXPECT_EQ(must(tx->service_sessions("a-1", 1)).front().id, "s-1");
  }
  {
    auto tx = must(s->begin(kA, 1));
    OK(tx->remove_service_session("s-2"));
    EXPECT_EQ(must(tx->expire_api_sessions(30, 0)), 1U);  // a-2 was not used
    EXPECT_EQ(must(tx->api_sessions({})).size(), 1U);
    EXPECT_EQ(must(tx->expire_api_sessions(0, 11)), 1U);  // a-1 is too old
    EXPECT_TRUE(must(tx->service_sessions("a-1", 10)).empty());
    OK(tx->commit());
  }
}

TEST(Store, ChangesNeedAnAuditRowAndACommit) {
  auto s = must(open_sqlite(":memory:", kHooks));
  {
    auto tx = must(s->begin(kA, 10));
    OK(tx->put_identity(device("d1", "pump")));
    EXPECT_TRUE(tx->commit().error().is(Errc::kNoAudit));
  }
  {
    auto tx = must(s->begin(kA, 10));
    OK(tx->put_identity(device("d1", "pump")));
    OK(tx->audit("a", "b", "c"));
  }
  auto r = must(s->read(kA));
  EXPECT_FALSE(must(r->identity("d1")));
  EXPECT_TRUE(must(r->audit_rows(0, 10)).empty());
}

TEST(Store, ChainsDetectTampering) {
  const TempDir dir;
  const std::string path = dir.path + "/c.db";
  const auto fill = [&] {
    std::filesystem::remove(path);
    auto s = must(open_sqlite(path, kHooks));
    for (int i = 0; i < 5; ++i) {
      auto tx = must(s->begin(kA, 10 + i));
      OK(tx->audit("admin/root", "device.add", "d" + std::to_string(i), "{}"));
      EXPECT_TRUE(tx->append_op(as_bytes("op" + std::to_string(i))));
      OK(tx->commit());
    }
    EXPECT_EQ(must(must(s->read(kA))->verify_chains()), 10u);
  };
  struct Case {
    const char* sql;
    Errc code;
  };
  for (const auto& c :
       {Case{"UPDATE audit SET actor='x' WHERE seq=2", Errc::kAuditTampered},
        Case{"UPDATE audit SET at_ms=1 WHERE seq=5", Errc::kAuditTampered},
        Case{"UPDATE audit SET detail='' WHERE seq=1", Errc::kAuditTampered},
        Case{"UPDATE audit SET action='device.ad', subject='dd4' WHERE seq=5",
             Errc::kAuditTampered},
        Case{"DELETE FROM audit WHERE seq=3", Errc::kAuditTampered},
        Case{"DELETE FROM audit WHERE seq=1", Errc::kAuditTampered},
        Case{"UPDATE audit SET network='net-b.sally'", Errc::kInternal},
        Case{"UPDATE change_log SET entry=x'00' WHERE version=3", Errc::kLogTampered},
        Case{"DELETE FROM change_log WHERE version=2", Errc::kLogTampered}}) {
    fill();
    sqlite3* db = nullptr;
    sqlite3_open(path.c_str(), &db);
    EXPECT_EQ(sqlite3_exec(db, c.sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
    auto s = must(open_sqlite(path, kHooks));
    if (c.code == Errc::kInternal) {
      EXPECT_TRUE(must(s->read(kB))->verify_chains().error().is(Errc::kAuditTampered)) << c.sql;
    } else {
      EXPECT_TRUE(must(s->read(kA))->verify_chains().error().is(c.code)) << c.sql;
    }
  }
}

TEST(Store, FileIsPrivateAndANewerSchemaIsRefused) {
  const TempDir dir;
  const std::string path = dir.path + "/c.db";
  must(open_sqlite(path, kHooks));
  struct stat st{};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777u, 0600u);
  sqlite3* db = nullptr;
  sqlite3_open(path.c_str(), &db);
  sqlite3_exec(db, "PRAGMA user_version=99", nullptr, nullptr, nullptr);
  sqlite3_close(db);
  EXPECT_TRUE(open_sqlite(path, kHooks).error().is(Errc::kNewerSchema));
}

TEST(Store, UsageIsCountedOncePerBatchAndSummed) {
  auto s = must(open_sqlite(":memory:", kHooks));
  const Bytes epoch(16, 1);
  const Bytes other(16, 2);
  const auto add = [&](const NetworkId& net, const Bytes& of, std::uint64_t sequence,
                       const std::vector<Usage>& rows) {
    auto tx = must(s->begin(net, 1'000));
    const bool counted = must(tx->add_usage("r", of, sequence, rows));
    EXPECT_TRUE(tx->commit());  // without an audit row
    return counted;
  };
  const std::vector<Usage> rows = {{100, "d1", "s1", 10, 20, 1, 5}, {100, "d2", "s1", 1, 1, 1, 1}};
  EXPECT_TRUE(add(kA, epoch, 1, rows));
  EXPECT_FALSE(add(kA, epoch, 1, rows));
  EXPECT_TRUE(add(kA, epoch, 2, {{101, "d1", "s1", 5, 5, 0, 5}, {101, "d1", "s2", 7, 0, 1, 0}}));
  EXPECT_FALSE(add(kA, epoch, 1, rows));
  EXPECT_TRUE(add(kA, other, 1, {{101, "d1", "s1", 1, 0, 0, 0}}));  // the router was restarted
  EXPECT_TRUE(add(kB, epoch, 1, rows));
  const auto sums = [&](const UsageQuery& q) {
    std::string out;
    auto r = must(s->read(kA));
    for (const auto& u : must(r->usage(q, {})))
      out += std::to_string(u.day) + "/" + u.device + "/" + u.service + "=" +
             std::to_string(u.sent) + "+" + std::to_string(u.received) + "*" +
             std::to_string(u.circuits) + " ";
    return out;
  };
  EXPECT_EQ(sums({.from = 0, .to = 200}), "0/d1/s1=16+25*1 0/d1/s2=7+0*1 0/d2/s1=1+1*1 ");
  EXPECT_EQ(sums({.device = "d2", .from = 0, .to = 200}), "0/d2/s1=1+1*1 ");
  EXPECT_EQ(sums({.service = "s1", .from = 101, .to = 101, .by_day = true}), "101/d1/s1=6+5*0 ");
  {
    auto tx = must(s->begin(kA, 2'000));
    EXPECT_TRUE(tx->expire_usage(101, 1'001));
    EXPECT_TRUE(tx->commit());
  }
  EXPECT_EQ(sums({.from = 0, .to = 200}), "0/d1/s1=6+5*0 0/d1/s2=7+0*1 ");
}

// A child commits and reports each id; it is killed at a random moment. What it reported is there.
TEST(Store, KilledWriterKeepsEveryAcknowledgedRow) {
  SeededRandom random(7);
  const TempDir dir;
  const std::string path = dir.path + "/c.db";
  std::set<std::string> acknowledged;
  for (int round = 0; round < 20; ++round) {
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(fds[0]);
      auto s = open_sqlite(path, kHooks);
      if (!s) _exit(1);
      for (std::uint32_t i = 0;; ++i) {
        const std::string id = std::to_string(round) + "-" + std::to_string(i);
        auto tx = (*s)->begin(kA, 10);
        if (!tx || !(*tx)->put_identity(device(id, id)) || !(*tx)->audit("a", "device.add", id) ||
            !(*tx)->append_op(as_bytes(id)) || !(*tx)->commit())
          _exit(1);
        const std::string line = id + "\n";
        if (write(fds[1], line.data(), line.size()) < 0) _exit(1);
      }
    }
    close(fds[1]);
    // Kill after a random number of acknowledgements, at a random point of the work that follows.
    std::size_t lines = 0;
    const std::size_t until = 1 + random.below(12);
    std::string text;
    char buffer[256];
    while (lines < until) {
      const ssize_t n = read(fds[0], buffer, sizeof buffer);
      ASSERT_GT(n, 0);
      text.append(buffer, static_cast<std::size_t>(n));
      lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
    }
    for (std::uint64_t spin = random.below(200'000); spin > 0; --spin) asm volatile("");
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    for (ssize_t n = 0; (n = read(fds[0], buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(n));
    close(fds[0]);
    for (std::size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos;
         at = end + 1)
      acknowledged.insert(text.substr(at, end - at));
  }
  auto s = must(open_sqlite(path, kHooks));
  auto r = must(s->read(kA));
  EXPECT_GE(acknowledged.size(), 20u);
  for (const auto& id : acknowledged) EXPECT_TRUE(must(r->identity(id))) << id;
  EXPECT_GE(must(r->verify_chains()), 2 * acknowledged.size());
}

TEST(Store, APartIsUndoneWithoutTheRest) {
  auto s = must(open_sqlite(":memory:", kHooks));
  auto tx = must(s->begin(kA, 10));
  OK(tx->begin_part());
  OK(tx->put_identity(device("d1", "pump")));
  OK(tx->audit("t", "device.add", "d1"));
  OK(tx->end_part(true));
  OK(tx->begin_part());
  OK(tx->put_identity(device("d2", "valve")));
  EXPECT_FALSE(tx->put_identity(device("d3", "valve"))) << "the name is taken";
  OK(tx->end_part(false));
  OK(tx->begin_part());
  OK(tx->put_identity(device("d4", "tank")));
  EXPECT_TRUE(tx->end_part(true).error().is(Errc::kNoAudit)) << "of its own, each part";
  OK(tx->commit());
  tx.reset();
  const auto r = must(s->read(kA));
  EXPECT_TRUE(must(r->identity("d1")));
  EXPECT_FALSE(must(r->identity("d2")));
  EXPECT_FALSE(must(r->identity("d4")));
  EXPECT_TRUE(r->verify_chains());
}

// ---- the audit: what was altered or taken out is named, and pruning keeps it whole

struct Audited {
  Audited() : path(dir.path + "/db"), s(must(open_sqlite(path, kHooks))) {
    for (int i = 1; i <= 6; ++i) {
      auto tx = must(s->begin(kA, 1'000 * i));
      EXPECT_TRUE(tx->audit("admin/a", "device.add", "d" + std::to_string(i), "{}"));
      EXPECT_TRUE(tx->commit());
    }
  }
  /// What somebody with the file does to it.
  void meddle(const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
    char* why = nullptr;
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &why), SQLITE_OK) << why;
    sqlite3_close(db);
  }
  std::string verdict() {
    const auto r = must(s->read(kA))->verify_chains();
    return r ? std::to_string(*r) + " rows" : r.error().context();
  }
  std::uint64_t prune(std::int64_t before_ms) {
    auto tx = must(s->begin(kA, 9'000));
    const auto n = must(tx->prune_audit("admin/a", before_ms));
    if (n > 0) {
      EXPECT_TRUE(tx->commit());
    }
    return n;
  }
  TempDir dir;
  std::string path;
  std::unique_ptr<Store> s;
};

TEST(Audit, WhatWasAlteredOrTakenOutIsNamed) {
  struct Row {
    const char* sql;
    const char* verdict;
  };
  for (const Row& r : {
           Row{"UPDATE audit SET subject='d9' WHERE seq=4", "audit row 4 was altered"},
           Row{"UPDATE audit SET at_ms=at_ms+1 WHERE seq=2", "audit row 2 was altered"},
           Row{"UPDATE audit SET hash=zeroblob(32) WHERE seq=6", "audit row 6 was altered"},
           Row{"DELETE FROM audit WHERE seq=3", "audit row 3 is missing"},
           Row{"DELETE FROM audit WHERE seq=1", "audit row 1 is missing"},
           Row{"DELETE FROM audit WHERE seq<3; INSERT INTO audit_base SELECT network, seq-1, "
               "zeroblob(32) FROM audit WHERE seq=3",
               "audit row 3 was altered"},
       }) {
    Audited a;
    EXPECT_EQ(a.verdict(), "6 rows");
    a.meddle(r.sql);
    EXPECT_EQ(a.verdict(), r.verdict) << r.sql;
  }
}

TEST(Audit, PruningKeepsTheChainWholeAndSaysSo) {
  Audited a;
  EXPECT_EQ(a.prune(500), 0u);
  EXPECT_EQ(a.prune(3'500), 3u);
  EXPECT_EQ(a.verdict(), "4 rows");
  {
    const auto tx = must(a.s->read(kA));
    EXPECT_EQ(must(tx->audit_base()).seq, 3u);
    const auto rows = must(tx->audit_after(0, 10));
    ASSERT_EQ(rows.size(), 4u);
    EXPECT_EQ(rows.front().seq, 4u);
    EXPECT_EQ(rows.back().action, "audit.prune");
    EXPECT_EQ(must(tx->audit_after(5, 1)).front().seq, 6u);
  }
  // Again, the row of the first pruning with it: never all, and the numbers go on.
  EXPECT_EQ(a.prune(INT64_MAX), 3u);
  EXPECT_EQ(a.verdict(), "2 rows");
  EXPECT_EQ(must(must(a.s->read(kA))->audit_rows(0, 1)).front().seq, 8u);
  // A beginning that no row tells of: rows cut off the front by somebody who knows the form.
  a.meddle(
      "UPDATE audit_base SET seq=7, hash=(SELECT hash FROM audit WHERE seq=7); "
      "DELETE FROM audit WHERE seq=7");
  EXPECT_EQ(a.verdict(), "audit row 7 and those before it are missing, and no row says why");
}

TEST(Certificates, AreListedByTheirEndAndUnprovenOnesFound) {
  auto s = must(open_sqlite(":memory:", kHooks));
  auto tx = must(s->begin(kA, 10));
  OK(tx->put_identity(device("d1", "pump")));
  const auto put = [&](const std::string& serial, std::int64_t issued_ms, std::int64_t end_s,
                       std::int64_t revoked_ms, const std::string& request, std::int64_t used_ms) {
    CertificateRow r;
    r.serial = serial;
    r.identity = "d1";
    r.issued_ms = issued_ms;
    r.not_after_s = end_s;
    r.revoked_ms = revoked_ms;
    r.request = request;
    r.used_ms = used_ms;
    ASSERT_TRUE(tx->put_certificate(r));
  };
  put("a1", 100, 50, 0, "", 0);
  put("b2", 200, 40, 7, "", 0);
  put("c3", 300, 60, 0, "h1", 0);
  const auto serials = [](const std::vector<CertificateRow>& rows) {
    std::string all;
    for (const auto& r : rows) all += r.serial + " ";
    return all;
  };
  EXPECT_EQ(serials(must(tx->certificates({}, {}))), "b2 a1 c3 ");
  EXPECT_EQ(serials(must(tx->certificates({.identity = "d1", .after_s = 45}, {}))), "a1 c3 ");
  EXPECT_EQ(serials(must(tx->certificates({.identity = {}, .after_s = 1, .before_s = 60}, {}))),
            "a1 ");
  EXPECT_EQ(serials(must(tx->certificates({.identity = "d2"}, {}))), "");
  EXPECT_EQ(serials(must(tx->certificates({}, {.limit = 1, .offset = 1}))), "a1 ");
  EXPECT_EQ(serials(must(tx->unproven(301, 10))), "c3 ");
  EXPECT_EQ(serials(must(tx->unproven(300, 10))), "") << "not old enough";
  EXPECT_EQ(serials(must(tx->unproven(301, 55))), "") << "nothing older is good";
  put("c3", 300, 60, 0, "h1", 9);
  EXPECT_EQ(serials(must(tx->unproven(301, 10))), "") << "used";
}

}  // namespace
}  // namespace sally::store
