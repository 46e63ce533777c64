// SPDX-License-Identifier: Apache-2.0
// A lane over a real TLS connection, against a peer that sends the bytes a test chooses.
#include "lane/lane.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <list>
#include <memory>
#include <optional>

#include "fabric/errors.h"
#include "tls/acceptor.h"
#include "tls/test_tls.h"

namespace sally::lane {
namespace {

using crypto::must;
using wire::FrameType;

/// The other end without a Lane: bytes out, frames in.
class RawPeer final : public tls::StreamHandler {
 public:
  explicit RawPeer(std::unique_ptr<tls::Stream> s) : stream(std::move(s)) {
    stream->set_handler(*this);
  }
  void send(ByteView bytes) {
    append(out_, bytes);
    on_writable();
  }
  void frame(wire::FrameHeader h, ByteView payload = {}) {
    h.length = static_cast<std::uint32_t>(payload.size());
    std::uint8_t raw[wire::kFrameHeaderSize];
    wire::encode(h, raw);
    Bytes all = to_bytes(ByteView(raw));
    append(all, payload);
    send(all);
  }
  void control(const wire::Control& m) { frame({.type = FrameType::kControl}, wire::encode(m)); }
  void hello(std::string network, std::uint32_t low = 1, std::uint32_t high = 1) {
    wire::Hello h;
    h.version_min = low;
    h.version_max = high;
    h.network = std::move(network);
    control({std::move(h)});
  }
  void on_readable() override {
    ChunkPtr chunk = pool.get();
    chunk->begin = chunk->end = 0;
    chunk->end = static_cast<std::uint32_t>(stream->read({chunk->data, Chunk::kSize}));
    reader.feed(std::move(chunk));
    for (;;) {
      const auto f = must(reader.next());
      if (!f) return;
      got.push_back({f->header, to_bytes(f->payload)});
      if (f->header.type != FrameType::kControl) continue;
      const auto m = must(wire::decode_control(f->payload));
      if (const auto* r = std::get_if<wire::Refused>(&m.member)) refused = r->code;
    }
  }
  void on_writable() override {
    at_ += stream->write(ByteView(out_).subspan(at_));
    if (at_ == out_.size()) {
      out_.clear();
      at_ = 0;
    }
  }
  void on_closed(const Error& why) override { closed = why; }
  [[nodiscard]] std::size_t unsent() const { return out_.size() - at_; }
  [[nodiscard]] std::size_t count(FrameType t) const {
    std::size_t n = 0;
    for (const auto& f : got) n += f.header.type == t ? 1 : 0;
    return n;
  }
  [[nodiscard]] const wire::FrameHeader* last(FrameType t) const {
    const wire::FrameHeader* found = nullptr;
    for (const auto& f : got) {
      if (f.header.type == t) found = &f.header;
    }
    return found;
  }

  struct Got {
    wire::FrameHeader header;
    Bytes payload;
  };
  std::vector<Got> got;
  std::optional<std::string> refused;
  std::optional<Error> closed;
  std::unique_ptr<tls::Stream> stream;
  ChunkPool pool;
  FrameReader reader{pool};

