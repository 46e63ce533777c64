// SPDX-License-Identifier: Apache-2.0
// A year in seconds: the real Renewer of many identities and the real doors over a real store, by
// one clock that the test moves from timer to timer. What carries their messages is simulated; it
// loses some.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "crypto/test_pki.h"
#include "identity/device_clock.h"
#include "identity/renew.h"
#include "loop/loop.h"
#include "pki/publish.h"
#include "pki/renew.h"
#include "trust/trust.h"

namespace sally::sim {
namespace {

using crypto::must;

constexpr std::int64_t kDayMs = 86'400'000;
constexpr std::int64_t kStart = 1'800'000'000'000;
const NetworkId kNet("n-1.sally");

void ok(const Status& s) {
  if (!s) {
    ADD_FAILURE() << s.error().text();
    std::abort();
  }
}

/// Controller and routers: issues, ends, and knows whom a router would let in.
class Office {
 public:
  Office(const Clock& clock, std::int64_t life_s) : clock_(clock), life_s_(life_s) {
    char name[] = "/tmp/sally_year_XXXXXX";
    dir_ = mkdtemp(name);
    db = must(store::open_sqlite(":memory:", pki::store_hooks()));
    auto tx = must(db->begin(kNet, clock.unix_ms()));
    ok(tx->put_network({kNet.str(), "test", "https://c:1280", clock.unix_ms()}));
    authority = must(
        pki::Authority::create(*tx, kNet, pki::KeyDir(dir_ + "/keys"), clock.unix_ms(), random));
    ok(tx->commit());
    door = std::make_unique<pki::RenewalDoor>(authority, life_s);
  }
  ~Office() { std::filesystem::remove_all(dir_); }

  identity::Credential enroll(const std::string& id) {
    auto tx = must(db->begin(kNet, clock_.unix_ms()));
    store::Identity i;
    i.id = i.name = id;
    ok(tx->put_identity(i));
    auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    auto issued = must(authority->issue(*tx, {id, {}, {}}, key->public_key(), pki::Profile::kDevice,
                                        clock_.unix_ms(), random, life_s_));
    ok(tx->audit("device/" + id, "enroll", id));
    ok(tx->commit());
    return {{issued.leaf, issued.issuing}, key};
  }
  /// As a router judges it in a handshake.
  [[nodiscard]] bool lets_in(const crypto::Certificate& leaf) {
    const auto row = *must(must(db->read(kNet))->certificate(leaf.serial_hex()));
    return row.revoked_ms == 0 && leaf.not_after() * 1000 > clock_.unix_ms();
  }
  [[nodiscard]] wire::Renewed answer(const std::string& id, const std::string& lane_serial,
                                     const wire::Renew& renew, bool recovery) {
    const std::int64_t now = clock_.unix_ms();
    auto tx = must(db->begin(kNet, now));
    auto done = recovery ? door->open(*tx, renew.envelope).and_then([&](auto from) {
      return door->recover(*tx, std::move(from), now, random);
    })
                         : door->take(*tx, renew.envelope, {id, lane_serial}, now, random);
    wire::Renewed reply{.request = renew.request,
                        .id = id,
                        .leaf = {},
                        .issuing = {},
                        .error = done ? std::string() : std::string(done.error().code()),
                        .retry_after_ms = 0};
    if (!done) {
      ++refused[reply.error];
      return reply;
    }
    if (done->changed) ok(tx->commit());
    if (done->issued) {
      reply.leaf = done->issued->leaf.der();
      reply.issuing = done->issued->issuing.der();
      ++issued_by_minute[now / 60'000];
    }
    return reply;
  }
  /// The controller's hourly one.
  void upkeep() {
    auto tx = must(db->begin(kNet, clock_.unix_ms()));
    if (must(pki::supersede_unproven(*tx, clock_.unix_ms())) > 0) ok(tx->commit());
  }

  SeededRandom random{3};
  std::unique_ptr<store::Store> db;
  pki::AuthorityPtr authority;
  std::unique_ptr<pki::RenewalDoor> door;
  std::map<std::string, std::size_t> refused;
  std::map<std::int64_t, std::size_t> issued_by_minute;

 private:
  const Clock& clock_;
  const std::int64_t life_s_;
  std::string dir_;
};

/// One device, from the identity file up; asleep where it has no Renewer.
class Sleeper {
 public:
  Sleeper(loop::Loop& loop, Office& office, Random& random, std::string id, int lost_of_100)
      : loop_(loop),
        office_(office),
        random_(random),
        id_(std::move(id)),
        lost_of_100_(lost_of_100),
        anchors_{kNet.str(), {office.authority->root()}, {office.authority->devices()}},
        file(office.enroll(id_)) {}
  /// `machine`: its own clock, which may be wrong.
  void wake(const Clock& machine) {
    clock_ = std::make_unique<identity::DeviceClock>(
        machine, file.chain.front().not_before() * 1000, file.chain.front().not_after() * 1000);
    connect();
    renewer = std::make_unique<identity::Renewer>(
        loop_, random_, id_, crypto::Role::kDevice, anchors_, file,
        identity::Renewer::Hooks{
            .send = [this](const wire::Renew& m) { return lane() && send(m, false); },
            .time_ms = [this] { return lane() ? loop_.clock().unix_ms() : clock_->guess_ms(); },
            .keep = [this](const identity::Credential& fresh) -> Status {
              file = fresh;
              return {};
            },
            .use = [this](const identity::Credential& fresh) -> Status {
              clock_->raise(fresh.chain.front().not_before() * 1000);
              clock_->set_end(fresh.chain.front().not_after() * 1000);
              if (!lane()) loop_.defer([this] { come_in(); });
              return {};
            },
            .recover = [this](const wire::Renew& m) { return send(m, true); },
            .ended =
                [this] {
                  return clock_->in_doubt() ||
                         clock_->unix_ms() >= file.chain.front().not_after() * 1000;
                }});
    renewer->start();
    come_in();
  }
  void leave() {
    renewer.reset();
    lane_serial_.clear();
  }
  [[nodiscard]] bool lane() const { return !lane_serial_.empty(); }
  [[nodiscard]] const std::string& id() const { return id_; }

