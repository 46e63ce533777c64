// SPDX-License-Identifier: Apache-2.0
#include "base/audit_chain.h"

namespace sally {

Bytes audit_input(ByteView previous_hash, std::string_view network, const AuditText& row) {
  Bytes in = to_bytes(previous_hash);
  put_big(in, row.seq, 8);
  put_big(in, static_cast<std::uint64_t>(row.at_ms), 8);
  for (const std::string_view part :
       {network, std::string_view(row.actor), std::string_view(row.action),
        std::string_view(row.subject), std::string_view(row.detail)}) {
    put_big(in, part.size(), 4);
    append(in, as_bytes(part));
  }
  return in;
}

}  // namespace sally
