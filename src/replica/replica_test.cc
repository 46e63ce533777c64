// SPDX-License-Identifier: Apache-2.0
#include "replica/replica.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <functional>

#include "base/fs.h"
#include "crypto/hash.h"
#include "replica/cards.h"
#include "replica/writer.h"
#include "trust/test_world.h"

namespace sally::replica {
namespace {

using trust::TestWorld;

const TestWorld& world() {
  static const TestWorld w;
  return w;
}
const TestWorld& other_world() {
  static const TestWorld w("net-b.sally");
  return w;
}

template <typename R>
std::string code(const R& r) {
  return r ? "ok" : std::string(r.error().code());
}

wire::StateOp service(const std::string& id, const std::string& name,
                      const TestWorld& w = world()) {
  auto r = w.record();
  r.id = id;
  r.name = name;
  return {wire::PutService{crypto::must(trust::make_service_record(r, *w.signer.key))}};
}
wire::StateOp identity(const std::string& id, wire::Standing s, std::uint64_t epoch) {
  return {wire::IdentityState{id, s, epoch, epoch, 5}};
}
wire::StateOp router(const std::string& id) {
  return {wire::RouterEntry{id, id + "-name", {"127.0.0.1:3022"}}};
}

LogWriter make_writer(const TestWorld& w = world()) {
  return LogWriter(w.pki.network, w.signer.key, {w.signer_chain()});
}

struct Pair {
  LogWriter writer = make_writer();
  Replica replica{world().anchors};
  std::int64_t now = world().now_ms;

