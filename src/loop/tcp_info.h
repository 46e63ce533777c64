// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace sally::loop {

/// Bytes of ours that the peer's kernel has acknowledged on a TCP socket (tcpi_bytes_acked); 0
/// where that is not known.
std::uint64_t tcp_bytes_acked(int fd);

}  // namespace sally::loop
