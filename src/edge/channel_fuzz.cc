// SPDX-License-Identifier: Apache-2.0
// Whatever an SDK says, the channel stays whole: it keeps no more than it may, its answers are
// messages, and nothing of it is left. The first byte of the input picks the cuts and how the
// router answers.
#include <algorithm>

#include "base/check.h"
#include "edge/test_channel.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sally;
  using namespace sally::edge;
  if (size == 0) return 0;
  const std::uint8_t how = data[0];
  test::TestChannel t;
  t.hold_connects = (how & 0x40U) != 0;
  t.in_chunks = (how & 1U) != 0;
  if ((how & 0x80U) != 0)
    t.refuse_with = Failure{.code = Code::kInvalidSession, .text = "Invalid Session"};
  for (ByteView in(data + 1, size - 1); !in.empty();) {
    const ByteView part =
        in.first(std::min<std::size_t>(in.size(), (how & 0x3fU) == 0 ? 16'384 : how & 0x3fU));
    in = in.subspan(part.size());
    if (!t.say(part)) break;
    SALLY_CHECK(t.channel->binds() <= Channel::kMaxBinds);
    if (!t.channel->wants_read()) break;
    if (t.conns.size() > 64) break;
  }
  (void)t.pass(3'000);
  // All conns are told when it ends.
  t.channel->end(false);
  SALLY_CHECK(t.channel->conns() == 0);
  for (const auto& conn : t.conns) SALLY_CHECK(conn->channel() == nullptr);
  t.conns.clear();
  t.hear();
  SALLY_CHECK(t.pool.in_use() == 0);
  return 0;
}
