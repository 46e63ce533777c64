// SPDX-License-Identifier: Apache-2.0
#include "edge/message.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/fs.h"
#include "edge/record.h"
#include "edge/test_sdk.h"

namespace sally::edge {
namespace {

Bytes hex(std::string text) {
  std::erase(text, ' ');
  return *from_hex(text);
}

// As SDKs of two families write them.
const Bytes kHelloC = hex(
    "0306090c 00000000 01000000 5b000000 18000000"
    "ea030000 24000000 30633661356330652d366533622d346236302d396436642d366630613763316432653366"
    "ff030000 01000000 01 09000000 01000000 01 0b000000 01000000 01"
    "07000000 0c000000 656467652e64656661756c74 7a6974692d73646b2d635b305d406275696c642d686f7374");
const Bytes kHelloGo =
    hex("0306090c 00000000 ffffffff 2c000000 09000000"
        "ea030000 24000000 30633661356330652d366533622d346236302d396436642d366630613763316432653366"
        "613142326333443465");
const Bytes kConnect =
    hex("0306090c 6fed0000 02000000 6e000000 24000000 e8030000 04000000 03000000"
        "01040000 08000000 51554a4452455647 e9030000 04000000 00000000 f0030000 05000000 616c696365"
        "eb030000 20000000 0e0216223f147143d32615a91189c288c1728cba3cc5f9f621b1026e03d83129"
        "f1030000 09000000 6c6962736f6469756d"
        "35643366623161322d396334342d346630652d386137622d313132323333343435356161");
const Bytes kData =
    hex("0306090c 72ed0000 03000000 3c000000 18000000 e8030000 04000000 03000000"
        "e9030000 04000000 00000000 80000000 10000000 8866e5f7000000003412000000000000"
        "f2030000 04000000 06000000 a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7");

/// All that a reader makes of `in`, fed in parts of `cut` bytes.
struct Read {
  std::vector<test::Heard> messages;
  std::string error;
};
Read read(ByteView in, std::size_t cut) {
  Read out;
  MessageReader reader;
  while (!in.empty()) {
    ByteView part = in.first(std::min(cut, in.size()));
    in = in.subspan(part.size());
    for (;;) {
      const auto item = reader.next(part);
      if (!item) {
        out.error = item.error().code();
        return out;
      }
      if (!*item) break;
      if ((*item)->begins) {
        out.messages.push_back({.type = (*item)->head.type,
                                .sequence = (*item)->head.sequence,
                                .headers = {},
                                .body = {}});
        for (const Id id : {Id::kConn, Id::kSessionToken, Id::kPublicKey, Id::kCallerId, Id::kFlags,
                            Id::kUuid, Id::kMarker})
          if (const auto v = (*item)->headers.bytes(id))
            out.messages.back().headers[id] = to_bytes(*v);
      }
      append(out.messages.back().body, (*item)->body);
    }
    EXPECT_TRUE(part.empty());
  }
  return out;
}

TEST(EdgeMessage, WhatSdksWriteIsReadHoweverItIsCut) {
  Bytes all;
  for (const Bytes* m : {&kHelloC, &kHelloGo, &kConnect, &kData, &kHelloGo}) append(all, *m);
  for (const std::size_t cut : {std::size_t{1}, std::size_t{7}, std::size_t{19}, std::size_t{20},
                                std::size_t{64}, all.size()}) {
    const Read got = read(all, cut);
    ASSERT_EQ(got.error, "");
    ASSERT_EQ(got.messages.size(), 5U) << cut;
    EXPECT_EQ(got.messages[0].sequence, 1);
    EXPECT_EQ(got.messages[0].said(), "ziti-sdk-c[0]@build-host");
    EXPECT_EQ(got.messages[1].sequence, -1);
    EXPECT_EQ(got.messages[1].text(Id::kSessionToken), "0c6a5c0e-6e3b-4b60-9d6d-6f0a7c1d2e3f");
    EXPECT_EQ(got.messages[2].type, Type::kConnect);
    EXPECT_EQ(got.messages[2].u32(Id::kConn), 3U);
    EXPECT_EQ(got.messages[2].text(Id::kCallerId), "alice");
    EXPECT_EQ(got.messages[2].headers.at(Id::kPublicKey).size(), 32U);
    EXPECT_EQ(got.messages[2].said(), "5d3fb1a2-9c44-4f0e-8a7b-1122334455aa");
    EXPECT_EQ(got.messages[3].u32(Id::kFlags), 6U);
    EXPECT_EQ(got.messages[3].headers.at(Id::kUuid).size(), 16U);
    EXPECT_EQ(to_hex(got.messages[3].body), "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7");
  }
}

TEST(EdgeMessage, WhatWeWriteIsWhatSdksExpect) {
  Bytes out;
  MessageWriter(out, Type::kResult, -1)
      .put_u32(Id::kReplyFor, 0xffff'ffff)
      .put_flag(Id::kResult, false)
      .put_u32(Id::kRejectClass, 2)
      .body(as_bytes("not permitted"));
  EXPECT_EQ(
      to_hex(out),
      to_hex(hex("0306090c 02000000 ffffffff 21000000 0d000000 01000000 04000000 ffffffff"
                 "02000000 01000000 00 0d000000 04000000 02000000 6e6f74207065726d6974746564")));
  out.clear();
  MessageWriter(out, Type::kBindSuccess, 32).put_u32(Id::kConn, 7).body({});
  EXPECT_EQ(to_hex(out),
            to_hex(hex("0306090c 80ed0000 20000000 0c000000 00000000 e8030000 04000000 07000000")));
}

TEST(EdgeMessage, ValuesOfAnotherSizeAreAbsent) {
  const Bytes table = hex("e8030000 03000000 010203 ec030000 04000000 0a000000 f4030000 00000000");
  const auto h = Headers::parse(table);
  ASSERT_TRUE(h);
  EXPECT_FALSE(h->u32(Id::kConn));
  EXPECT_FALSE(h->u16(Id::kCost));
  EXPECT_FALSE(h->flag(Id::kRouterConn));
  EXPECT_TRUE(h->bytes(Id::kRouterConn));
  EXPECT_FALSE(h->bytes(Id::kMarker));
  EXPECT_FALSE(Headers::parse(hex("02000000 01000000 02"))->flag(Id::kResult)) << "exactly 1";
}

TEST(EdgeMessage, WhatDoesNotAddUpIsRefused) {
  const auto code = [](const std::string& text) { return read(hex(text), 3).error; };
  EXPECT_EQ(code("47455420"), "edge.marker") << "HTTP";
  EXPECT_EQ(code("04"), "edge.marker") << "at the first byte";
  EXPECT_EQ(code("0306090d 00000000 01000000 00000000 00000000"), "edge.marker");
  // Headers: shorter than an entry, an entry over the end, twice.
  EXPECT_EQ(code("0306090c 00000000 01000000 07000000 00000000 00000000000000"), "edge.headers");
  EXPECT_EQ(code("0306090c 00000000 01000000 09000000 00000000 ea030000 02000000 00"),
            "edge.headers");
  EXPECT_EQ(code("0306090c 00000000 01000000 09000000 00000000 ea030000 ffffffff 00"),
            "edge.headers");
  EXPECT_EQ(
      code("0306090c 00000000 01000000 10000000 00000000 ea030000 00000000 ea030000 00000000"),
      "edge.headers");
  // Caps, before a byte of it is kept.
  EXPECT_EQ(code("0306090c 00000000 01000000 01400000 00000000"), "edge.too_large");
  EXPECT_EQ(code("0306090c 00000000 01000000 00000000 61100000"), "edge.too_large") << "hello";
  EXPECT_EQ(code("0306090c 6fed0000 01000000 00000000 01400000"), "edge.too_large") << "token";
  EXPECT_EQ(code("0306090c 72ed0000 01000000 00000000 00000001"), "edge.too_large") << "data";
  EXPECT_EQ(code("0306090c ffffffff 01000000 00000000 ffffffff"), "edge.too_large") << "unknown";
  Bytes many = hex("0306090c 03000000 01000000");
  append(many, test::le32(129 * 8));
  append(many, test::le32(0));
  for (std::uint32_t i = 0; i < 129; ++i) {
    append(many, test::le32(5'000 + i));
    append(many, test::le32(0));
  }
  EXPECT_EQ(read(many, many.size()).error, "edge.headers");
}

TEST(EdgeMessage, OfWhatIsPassedOverNothingIsKept) {
  const Bytes skipped = test::message(static_cast<Type>(10800), 4, {}, Bytes(100'000));
  Bytes all = skipped;
  append(all, kConnect);
  const Read got = read(all, 1'000);
  ASSERT_EQ(got.messages.size(), 2U);
  EXPECT_TRUE(got.messages[0].body.empty());
  EXPECT_EQ(got.messages[1].type, Type::kConnect);
}

// ---- records
// -----------------------------------------------------------------------------------

Bytes record(const Record& r, ByteView body) {
  std::uint8_t head[kMaxRecordHead];
  Bytes out(head, head + encode(r, head));
  append(out, body);
  return out;
}

TEST(EdgeRecord, MessagesKeepTheirEdgesHoweverTheStreamIsCut) {
  ChunkPool pool;
  std::vector<std::pair<Record, Bytes>> sent;
  Bytes stream;
  for (const std::uint32_t n : {0U, 1U, 24U, 4'095U, 4'096U, 16'368U, 70'000U, 3U}) {
    Record r{.length = n, .flags = static_cast<std::uint8_t>(n % 32), .uuid = std::nullopt};
    if (n % 2 == 0) r.uuid.emplace().fill(static_cast<std::uint8_t>(n));
    sent.emplace_back(r, Bytes(n, static_cast<std::uint8_t>(n % 251)));
    append(stream, record(r, sent.back().second));
  }
  for (const std::size_t cut :
       {std::size_t{1}, std::size_t{5}, std::size_t{4'096}, std::size_t{16'000}}) {
    RecordAssembler assembler;
    std::size_t next = 0;
    for (ByteView in = stream; !in.empty();) {
      const ByteView part = in.first(std::min(cut, in.size()));
      in = in.subspan(part.size());
      assembler.push(pool.copy_of(part));
      while (const auto r = assembler.next()) {
        ASSERT_LT(next, sent.size());
        EXPECT_EQ(*r, sent[next].first);
        ChunkQueue body;
        assembler.take_body(body, pool);
        Bytes got;
        while (!body.empty()) append(got, body.pop_front()->view());
        EXPECT_EQ(got, sent[next].second);
        ++next;
      }
    }
    EXPECT_EQ(next, sent.size());
    EXPECT_EQ(assembler.chunks(), 0U);
  }
  EXPECT_EQ(pool.in_use(), 0U);
}

// Seeds of the fuzz targets: SALLY_WRITE_CORPUS=tests/corpus build/dev/bin/edge_test writes them.
TEST(EdgeMessage, Corpus) {
  const char* to = std::getenv("SALLY_WRITE_CORPUS");
  if (to == nullptr) GTEST_SKIP() << "only on request";
  const auto write = [&](const std::string& target, const std::string& name, const Bytes& file) {
    const std::string dir = std::string(to) + "/edge_" + target;
    ASSERT_TRUE(fs::make_dirs(dir, 0755));
    ASSERT_TRUE(fs::write_file_atomic(dir + "/" + name, file, 0644));
  };
  Bytes session{0};
  using test::message;
  const test::Fields conn{{Id::kConn, test::le32(7)}};
  for (const Bytes& m :
       {kHelloGo,
        message(Type::kBind, 1,
                {{Id::kConn, test::le32(7)}, {Id::kRouterConn, {1}}, {Id::kBindSuccess, {1}}},
                "bind"),
        message(Type::kBind, 2, {{Id::kConn, test::le32(8)}}, "bind"), kConnect, kData,
        message(Type::kDialSuccess, 3, {{Id::kReplyFor, test::le32(3)}}, test::le32(0x8000'0000)),
        message(Type::kData, 4, {{Id::kConn, test::le32(0x8000'0000)}, {Id::kFlags, test::le32(1)}},
                "x"),
        message(Type::kDialFailed, 5, {{Id::kReplyFor, test::le32(4)}}, "no"),
        message(Type::kLatency, 6, {{Id::kUuid, Bytes(8)}}),
        message(Type::kUpdateBind, 7, {{Id::kConn, test::le32(7)}, {Id::kCost, test::le16(5)}},
                "bind"),
        message(Type::kHealth, 8, {{Id::kConn, test::le32(7)}, {Id::kHealth, {0}}}, "bind"),
        message(Type::kUnbind, 9, conn, "bind"), message(Type::kStateClosed, 10, conn),
        message(Type::kUpdateToken, 11, {}, "token")})
    append(session, m);
  write("channel_fuzz", "session", session);
  Bytes cut = session;
  cut[0] = 17;
  write("channel_fuzz", "session_in_parts", cut);
  write("channel_fuzz", "hello", kHelloC);
  int n = 0;
  for (const Bytes* m : {&kHelloC, &kHelloGo, &kConnect, &kData}) {
    Bytes file{static_cast<std::uint8_t>(n)};
    append(file, *m);
    write("message_fuzz", std::to_string(n++), file);
  }
  Bytes records{3};
  append(records, record({.length = 5, .flags = 1, .uuid = std::nullopt}, as_bytes("hello")));
  append(records,
         record({.length = 0, .flags = kClose, .uuid = std::array<std::uint8_t, 16>{}}, {}));
  write("record_fuzz", "two", records);
}

}  // namespace
}  // namespace sally::edge
