// SPDX-License-Identifier: Apache-2.0
#include "wire/frame.h"

#include <gtest/gtest.h>

#include <array>

namespace sally::wire {
namespace {

using Raw = std::array<std::uint8_t, kFrameHeaderSize>;

Raw raw(const FrameHeader& h) {
  Raw out{};
  encode(h, out);
  return out;
}

TEST(Frame, LayoutIsTheOneOfTheSpecification) {
  const FrameHeader h{.label = 0x04030201,
                      .length = 0x3ff0,
                      .type = FrameType::kData,
                      .flags = 0,
                      .cls = Class::kNormal,
                      .offset = 0x060504030201};
  EXPECT_EQ(raw(h), (Raw{1, 2, 3, 4, 0xf0, 0x3f, 0, 0x00, 2, 1, 2, 3, 4, 5, 6, 0}));
  const FrameHeader c{.label = 0, .length = 7, .type = FrameType::kControl, .flags = kFlagMore};
  EXPECT_EQ(raw(c), (Raw{0, 0, 0, 0, 7, 0, 0, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(*decode_header(raw(h)), h);
  EXPECT_EQ(*decode_header(raw(c)), c);
}

TEST(Frame, EveryTypeAtItsLimits) {
  const FrameHeader good[] = {
      {1, 1, FrameType::kData, 0, Class::kBulk, 0},
      {1, kMaxPayload, FrameType::kData, 0, Class::kInteractive, kMaxOffset - kMaxPayload},
      {1, 0, FrameType::kCredit, 0, Class::kControl, kMaxOffset},
      {1, 0, FrameType::kAck, 0, Class::kControl, 0},
      {1, 0, FrameType::kFin, 0, Class::kControl, 9},
      {1, 0, FrameType::kReset, 0, Class::kControl, 0},
      {0, 1, FrameType::kSetup, 0, Class::kControl, 1},
      {1, kMaxPayload, FrameType::kSetupOk, 0, Class::kControl, 0xffffffff},
      {1, kMaxErrorPayload, FrameType::kSetupErr, 0, Class::kControl, 0},
      {0, kMaxPayload, FrameType::kPathDown, 0, Class::kControl, 0},
      {1, kMaxPayload, FrameType::kDgram, 0, Class::kNormal, kMaxOffset},
      {0, 0, FrameType::kPing, 0, Class::kControl, 77},
      {0, kPongPayload, FrameType::kPong, 0, Class::kControl, 77},
      {0, kMaxPayload, FrameType::kControl, kFlagMore, Class::kControl, 0},
  };
  for (const auto& h : good) {
    const auto got = decode_header(raw(h));
    ASSERT_TRUE(got) << frame_name(h.type) << " " << got.error().text();
    EXPECT_EQ(*got, h);
  }
}

TEST(Frame, Refusals) {
  const struct {
    FrameHeader h;
    Errc want;
  } bad[] = {
      {{1, 0, static_cast<FrameType>(13)}, Errc::kFrameType},
      {{1, 0, static_cast<FrameType>(15)}, Errc::kFrameType},
      {{1, kMaxPayload + 1, FrameType::kData, 0, Class::kNormal}, Errc::kFrameLength},
      {{1, 0, FrameType::kData, 0, Class::kNormal}, Errc::kFrameLength},
      {{1, 0xffffff, FrameType::kData, 0, Class::kNormal}, Errc::kFrameLength},
      {{1, 5, FrameType::kData, 0, Class::kControl}, Errc::kFrameClass},
      {{1, 5, FrameType::kData, 0, static_cast<Class>(4)}, Errc::kFrameClass},
      {{1, 0, FrameType::kAck, 0, static_cast<Class>(255)}, Errc::kFrameClass},
      {{0, 5, FrameType::kData, 0, Class::kNormal}, Errc::kFrameLabel},
      {{1, 5, FrameType::kData, 1, Class::kNormal}, Errc::kFrameFlags},
      {{1, 5, FrameType::kData, 0, Class::kNormal, kMaxOffset - 4}, Errc::kFrameOffset},
      {{1, 1, FrameType::kCredit}, Errc::kFrameLength},
      {{1, 1, FrameType::kAck}, Errc::kFrameLength},
      {{1, 1, FrameType::kFin}, Errc::kFrameLength},
      {{0, 0, FrameType::kFin}, Errc::kFrameLabel},
      {{1, kMaxErrorPayload + 1, FrameType::kReset}, Errc::kFrameLength},
      {{1, 0, FrameType::kReset, 0, Class::kControl, 1}, Errc::kFrameOffset},
      {{1, 1, FrameType::kSetup, 0, Class::kControl, 1}, Errc::kFrameLabel},
      {{0, 1, FrameType::kSetup, 0, Class::kControl, 0}, Errc::kFrameOffset},
      {{0, 1, FrameType::kSetup, 0, Class::kControl, 0x100000000}, Errc::kFrameOffset},
      {{0, kMaxPayload + 1, FrameType::kSetup, 0, Class::kControl, 1}, Errc::kFrameLength},
      {{1, 1, FrameType::kSetupOk, 0, Class::kControl, 0}, Errc::kFrameOffset},
      {{0, 1, FrameType::kSetupErr}, Errc::kFrameLabel},
      {{0, 1, FrameType::kPing}, Errc::kFrameLength},
      {{0, 0, FrameType::kPong}, Errc::kFrameLength},
      {{0, 9, FrameType::kPong}, Errc::kFrameLength},
      {{0, kMaxPayload + 1, FrameType::kControl}, Errc::kFrameLength},
      {{0, 1, FrameType::kControl, 2}, Errc::kFrameFlags},
      {{9, 1, FrameType::kControl}, Errc::kFrameLabel},
  };
  for (const auto& [h, want] : bad) {
    const auto got = decode_header(raw(h));
    ASSERT_FALSE(got) << frame_name(h.type);
    EXPECT_TRUE(got.error().is(want)) << frame_name(h.type) << " " << got.error().text();
  }
  auto reserved = raw({1, 0, FrameType::kAck});
  reserved[15] = 0x80;
  EXPECT_TRUE(decode_header(reserved).error().is(Errc::kFrameReserved));
}

}  // namespace
}  // namespace sally::wire