  wire::StateUpdate next() {
    return crypto::must(
        writer.update_for(replica.state()->version(), replica.state()->hash(), now));
  }
  Result<Diff> sync() { return replica.apply(wire::encode(next()), now); }
};

struct TempDir {
  TempDir() {
    char name[] = "/tmp/sally-replica-XXXXXX";
    path = mkdtemp(name);
  }
  ~TempDir() {
    (void)fs::remove_file(path + "/state");
    rmdir(path.c_str());
  }
  std::string path;
};

TEST(Replica, FollowsEntriesAndSaysWhatChanged) {
  Pair p;
  EXPECT_FALSE(p.replica.state()->fresh(p.now, 86'400'000));
  ASSERT_EQ(code(p.writer.append(router("r-1"))), "ok");
  ASSERT_EQ(code(p.writer.append(service("s-1", "plant-mqtt"))), "ok");
  ASSERT_EQ(code(p.writer.append(identity("d-9", wire::Standing::kSuspended, 1))), "ok");
  ASSERT_EQ(code(p.writer.append({wire::RevokedCertificate{"4f01", 9, 5}})), "ok");
  auto diff = p.sync();
  ASSERT_TRUE(diff) << diff.error().text();
  EXPECT_EQ(diff->from, 0U);
  EXPECT_EQ(diff->to, 4U);
  EXPECT_EQ(diff->services, std::set<std::string>{"s-1"});
  EXPECT_EQ(diff->identities, std::set<std::string>{"d-9"});
  EXPECT_EQ(diff->routers, std::set<std::string>{"r-1"});
  EXPECT_EQ(diff->serials, std::set<std::string>{"4f01"});
  EXPECT_EQ(diff->unverified_services, 0U);

  const auto old = p.replica.state();
  EXPECT_EQ(old->version(), 4U);
  ASSERT_NE(old->service("s-1", p.now), nullptr);
  EXPECT_EQ(old->service_named("plant-mqtt", p.now), old->service("s-1", p.now));
  EXPECT_EQ(old->service("s-1", world().record().not_after_ms), nullptr) << "expired";
  EXPECT_EQ(old->service("s-2", p.now), nullptr);
  EXPECT_TRUE(old->router_known("r-1"));
  EXPECT_FALSE(old->router_known("r-2"));
  EXPECT_TRUE(old->serial_revoked("4f01"));
  EXPECT_FALSE(old->identity_alive("d-9", 1));
  EXPECT_TRUE(old->identity_alive("d-1", 0)) << "nothing special is known of it";
  EXPECT_FALSE(old->identity_alive("", 0));
  EXPECT_TRUE(old->fresh(p.now + 1'000, 1'000));
  EXPECT_FALSE(old->fresh(p.now + 1'001, 1'000));

  ASSERT_EQ(code(p.writer.append(identity("d-9", wire::Standing::kActive, 2))), "ok");
  ASSERT_EQ(code(p.writer.append({wire::RemoveService{"s-1"}})), "ok");
  ASSERT_EQ(code(p.writer.append({wire::RemoveRouter{"r-1"}})), "ok");
  diff = p.sync();
  ASSERT_TRUE(diff) << diff.error().text();
  EXPECT_EQ(diff->from, 4U);
  EXPECT_EQ(diff->services, std::set<std::string>{"s-1"});
  EXPECT_TRUE(p.replica.state()->identity_alive("d-9", 2));
  EXPECT_FALSE(p.replica.state()->identity_alive("d-9", 1)) << "an old card stays dead";
  EXPECT_EQ(p.replica.state()->service("s-1", p.now), nullptr);
  EXPECT_NE(old->service("s-1", p.now), nullptr) << "a state that somebody holds does not change";

  // Heads only: nothing changes but the freshness.
  p.now += 10'000;
  diff = p.sync();
  ASSERT_TRUE(diff);
  EXPECT_TRUE(diff->empty());
  EXPECT_EQ(p.replica.state()->head_time_ms(), p.now);
}

TEST(Replica, NeverBackNeverSideways) {
  Pair p;
  ASSERT_EQ(code(p.writer.append(router("r-1"))), "ok");
  const auto v1 = p.next();
  ASSERT_EQ(code(p.replica.apply(v1, p.now)), "ok");
  ASSERT_EQ(code(p.replica.apply(v1, p.now)), "ok") << "the same again is harmless";
  ASSERT_EQ(code(p.writer.append(router("r-2"))), "ok");
  p.now += 1'000;
  ASSERT_EQ(code(p.sync()), "ok");
  const auto held = p.replica.state();

  EXPECT_EQ(code(p.replica.apply(v1, p.now)), "replica.rollback");
  // An older head changes nothing: it would stretch the grace.
  auto old_head = crypto::must(p.writer.update_for(2, held->hash(), p.now - 500));
  const auto unchanged = p.replica.apply(old_head, p.now);
  ASSERT_EQ(code(unchanged), "ok");
  EXPECT_TRUE(unchanged->older_head && unchanged->empty());
  EXPECT_EQ(p.replica.state(), held);
  auto future = crypto::must(p.writer.update_for(2, held->hash(), p.now + 60'001));
  EXPECT_EQ(code(p.replica.apply(future, p.now)), "trust.time");

  // With something new it is taken, and makes nothing younger: a writer whose clock was set back
  // still revokes.
  {
    Pair q;
    ASSERT_EQ(code(q.writer.append(router("r-1"))), "ok");
    ASSERT_EQ(code(q.sync()), "ok");
    ASSERT_EQ(code(q.writer.append(router("r-2"))), "ok");
    const auto late =
        crypto::must(q.writer.update_for(1, q.replica.state()->hash(), q.now - 3'600'000));
    const auto taken = q.replica.apply(late, q.now);
    ASSERT_EQ(code(taken), "ok");
    EXPECT_TRUE(taken->older_head);
    EXPECT_TRUE(q.replica.state()->router_known("r-2"));
    EXPECT_EQ(q.replica.state()->head_time_ms(), q.now);
  }

  // Another history: same versions, other entries.
  auto fork = make_writer();
  ASSERT_EQ(code(fork.append(router("r-8"))), "ok");
  ASSERT_EQ(code(fork.append(router("r-9"))), "ok");
  EXPECT_EQ(code(p.replica.apply(crypto::must(fork.update_for(2, fork.hash(), p.now)), p.now)),
            "replica.fork");
  EXPECT_EQ(code(p.replica.apply(crypto::must(fork.update_for(2, held->hash(), p.now)), p.now)),
            "replica.fork");
  // A snapshot of an older version.
  auto behind = make_writer();
  ASSERT_EQ(code(behind.append(router("r-1"))), "ok");
  EXPECT_EQ(code(p.replica.apply(crypto::must(behind.update_for(1, {}, p.now)), p.now)),
            "replica.rollback");
  // A gap.
  ASSERT_EQ(code(p.writer.append(router("r-3"))), "ok");
  ASSERT_EQ(code(p.writer.append(router("r-4"))), "ok");
  auto gap = p.next();
  gap.entries.erase(gap.entries.begin());
  EXPECT_EQ(code(p.replica.apply(gap, p.now)), "replica.gap");
  auto none = p.next();
  none.entries.clear();
  EXPECT_EQ(code(p.replica.apply(none, p.now)), "replica.gap");
  auto headless = p.next();
  headless.head.clear();
  EXPECT_EQ(code(p.replica.apply(headless, p.now)), "replica.no_head");
  // Another network's writer, even with our name on it, is nobody.
  auto foreign = make_writer(other_world());
  ASSERT_EQ(code(foreign.append(router("r-1"))), "ok");
  EXPECT_EQ(code(p.replica.apply(crypto::must(foreign.update_for(0, {}, p.now)), p.now)),
            "trust.wrong_network");
  LogWriter liar(world().pki.network, other_world().signer.key, {other_world().signer_chain()});
  ASSERT_EQ(code(liar.append(router("r-1"))), "ok");
  EXPECT_EQ(code(p.replica.apply(crypto::must(liar.update_for(0, {}, p.now)), p.now)),
            "trust.unknown_key");
  // The reader is ahead: the writer says so.
  EXPECT_EQ(code(behind.update_for(2, held->hash(), p.now)), "replica.ahead");

  EXPECT_EQ(p.replica.state(), held) << "after a refusal the old state stands";
  EXPECT_EQ(code(p.sync()), "ok");
}

TEST(Replica, EveryAlteredByteIsRefused) {
  Pair p;
  ASSERT_EQ(code(p.writer.append(router("r-1"))), "ok");
  ASSERT_EQ(code(p.writer.append(service("s-1", "a"))), "ok");
  const auto entries = p.next();
  const auto snapshot = crypto::must(p.writer.update_for(1, {}, p.now));
  ASSERT_FALSE(snapshot.snapshot.empty());
  for (const auto& update : {entries, snapshot}) {
    auto clean = Replica(world().anchors);
    ASSERT_EQ(code(clean.apply(update, p.now)), "ok");
    const auto attack = [&](const std::function<Bytes&(wire::StateUpdate&)>& part,
                            const char* what) {
      const auto size = [&] {
        auto u = update;
        return part(u).size();
      }();
      for (std::size_t i = 0; i < size; i += 1 + size / 97) {
        auto u = update;
        part(u)[i] ^= 0x11;
        Replica r(world().anchors);
        const auto got = r.apply(u, p.now);
        EXPECT_FALSE(got) << what << " byte " << i;
        EXPECT_EQ(r.state()->version(), 0U);
      }
    };
    attack([](auto& u) -> Bytes& { return u.head; }, "head");
    if (update.snapshot.empty()) {
      attack([](auto& u) -> Bytes& { return u.entries[0]; }, "entry 0");
      attack([](auto& u) -> Bytes& { return u.entries[1]; }, "entry 1");
    } else {
      attack([](auto& u) -> Bytes& { return u.snapshot; }, "snapshot");
      attack([](auto& u) -> Bytes& { return u.snapshot_head; }, "snapshot head");
    }
  }
  // Order and omission.
  auto swapped = entries;
  std::swap(swapped.entries[0], swapped.entries[1]);
  EXPECT_FALSE(Replica(world().anchors).apply(swapped, p.now));
  auto bare = snapshot;
  bare.snapshot_head.clear();
  EXPECT_EQ(code(Replica(world().anchors).apply(bare, p.now)), "replica.snapshot");
  auto no_signer = entries;
  no_signer.signers.clear();
  EXPECT_EQ(code(Replica(world().anchors).apply(no_signer, p.now)), "trust.unknown_key");
}

TEST(Replica, AServiceNobodyVouchesForIsAbsent) {
  Pair p;
  auto r = world().record();
  ASSERT_EQ(code(p.writer.append({wire::PutService{
                crypto::must(trust::make_service_record(r, *world().device.key))}})),
            "ok");
  const auto diff = p.sync();
  ASSERT_TRUE(diff) << diff.error().text();
  EXPECT_EQ(diff->unverified_services, 1U);
  EXPECT_EQ(p.replica.state()->service("s-1", p.now), nullptr);
  EXPECT_EQ(code(p.writer.append(service("s-9", "x", other_world()))), "trust.wrong_network");
}

TEST(Replica, ARevokedSignerIsNotTakenBack) {
  Pair p;
  ASSERT_EQ(
      code(p.writer.append({wire::RevokedCertificate{world().signer.cert.serial_hex(), 9, 5}})),
      "ok");
  ASSERT_EQ(code(p.sync()), "ok");
  EXPECT_TRUE(p.replica.state()->signers().empty());
  ASSERT_EQ(code(p.writer.append(router("r-1"))), "ok");
  EXPECT_EQ(code(p.sync()), "trust.unknown_key");
}

TEST(Replica, DiskHoldsSignedMaterial) {
  const TempDir dir;
  const std::string file = dir.path + "/state";
  Pair p;
  EXPECT_FALSE(p.replica.save_due(p.now));
  ASSERT_EQ(code(p.writer.append(service("s-1", "a"))), "ok");
  ASSERT_EQ(code(p.sync()), "ok");
  EXPECT_TRUE(p.replica.save_due(p.now));
  ASSERT_EQ(code(p.replica.save(file, p.now)), "ok");
  EXPECT_FALSE(p.replica.save_due(p.now));
  p.now += 10'000;
  ASSERT_EQ(code(p.sync()), "ok");
  EXPECT_FALSE(p.replica.save_due(p.now)) << "a head alone can wait";
  EXPECT_TRUE(p.replica.save_due(p.now + 300'000));
  ASSERT_EQ(code(p.replica.save(file, p.now)), "ok");

  Replica again(world().anchors);
  EXPECT_EQ(code(again.load(dir.path + "/none", p.now)), "fs.not_found");
  ASSERT_EQ(code(again.load(file, p.now)), "ok");
  EXPECT_EQ(again.state()->version(), 1U);
  EXPECT_EQ(again.state()->hash(), p.writer.hash());
  EXPECT_EQ(again.state()->head_time_ms(), p.now);
  EXPECT_NE(again.state()->service("s-1", p.now), nullptr);
  EXPECT_FALSE(again.save_due(p.now));
  // It goes on from there.
  ASSERT_EQ(code(p.writer.append(router("r-1"))), "ok");
  EXPECT_EQ(
      code(again.apply(crypto::must(p.writer.update_for(1, again.state()->hash(), p.now)), p.now)),
      "ok");

  // Other roots: not believed. Damage: refused, empty. (Of a file in one piece; see below.)
  ASSERT_EQ(code(p.replica.save(file, p.now)), "ok");
  Replica foreign(other_world().anchors);
  EXPECT_NE(code(foreign.load(file, p.now)), "ok");
  const auto bytes = *fs::read_file(file);
  for (std::size_t i = 0; i < bytes.size(); i += 1 + bytes.size() / 61) {
    auto bad = bytes;
    bad[i] ^= 0x40;
    ASSERT_EQ(code(fs::write_file_atomic(file, bad)), "ok");
    EXPECT_EQ(code(again.load(file, p.now)), "replica.damaged") << i;
    EXPECT_EQ(again.state()->version(), 0U);
  }
  for (std::size_t keep : {std::size_t{0}, std::size_t{20}, bytes.size() - 1}) {
    ASSERT_EQ(code(fs::write_file_atomic(file, ByteView(bytes).first(keep))), "ok");
    EXPECT_EQ(code(again.load(file, p.now)), "replica.damaged") << keep;
  }
}

// What came since stands behind the first piece, so that a change costs its own size.
TEST(Replica, DiskGrowsByWhatChanged) {
  const TempDir dir;
  const std::string file = dir.path + "/state";
  Pair p;
  for (int i = 0; i < 2'000; ++i)
    ASSERT_EQ(
        code(p.writer.append(identity("d-" + std::to_string(i), wire::Standing::kRevoked, 1))),
        "ok");
  ASSERT_EQ(code(p.sync()), "ok");
  ASSERT_EQ(code(p.sync()), "ok");  // the writer lets us forget the entries
  ASSERT_EQ(code(p.replica.save(file, p.now)), "ok");
  const auto size = [&] { return fs::read_file(file).value().size(); };
  const std::size_t whole = size();
  std::vector<std::size_t> ends{whole};
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(
        code(p.writer.append(identity("e-" + std::to_string(i), wire::Standing::kRevoked, 1))),
        "ok");
    p.now += 10'000;
    ASSERT_EQ(code(p.sync()), "ok");
    p.now += 10'000;
    ASSERT_EQ(code(p.sync()), "ok");  // a head alone: only the last one is kept
    ASSERT_EQ(code(p.replica.save(file, p.now)), "ok");
    EXPECT_LT(size(), ends.back() + 1'500);
    ends.push_back(size());
  }
  const auto bytes = fs::read_file(file).value();
  Replica again(world().anchors);
  ASSERT_EQ(code(again.load(file, p.now)), "ok");
  EXPECT_EQ(again.state()->version(), 2'003U);
  EXPECT_EQ(again.state()->head_time_ms(), p.now);
  EXPECT_FALSE(again.state()->identity_alive("e-2", 9));
  // It goes on behind, also after it was loaded.
  ASSERT_EQ(code(p.writer.append(identity("f", wire::Standing::kRevoked, 1))), "ok");
  const auto more = p.writer.update_for(2'003, again.state()->hash(), p.now).value();
  ASSERT_EQ(code(again.apply(more, p.now)), "ok");
  ASSERT_EQ(code(again.save(file, p.now)), "ok");
  EXPECT_LT(size(), bytes.size() + 1'500);
  ASSERT_EQ(code(again.load(file, p.now)), "ok");
  EXPECT_EQ(again.state()->version(), 2'004U);

  // Cut off anywhere in a later piece: what was saved before it. It is written whole the next time.
  for (std::size_t keep = whole; keep < bytes.size(); keep += keep == whole ? 36 : 97) {
    ASSERT_EQ(code(fs::write_file_atomic(file, ByteView(bytes).first(keep))), "ok");
    ASSERT_EQ(code(again.load(file, p.now)), "ok") << keep;
    const auto pieces = std::ranges::upper_bound(ends, keep) - ends.begin();
    EXPECT_GE(again.state()->version(), 2'000U + static_cast<std::uint64_t>(pieces) - 1);
    ASSERT_EQ(
        code(again.apply(
            p.writer.update_for(again.state()->version(), again.state()->hash(), p.now).value(),
            p.now)),
        "ok");
    ASSERT_EQ(code(again.save(file, p.now)), "ok");
    ASSERT_EQ(code(again.load(file, p.now)), "ok") << keep;
    EXPECT_EQ(again.state()->version(), 2'004U);
  }
  // A bit elsewhere than in a length: refused, empty.
  for (std::size_t i = whole + 4; i < ends[1]; i += 41) {
    auto bad = bytes;
    bad[i] ^= 0x40;
    ASSERT_EQ(code(fs::write_file_atomic(file, bad)), "ok");
    const auto loaded = again.load(file, p.now);
    if (loaded) {
      EXPECT_LE(again.state()->version(), 2'003U);  // a length of a later piece: it is cut off
    } else {
      EXPECT_EQ(code(loaded), "replica.damaged") << i;
      EXPECT_EQ(again.state()->version(), 0U);
    }
  }
  // Pieces left out or in another order are no history.
  Bytes reordered(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(whole));
  append(reordered, ByteView(bytes).subspan(ends[1]));
  ASSERT_EQ(code(fs::write_file_atomic(file, reordered)), "ok");
  EXPECT_EQ(code(again.load(file, p.now)), "replica.gap");
  EXPECT_EQ(again.state()->version(), 0U);
}

TEST(Replica, AFileOfTheFormatBeforeIsRead) {
  const TempDir dir;
  const std::string file = dir.path + "/state";
  Pair p;
  ASSERT_EQ(code(p.writer.append(router("r-1"))), "ok");
  const Bytes body = wire::encode(p.next());
  Bytes old = to_bytes(std::string_view("sally-replica-1\n"));
  append(old, crypto::sha256(body));
  append(old, body);
  ASSERT_EQ(code(fs::write_file_atomic(file, old)), "ok");
  ASSERT_EQ(code(p.replica.load(file, p.now)), "ok");
  EXPECT_EQ(p.replica.state()->version(), 1U);
  ASSERT_EQ(code(p.writer.append(router("r-2"))), "ok");
  ASSERT_EQ(code(p.sync()), "ok");
  ASSERT_EQ(code(p.replica.save(file, p.now)), "ok");
  Replica again(world().anchors);
  ASSERT_EQ(code(again.load(file, p.now)), "ok");
  EXPECT_EQ(again.state()->version(), 2U);
}

// Copies share what did not change; each is what it was.
TEST(ShardedMap, CopiesAreIndependent) {
  SeededRandom random(7);
  ShardedMap<int> map;
  std::map<std::string, int> plain;
  std::vector<std::pair<ShardedMap<int>, std::map<std::string, int>>> copies;
  for (int i = 0; i < 3'000; ++i) {
    const auto id = random.hex(1 + random.below(2));
    map.put(id, i);
    plain[id] = i;
    if (i % 300 == 0) copies.emplace_back(map, plain);
    if (i % 700 == 0) map = copies.back().first, plain = copies.back().second;
  }
  copies.emplace_back(map, plain);
  for (const auto& [one, other] : copies) {
    EXPECT_EQ(one.size(), other.size());
    std::map<std::string, int> seen;
    std::string before;
    one.for_each([&](const std::string& id, int value) {
      EXPECT_LT(before, id);
      before = id;
      seen[id] = value;
    });
    EXPECT_EQ(seen, other);
    std::set<std::string> differ;
    ShardedMap<int>::for_each_difference(one, map, [&](const auto& id) { differ.insert(id); });
    for (const auto& [id, value] : plain)
      EXPECT_EQ(differ.contains(id), !other.contains(id) || other.at(id) != value);
  }
  EXPECT_EQ(map.find("none"), nullptr);
}

// Random histories: after any mix of updates a reader's tables are the writer's, late readers get
// there by snapshots, and what is on disk leads to the same place.
TEST(Replica, FollowsAnyHistory) {
  const TempDir dir;
  const std::string file = dir.path + "/state";
  SeededRandom random(20'260'101);
  const auto signed_service = [] {
    std::vector<wire::StateOp> out;
    for (int i = 0; i < 8; ++i)
      out.push_back(service("s-" + std::to_string(i), "n-" + std::to_string(i)));
    return out;
  }();
  Pair p;
  Replica late(world().anchors);
  std::size_t compactions = 0;
  for (int round = 0; round < 120; ++round) {
    const auto ops = random.below(round % 10 == 0 ? 400 : 6);
    for (std::uint64_t i = 0; i < ops; ++i) {
      const auto n = std::to_string(random.below(8));
      wire::StateOp op;
      switch (random.below(6)) {
        case 0:
          op = router("r-" + n);
          break;
        case 1:
          op = {wire::RemoveRouter{"r-" + n}};
          break;
        case 2:
          op = signed_service[random.below(8)];
          break;
        case 3:
          op = {wire::RemoveService{"s-" + n}};
          break;
        case 4:
          op = identity("d-" + std::to_string(random.below(40)),
                        static_cast<wire::Standing>(1 + random.below(3)), random.below(9));
          break;
        default:
          op = {wire::RevokedCertificate{random.hex(4), 9, 5}};
          break;
      }
      ASSERT_EQ(code(p.writer.append(op)), "ok");
    }
    p.now += 10'000;
    ASSERT_EQ(code(p.sync()), "ok");
    const auto update = p.next();
    compactions += update.snapshot_head.empty() ? 0 : 1;
    ASSERT_EQ(code(p.replica.apply(update, p.now)), "ok");
    ASSERT_EQ(p.replica.state()->version(), p.writer.version());
    ASSERT_EQ(p.replica.state()->hash(), p.writer.hash());
    ASSERT_EQ(p.replica.state()->services().size(), p.writer.tables().services().size());
    ASSERT_EQ(p.replica.state()->routers(), p.writer.tables().routers());
    p.writer.tables().identities().for_each([&](const std::string& id, const auto& row) {
      ASSERT_NE(p.replica.state()->identity(id), nullptr);
      ASSERT_EQ(*p.replica.state()->identity(id), row);
    });
    if (round % 17 == 0) {
      const auto u =
          crypto::must(p.writer.update_for(late.state()->version(), late.state()->hash(), p.now));
      ASSERT_EQ(code(late.apply(u, p.now)), "ok");
      Replica fresh(world().anchors);
      const auto all = crypto::must(p.writer.update_for(0, {}, p.now));
      ASSERT_EQ(code(fresh.apply(all, p.now)), "ok");
      ASSERT_EQ(fresh.state()->routers(), late.state()->routers());
      ASSERT_EQ(code(p.replica.save(file, p.now)), "ok");
      Replica disk(world().anchors);
      ASSERT_EQ(code(disk.load(file, p.now)), "ok");
      ASSERT_EQ(disk.state()->hash(), p.writer.hash());
      ASSERT_EQ(disk.state()->routers(), p.writer.tables().routers());
    }
  }
  EXPECT_GT(compactions, 2U);
}

TEST(Replica, ALateReaderGetsASnapshotAndADivergedOneNotices) {
  Pair p;
  for (int i = 0; i < 9'000; ++i)
    ASSERT_EQ(code(p.writer.append(router("r-" + std::to_string(i % 50)))), "ok");
  const auto update = p.next();
  EXPECT_FALSE(update.snapshot.empty());
  EXPECT_TRUE(update.entries.empty());
  const auto diff = p.replica.apply(update, p.now);
  ASSERT_TRUE(diff) << diff.error().text();
  EXPECT_EQ(diff->routers.size(), 50U);
  EXPECT_EQ(p.replica.state()->version(), 9'000U);
  // A writer whose tables are not what its log says (a bug) is noticed at the next signed snapshot
  // head.
  auto head = p.next();
  const wire::SnapshotHead lie{world().pki.network, 9'000, p.writer.hash(), {1}, p.now + 1};
  head.snapshot_head = crypto::must(trust::make_snapshot_head(lie, *world().signer.key));
  EXPECT_EQ(code(p.replica.apply(head, p.now)), "replica.diverged");
}

TEST(Replica, RevokedCertificatesThatHaveEndedAreForgotten) {
  Pair p;
  constexpr std::int64_t kDay = 86'400'000;
  for (int i = 0; i < 300; ++i) {
    const wire::RevokedCertificate row{std::to_string(i), p.now + (i % 2 == 0 ? kDay : 9 * kDay),
                                       5};
    ASSERT_EQ(code(p.writer.append({row})), "ok");
  }
  ASSERT_EQ(code(p.sync()), "ok");
  ASSERT_EQ(code(p.sync()), "ok");
  EXPECT_EQ(p.writer.tables().revoked().size(), 300U);
  Replica late(world().anchors);  // does not hear of the next compaction
  ASSERT_EQ(code(late.apply(p.writer.update_for(0, {}, p.now).value(), p.now)), "ok");

  p.now += 3 * kDay;
  const auto more = [&](const std::string& id) {
    for (int i = 0; i < 300; ++i)
      ASSERT_EQ(code(p.writer.append(router(id + std::to_string(i)))), "ok");
    ASSERT_EQ(code(p.sync()), "ok");
    ASSERT_EQ(code(p.sync()), "ok");
  };
  more("r");
  EXPECT_FALSE(p.replica.state()->serial_revoked("0"));
  EXPECT_TRUE(p.replica.state()->serial_revoked("1"));
  // Whoever missed it gets there at the next one.
  more("s");
  for (int i = 0; i < 2; ++i) {
    const auto u = p.writer.update_for(late.state()->version(), late.state()->hash(), p.now);
    ASSERT_EQ(code(late.apply(u.value(), p.now)), "ok");
  }
  EXPECT_FALSE(late.state()->serial_revoked("0"));
  EXPECT_TRUE(late.state()->serial_revoked("1"));
  // The clock was ahead, and is right again: the writer has forgotten none of them.
  p.now -= 3 * kDay;
  ASSERT_EQ(code(p.writer.append(router("t"))), "ok");
  Replica fresh(world().anchors);
  ASSERT_EQ(code(fresh.apply(p.writer.update_for(0, {}, p.now).value(), p.now)), "ok");
  EXPECT_TRUE(fresh.state()->serial_revoked("0"));
}

TEST(Writer, RefusesABrokenStore) {
  auto w = make_writer();
  const auto first = LogWriter::make_entry(1, router("r-1"));
  EXPECT_EQ(code(w.append(LogWriter::make_entry(2, router("r-1")))), "replica.chain");
  EXPECT_EQ(code(w.append(first, wire::Hash{})), "replica.chain");
  EXPECT_EQ(code(w.append(first, chain_hash({}, first))), "ok");
  EXPECT_EQ(code(w.append(first)), "replica.chain");
  EXPECT_EQ(code(w.append(Bytes{1, 2, 3})), "wire.malformed");
  EXPECT_EQ(w.version(), 1U);
}

// Seeds of the fuzz target: SALLY_WRITE_CORPUS=tests/corpus build/dev/bin/replica_test writes them.
TEST(Replica, Corpus) {
  const char* to = std::getenv("SALLY_WRITE_CORPUS");
  if (to == nullptr) GTEST_SKIP() << "only on request";
  const std::string dir = std::string(to) + "/replica_update_fuzz/";
  ASSERT_TRUE(fs::make_dirs(dir, 0755));
  Pair p;
  ASSERT_EQ(code(p.writer.append(router("r-1"))), "ok");
  ASSERT_EQ(code(p.writer.append(service("s-1", "a"))), "ok");
  ASSERT_EQ(code(p.writer.append(identity("d-9", wire::Standing::kSuspended, 1))), "ok");
  ASSERT_EQ(code(p.writer.append({wire::RevokedCertificate{"4f01", 9, 5}})), "ok");
  ASSERT_TRUE(fs::write_file_atomic(dir + "entries", wire::encode(p.next()), 0644));
  const auto all = crypto::must(p.writer.update_for(1, {}, p.now));
  ASSERT_TRUE(fs::write_file_atomic(dir + "update", wire::encode(all), 0644));
  ASSERT_TRUE(fs::write_file_atomic(dir + "snapshot", all.snapshot, 0644));
}

TEST(CardCache, BoundedAndHonest) {
  const auto& w = world();
  const auto card = [&](const std::string& id, std::uint64_t epoch) {
    auto c = w.card(id);
    c.credential_epoch = epoch;
    return crypto::must(
        trust::verify_card(crypto::must(trust::make_card(c, *w.signer.key)), w.ctx()));
  };
  trust::TestRevocation alive;
  CardCache cache(2);
  cache.put(card("a", 2), {1});
  cache.put(card("a", 1), {2});
  EXPECT_EQ(cache.find("a", w.now_ms, alive), Bytes{1})
      << "an older card does not replace a newer one";
  cache.put(card("b", 1), {});
  EXPECT_TRUE(cache.find("a", w.now_ms, alive));
  cache.put(card("c", 1), {});
  EXPECT_EQ(cache.size(), 2U);
  EXPECT_FALSE(cache.find("b", w.now_ms, alive)) << "least recently used";
  alive.dead = {"c"};
  EXPECT_FALSE(cache.find("c", w.now_ms, alive));
  EXPECT_FALSE(cache.find("a", w.card().not_after_ms, alive));
  EXPECT_EQ(cache.size(), 0U);
}

}  // namespace
}  // namespace sally::replica
