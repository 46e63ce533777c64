// SPDX-License-Identifier: Apache-2.0
// Identities, a router's state, keys, a new network: stopped or refused at every step of their way
// to the disk, the old or the new content is there, and the next start is not in anybody's way.
#include "files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "office.h"
#include "replica/replica.h"
#include "vfs.h"

namespace sally::faults {
namespace {

std::size_t files_in(const std::string& dir) {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(dir)) ++n;
  return n;
}

// What lies there was left two minutes ago.
void age(const std::string& dir) {
  for (const auto& e : std::filesystem::directory_iterator(dir)) {
    struct stat st{};
    ASSERT_EQ(::stat(e.path().c_str(), &st), 0);
    const timespec then[2] = {{st.st_mtim.tv_sec - 120, 0}, {st.st_mtim.tv_sec - 120, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, e.path().c_str(), then, 0), 0);
  }
}

/// Exit code of `work` in a process of its own.
int in_child(const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// `save` writes version v to the path; `load` gives the version there, or 0.
void old_or_new(const std::string& path, const std::function<Status(int)>& save,
                const std::function<int()>& load) {
  const std::string dir = std::filesystem::path(path).parent_path();
  ASSERT_TRUE(save(1));
  ASSERT_EQ(load(), 1);
  std::uint64_t steps = 0;
  arm_files(FileFault::kNone, ~std::uint64_t{0});
  ASSERT_TRUE(save(1));
  steps = file_steps();
  arm_files(FileFault::kNone, 0);
  ASSERT_GE(steps, 7U);

  // Gone in the middle.
  int old_seen = 0;
  int new_seen = 0;
  for (const FileFault fault : {FileFault::kStop, FileFault::kTorn}) {
    for (std::uint64_t n = 1; n <= steps + 1; ++n) {
      SCOPED_TRACE("stopped at step " + std::to_string(n));
      ASSERT_TRUE(save(1));
      const int exit = in_child([&] {
        arm_files(fault, n);
        const bool ok = save(2).has_value();
        arm_files(FileFault::kNone, 0);
        return ok;
      });
      EXPECT_EQ(exit, n <= steps ? kStopped : 0);
      const int found = load();
      EXPECT_TRUE(found == 1 || found == 2) << found;
      if (n > steps) {
        EXPECT_EQ(found, 2) << "it was acknowledged";
      }
      ++(found == 1 ? old_seen : new_seen);
      ASSERT_TRUE(save(2));
      ASSERT_EQ(load(), 2);
    }
  }
  EXPECT_GT(old_seen, 5);
  EXPECT_GE(new_seen, 2);
  EXPECT_GT(files_in(dir), 1U) << "young leftovers may be somebody's";
  age(dir);
  ASSERT_TRUE(save(1));
  EXPECT_EQ(files_in(dir), 1U);

  // Refused in the middle.
  for (const int error : {ENOSPC, EROFS, EIO, EDQUOT}) {
    for (std::uint64_t n = 1; n <= steps; ++n) {
      SCOPED_TRACE("error " + std::to_string(error) + " at step " + std::to_string(n));
      ASSERT_TRUE(save(1));
      arm_files(FileFault::kError, n, error);
      const auto s = save(2);
      arm_files(FileFault::kNone, 0);
      const int found = load();
      EXPECT_TRUE(found == 1 || found == 2) << found;
      if (!s) {
        const bool full = error == ENOSPC || error == EDQUOT;
        EXPECT_EQ(s.error().code(), full ? "fs.full" : error == EROFS ? "fs.read_only" : "fs.io");
        EXPECT_EQ(s.error().retry(), full);
        EXPECT_NE(s.error().context().find(dir), std::string::npos);
      } else {
        EXPECT_EQ(found, 2);
      }
      EXPECT_EQ(files_in(dir), 1U) << "nothing half-written stays";
    }
  }
}

struct Files : ::testing::Test {
  static void SetUpTestSuite() { log::set_level(log::Level::kError); }
  TempDir temp;
};

TEST_F(Files, AnIdentityIsTheOldOrTheNewOne) {
  const crypto::TestPki pki;
  const auto make = [&](const std::string& id) {
    const auto leaf = pki.leaf(crypto::Role::kDevice, id);
    return identity::Identity{.controller = "https://127.0.0.1:1",
                              .key = leaf.key,
                              .chain = {leaf.cert, pki.devices},
                              .anchors = {pki.root},
                              .issuing = {pki.devices, pki.infrastructure},
                              .network = NetworkId(pki.network),
                              .role = crypto::Role::kDevice,
                              .id = id,
                              .name = id,
                              .routers = {"127.0.0.1:1"},
                              .card = {}};
  };
  const auto one = make("one");
  const auto two = make("two");
  const std::string path = temp.path + "/identity.json";
  old_or_new(
      path, [&](int v) { return identity::save(v == 1 ? one : two, path); },
      [&] {
        const auto i = identity::load(path);
        return !i ? 0 : i->id == "one" ? 1 : 2;
      });
}

TEST_F(Files, ARoutersStateIsTheOldOrTheNewOne) {
  const crypto::TestPki pki;
  const auto signer = pki.leaf(crypto::Role::kSigner, "1");
  const trust::Anchors anchors{
      .network = pki.network, .roots = {pki.root}, .issuing = {pki.devices, pki.infrastructure}};
  constexpr std::int64_t kNow = crypto::TestPki::kNow * 1000;
  replica::LogWriter writer(pki.network, signer.key,
                            {{signer.cert.der(), pki.infrastructure.der()}});
  replica::Replica one(anchors);
  replica::Replica two(anchors);
  const auto add = [&](const char* id) {
    return writer.append(wire::StateOp{wire::RouterEntry{.id = id, .name = id, .addresses = {}}});
  };
  ASSERT_TRUE(add("r-1"));
  ASSERT_TRUE(one.apply(must(writer.update_for(0, {}, kNow)), kNow));
  ASSERT_TRUE(add("r-2"));
  ASSERT_TRUE(two.apply(must(writer.update_for(0, {}, kNow)), kNow));
  const std::string path = temp.path + "/state";
  old_or_new(
      path, [&](int v) { return (v == 1 ? one : two).save(path, kNow); },
      [&] {
        replica::Replica read(anchors);
        return read.load(path, kNow) ? static_cast<int>(read.state()->version()) : 0;
      });
}

TEST_F(Files, RoomIsAskedForBeforeWhatCannotBeAskedForTwice) {
  const std::string path = temp.path + "/identity.json";
  EXPECT_TRUE(fs::room_for(path, 32'768));
  EXPECT_EQ(files_in(temp.path), 0U);
  arm_files(FileFault::kError, 2, ENOSPC);  // the write
  const auto no = fs::room_for(path, 32'768);
  arm_files(FileFault::kNone, 0);
  ASSERT_FALSE(no);
  EXPECT_EQ(no.error().code(), "fs.full");
  EXPECT_EQ(files_in(temp.path), 0U);
}

// `sally up` on an empty folder, ended anywhere: there is a whole network, or none and the next try
// makes one.
TEST_F(Files, ANewNetworkIsThereWholeOrNotAtAll) {
  install_vfs(24);
  const FakeClock clock;
  const auto init = [&](const std::string& root) {
    return controller::init_network(init_options(root), clock, system_random());
  };
  arm_files(FileFault::kNone, ~std::uint64_t{0});
  arm(Fault::kNone, 0);
  must(init(temp.path + "/count"));
  const std::uint64_t steps = file_steps();
  const std::uint64_t writes = changes();
  arm_files(FileFault::kNone, 0);
  ASSERT_GT(steps, 60U);
  ASSERT_GT(writes, 5U);
#ifdef SALLY_SANITIZED
  constexpr std::uint64_t kStride = 7;
#else
  constexpr std::uint64_t kStride = 1;
#endif
  int whole = 0;
  int none = 0;
  for (std::uint64_t n = 1; n <= steps + writes; n += kStride) {
    SCOPED_TRACE("stopped at step " + std::to_string(n));
    const std::string root = temp.path + "/n";
    std::filesystem::remove_all(root);
    EXPECT_EQ(in_child([&] {
                if (n <= steps)
                  arm_files(FileFault::kStop, n);
                else
                  arm(Fault::kPowerCut, n - steps);
                return init(root).has_value();
              }),
              kStopped);
    arm(Fault::kNone, 0);
    const bool there = fs::exists(root + "/controller");
    ++(there ? whole : none);
    if (!there) {
      const auto again = init(root);
      ASSERT_TRUE(again) << again.error().text();
    }
    const auto office = Office::open(root, clock, system_random());
    ASSERT_TRUE(office) << office.error().text();
    EXPECT_EQ((*office)->call("GET", "/fleet/v1/status").status, 200);
    EXPECT_TRUE(identity::load(root + "/router/identity.json"));
    EXPECT_FALSE(fs::exists(root + "/controller.new"));
    if (HasFailure()) return;
  }
  EXPECT_GT(none, 10);
  EXPECT_GE(whole, kStride == 1 ? 1 : 0);
}

}  // namespace
}  // namespace sally::faults
