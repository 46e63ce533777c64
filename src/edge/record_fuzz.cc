// SPDX-License-Identifier: Apache-2.0
// Any bytes are records; those that come out are the bytes that went in. The first byte picks the
// cuts.
#include <algorithm>

#include "base/check.h"
#include "edge/record.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sally;
  using namespace sally::edge;
  if (size == 0) return 0;
  ChunkPool pool;
  Bytes again;
  {
    RecordAssembler assembler;
    const ByteView all(data + 1, size - 1);
    for (ByteView in = all; !in.empty();) {
      const ByteView part =
          in.first(std::min<std::size_t>(in.size(), std::size_t{data[0]} * 64 + 1));
      in = in.subspan(part.size());
      assembler.push(pool.copy_of(part.first(std::min<std::size_t>(part.size(), 16'000))));
      if (part.size() > 16'000) assembler.push(pool.copy_of(part.subspan(16'000)));
      while (const auto record = assembler.next()) {
        std::uint8_t head[kMaxRecordHead];
        append(again, ByteView(head, encode(*record, head)));
        ChunkQueue body;
        assembler.take_body(body, pool);
        while (!body.empty()) append(again, body.pop_front()->view());
      }
    }
    SALLY_CHECK(again.size() <= all.size());
    SALLY_CHECK(std::equal(again.begin(), again.end(), all.begin()));
  }
  SALLY_CHECK(pool.in_use() == 0);
  return 0;
}
