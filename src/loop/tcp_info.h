// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace sally::loop {

/// What the kernel knows of our bytes on a TCP socket (TCP_INFO).
struct TcpProgress {
  std::uint64_t acked = 0;   ///< acknowledged by the peer's kernel
  bool outstanding = false;  ///< some are sent and not acknowledged, or not sent yet
};
/// All zero where it is not known.
TcpProgress tcp_progress(int fd);

}  // namespace sally::loop