 private:
  Bytes out_;
  std::size_t at_ = 0;
};

struct Probe final : Attachment {
  Status on_data(std::uint64_t offset, ByteView payload, ChunkPtr*) override {
    EXPECT_EQ(offset, received);
    received += payload.size();
    ++frames;
    return {};
  }
  Status on_fin(std::uint64_t) override { return {}; }
  void on_credit(std::uint64_t limit) override { credit = limit; }
  Status on_ack(std::uint64_t) override { return {}; }
  Status on_setup_ok(ByteView) override {
    answered = true;
    return {};
  }
  void on_setup_err(const wire::SetupErr& e) override { refused = e.code; }
  void on_reset(const wire::Reset& r) override { reset = r.code; }
  bool next_frame(Out&) override { return false; }
  std::uint64_t received = 0;
  std::uint64_t credit = 0;
  int frames = 0;
  bool answered = false;
  std::optional<wire::SetupCode> refused;
  std::optional<wire::ResetCode> reset;
};

class LaneTest : public ::testing::Test, public LaneOwner {
 protected:
  /// A lane (as a router's) and a raw peer (as a device's), before any HELLO of the peer.
  void connect(LaneOptions o = {}) {
    options = std::move(o);
    options.hello.network = pki.network;
    tls::ContextOptions server = tls::test_options(pki, tls::Side::kServer, &router, nullptr);
    server.roles = {tls::Role::kDevice};
    acceptor = must(tls::Acceptor::create(
        loop, {.host = "127.0.0.1", .context = tls::test_context(std::move(server)), .limits = {}},
        [this](std::unique_ptr<tls::Stream> s) {
          lane = std::make_unique<Lane>(loop, pool, std::move(s), *this, options);
        }));
    dialing = tls::dial(
        loop, tls::test_context(tls::test_options(pki, tls::Side::kClient, &device, nullptr)),
        {.host = "127.0.0.1", .port = acceptor->port()},
        [this](Result<std::unique_ptr<tls::Stream>> s) {
          peer = std::make_unique<RawPeer>(must(std::move(s)));
        });
    ASSERT_TRUE(until([&] { return lane != nullptr && peer != nullptr; }));
  }
  void connect_up(LaneOptions o = {}) {
    connect(std::move(o));
    peer->hello(pki.network);
    ASSERT_TRUE(until([&] { return lane->up() && peer->count(FrameType::kControl) > 0; }));
  }
  bool until(const std::function<bool()>& f, std::int64_t ms = 10'000) {
    return loop.run_until(f, ms);
  }
  void expect_down(const std::string& code) {
    ASSERT_TRUE(until([&] { return down.has_value(); })) << code;
    EXPECT_EQ(down->code(), code) << down->text();
  }
  /// Ours, and so the peer hears it.
  void expect_refused(const std::string& code) {
    expect_down(code);
    ASSERT_TRUE(until([&] { return peer->refused && peer->closed; })) << code;
    EXPECT_EQ(*peer->refused, code);
  }

  void on_lane_up(Lane&, const wire::Hello&) override { ++ups; }
  void on_lane_control(Lane&, wire::Control&&) override { ++controls; }
  void on_lane_setup(Lane&, std::uint32_t label, ByteView) override { setups.push_back(label); }
  void on_lane_down(Lane&, const Error& why) override {
    down = why;
    lane.reset();
  }

