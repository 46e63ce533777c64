// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/backoff.h"
#include "base/bytes.h"
#include "base/chunk.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/source_rates.h"
#include "base/text.h"
#include "base/token_bucket.h"

namespace sally {
namespace {

TEST(SourceRates, OneSourceTakesFromNobodyElseAndTheTableIsBounded) {
  SourceRates rates(1, 2, 3);
  const std::int64_t now = 1'000'000;
  const SourceRates::Source a{1}, b{2}, c{3}, d{4};
  EXPECT_TRUE(rates.take(a, now));
  EXPECT_TRUE(rates.take(a, now));
  EXPECT_FALSE(rates.take(a, now));
  EXPECT_TRUE(rates.take(b, now));
  EXPECT_TRUE(rates.take(c, now));
  EXPECT_FALSE(rates.take(a, now)) << "and is now the last one heard of";
  EXPECT_TRUE(rates.take(d, now)) << "b is forgotten for it";
  EXPECT_EQ(rates.size(), 3u);
  EXPECT_FALSE(rates.take(a, now)) << "who goes on is not forgotten";
  EXPECT_TRUE(rates.take(a, now + 1'000'000));
}

TEST(TokenBucket, BurstThenRate) {
  TokenBucket b(10, 3);
  std::int64_t now = 1'000'000;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(b.take(now));
  EXPECT_FALSE(b.take(now));
  EXPECT_FALSE(b.take(now - 500'000));  // a clock that goes back gives nothing
  EXPECT_FALSE(b.take(now + 99'000));
  EXPECT_TRUE(b.take(now += 110'000));
  EXPECT_FALSE(b.take(now));
  now += 3'600'000'000;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(b.take(now));
  EXPECT_FALSE(b.take(now));
}

TEST(Bytes, HexBothWays) {
  EXPECT_EQ(to_hex(Bytes{0x00, 0xff, 0x1a}), "00ff1a");
  EXPECT_EQ(from_hex("00FF1a"), (Bytes{0x00, 0xff, 0x1a}));
  EXPECT_FALSE(from_hex("0"));
  EXPECT_FALSE(from_hex("0g"));
}

TEST(Bytes, Base64Rfc4648Vectors) {
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    EXPECT_EQ(to_base64(as_bytes(plain)), coded);
    ASSERT_TRUE(from_base64(coded));
    EXPECT_EQ(to_text(*from_base64(coded)), plain);
  }
  EXPECT_EQ(to_text(*from_base64("Zm9v\r\nYg==\n")), "foob");
  for (const char* bad : {"Z", "Zg", "Zg=", "Zg===", "Zh==", "Zm9v=", "Z*==", "=Zg="})
    EXPECT_FALSE(from_base64(bad)) << bad;
}

TEST(Bytes, Base64UrlHasNoPaddingAndNoSpareBits) {
  EXPECT_EQ(to_base64url(Bytes{0xfb, 0xff}), "-_8");
  EXPECT_EQ(from_base64url("-_8"), (Bytes{0xfb, 0xff}));
  for (const char* bad : {"-_8=", "-_9", "-", "+/8", "-_ 8"})
    EXPECT_FALSE(from_base64url(bad)) << bad;
}

TEST(Bytes, ReaderIsTotal) {
  const Bytes in{1, 2, 3, 4, 5};
  Reader r(in);
  EXPECT_EQ(r.big(2), 0x0102U);
  EXPECT_EQ(r.little(2), 0x0403U);
  EXPECT_TRUE(r.ok());
  EXPECT_EQ(r.big(4), 0U);
  EXPECT_FALSE(r.ok());
  EXPECT_TRUE(r.take(1).empty());
}

TEST(Bytes, ConstantTimeEqual) {
  EXPECT_TRUE(equal_constant_time(as_bytes("abc"), as_bytes("abc")));
  EXPECT_FALSE(equal_constant_time(as_bytes("abc"), as_bytes("abd")));
  EXPECT_FALSE(equal_constant_time(as_bytes("abc"), as_bytes("ab")));
}

TEST(Chunk, PoolReusesAndKeepsHeadroom) {
  ChunkPool pool(1);
  {
    auto a = pool.get();
    auto b = pool.copy_of(as_bytes("hello"));
    EXPECT_EQ(pool.in_use(), 2U);
    EXPECT_EQ(as_text(b->view()), "hello");
    EXPECT_EQ(b->begin, Chunk::kHeadroom);
    EXPECT_EQ(a->append(Bytes(20'000)), Chunk::kSize - Chunk::kHeadroom);
  }
  EXPECT_EQ(pool.in_use(), 0U);
  EXPECT_EQ(pool.idle(), 1U);
  EXPECT_EQ(pool.get()->size(), 0U);
}

TEST(Clock, FormatAndParse) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(format_time(1'767'261'605'250), "2026-01-01T10:00:05.250Z");
  EXPECT_EQ(parse_time("2026-01-01T10:00:05.25Z"), 1'767'261'605'250);
  EXPECT_EQ(parse_time("2026-01-01T12:00:05+02:00"), 1'767'261'605'000);
  for (const char* bad :
       {"", "2026", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T10:00:05",
        "2026-01-01T10:00:05.Z", "2026-01-01T10:00:05Zx"}) {
    EXPECT_FALSE(parse_time(bad)) << bad;
  }
}

TEST(Random, SeededRepeatsAndUuidHasItsForm) {
  SeededRandom a(7);
  SeededRandom b(7);
  EXPECT_EQ(a.hex(16), b.hex(16));
  const auto u = system_random().uuid();
  ASSERT_EQ(u.size(), 36U);
  EXPECT_EQ(u[14], '4');
  for (int i = 0; i < 100; ++i) EXPECT_LT(a.below(3), 3U);
}

TEST(Text, JsonQuote) {
  EXPECT_EQ(json_quote("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
  EXPECT_EQ(json_quote("\xc3\xa9\xff"), "\"\xc3\xa9\xef\xbf\xbd\"");
  EXPECT_EQ(json_quote("\xed\xa0\x80").size(), 2U + 9U);  // a surrogate is three bad bytes
}

TEST(Text, Names) {
  for (const char* good : {"a", "pump-17", "A.b_c"}) EXPECT_TRUE(valid_name(good)) << good;
  for (const char* bad : {"", "-a", "a b", "a/b", "#a"}) EXPECT_FALSE(valid_name(bad)) << bad;
  EXPECT_FALSE(valid_name(std::string(65, 'a')));
}

TEST(Text, HostPort) {
  EXPECT_EQ(parse_host_port("127.0.0.1:1883")->port, 1883);
  EXPECT_EQ(parse_host_port("[::1]:22")->host, "::1");
  EXPECT_EQ(parse_host_port("[::1]:22")->str(), "[::1]:22");
  EXPECT_EQ(parse_host_port("h", 1280)->port, 1280);
  for (const char* bad :
       {"", ":1", "h", "h:", "h:0", "h:65536", "h:1x", "[::1", "[::1]x", "::1:22"})
    EXPECT_FALSE(parse_host_port(bad)) << bad;
}

TEST(Text, ListenAddresses) {
  EXPECT_EQ(parse_listen("*:3022")->host, "*");
  EXPECT_EQ(parse_listen("127.0.0.1:0")->port, 0);
  EXPECT_EQ(parse_listen("[::1]:0")->host, "::1");
  for (const char* bad : {"", ":0", "a", "a:65536", "::1:0"})
    EXPECT_FALSE(parse_listen(bad)) << bad;
}

TEST(Text, HostNamesAndAddresses) {
  for (const char* good :
       {"a", "localhost", "iot.example.com", "x-1.y", "10.0.0.1", "::1", "3com.de"})
    EXPECT_TRUE(valid_host(good)) << good;
  const std::string long_label(64, 'a');
  for (const std::string& bad :
       {std::string(), std::string("bad host"), std::string("a..b"), std::string("-a"),
        std::string("a-"), std::string("1.2.3"), std::string("a.1"), std::string("[::1]"),
        std::string("a:1"), std::string("a_b"), long_label, std::string("a\0b", 3)})
    EXPECT_FALSE(valid_host(bad)) << bad;
}

TEST(Backoff, DoublesToTheCapAndStartsAfreshAfterSuccess) {
  SeededRandom random(1);
  Backoff backoff(50);
  std::int64_t cap = 50;
  for (int i = 0; i < 8; ++i) {
    const auto ms = backoff.next_ms(random, 1'000);
    EXPECT_GE(ms, cap / 2);
    EXPECT_LE(ms, cap);
    cap = std::min<std::int64_t>(1'000, cap * 2);
  }
  backoff.reset();
  EXPECT_LE(backoff.next_ms(random, 1'000), 50);
}

TEST(Text, ParseU64) {
  EXPECT_EQ(parse_u64("18446744073709551615"), UINT64_MAX);
  for (const char* bad : {"", "-1", "18446744073709551616", "1 ", "999999999999999999999"})
    EXPECT_FALSE(parse_u64(bad)) << bad;
}

class FsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/sally-fs-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string dir_;
};

TEST_F(FsTest, AtomicWriteReplacesAndKeepsTheMode) {
  const auto path = dir_ + "/f";
  ASSERT_TRUE(fs::write_file_atomic(path, as_bytes("one")));
  ASSERT_TRUE(fs::write_file_atomic(path, as_bytes("two"), 0600));
  EXPECT_EQ(fs::read_text(path).value(), "two");
  struct stat st{};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
}

TEST_F(FsTest, Errors) {
  EXPECT_TRUE(fs::read_file(dir_ + "/none").error().is(fs::Errc::kNotFound));
  ASSERT_TRUE(fs::write_file_atomic(dir_ + "/f", as_bytes("12345")));
  EXPECT_TRUE(fs::read_file(dir_ + "/f", 4).error().is(fs::Errc::kTooLarge));
  EXPECT_FALSE(fs::write_file_atomic(dir_ + "/no/f", as_bytes("x")));
  EXPECT_FALSE(fs::make_dirs(dir_ + "/f"));
  EXPECT_TRUE(fs::make_dirs(dir_ + "/a/b/c"));
}

TEST_F(FsTest, ALockIsOfTheFileThatIsThereNow) {
  const auto path = dir_ + "/n";
  EXPECT_TRUE(fs::FileLock::take(path).error().is(fs::Errc::kNotFound));
  ASSERT_TRUE(fs::write_file_atomic(path, as_bytes("0")));
  {
    const auto held = fs::FileLock::take(path);
    const auto other = fs::FileLock::take(path, 5);
    ASSERT_FALSE(other);
    EXPECT_TRUE(other.error().is(fs::Errc::kLocked) && other.error().retry());
  }
  constexpr int kEach = 50;
  std::vector<std::thread> all(4);
  for (auto& t : all) {
    t = std::thread([&] {
      for (int i = 0; i < kEach; ++i) {
        const auto lock = fs::FileLock::take(path);
        ASSERT_TRUE(lock);
        const int n = std::stoi(fs::read_text(path).value());
        ASSERT_TRUE(fs::write_file_atomic(path, as_bytes(std::to_string(n + 1))));
      }
    });
  }
  for (auto& t : all) t.join();
  EXPECT_EQ(fs::read_text(path).value(), std::to_string(4 * kEach));
}

TEST(Log, TextJsonAndRateLimit) {
  std::vector<std::string> lines;
  log::set_sink([&](std::string_view l) { lines.emplace_back(l); });
  log::info("base.hello", {{"name", "two words"}, {"n", 3}});
  log::debug("base.unseen");
  for (int i = 0; i < 500; ++i) log::info("base.flood");
  EXPECT_TRUE(log::set_option("json"));
  EXPECT_FALSE(log::set_option("xml"));
  log::set_origin("test", "net");
  const auto before = log::counts();
  log::warn("base.json", {{"s", "a\"b"}, {"n", 1}});
  EXPECT_EQ(log::counts().lines[2], before.lines[2] + 1);
  EXPECT_GE(before.suppressed, 400U);
  log::set_option("text");
  log::set_sink(nullptr);
  ASSERT_GE(lines.size(), 2U);
  EXPECT_NE(lines[0].find("info base.hello name=\"two words\" n=3"), std::string::npos);
  EXPECT_LE(lines.size(), 2U + 100U);
  EXPECT_NE(lines.back().find(
                "\"level\":\"warn\",\"code\":\"base.json\",\"component\":\"test\",\"network\":"
                "\"net\",\"fields\":{\"s\":\"a\\\"b\",\"n\":1}}"),
            std::string::npos);
}

TEST(Metrics, TextFormat) {
  metrics::Counter n;
  n.add();
  n.add(4);
  metrics::Latency latency;
  latency.observe_us(400);
  latency.observe_us(2'000'000);
  latency.observe_us(60'000'000);
  latency.observe_us(-1);
  metrics::Text text;
  text.counter("sally_things_total", "Things.\nAnd \\more.")
      .value(n.value(), {{"name", "a\"b\\c"}, {"kind", "\n"}});
  text.histogram("sally_time_seconds", "Time.").latency(latency.values(), {{"route", "/x"}});
  text.gauge("sally_share", "Share.").real(0.5);
  const std::string got = text.take();
  EXPECT_TRUE(got.starts_with(
      "# HELP sally_things_total Things.\\nAnd \\\\more.\n# TYPE sally_things_total counter\n"
      "sally_things_total{name=\"a\\\"b\\\\c\",kind=\"?\"} 5\n"))
      << got;
  for (const char* line : {"\nsally_time_seconds_bucket{route=\"/x\",le=\"0.0005\"} 2\n",
                           "\nsally_time_seconds_bucket{route=\"/x\",le=\"2.5\"} 3\n",
                           "\nsally_time_seconds_bucket{route=\"/x\",le=\"10\"} 3\n",
                           "\nsally_time_seconds_bucket{route=\"/x\",le=\"+Inf\"} 4\n",
                           "\nsally_time_seconds_sum{route=\"/x\"} 62.0004\n",
                           "\nsally_time_seconds_count{route=\"/x\"} 4\n", "\nsally_share 0.5\n"})
    EXPECT_NE(got.find(line), std::string::npos) << line << got;
  EXPECT_EQ(text.take(), "");
  metrics::write_process(text, "test", "1");
  const std::string process = text.take();
  for (const char* name : {"sally_build_info{program=\"test\",version=\"1\"} 1\n",
                           "\nsally_process_resident_memory_bytes ", "\nsally_process_open_fds "})
    EXPECT_NE(process.find(name), std::string::npos) << name << process;
}

TEST(FlooredClock, IsNeverBeforeAProvenTimeAndFollowsOtherwise) {
  FakeClock inner(1'000'000);
  FlooredClock clock(inner);
  EXPECT_EQ(clock.unix_ms(), 1'000'000);
  clock.raise(1'000'500);
  EXPECT_EQ(clock.unix_ms(), 1'000'500);
  inner.set_unix_ms(0);  // set back: what is proven goes on by monotonic time
  inner.advance_ms(90'000);
  EXPECT_EQ(clock.unix_ms(), 1'090'500);
  clock.raise(1'000'600);  // known already
  EXPECT_EQ(clock.unix_ms(), 1'090'500);
  inner.set_unix_ms(9'000'000);  // set forward, and right again
  EXPECT_EQ(clock.unix_ms(), 9'000'000);
  inner.set_unix_ms(1'091'000);
  EXPECT_EQ(clock.unix_ms(), 1'091'000);
}

}  // namespace
}  // namespace sally
