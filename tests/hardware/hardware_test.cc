// SPDX-License-Identifier: Apache-2.0
// Real token and TPM software: SoftHSM in this process, swtpm beside it.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "base/fs.h"
#include "crypto/csr.h"
#include "crypto/open_key.h"
#include "crypto/test_token.h"
#include "loop/fd.h"
#include "tls/session.h"
#include "tls/test_tls.h"

namespace sally {
namespace {

using crypto::must;
constexpr char kSoftHsm[] = "/usr/lib/softhsm/libsofthsm2.so";

class HardwareSoftware : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    char name[] = "/tmp/sally-hw-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir() = name;
    must(fs::make_dirs(dir() + "/tokens"));
    must(fs::make_dirs(dir() + "/tpm"));
    std::ofstream(dir() + "/softhsm2.conf")
        << "directories.tokendir = " << dir()
        << "/tokens\nobjectstore.backend = file\nlog.level = ERROR\n";
    ::setenv("SOFTHSM2_CONF", (dir() + "/softhsm2.conf").c_str(), 1);
    ASSERT_EQ(std::system("softhsm2-util --init-token --free --label dev --so-pin 1234 --pin 5678 "
                          ">/dev/null"),
              0);
    must(fs::write_file_atomic(dir() + "/pin", as_bytes("5678\n")));
    start_tpm();
  }
  static void TearDownTestSuite() {
    stop_tpm();
    std::error_code ignored;
    std::filesystem::remove_all(dir(), ignored);
  }
  static void must(const Status& s) { ASSERT_TRUE(s) << s.error().text(); }
  static void start_tpm() {
    const std::string state = "dir=" + dir() + "/tpm";
    const std::string at = "type=unixio,path=" + dir() + "/tpm.sock";
    std::array<const char*, 9> args = {
        "swtpm",       "socket",   "--tpm2",   "--tpmstate",
        state.c_str(), "--server", at.c_str(), "--flags=not-need-init,startup-clear",
        nullptr};
    ASSERT_EQ(
        ::posix_spawnp(&tpm(), "swtpm", nullptr, nullptr, const_cast<char**>(args.data()), environ),
        0);
    for (int i = 0; i < 500 && !tpm_listens(); ++i)
      ::usleep(10'000);  // NOLINT(sally-sleep): another process starts
  }
  // The socket's file is there before anybody listens. swtpm serves one connection after the other.
  static bool tpm_listens() {
    const loop::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    dir().copy(at.sun_path, sizeof at.sun_path - 1);
    std::strncat(at.sun_path, "/tpm.sock", sizeof at.sun_path - 1 - dir().size());
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
  }
  static void stop_tpm() {
    ::kill(tpm(), SIGTERM);
    ::waitpid(tpm(), nullptr, 0);
    ::unlink((dir() + "/tpm.sock").c_str());
  }
  static std::string& dir() {
    static std::string at;
    return at;
  }
  static pid_t& tpm() {
    static pid_t pid = 0;
    return pid;
  }
  static std::string token_name(const std::string& object) {
    return "pkcs11:token=dev;object=" + object + "?module-path=" + kSoftHsm +
           "&pin-source=" + dir() + "/pin";
  }
  static std::string tpm_name(const std::string& file) {
    return "tpm:" + dir() + "/" + file + "?device=" + dir() + "/tpm.sock";
  }
};

TEST_F(HardwareSoftware, AThousandHandshakesWithThreeKindsOfKeys) {
  const crypto::TestPki pki;
  const FakeClock clock(pki.now_s * 1000);
  const auto client_leaf = pki.leaf(crypto::Role::kDevice, "client");
  const auto client =
      tls::test_context(tls::test_options(pki, tls::Side::kClient, &client_leaf, &clock));
  const std::array names = {"file:" + dir() + "/file.key", token_name("device"),
                            token_name("device-384"), tpm_name("key.tpm")};
  std::vector<std::shared_ptr<const tls::Context>> servers;
  for (const auto& name : names) {
    auto key = crypto::open_or_make_key(
        name, name.find("384") == name.npos ? crypto::KeyType::kP256 : crypto::KeyType::kP384);
    ASSERT_TRUE(key) << key.error().text();
    EXPECT_TRUE(crypto::parse_csr(as_bytes(crypto::must(crypto::make_csr(**key, "x")))));
    auto o = tls::test_options(pki, tls::Side::kServer, &client_leaf, &clock);
    o.key = *key;
    o.chain = {crypto::must(crypto::sign_certificate(pki.leaf_spec(crypto::Role::kDevice, "server"),
                                                     (*key)->public_key(), &pki.devices,
                                                     *pki.devices_key, system_random())),
               pki.devices};
    servers.push_back(tls::test_context(std::move(o)));
  }
  // Turn by turn, so that each kind stands between the others.
  for (int i = 0; i < 1'000; ++i) {
    auto a = crypto::must(tls::Session::on_memory(client));
    auto b =
        crypto::must(tls::Session::on_memory(servers[static_cast<std::size_t>(i) % names.size()]));
    for (int step = 0; step < 4 && !(a->handshaken() && b->handshaken()); ++step) {
      (void)a->handshake();
      if (a->has_output()) b->feed(a->take_output());
      (void)b->handshake();
      if (b->has_output()) a->feed(b->take_output());
    }
    ASSERT_TRUE(a->handshaken() && b->handshaken())
        << names[static_cast<std::size_t>(i) % names.size()] << ": "
        << (b->error() ? b->error()->text() : "");
    ASSERT_EQ(a->peer()->id(), "server");
  }
}

TEST_F(HardwareSoftware, OneNameIsOneKeyAndManyThreadsUseIt) {
  for (const auto& name : {token_name("shared"), tpm_name("shared.tpm")}) {
    const auto key = crypto::must(crypto::open_or_make_key(name, crypto::KeyType::kP256));
    EXPECT_EQ(key, crypto::must(crypto::open_key(name)));
    std::atomic<int> good = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 25; ++i) {
          const auto signature = key->sign(as_bytes("hello"));
          if (signature && key->public_key().verify(as_bytes("hello"), *signature)) ++good;
        }
      });
    }
    for (auto& t : threads) t.join();
    EXPECT_EQ(good, 100);
    EXPECT_FALSE(crypto::make_key(name, crypto::KeyType::kP256)) << "what is there stays";
  }
}

TEST_F(HardwareSoftware, ATpmThatWasRestartedOrIsAnother) {
  const std::string name = tpm_name("restarted.tpm");
  auto key = crypto::must(crypto::make_key(name, crypto::KeyType::kP256));
  stop_tpm();
  const auto gone = key->sign(as_bytes("hello"));
  ASSERT_FALSE(gone);
  EXPECT_TRUE(gone.error().is(crypto::Errc::kTokenMissing)) << gone.error().text();
  start_tpm();
  EXPECT_TRUE(key->sign(as_bytes("hello")));
  // A machine that got another board: the wrapped key is of no use there.
  key.reset();
  stop_tpm();
  ASSERT_EQ(std::system(
                ("mv " + dir() + "/tpm " + dir() + "/tpm.old && mkdir " + dir() + "/tpm").c_str()),
            0);
  start_tpm();
  const auto other = crypto::open_key(name);
  ASSERT_FALSE(other);
  EXPECT_TRUE(other.error().is(crypto::Errc::kKeyMissing)) << other.error().text();
}

}  // namespace
}  // namespace sally