  loop::Loop loop;
  crypto::TestPki pki{"net-a.sally", system_clock().unix_ms() / 1000};
  crypto::TestLeaf router = pki.leaf(crypto::Role::kRouter, "r-1");
  crypto::TestLeaf device = pki.leaf(crypto::Role::kDevice, "d-1");
  ChunkPool pool;
  LaneOptions options;
  std::unique_ptr<tls::Acceptor> acceptor;
  std::unique_ptr<tls::Dialing> dialing;
  std::unique_ptr<RawPeer> peer;
  std::unique_ptr<Lane> lane;
  int ups = 0;
  int controls = 0;
  std::vector<std::uint32_t> setups;
  std::optional<Error> down;
};

TEST_F(LaneTest, WhatIsNoHelloFirstIsRefused) {
  connect();
  peer->frame({.type = FrameType::kPing, .offset = 1});
  expect_refused("lane.protocol");
  EXPECT_EQ(ups, 0);
}

TEST_F(LaneTest, AMessageBeforeHello) {
  connect();
  peer->control({wire::Unbind{.service = "s", .instance = {}}});
  expect_refused("lane.protocol");
}

TEST_F(LaneTest, ASecondHello) {
  connect_up();
  peer->hello(pki.network);
  expect_refused("lane.protocol");
}

TEST_F(LaneTest, AnotherNetwork) {
  connect();
  peer->hello("net-b.sally");
  expect_refused("lane.network");
}

TEST_F(LaneTest, OnlyAVersionWeDoNotSpeak) {
  connect();
  peer->hello(pki.network, 2, 3);
  expect_refused("lane.version");
}

TEST_F(LaneTest, ANewerPeerThatStillSpeaksOursIsWelcome) {
  connect();
  peer->hello(pki.network, 1, 9);
  EXPECT_TRUE(until([&] { return lane->up(); }));
}

TEST_F(LaneTest, NoHelloInTime) {
  connect({.hello_ms = 50, .probe_ms = 20});
  expect_refused("lane.no_hello");
}

TEST_F(LaneTest, ARefusalOfThePeerIsTheReason) {
  connect_up();
  peer->control({wire::Refused{.code = "router.revoked", .text = "no"}});
  expect_down("lane.refused");
}

struct BadFrame {
  const char* what;
  std::vector<int> bytes;  // of the header
  const char* code;
};
class BadFrames : public LaneTest, public ::testing::WithParamInterface<BadFrame> {};
TEST_P(BadFrames, CloseTheLane) {
  connect_up();
  Bytes raw;
  for (const int b : GetParam().bytes) raw.push_back(static_cast<std::uint8_t>(b));
  raw.resize(wire::kFrameHeaderSize);
  peer->send(raw);
  ASSERT_TRUE(until([&] { return down.has_value(); })) << GetParam().what;
  EXPECT_EQ(std::string(down->code()).substr(0, std::string(GetParam().code).size()),
            GetParam().code);
  EXPECT_TRUE(until([&] { return peer->closed && peer->refused; }));
}
INSTANTIATE_TEST_SUITE_P(
    Lane, BadFrames,
    ::testing::Values(BadFrame{"unknown type", {1, 0, 0, 0, 0, 0, 0, 15}, "wire."},
                      BadFrame{"unknown flags", {0, 0, 0, 0, 0, 0, 0, 10 | 0x40}, "wire."},
                      BadFrame{"class", {1, 0, 0, 0, 0, 0, 0, 1, 9}, "wire."},
                      BadFrame{
                          "reserved", {0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1}, "wire."},
                      BadFrame{"length", {1, 0, 0, 0, 0xff, 0xff, 0xff, 0, 2}, "wire."},
                      BadFrame{"label never given", {77, 0, 0, 0, 0, 0, 0, 1}, "fabric.bad_label"},
                      BadFrame{"SETUP on a circuit", {1, 0, 0, 0, 1, 0, 0, 5, 0, 1}, "wire."},
                      BadFrame{"empty PATH_DOWN", {0, 0, 0, 0, 0, 0, 0, 8}, "wire."}));

TEST_F(LaneTest, ResetIsAnsweredAndTheLabelUsedAgain) {
  connect_up();
  Probe a;
  ASSERT_TRUE(lane->attach(a, 500));
  const std::uint32_t label = a.local_label();
  peer->frame({.label = label, .type = FrameType::kReset},
              wire::encode(wire::Reset{.code = wire::ResetCode::kTimeout, .text = {}}));
  ASSERT_TRUE(until([&] { return peer->count(FrameType::kReset) == 1; }));
  EXPECT_EQ(a.reset, wire::ResetCode::kTimeout);
  EXPECT_EQ(peer->last(FrameType::kReset)->label, 500U);
  EXPECT_EQ(lane->circuits(), 0U);
  // Ours: the label drains, what comes late is dropped, until the peer's RESET.
  Probe b;
  ASSERT_TRUE(lane->attach(b, 501));
  EXPECT_EQ(b.local_label(), label);
  lane->reset(b, wire::ResetCode::kClosed);
  peer->frame({.label = label, .type = FrameType::kData, .cls = wire::Class::kNormal},
              Bytes(10, 1));
  Probe c;
  ASSERT_TRUE(lane->attach(c, 502));
  EXPECT_NE(c.local_label(), label);
  EXPECT_EQ(lane->circuits(), 2U);
  peer->frame({.label = label, .type = FrameType::kReset},
              wire::encode(wire::Reset{.code = wire::ResetCode::kClosed, .text = {}}));
  ASSERT_TRUE(until([&] { return lane->circuits() == 1; }));
  EXPECT_EQ(b.received, 0U);
  EXPECT_FALSE(b.reset);
  Probe d;
  ASSERT_TRUE(lane->attach(d, 503));
  EXPECT_EQ(d.local_label(), label);
  // PATH_DOWN of the peer ends many at once.
  peer->frame({.type = FrameType::kPathDown},
              wire::encode(wire::PathDown{.labels = {c.local_label(), d.local_label()},
                                          .code = wire::ResetCode::kLaneLost}));
  ASSERT_TRUE(until([&] { return c.reset && d.reset; }));
  EXPECT_EQ(c.reset, wire::ResetCode::kLaneLost);
  ASSERT_TRUE(until([&] { return peer->count(FrameType::kReset) == 4; }));
}

TEST_F(LaneTest, OurPathDownIsOneFrame) {
  connect_up();
  std::list<Probe> probes(100);
  std::vector<Attachment*> all;
  for (auto& p : probes) {
    ASSERT_TRUE(lane->attach(p, static_cast<std::uint32_t>(1000 + all.size())));
    all.push_back(&p);
  }
  lane->path_down(all, wire::ResetCode::kLaneLost);
  ASSERT_TRUE(until([&] { return peer->count(FrameType::kPathDown) == 1; }));
  EXPECT_EQ(must(wire::decode_path_down(peer->got.back().payload)).labels.size(), 100U);
}

TEST_F(LaneTest, GivingUpASetupResetsTheLateAnswer) {
  connect_up();
  {
    Probe a;
    ASSERT_TRUE(lane->attach(a));
    lane->send_setup(a, {.setup = Bytes{1}, .route = {}, .attempt = 0});
  }
  ASSERT_TRUE(until([&] { return peer->count(FrameType::kSetup) == 1; }));
  const auto label = static_cast<std::uint32_t>(peer->last(FrameType::kSetup)->offset);
  peer->frame({.label = label, .type = FrameType::kSetupOk, .offset = 9}, Bytes(10, 1));
  ASSERT_TRUE(until([&] { return peer->count(FrameType::kReset) == 1; }));
  EXPECT_EQ(peer->last(FrameType::kReset)->label, 9U);
  peer->frame({.label = label, .type = FrameType::kReset},
              wire::encode(wire::Reset{.code = wire::ResetCode::kClosed, .text = {}}));
  ASSERT_TRUE(until([&] { return lane->circuits() == 0; }));
}

TEST_F(LaneTest, NothingMayComeBetweenSetupAndItsAnswer) {
  for (const FrameType type :
       {FrameType::kData, FrameType::kFin, FrameType::kCredit, FrameType::kAck}) {
    down.reset();
    lane.reset();
    peer.reset();
    connect_up();
    Probe a;
    ASSERT_TRUE(lane->attach(a));
    const bool data = type == FrameType::kData;
    peer->frame({.label = a.local_label(),
                 .type = type,
                 .cls = data ? wire::Class::kNormal : wire::Class::kControl},
                data ? Bytes(10, 1) : Bytes());
    expect_refused("lane.protocol");
    EXPECT_EQ(a.frames, 0);
    EXPECT_TRUE(a.reset);
  }
}

TEST_F(LaneTest, ARefusalAfterTheAnswerClosesTheLaneAndItsCircuits) {
  connect_up();
  Probe a;
  ASSERT_TRUE(lane->attach(a, 5));
  peer->frame(
      {.label = a.local_label(), .type = FrameType::kSetupErr},
      wire::encode(wire::SetupErr{
          .circuit = {}, .attempt = 0, .hop = {}, .code = wire::SetupCode::kRefused, .text = {}}));
  expect_refused("lane.protocol");
  EXPECT_EQ(a.reset, wire::ResetCode::kLaneLost);
  EXPECT_EQ(a.lane(), nullptr);
  EXPECT_FALSE(a.refused);
}

TEST_F(LaneTest, ControlMessagesAreCapped) {
  connect_up({.max_control = 40'000});
  for (int i = 0; i < 3; ++i)
    peer->frame({.type = FrameType::kControl, .flags = wire::kFlagMore},
                Bytes(wire::kMaxPayload, 1));
  expect_refused("lane.too_long");
}

TEST_F(LaneTest, AShortFragmentIsRefusedSoTheyCannotBeEndless) {
  connect_up();
  peer->frame({.type = FrameType::kControl, .flags = wire::kFlagMore}, Bytes(1, 1));
  expect_refused("lane.protocol");
}

TEST_F(LaneTest, APeerThatPingsAndNeverReadsIsNoLongerReadFrom) {
  connect_up({.probe_ms = 60'000, .dead_ms = 120'000});
  peer->stream->want_read(false);
  std::uint8_t ping[wire::kFrameHeaderSize];
  wire::encode({.type = FrameType::kPing, .offset = 1}, ping);
  Bytes many;
  for (int i = 0; i < 1'000'000; ++i) append(many, ping);
  peer->send(many);  // 16 MB of them; their PONGs would be 24 MB
  std::size_t unsent = peer->unsent();
  for (int quiet = 0; quiet < 10;) {
    until([] { return false; }, 20);
    quiet = peer->unsent() == unsent ? quiet + 1 : 0;
    unsent = peer->unsent();
  }
  EXPECT_FALSE(down);
  EXPECT_GT(unsent, 1'000'000U);
  // Once it reads, everything goes on.
  peer->stream->want_read(true);
  EXPECT_TRUE(until([&] { return peer->count(FrameType::kPong) == 1'000'000; }, 30'000));
}

TEST_F(LaneTest, SilenceIsDeath) {
  connect_up({.probe_ms = 30, .dead_ms = 150});
  Probe a;
  ASSERT_TRUE(lane->attach(a, 5));
  // It reads our probes and says nothing.
  const auto start = loop.now_ms();
  expect_down("lane.dead");
  EXPECT_LT(loop.now_ms() - start, 2'000);
  EXPECT_EQ(a.reset, wire::ResetCode::kLaneLost);
  EXPECT_GE(peer->count(FrameType::kPing), 2U);
}

TEST_F(LaneTest, ACutConnectionIsNoOrderlyEnd) {
  connect_up();
  Probe a;
  ASSERT_TRUE(lane->attach(a, 5));
  // TCP ends, TLS did not: somebody on the path can do that.
  ASSERT_EQ(::shutdown(peer->stream->fd(), SHUT_WR), 0);
  expect_down("tls.truncated");
  EXPECT_EQ(a.reset, wire::ResetCode::kLaneLost);
}

TEST_F(LaneTest, TenThousandResetsAreAnsweredOnceAndLeaveNoLabel) {
  connect_up();
  const Bytes reset = wire::encode(wire::Reset{.code = wire::ResetCode::kClosed, .text = {}});
  std::uint32_t highest = 0;
  for (std::size_t round = 1; round <= 10; ++round) {
    std::list<Probe> circuits;
    for (std::uint32_t i = 0; i < 1'000; ++i) {
      ASSERT_TRUE(lane->attach(circuits.emplace_back(), i + 1));
      highest = std::max(highest, circuits.back().local_label());
    }
    for (const auto& c : circuits)
      peer->frame({.label = c.local_label(), .type = FrameType::kReset}, reset);
    ASSERT_TRUE(until([&] { return peer->count(FrameType::kReset) == round * 1'000; }));
    EXPECT_EQ(lane->circuits(), 0U);
  }
  EXPECT_LE(highest, 1'000U);
  // Late ones for a label that is free are harmless and not answered; one that was never given out
  // is no accident.
  peer->frame({.label = 1, .type = FrameType::kReset}, reset);
  peer->frame({.label = highest + 1, .type = FrameType::kReset}, reset);
  expect_refused("fabric.bad_label");
  EXPECT_EQ(peer->count(FrameType::kReset), 10'000U);
}

TEST_F(LaneTest, TenThousandFramesOfOneByte) {
  connect_up();
  Probe a;
  ASSERT_TRUE(lane->attach(a, 5));
  Bytes many;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    std::uint8_t raw[wire::kFrameHeaderSize];
    wire::encode({.label = a.local_label(),
                  .length = 1,
                  .type = FrameType::kData,
                  .cls = wire::Class::kNormal,
                  .offset = i},
                 raw);
    append(many, raw);
    many.push_back(1);
  }
  peer->send(many);
  ASSERT_TRUE(until([&] { return a.received == 10'000; }));
  EXPECT_EQ(a.frames, 10'000);
  EXPECT_LE(pool.in_use(), 3U);
  lane->reset(a, wire::ResetCode::kClosed);
}

TEST_F(LaneTest, FramesCutAtEveryByteBoundary) {
  connect_up();
  Probe a;
  ASSERT_TRUE(lane->attach(a, 5));
  std::uint64_t offset = 0;
  const auto data = [&](std::size_t n) {
    Bytes out(wire::kFrameHeaderSize);
    wire::encode({.label = a.local_label(),
                  .length = static_cast<std::uint32_t>(n),
                  .type = FrameType::kData,
                  .cls = wire::Class::kNormal,
                  .offset = offset},
                 std::span<std::uint8_t, wire::kFrameHeaderSize>(out.data(), out.size()));
    out.resize(out.size() + n, 7);
    offset += n;
    return out;
  };
  // Each write is a record: a pair of frames, cut in two at every place.
  const std::size_t pair = 2 * wire::kFrameHeaderSize + 5 + 3;
  for (std::size_t cut = 1; cut < pair; ++cut) {
    Bytes both = data(5);
    append(both, data(3));
    peer->send(ByteView(both).first(cut));
    peer->send(ByteView(both).subspan(cut));
  }
  ASSERT_TRUE(until([&] { return a.received == offset; }));
  EXPECT_FALSE(down);
  lane->reset(a, wire::ResetCode::kClosed);
}

TEST_F(LaneTest, AcknowledgementsThatWaitAreMergedAndTheLastGoesBeforeReset) {
  connect_up();
  Probe a;
  ASSERT_TRUE(lane->attach(a, 5));
  for (std::uint64_t i = 0; i < 1'000'000; ++i) {
    lane->send_ack(a, i);
    lane->send_credit(a, i + 7);
  }
  ASSERT_TRUE(until([&] { return peer->count(FrameType::kAck) > 0; }));
  EXPECT_EQ(peer->count(FrameType::kAck), 1U);
  EXPECT_EQ(peer->count(FrameType::kCredit), 1U);
  EXPECT_EQ(peer->last(FrameType::kAck)->offset, 999'999U);
  EXPECT_EQ(peer->last(FrameType::kCredit)->offset, 1'000'006U);
  lane->send_ack(a, 2'000'000);
  lane->reset(a, wire::ResetCode::kNone);
  ASSERT_TRUE(until([&] { return peer->count(FrameType::kReset) == 1; }));
  EXPECT_EQ(peer->last(FrameType::kAck)->offset, 2'000'000U);
  EXPECT_EQ(peer->got.back().header.type, FrameType::kReset);
}

}  // namespace
}  // namespace sally::lane
