// SPDX-License-Identifier: Apache-2.0
#include "loop/tcp_info.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace sally::loop {

TcpProgress tcp_progress(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return {};
  return {.acked = info.tcpi_bytes_acked,
          .outstanding = info.tcpi_unacked != 0 || info.tcpi_notsent_bytes != 0};
}

}  // namespace sally::loop
