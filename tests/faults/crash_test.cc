// SPDX-License-Identifier: Apache-2.0
// A controller that dies at its n-th write or sync: everything it acknowledged is there, nothing is
// there by half, and it goes on.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "base/log.h"
#include "office.h"
#include "replica/replica.h"
#include "vfs.h"

namespace sally::faults {
namespace {

namespace fs = std::filesystem;

#ifdef SALLY_SANITIZED
constexpr std::uint64_t kSlower = 15;
#else
constexpr std::uint64_t kSlower = 1;
#endif
constexpr std::uint64_t kStops = 300;
/// Signatures have not always the same length: no two runs have quite the same changes.
constexpr std::uint64_t kSpare = 40;
constexpr int kCheckpointPages = 24;

/// One line per operation that was answered.
class Acks {
 public:
  explicit Acks(int fd) : fd_(fd) {}
  void operator()(const json::object& what) const {
    const std::string line = json::serialize(what) + "\n";
    if (::write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) ::_exit(3);
  }

 private:
  int fd_;
};

/// A day in the life of a controller, restart included. Exits with 4 where something is refused.
void script(const std::string& root, const std::string& csr, int acks_fd) {
  const Acks ack(acks_fd);
  FakeClock clock;
  const auto must_be = [](const Office::Answer& a) {
    if (!a.ok()) ::_exit(4);
    return a;
  };
  int number = 0;
  for (int run = 0; run < 2; ++run) {
    auto office = must(Office::open(root, clock, system_random()));
    const auto call = [&](const std::string& method, const std::string& path,
                          const json::object& body = {}) {
      clock.advance_ms(1'000);
      return must_be(office->call(method, "/fleet/v1/" + path, body));
    };
    const auto enroll = [&](const std::string& id, const std::string& token) {
      clock.advance_ms(1'000);
      const auto a = must_be(office->enroll(token, csr));
      const auto chain =
          must(crypto::Certificate::list_from_pem(std::string(a.body.at("cert").as_string())));
      ack({{"do", "enroll"}, {"id", id}, {"serial", chain.front().serial_hex()}});
    };
    for (int round = 0; round < 3; ++round) {
      const std::string at = std::to_string(++number);
      const auto add = [&](const std::string& name) {
        const auto a = call("POST", "devices", {{"name", name}, {"tags", {"sensors"}}});
        const std::string id = a.text("id");
        ack({{"do", "device"}, {"id", id}, {"version", a.version}});
        ack({{"do", "token"}, {"token", a.text("enrollment")}});
        return std::pair(id, a.text("token"));
      };
      const auto [kept, kept_token] = add("kept-" + at);
      enroll(kept, kept_token);
      const auto [gone, gone_token] = add("gone-" + at);
      enroll(gone, gone_token);
      const auto [asleep, asleep_token] = add("asleep-" + at);

      auto a = call("POST", "expose",
                    {{"name", "svc-" + at},
                     {"address", "127.0.0.1:1883"},
                     {"host", {"kept-" + at}},
                     {"allow", {"#sensors", "gone-" + at}}});
      ack({{"do", "service"}, {"id", a.text("id")}, {"version", a.version}});
      const std::string service = a.text("id");
      a = call("POST", "grants", {{"service", service}, {"selector", "#pumps"}});
      ack({{"do", "grant"}, {"id", service}, {"selector", "#pumps"}, {"version", a.version}});
      a = call("POST", "deny", {{"service", service}, {"selector", "#sensors"}});
      ack({{"do", "deny"}, {"id", service}, {"selector", "#sensors"}, {"version", a.version}});

      a = call("POST", "devices/asleep-" + at + "/suspend");
      ack({{"do", "suspend"}, {"id", asleep}, {"version", a.version}});
      a = call("PUT", "devices/kept-" + at + "/tags", {{"tags", {"pumps"}}});
      ack({{"do", "tags"}, {"id", kept}, {"version", a.version}});
      // Enrolled again: the older certificate dies with it.
      a = call("POST", "tokens", {{"kind", "device"}, {"identity", kept}});
      ack({{"do", "token"}, {"token", a.text("enrollment")}});
      enroll(kept, a.text("token"));
      a = call("POST", "tokens", {{"kind", "device"}, {"identity", kept}});
      const std::string unused = a.text("enrollment");
      call("DELETE", "tokens/" + unused);
      ack({{"do", "untoken"}, {"token", unused}});

      a = call("DELETE", "devices/gone-" + at);
      ack({{"do", "remove"}, {"id", gone}, {"version", a.version}});
      a = call("POST", "services", {{"name", "brief-" + at}, {"host", {"*"}}, {"allow", {"*"}}});
      const std::string brief = a.text("id");
      a = call("DELETE", "services/" + brief);
      ack({{"do", "unservice"}, {"id", brief}, {"version", a.version}});
    }
  }
  ack({{"do", "end"}, {"changes", changes()}});
}

std::string detail_of(const store::AuditRow& row, const char* member) {
  const auto v = json::parse(row.detail);
  const auto* text = v.as_object().if_contains(member);
  return text == nullptr ? "" : std::string(text->as_string());
}

/// What the folder holds, held against what was acknowledged and against itself.
void check(const std::string& root, const std::vector<json::object>& acks) {
  FakeClock clock(1'800'000'000'000 + 3'600'000);
  auto opened = Office::open(root, clock, system_random());
  ASSERT_TRUE(opened) << opened.error().text();
  Office& office = **opened;
  std::uint64_t version = 0;
  {
    const auto tx = must(office.store->read(office.network));
    version = must(tx->log_head()).version;
    const auto text = [](const json::object& o, const char* m) {
      return std::string(o.at(m).as_string());
    };
    std::map<std::string, store::Enrollment> tokens;
    for (const auto& e : must(tx->enrollments({10'000, 0}))) tokens.emplace(e.id, e);

    // Everything that was acknowledged.
    for (const auto& a : acks) {
      const std::string what = text(a, "do");
      SCOPED_TRACE(json::serialize(a));
      if (const auto* v = a.if_contains("version")) {
        ASSERT_LE(v->to_number<std::uint64_t>(), version) << "the version went back";
      }
      if (what == "device" || what == "suspend" || what == "tags" || what == "remove") {
        const auto i = must(tx->identity(text(a, "id")));
        ASSERT_TRUE(i.has_value());
        if (what == "suspend") {
          EXPECT_EQ(i->standing, store::Standing::kSuspended);
        }
        if (what == "tags") {
          EXPECT_EQ(i->tags, std::vector<std::string>{"pumps"});
        }
        if (what == "remove") {
          EXPECT_NE(i->removed_ms, 0);
          for (const auto& c : must(tx->certificates_of(i->id))) EXPECT_NE(c.revoked_ms, 0);
        }
      } else if (what == "enroll") {
        const auto c = must(tx->certificate(text(a, "serial")));
        ASSERT_TRUE(c.has_value());
        EXPECT_EQ(c->identity, text(a, "id"));
      } else if (what == "token") {
        EXPECT_TRUE(tokens.contains(text(a, "token")));
      } else if (what == "untoken") {
        ASSERT_TRUE(tokens.contains(text(a, "token")));
        EXPECT_NE(tokens.at(text(a, "token")).revoked_ms, 0);
      } else if (what == "service") {
        EXPECT_TRUE(must(tx->service(text(a, "id"))).has_value());
      } else if (what == "unservice") {
        EXPECT_FALSE(must(tx->service(text(a, "id"))).has_value());
      } else if (what == "grant" || what == "deny") {
        const auto grants = must(tx->grants(text(a, "id")));
        EXPECT_EQ(std::ranges::any_of(
                      grants, [&](const auto& g) { return g.selector == text(a, "selector"); }),
                  what == "grant");
      }
    }

    // Nothing by half: rows, audit and change log say the same.
    std::map<std::string, std::multiset<std::string>> audited;  // action to subjects
    std::map<std::string, std::string> enrolled;                // token to serial
    std::set<std::string> token_rows;
    for (const auto& row : must(tx->audit_rows(0, 100'000))) {
      audited[row.action].insert(row.subject);
      if (row.action == "enroll") enrolled[detail_of(row, "token")] = detail_of(row, "serial");
      if (row.action == "token.create") token_rows.insert(detail_of(row, "token"));
    }
    std::multiset<std::string> added;
    std::size_t certificates = 0;
    std::set<std::string> serials;
    for (const auto& id : audited["device.add"]) {
      added.insert(id);
      const auto i = must(tx->identity(id));
      ASSERT_TRUE(i.has_value()) << "an audit row without its device";
      EXPECT_EQ(i->removed_ms != 0, audited["device.remove"].contains(id));
      for (const auto& c : must(tx->certificates_of(id))) {
        ++certificates;
        EXPECT_TRUE(serials.insert(c.serial).second) << "a serial issued twice";
      }
    }
    std::size_t live = 0;
    for (const auto& i : must(tx->identities(store::Kind::kDevice, {10'000, 0}))) {
      EXPECT_EQ(added.count(i.id), 1U) << "a device without its audit row";
      ++live;
    }
    EXPECT_EQ(live + audited["device.remove"].size(), added.size());
    EXPECT_EQ(certificates, enrolled.size());
    EXPECT_EQ(token_rows.size(), tokens.size());
    for (const auto& [id, t] : tokens) {
      EXPECT_TRUE(token_rows.contains(id));
      EXPECT_EQ(t.used_ms != 0, enrolled.contains(id));
      if (t.used_ms != 0) {
        EXPECT_TRUE(serials.contains(enrolled.at(id)));
      }
    }
    for (const auto& s : must(tx->services({10'000, 0}))) {
      EXPECT_TRUE(audited["service.expose"].contains(s.id) ||
                  audited["service.add"].contains(s.id));
      EXPECT_LE(s.version, version);
    }

    // The log makes the rows, and a router believes it.
    std::vector<wire::SignerChain> chains{
        {office.signer_chain[0].der(), office.signer_chain[1].der()}};
    replica::LogWriter writer(office.network.str(), office.signer, chains);
    for (const auto& r : must(tx->log_after(0, 100'000)))
      ASSERT_TRUE(writer.append(r.entry, r.hash)) << r.version;
    ASSERT_EQ(writer.version(), version);
    auto from_log = must(wire::decode_snapshot(writer.tables().snapshot())).ops;
    auto from_rows = must(pki::snapshot_ops(*tx, clock.unix_ms()));
    std::ranges::sort(from_log);
    std::ranges::sort(from_rows);
    EXPECT_TRUE(from_log == from_rows)
        << from_log.size() << " in the log, " << from_rows.size() << " by the rows";
    replica::Replica reader(
        trust::Anchors{office.network.str(),
                       {office.authority->root()},
                       {office.authority->devices(), office.authority->infrastructure()}});
    const auto diff =
        reader.apply(must(writer.update_for(0, {}, clock.unix_ms())), clock.unix_ms());
    ASSERT_TRUE(diff) << diff.error().text();
    EXPECT_EQ(diff->unverified_services, 0U);
    EXPECT_EQ(reader.state()->version(), version);
  }

  // And it goes on.
  const auto next = office.call(
      "POST", "/fleet/v1/expose",
      {{"name", "after"}, {"address", "127.0.0.1:1"}, {"host", {"*"}}, {"allow", {"*"}}});
  ASSERT_EQ(next.status, 201) << json::serialize(next.body);
  EXPECT_EQ(next.version, version + 1);
  const auto tx = must(office.store->read(office.network));
  EXPECT_TRUE(tx->verify_chains());
}

struct Outcome {
  int exit = -1;
  std::vector<json::object> acks;
  [[nodiscard]] bool ended() const { return !acks.empty() && acks.back().at("do") == "end"; }
};

/// `work` in a process of its own, its acknowledgements through a pipe.
template <typename F>
Outcome in_child(F work) {
  int fds[2];
  if (::pipe(fds) != 0) std::abort();
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(fds[0]);
    work(fds[1]);
    ::_exit(0);
  }
  ::close(fds[1]);
  std::string text;
  char buffer[16'384];
  for (ssize_t n = 0; (n = ::read(fds[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  ::close(fds[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  Outcome run;
  run.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    run.acks.push_back(json::parse(line).as_object());
  return run;
}

class Crash : public ::testing::TestWithParam<Fault> {
 protected:
  static void SetUpTestSuite() {
    install_vfs(kCheckpointPages);
    log::set_level(log::Level::kError);
  }
  TempDir temp;
};

// Every one of the first 300, and with the dirtier ways to die some of all there are.
TEST_P(Crash, WhatWasAcknowledgedIsThereAfterEveryStop) {
  const FakeClock clock;
  const std::string made = temp.path + "/made";
  must(controller::init_network(init_options(made), clock, system_random()));
  const std::string csr =
      must(crypto::make_csr(*must(crypto::FileKey::generate(crypto::KeyType::kP256)), "x"));
  const auto run = [&](Fault fault, std::uint64_t n) {
    const std::string root = temp.path + "/n";
    fs::remove_all(root);
    fs::copy(made, root, fs::copy_options::recursive);
    Outcome done = in_child([&](int fd) {
      arm(fault, n, n);
      script(root, csr, fd);
    });
    check(root, done.acks);
    return done;
  };
  const Outcome whole = run(Fault::kNone, 0);
  ASSERT_TRUE(whole.exit == 0 && whole.ended());
  const auto all = whole.acks.back().at("changes").to_number<std::uint64_t>();
  ASSERT_GT(all, kStops + kSpare);
  const bool each = GetParam() == Fault::kStop;
  const std::uint64_t last = each ? kStops : all - kSpare;
  const std::uint64_t stride = (each ? 1 : last / (kStops / 2)) * kSlower;
  std::size_t least = SIZE_MAX;
  std::size_t most = 0;
  int stops = 0;
  for (std::uint64_t n = 1; n <= last; n += stride) {
    SCOPED_TRACE("stopped at change " + std::to_string(n));
    const Outcome done = run(GetParam(), n);
    if (HasFatalFailure() || HasNonfatalFailure()) return;
    ASSERT_EQ(done.exit, kStopped);
    ASSERT_FALSE(done.ended());
    least = std::min(least, done.acks.size());
    most = std::max(most, done.acks.size());
    ++stops;
  }
  EXPECT_EQ(least, 0U);
  EXPECT_GT(most, each ? 10U : whole.acks.size() * 8 / 10);
  RecordProperty("stops", stops);
  std::printf("%d stops of %llu changes, after 0 to %zu of %zu acknowledgements\n", stops,
              static_cast<unsigned long long>(all), most, whole.acks.size() - 1);
}

std::string name_of(const ::testing::TestParamInfo<Fault>& p) {
  constexpr const char* kNames[] = {"", "Stop", "Torn", "PowerCut", "Lottery"};
  return kNames[static_cast<std::size_t>(p.param)];
}
INSTANTIATE_TEST_SUITE_P(All, Crash,
                         ::testing::Values(Fault::kStop, Fault::kTorn, Fault::kPowerCut,
                                           Fault::kLottery),
                         name_of);

}  // namespace
}  // namespace sally::faults
