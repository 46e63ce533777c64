// SPDX-License-Identifier: Apache-2.0
// However the bytes are cut, the same messages come out. The first byte of the input picks the
// cuts.
#include <algorithm>
#include <vector>

#include "base/check.h"
#include "edge/message.h"

namespace {

using namespace sally;
using namespace sally::edge;

struct Seen {
  std::vector<Head> heads;
  std::vector<std::optional<std::uint32_t>> conns;
  Bytes bodies;
  bool refused = false;
  friend bool operator==(const Seen&, const Seen&) = default;
};

Seen read(ByteView in, std::size_t cut) {
  Seen seen;
  MessageReader reader;
  while (!in.empty() && !seen.refused) {
    ByteView part = in.first(std::min(in.size(), cut));
    in = in.subspan(part.size());
    for (;;) {
      const auto item = reader.next(part);
      if (!item) {
        seen.refused = true;
        break;
      }
      if (!*item) {
        SALLY_CHECK(part.empty());
        break;
      }
      if ((*item)->begins) {
        seen.heads.push_back((*item)->head);
        seen.conns.push_back((*item)->headers.u32(Id::kConn));
      }
      SALLY_CHECK(!seen.heads.empty());
      SALLY_CHECK((*item)->body.size() + (*item)->left <= seen.heads.back().body);
      append(seen.bodies, (*item)->body);
    }
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView in(data + 1, size - 1);
  Seen whole = read(in, in.size() + 1);
  Seen parts = read(in, std::size_t{data[0]} + 1);
  // What came before the end of the input may be more than what a refusal lets through.
  SALLY_CHECK(whole == parts);
  return 0;
}
