// SPDX-License-Identifier: Apache-2.0
// However the bytes are cut into records, the same frames come out. The first byte of the input
// picks the cuts.
#include <algorithm>
#include <vector>

#include "base/check.h"
#include "lane/frame_reader.h"

namespace {

using namespace sally;

struct Seen {
  std::vector<wire::FrameHeader> headers;
  Bytes payloads;
  bool refused = false;
  friend bool operator==(const Seen&, const Seen&) = default;
};

Seen read(ByteView in, std::size_t cut, bool take) {
  ChunkPool pool;
  Seen seen;
  {
    lane::FrameReader reader(pool);
    while (!in.empty() && !seen.refused) {
      const ByteView part = in.first(std::min(in.size(), cut));
      in = in.subspan(part.size());
      ChunkPtr chunk = pool.get();
      chunk->begin = chunk->end = 0;
      chunk->append(part);
      reader.feed(std::move(chunk));
      for (;;) {
        auto frame = reader.next();
        if (!frame) {
          seen.refused = true;
          break;
        }
        if (!*frame) break;
        seen.headers.push_back((*frame)->header);
        SALLY_CHECK((*frame)->payload.size() == (*frame)->header.length);
        append(seen.payloads, (*frame)->payload);
        if ((*frame)->whole != nullptr) {
          SALLY_CHECK(std::ranges::equal((*(*frame)->whole)->view(), (*frame)->payload));
          if (take) const ChunkPtr taken = std::move(*(*frame)->whole);
        }
      }
      SALLY_CHECK(pool.in_use() <= 2);
    }
  }
  SALLY_CHECK(pool.in_use() == 0);
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView in(data + 1, size - 1);
  const Seen whole = read(in, Chunk::kSize, false);
  SALLY_CHECK(whole == read(in, 1 + *data, true));
  SALLY_CHECK(whole == read(in, 1, false));
  return 0;
}
