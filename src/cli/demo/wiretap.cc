// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "cli/demo/demo.h"

namespace sally::cli::demo {

Status wiretap(const std::string& text) {
  if (text.empty()) return fail(Errc::kUsage, "nothing to look for", Source::kConfig);
  const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
  if (fd < 0)
    return fail(Errc::kDenied, "packets cannot be read here; this needs root in the namespace",
                Source::kLocal);
  std::printf("ready\n");
  std::fflush(stdout);
  // supported_versions of a TLS 1.3 ServerHello (RFC 8446 section 4.2.1).
  constexpr std::string_view kTls13("\x00\x2b\x00\x02\x03\x04", 6);
  const unsigned loopback = ::if_nametoindex("lo");
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t seen = 0;
  std::uint64_t loopback_seen = 0;
  std::uint64_t tls13 = 0;
  static char buffer[65'536];
  for (bool input = true;;) {
    pollfd fds[2] = {{.fd = fd, .events = POLLIN, .revents = 0},
                     {.fd = input ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0}};
    // After the end of input: what is queued already still counts.
    if (::poll(fds, 2, input ? -1 : 0) <= 0) break;
    if (fds[1].revents != 0) {
      char c = 0;
      if (::read(STDIN_FILENO, &c, 1) <= 0) input = false;
    }
    if (fds[0].revents == 0) continue;
    sockaddr_ll from{};
    socklen_t size = sizeof from;
    const ssize_t n =
        ::recvfrom(fd, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (n <= 0) continue;
    const std::string_view packet(buffer, static_cast<std::size_t>(n));
    const bool found = packet.find(text) != std::string_view::npos;
    if (static_cast<unsigned>(from.sll_ifindex) == loopback) {
      loopback_seen += found ? 1 : 0;
      continue;
    }
    ++packets;
    bytes += packet.size();
    seen += found ? 1 : 0;
    tls13 += packet.find(kTls13) != std::string_view::npos ? 1 : 0;
  }
  ::close(fd);
  std::printf(
      "{\"packets\":%llu,\"bytes\":%llu,\"seen\":%llu,\"loopback_seen\":%llu,\"tls13\":%llu}\n",
      static_cast<unsigned long long>(packets), static_cast<unsigned long long>(bytes),
      static_cast<unsigned long long>(seen), static_cast<unsigned long long>(loopback_seen),
      static_cast<unsigned long long>(tls13));
  return {};
}

}  // namespace sally::cli::demo