 private:
  loop::Loop& loop_;
  Office& office_;
  Random& random_;
  const std::string id_;
  const int lost_of_100_;
  std::unique_ptr<identity::DeviceClock> clock_;
  std::string lane_serial_;  // of the leaf that proved itself on the lane that is up
  trust::Anchors anchors_;

 public:
  identity::Credential file;
  std::unique_ptr<identity::Renewer> renewer;
  int recoveries = 0;
  int knocks = 0;

 private:
  // A lane once up lives on, whatever becomes of its certificate.
  void connect() {
    if (!lane() && office_.lets_in(file.chain.front())) {
      lane_serial_ = file.chain.front().serial_hex();
      clock_->learn(loop_.clock().unix_ms());
    }
  }
  void come_in() {
    connect();
    if (lane()) {
      renewer->on_up();
    } else {
      renewer->on_refused();
    }
  }
  bool send(const wire::Renew& message, bool recovery) {
    if (recovery) ++knocks;
    loop_.defer([this, message, recovery] {
      if (renewer == nullptr) return;
      const auto reply = office_.answer(id_, lane_serial_, message, recovery);
      if (static_cast<int>(random_.below(100)) < lost_of_100_) return;
      if (recovery) clock_->learn(loop_.clock().unix_ms());
      if (recovery && reply.error.empty()) ++recoveries;
      renewer->on_renewed(reply);
    });
    return true;
  }
};

/// Runs the loop by the clock, from one timer to the next.
class Year {
 public:
  /// `step_ms`: at least so far at once; timers in between fire together.
  void run_to(
      std::int64_t until_ms, const std::function<void()>& each_day = [] {},
      std::int64_t step_ms = 1) {
    std::int64_t day = clock.unix_ms() / kDayMs;
    while (clock.unix_ms() < until_ms) {
      loop.run_once(false);
      std::int64_t step = loop.wait_ms();
      if (step == 0) continue;
      step = std::min(step < 0 ? kDayMs : std::max(step, step_ms), until_ms - clock.unix_ms());
      clock.advance_ms(std::min(step, (day + 1) * kDayMs - clock.unix_ms()));
      if (clock.unix_ms() / kDayMs == day) continue;
      day = clock.unix_ms() / kDayMs;
      each_day();
    }
  }
  FakeClock clock{kStart};
  loop::Loop loop{clock};
  SeededRandom random{5};
};

TEST(Year, AThousandDevicesRenewAndNobodyDoesAnything) {
  // Every signature is a real one: some 2 ms for each renewal.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SALLY_SLOW_HERE
#endif
#endif
#ifdef SALLY_SLOW_HERE
  constexpr int kDevices = 100;
#else
  constexpr int kDevices = 1'000;
#endif
  Year year;
  Office office(year.clock, 90LL * 86'400);
  std::vector<std::unique_ptr<Sleeper>> fleet;
  for (int i = 0; i < kDevices; ++i) {
    fleet.push_back(std::make_unique<Sleeper>(year.loop, office, year.random,
                                              "dev-" + std::to_string(i), i % 10 == 0 ? 20 : 0));
    fleet.back()->wake(year.clock);
  }
  std::int64_t least_left_ms = INT64_MAX;
  int day = 0;
  year.run_to(
      kStart + 365 * kDayMs,
      [&] {
        office.upkeep();
        // Each one every week: a new lane would be let in, and time is left.
        const auto weekday = static_cast<std::size_t>(++day % 7);
        for (std::size_t i = weekday; i < fleet.size(); i += 7) {
          const auto& leaf = fleet[i]->renewer->current().chain.front();
          least_left_ms = std::min(least_left_ms, leaf.not_after() * 1000 - year.clock.unix_ms());
          ASSERT_TRUE(office.lets_in(leaf)) << fleet[i]->id();
        }
      },
      60'000);
  EXPECT_GE(least_left_ms, 15 * kDayMs) << "renewed in time, every time";
  std::uint64_t renewals = 0;
  for (const auto& d : fleet) {
    EXPECT_TRUE(d->lane());
    EXPECT_EQ(d->recoveries, 0);
    EXPECT_GE(d->renewer->count(), 4u) << d->id();
    EXPECT_LE(d->renewer->count(), 8u) << d->id();
    renewals += d->renewer->count();
    // Nothing but what a new one followed was ended: no flow was cut for it.
    for (const auto& row : must(must(office.db->read(kNet))->certificates_of(d->id())))
      ASSERT_TRUE(row.revoked_ms == 0 || row.superseded);
  }
  EXPECT_TRUE(office.refused.empty()) << office.refused.begin()->first;
  EXPECT_TRUE(must(office.db->read(kNet))->verify_chains());
  std::printf("%d devices, %llu renewals, at least %lld days left\n", kDevices,
              static_cast<unsigned long long>(renewals),
              static_cast<long long>(least_left_ms / kDayMs));
}

TEST(Year, AsleepForTwelveMonthsComesBackByItself) {
  Year year;
  Office office(year.clock, pki::kRenewingLifeS);
  Sleeper device(year.loop, office, year.random, "dev-1", 0);
  device.wake(year.clock);
  year.run_to(kStart + 3 * kDayMs);
  device.leave();
  year.run_to(kStart + 368 * kDayMs, [&] { office.upkeep(); });
  device.wake(year.clock);
  EXPECT_FALSE(device.lane()) << "its certificate has ended";
  year.run_to(year.clock.unix_ms() + 60'000);
  EXPECT_TRUE(device.lane());
  EXPECT_EQ(device.knocks, 1);
  EXPECT_EQ(device.recoveries, 1);
  // And goes on as any other.
  year.run_to(year.clock.unix_ms() + 60 * kDayMs);
  EXPECT_GE(device.renewer->count(), 3u);
}

// The same with a clock that starts in 1970, or says 2040: the door tells the time, one trip more.
TEST(Year, AsleepAndWithAWrongClockTakesOneTripMore) {
  for (const std::int64_t wrong : {std::int64_t{0}, std::int64_t{2'208'988'800'000}}) {
    Year year;
    Office office(year.clock, pki::kRenewingLifeS);
    Sleeper device(year.loop, office, year.random, "dev-1", 0);
    year.run_to(kStart + 300 * kDayMs);
    FakeClock machine(wrong);
    device.wake(machine);
    year.run_to(year.clock.unix_ms() + 60'000);
    EXPECT_TRUE(device.lane()) << wrong;
    EXPECT_EQ(device.recoveries, 1);
    EXPECT_LE(device.knocks, 2);
    EXPECT_LE(office.refused["pki.request_time"], 1u);
  }
}

// Past the grace, or not wanted any more: it stays out and does not become a nuisance.
TEST(Year, WhoMayNotComeBackAsksSeldom) {
  Year year;
  Office office(year.clock, pki::kRenewingLifeS);
  Sleeper device(year.loop, office, year.random, "dev-1", 0);
  year.run_to(kStart + 500 * kDayMs);
  device.wake(year.clock);
  year.run_to(year.clock.unix_ms() + kDayMs);
  EXPECT_FALSE(device.lane());
  EXPECT_EQ(device.recoveries, 0);
  EXPECT_GT(office.refused["pki.beyond_grace"], 0u);
  EXPECT_LT(device.knocks, 120);
}

// Enrolled in the same second, with a life whose window of renewal is 72 minutes: 139 a minute.
TEST(Year, TenThousandRenewWithoutAHerd) {
  constexpr std::size_t kAgents = 10'000;
  Year year;
  Office office(year.clock, 6LL * 3'600);
  const auto credential = office.enroll("dev-1");
  const trust::Anchors anchors{
      kNet.str(), {office.authority->root()}, {office.authority->devices()}};
  std::map<std::int64_t, std::size_t> minutes;
  std::vector<std::unique_ptr<identity::Renewer>> agents(kAgents);
  std::vector<std::string> ids;
  std::size_t asked = 0;
  for (std::size_t i = 0; i < kAgents; ++i) {
    ids.push_back(year.random.hex(8));
    agents[i] = std::make_unique<identity::Renewer>(
        year.loop, year.random, ids[i], crypto::Role::kDevice, anchors, credential,
        identity::Renewer::Hooks{.send =
                                     [&, i](const wire::Renew& m) {
                                       if (year.clock.unix_ms() <
                                           kStart + 60'000) {  // the use of a fresh one
                                         year.loop.defer([&, i, number = m.request] {
                                           agents[i]->on_renewed({.request = number, .id = ids[i]});
                                         });
                                         return true;
                                       }
                                       ++minutes[year.clock.unix_ms() / 60'000];
                                       ++asked;
                                       year.loop.defer([&, i] { agents[i].reset(); });
                                       return true;
                                     },
                                 .time_ms = [&] { return year.clock.unix_ms(); },
                                 .keep = [](const identity::Credential&) -> Status { return {}; },
                                 .use = [](const identity::Credential&) -> Status { return {}; }});
    agents[i]->start();
    agents[i]->on_up();
  }
  year.run_to(kStart + 6LL * 3'600'000);
  EXPECT_EQ(asked, kAgents);
  std::size_t most = 0;
  for (const auto& [minute, n] : minutes) most = std::max(most, n);
  const double mean = static_cast<double>(kAgents) / static_cast<double>(minutes.size());
  std::printf("{\"renewals_peak_over_mean\":%.3f}\n", static_cast<double>(most) / mean);
  EXPECT_LE(static_cast<double>(most), 1.5 * mean);
}

}  // namespace
}  // namespace sally::sim
