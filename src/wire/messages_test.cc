// SPDX-License-Identifier: Apache-2.0
#include "wire/messages.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>

#include "base/fs.h"
#include "wire/frame.h"

namespace sally::wire {
namespace {

const CircuitId kCircuit{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
const InstanceId kInstance{16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1};
const Hash kHash = [] {
  Hash h{};
  h.fill(0xab);
  return h;
}();

// One value of each message with every field set.
const Envelope kEnvelope{
    "n.sally", EnvelopeType::kCard, {1, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8}, {9, 9}};
const Card kCard{"n.sally", "d-1", "pump-17",         {"sensors", "eu"},
                 3,         2,     1'800'000'000'000, 1'799'000'000'000};
const ServiceRecord kRecord{"n.sally", "s-1", "plant-mqtt",      E2e::kTls, {"#sensors", "@d-9"},
                            {"@d-2"},  4,     1'800'000'000'000, "{\n}",    "{}"};
const Setup kSetup{
    SetupKind::kOpen, "n.sally", kCircuit, 1, 2, "s-1", {22, 3, 1}, {7}, 99, {48}, {48}, {1}, {2}};
const DialProof kDial{SetupKind::kMove,  "n.sally", kCircuit, 1,    "s-1", "r-1",
                      1'800'000'000'000, kHash,     99,       kHash};
const SetupFrame kSetupFrame{{1, 2}, {3}, 1};
const Route kRoute{"n.sally",      kCircuit,          1,     2,         "s-1", "t-1",
                   {"r-1", "r-2"}, 1'800'000'000'000, kHash, kInstance, {48},  {49}};
const HostAnswer kHostAnswer{kCircuit, 1, 2, {22}, {1}, 5, {6}};
const Answer kAnswer{"n.sally", "t-1", kInstance, kHostAnswer, "r-2", {48}, {49}};
const SetupErr kSetupErr{kCircuit, 2, "r-1", SetupCode::kShuttingDown, "going down"};
const Reset kReset{ResetCode::kBudget, "full"};
const PathDown kPathDown{{1, 300, 0xffffffff}, ResetCode::kLaneLost};
const BindProof kBindProof{"n.sally", "s-1", kInstance, "r-1", 1'800'000'000'000};
const StateUpdate kUpdate{{1}, {2}, {{3}, {4}}, {5}, {{{48}, {49}}}};

std::vector<Control> controls() {
  return {
      {Hello{1, 1, 5, "n.sally", kInstance, 7, 1'800'000'000'000, "sally 1", {1}, 9, kHash}},
      {Refused{"version", "too old"}},
      {Bind{1, "s-1", kInstance, {1}, 10, 1}},
      {BindReply{1, SetupCode::kBusy, "later", "t-1"}},
      {Unbind{"s-1", kInstance}},
      {Services{{{{1}, true, false}, {{2}, false, true}}, {{{48}, {49}}}}},
      {Services{}},
      {CardUpdate{{1}}},
      {CardRequest{1, "d-1"}},
      {Terminators{{{"t-1", "s-1", "d-1", kInstance, "r-1", 5, {1}, {48}, {49}, 10, 1}}}},
      {StateAck{7, 3}},
      {Events{{{5, "router.dial_denied", "d-1", "s-1", "why"}}}},
      {kUpdate},
      {CardReply{1, "d-1", {1}, "none"}},
      {Usage{kInstance, 3, 10'000, {{20'000, "d-1", "s-1", 1, 2, 3, 4}}, {5, 1, 2, 3, 4, 5, 6}}},
      {UsageAck{kInstance, 3, 2'000}},
      {Renew{7, "d-1", "1f", Bytes{1, 2}}},
      {Renewed{7, "d-1", Bytes{3}, Bytes{4}, "pki.too_often", 30'000}},
      {RenewNow{"d-1", 60'000}},
      {Routers{{{"r-1", "edge", {"127.0.0.1:3022", "[::1]:3022"}}}}},
  };
}
std::vector<StateOp> ops() {
  return {{RouterEntry{"r-1", "edge", {"h:1"}}},
          {RemoveRouter{"r-1"}},
          {PutService{{1, 2}}},
          {RemoveService{"s-1"}},
          {IdentityState{"d-1", Standing::kRevoked, 2, 3, 5}},
          {RevokedCertificate{"4f00", 6, 5}},
          {RevokedCertificate{"4f02", 6, 5, true}}};
}

/// (selector of messages_fuzz.cc, bytes) of every sample.
std::vector<std::pair<std::uint8_t, Bytes>> samples() {
  std::vector<std::pair<std::uint8_t, Bytes>> out = {
      {0, encode(kEnvelope)},
      {1, encode(kCard)},
      {2, encode(kRecord)},
      {3, encode(kSetup)},
      {4, encode(kDial)},
      {5, encode(kSetupFrame)},
      {6, encode(kRoute)},
      {7, encode(SetupOkFrame{{1}})},
      {8, encode(kHostAnswer)},
      {9, encode(kAnswer)},
      {10, encode(kSetupErr)},
      {11, encode(kReset)},
      {12, encode(kPathDown)},
      {13, encode(kBindProof)},
      {15, encode(kUpdate)},
      {16, encode(StateHead{"n.sally", 7, kHash, 5})},
      {17, encode(SnapshotHead{"n.sally", 7, kHash, kHash, 5})},
      {18, encode(Snapshot{{{1}, {2}}})},
      {19, encode(LogEntry{7, {1}})},
      {21, encode(RenewalRequest{"n.sally", "d-1", "1f", Bytes{1}, 5, Bytes{2}})},
      {22, encode(SessionToken{"n.sally", "d-1", 2, "a-1", SessionUse::kDial, "s-1", 5, 6})},
  };
  for (const auto& c : controls()) out.emplace_back(std::uint8_t{14}, encode(c));
  for (const auto& o : ops()) out.emplace_back(std::uint8_t{20}, encode(o));
  return out;
}

template <typename M>
void round(const M& m, Result<M> (*decode)(ByteView)) {
  const auto got = decode(encode(m));
  ASSERT_TRUE(got) << got.error().text();
  EXPECT_EQ(*got, m);
}

TEST(Messages, RoundTrip) {
  round(kEnvelope, decode_envelope);
  round(kCard, decode_card);
  round(kRecord, decode_service_record);
  round(kSetup, decode_setup);
  round(kDial, decode_dial_proof);
  round(kSetupFrame, decode_setup_frame);
  round(kRoute, decode_route);
  round(SetupOkFrame{{1}}, decode_setup_ok_frame);
  round(kHostAnswer, decode_host_answer);
  round(kAnswer, decode_answer);
  round(kSetupErr, decode_setup_err);
  round(kReset, decode_reset);
  round(kPathDown, decode_path_down);
  round(kBindProof, decode_bind_proof);
  round(kUpdate, decode_state_update);
  round(StateHead{"n.sally", 7, kHash, 5}, decode_state_head);
  round(SnapshotHead{"n.sally", 7, kHash, kHash, 5}, decode_snapshot_head);
  round(Snapshot{{{1}, {2}}}, decode_snapshot);
  round(LogEntry{7, {1}}, decode_log_entry);
  round(SessionToken{"n.sally", "d-1", 2, "a-1", SessionUse::kDial, "s-1", 5, 6},
        decode_session_token);
  for (const auto& c : controls()) round(c, decode_control);
  for (const auto& o : ops()) round(o, decode_state_op);
}

// By hand, from the protobuf encoding rules: field numbers and wire types are the contract.
TEST(Messages, BytesByHand) {
  EXPECT_EQ(to_hex(encode(kReset)),
            "08071204"
            "66756c6c");
  EXPECT_EQ(to_hex(encode(SetupErr{{}, 2, "r", SetupCode::kBusy, "x"})),
            "1002"
            "1a0172"
            "2003"
            "2a0178");
  EXPECT_EQ(to_hex(encode(PathDown{{1, 300}, ResetCode::kLaneLost})),
            "0a0301ac02"
            "1002");
  EXPECT_EQ(to_hex(encode(kEnvelope)),
            "0a076e2e73616c6c79"
            "1001"
            "1a03010203"
            "22080102030405060708"
            "2a020909");
  EXPECT_EQ(to_hex(encode(Control{StateAck{7, 300}})),
            "5205"
            "0807"
            "10ac02");
  EXPECT_EQ(to_hex(encode(StateOp{RemoveService{"s"}})), "220173");
  EXPECT_EQ(to_hex(encode(Card{"n", "d", "", {"a", "b"}, 0, 300, 0})),
            "0a016e"
            "120164"
            "220161"
            "220162"
            "30ac02");
  EXPECT_EQ(to_hex(encode(Control{Services{{{{1}, true, false}}, {}}})),
            "3207"
            "0a05"
            "0a0101"
            "1001");
}

TEST(Messages, SignedBytes) {
  EXPECT_EQ(to_hex(signed_bytes("n1", EnvelopeType::kRoute, {1, 2, 3, 4, 5, 6, 7, 8}, Bytes{0xaa})),
            "73616c6c7931"
            "00"
            "0005"
            "02"
            "6e31"
            "0102030405060708"
            "aa");
}

TEST(Messages, UnknownFieldsAreIgnored) {
  Bytes b = encode(kReset);
  append(b, *from_hex("f80601"
                      "f20603616263"
                      "bd0601020304"));  // fields 111 varint, 110 bytes, 103 fixed32
  ASSERT_TRUE(decode_reset(b)) << decode_reset(b).error().text();
  EXPECT_EQ(*decode_reset(b), kReset);
}

TEST(Messages, Refusals) {
  const auto is = [](const auto& r, Errc want) {
    ASSERT_FALSE(r);
    EXPECT_TRUE(r.error().is(want)) << r.error().text();
  };
  is(decode_reset(*from_hex("0808")), Errc::kValue);  // code 8
  is(decode_reset(*from_hex("08ffffffffffffffffff01")), Errc::kValue);
  is(decode_reset(*from_hex("0a0100")), Errc::kMalformed);  // field 1 as bytes
  is(decode_reset(*from_hex("08")), Errc::kMalformed);      // cut
  is(decode_reset(*from_hex("00")), Errc::kMalformed);      // field 0
  is(decode_reset(*from_hex("1205")), Errc::kMalformed);    // length past the end
  is(decode_reset(Bytes(kMaxErrorPayload + 1)), Errc::kTooLarge);
  is(decode_setup_err({}), Errc::kMissing);
  is(decode_control({}), Errc::kMissing);
  is(decode_state_op({}), Errc::kMissing);
  is(decode_state_op(*from_hex("2200")), Errc::kMissing);  // empty id
  Bytes two = encode(Control{StateAck{1, 1}});
  append(two, encode(Control{StateAck{1, 1}}));
  is(decode_control(two), Errc::kDuplicate);
  is(decode_path_down(*from_hex("0a0100")), Errc::kValue);  // label 0
  is(decode_path_down(encode(PathDown{std::vector<std::uint32_t>(kMaxPathDownLabels + 1, 1), {}})),
     Errc::kTooMany);

  auto setup = kSetup;
  setup.client_hello.resize(kMaxClientHello + 1);
  is(decode_setup(encode(setup)), Errc::kTooLarge);
  setup = kSetup;
  setup.network.clear();
  is(decode_setup(encode(setup)), Errc::kMissing);
  setup = kSetup;
  setup.kind = SetupKind::kNone;
  is(decode_setup(encode(setup)), Errc::kMissing);
  setup = kSetup;
  setup.service = "a\nb";
  is(decode_setup(encode(setup)), Errc::kValue);
  setup = kSetup;
  setup.service = "\xff";
  is(decode_setup(encode(setup)), Errc::kValue);

  auto route = kRoute;
  route.hops = {"r-1", "r-2", "r-1"};
  is(decode_route(encode(route)), Errc::kDuplicate);
  route.hops.clear();
  is(decode_route(encode(route)), Errc::kMissing);
  route.hops.assign(kMaxHops + 1, "r");
  is(decode_route(encode(route)), Errc::kTooMany);
  auto card = kCard;
  card.attributes.assign(kMaxAttributes + 1, "a");
  is(decode_card(encode(card)), Errc::kTooMany);
  card = kCard;
  card.not_after_ms = -1;
  is(decode_card(encode(card)), Errc::kValue);
  auto envelope = encode(kEnvelope);
  append(envelope, *from_hex("220101"));  // key id of one byte
  is(decode_envelope(envelope), Errc::kValue);
}

TEST(Messages, FreeTextIsCutAndCleaned) {
  const auto got = decode_reset(encode(Reset{ResetCode::kClosed, std::string(400, 'x') + "\n"}));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->text, std::string(kMaxNote, 'x'));
  EXPECT_EQ(decode_reset(*from_hex("1203"
                                   "610a1b"))
                ->text,
            "a??");
}

// Seeds of the fuzz targets: SALLY_WRITE_CORPUS=tests/corpus build/dev/bin/wire_test writes them.
TEST(Messages, Corpus) {
  const char* to = std::getenv("SALLY_WRITE_CORPUS");
  if (to == nullptr) GTEST_SKIP() << "only on request";
  const std::string root(to);
  int n = 0;
  ASSERT_TRUE(fs::make_dirs(root + "/wire_messages_fuzz", 0755));
  ASSERT_TRUE(fs::make_dirs(root + "/wire_frame_fuzz", 0755));
  for (const auto& [selector, body] : samples()) {
    Bytes file{selector};
    append(file, body);
    ASSERT_TRUE(
        fs::write_file_atomic(root + "/wire_messages_fuzz/" + std::to_string(n++), file, 0644));
  }
  for (std::uint8_t type = 0; type < 16; ++type) {
    Bytes file(kFrameHeaderSize * 2);
    for (std::size_t half = 0; half < 2; ++half) {
      FrameHeader h{.label = static_cast<std::uint32_t>(half),
                    .type = static_cast<FrameType>(type)};
      if (type == 0 || type == 9) h.cls = Class::kNormal;
      if (type == 5 || type == 6) h.offset = 3;
      h.length = (type >= 1 && type <= 3) || type == 10 ? 0 : 8;
      encode(h, std::span<std::uint8_t, kFrameHeaderSize>(&file[half * kFrameHeaderSize],
                                                          kFrameHeaderSize));
    }
    ASSERT_TRUE(
        fs::write_file_atomic(root + "/wire_frame_fuzz/" + std::to_string(type), file, 0644));
  }
}

}  // namespace
}  // namespace sally::wire
