// SPDX-License-Identifier: Apache-2.0
// A disk that is full or gives errors: a clear refusal, nothing lost, nothing to repair afterwards.
#include <gtest/gtest.h>

#include "base/log.h"
#include "office.h"
#include "vfs.h"

namespace sally::faults {
namespace {

class Disk : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    install_vfs(24);
    log::set_level(log::Level::kError);
    log::set_sink([](std::string_view) {});
  }
  static void TearDownTestSuite() { log::set_sink(nullptr); }
  Disk() {
    arm(Fault::kNone, 0);
    must(controller::init_network(init_options(temp.path), clock, system_random()));
    office = must(Office::open(temp.path, clock, system_random()));
  }
  Office::Answer call(const std::string& method, const std::string& path,
                      const json::object& body = {}) {
    clock.advance_ms(1'000);
    return office->call(method, "/fleet/v1/" + path, body);
  }
  Office::Answer enroll(const std::string& token) {
    clock.advance_ms(1'000);
    return office->enroll(token, csr);
  }
  static std::string serial(const Office::Answer& a) {
    return must(crypto::Certificate::list_from_pem(std::string(a.body.at("cert").as_string())))
        .front()
        .serial_hex();
  }
  /// The operation fails at its n-th change, for every n; each time it says so, and afterwards it
  /// works as if nothing had happened. How often it failed.
  int fails_everywhere(Fault fault, const std::function<Office::Answer()>& work) {
    int failed = 0;
    for (std::uint64_t n = 1; n < 500; ++n) {
      SCOPED_TRACE("change " + std::to_string(n));
      arm(fault, n);
      const auto a = work();
      const bool over = changes() < n;
      arm(Fault::kNone, 0);
      EXPECT_TRUE(must(office->store->read(office->network))->verify_chains());
      if (over) return a.ok() ? failed : -1;
      if (a.ok()) continue;  // a checkpoint after the commit: what it could not do waits
      ++failed;
      const bool full = fault == Fault::kFull;
      EXPECT_EQ(a.status, full ? 507 : 503) << json::serialize(a.body);
      if (a.status == 507) {
        EXPECT_EQ(a.code(), "store.full");
        EXPECT_EQ(a.text_of_error("message").find('\n'), std::string::npos);
      }
      if (::testing::Test::HasFailure()) return -1;
    }
    return -1;
  }

  TempDir temp;
  FakeClock clock;
  std::unique_ptr<Office> office;
  std::string csr =
      must(crypto::make_csr(*must(crypto::FileKey::generate(crypto::KeyType::kP256)), "x"));
};

TEST_F(Disk, ARequestThatDidNotFitLeavesNothingAndTheNextOneWorks) {
  for (const Fault fault : {Fault::kFull, Fault::kBroken}) {
    int number = 0;
    std::string last;
    const int failed = fails_everywhere(fault, [&] {
      last = "d" + std::to_string(static_cast<int>(fault)) + "-" + std::to_string(++number);
      return call("POST", "devices", {{"name", last}});
    });
    EXPECT_GT(failed, 5);
    // The names of refused ones are free.
    for (int i = 1; i < number; ++i) {
      const std::string name =
          "d" + std::to_string(static_cast<int>(fault)) + "-" + std::to_string(i);
      const bool there = call("GET", "devices/" + name).ok();
      EXPECT_EQ(call("POST", "devices", {{"name", name}}).status, there ? 409 : 201);
    }
    EXPECT_TRUE(call("GET", "devices/" + last).ok());
  }
}

TEST_F(Disk, ATokenIsNotUsedUpByAnEnrolmentThatDidNotFit) {
  for (const Fault fault : {Fault::kFull, Fault::kBroken}) {
    const std::string name = "pump-" + std::to_string(static_cast<int>(fault));
    const auto made = call("POST", "devices", {{"name", name}});
    const std::string token = made.text("token");
    std::optional<Office::Answer> done;
    for (std::uint64_t n = 1; n < 100 && !done; ++n) {
      arm(fault, n);
      const auto a = enroll(token);
      arm(Fault::kNone, 0);
      if (a.ok())
        done = a;
      else
        EXPECT_EQ(a.status, 503) << json::serialize(a.body);
    }
    ASSERT_TRUE(done.has_value());
    const auto device = call("GET", "devices/" + name);
    ASSERT_EQ(device.body.at("certificates").as_array().size(), 1U) << "one enrolment, one serial";
    EXPECT_EQ(device.body.at("certificates").as_array()[0].at("serial").as_string(), serial(*done));
    EXPECT_EQ(enroll(token).status, 400);
  }
}

TEST_F(Disk, ReadsGoOnWhileItIsFullAndRevocationsSayThatTheyDidNotHappen) {
  ASSERT_TRUE(call("POST", "devices", {{"name", "pump"}}).ok());
  arm(Fault::kFull, 1);
  EXPECT_TRUE(call("GET", "devices/pump").ok());
  EXPECT_TRUE(call("GET", "status").ok());
  EXPECT_TRUE(call("GET", "audit/verify").ok());
  EXPECT_EQ(call("DELETE", "devices/pump").status, 507);
  EXPECT_TRUE(call("GET", "devices/pump").ok());
  arm(Fault::kNone, 0);
  EXPECT_TRUE(call("DELETE", "devices/pump").ok());
  EXPECT_EQ(call("GET", "devices/pump").status, 404);
}

// The answer with a renewed certificate may never arrive, or not be kept.
TEST_F(Disk, AnAdminsOlderCertificateEndsWithTheFirstUseOfTheNewOne) {
  const std::string old = office->caller.serial;
  const auto renew = [&] {
    const auto token = call("POST", "tokens", {{"kind", "admin"}, {"identity", office->caller.id}});
    return serial(enroll(token.text("token")));
  };
  const std::string lost = renew();
  EXPECT_TRUE(call("GET", "status").ok()) << "the one we still have";
  const std::string kept = renew();
  EXPECT_TRUE(call("GET", "status").ok());
  office->caller.serial = kept;
  arm(Fault::kFull, 1);
  EXPECT_TRUE(call("GET", "status").ok());
  arm(Fault::kNone, 0);
  office->caller.serial = old;
  EXPECT_TRUE(call("GET", "status").ok()) << "that could not be written down yet";
  office->caller.serial = kept;
  EXPECT_TRUE(call("GET", "status").ok());
  for (const std::string& over : {old, lost}) {
    office->caller.serial = over;
    EXPECT_EQ(call("GET", "status").status, 403);
  }
  office->caller.serial = kept;
  const auto rows = call("GET", "audit").body.at("items").as_array();
  EXPECT_TRUE(std::ranges::any_of(
      rows, [](const auto& r) { return r.at("action").as_string() == "admin.renewed"; }));
  EXPECT_TRUE(call("GET", "status").ok());
}

}  // namespace
}  // namespace sally::faults
