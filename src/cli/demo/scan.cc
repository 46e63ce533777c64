// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/demo/demo.h"

namespace sally::cli::demo {
namespace {

constexpr int kTcpPorts = 65'535;
constexpr int kUdpPorts = 200;
constexpr int kWaitMs = 400;  // a link of the same machine answers within one

int dial(int type, const in_addr& address, int port) {
  const int fd = ::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr = address;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 &&
      errno != EINPROGRESS) {
    ::close(fd);
    return -1;
  }
  return fd;
}

// Waits until each of `fds` has shown something or kWaitMs are over; calls `seen(index)` for those
// that did.
template <typename F>
void gather(std::vector<pollfd>& fds, F seen) {
  const std::int64_t until = system_clock().mono_us() + kWaitMs * 1000;
  for (;;) {
    const std::int64_t left = (until - system_clock().mono_us()) / 1000;
    if (left <= 0 || ::poll(fds.data(), fds.size(), static_cast<int>(left)) <= 0) return;
    for (std::size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      seen(i);
      ::close(fds[i].fd);
      fds[i].fd = -1;
    }
  }
}

std::string list(const std::vector<int>& ports) {
  std::string out;
  for (const int p : ports) out += (out.empty() ? "" : ",") + std::to_string(p);
  return "[" + out + "]";
}

}  // namespace

Status scan(const std::string& text) {
  in_addr address{};
  if (::inet_pton(AF_INET, text.c_str(), &address) != 1)
    return fail(Errc::kUsage, "\"" + text + "\" is not an IPv4 address", Source::kConfig);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  const int batch = static_cast<int>(std::min<rlim_t>(files.rlim_cur - 64, 8'192));

  std::vector<int> tcp_open;
  int tcp_scanned = 0;
  for (int from = 1; from <= kTcpPorts; from += batch) {
    std::vector<pollfd> fds;
    std::vector<int> ports;
    for (int port = from; port < from + batch && port <= kTcpPorts; ++port) {
      const int fd = dial(SOCK_STREAM, address, port);
      if (fd < 0) continue;
      ++tcp_scanned;
      fds.push_back({.fd = fd, .events = POLLOUT, .revents = 0});
      ports.push_back(port);
    }
    gather(fds, [&](std::size_t i) {
      int error = 0;
      socklen_t size = sizeof error;
      ::getsockopt(fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error == 0) tcp_open.push_back(ports[i]);
    });
    for (const auto& p : fds) {
      if (p.fd >= 0) ::close(p.fd);
    }
  }

  // The first hundred ports and a hundred more where IoT and infrastructure live.
  std::vector<int> udp_ports;
  for (int port = 1; port <= kUdpPorts / 2; ++port) udp_ports.push_back(port);
  for (const int port :
       {123,  137,  138,  161,  162,  389,  443,  500,  514,  520,  546,  547,  623,  1194, 1280,
        1434, 1645, 1646, 1812, 1813, 1883, 1900, 3022, 3478, 4500, 5060, 5353, 5683, 5684, 8883})
    udp_ports.push_back(port);
  for (int port = 20'000; static_cast<int>(udp_ports.size()) < kUdpPorts; ++port)
    udp_ports.push_back(port);
  std::vector<int> udp_answered;
  int udp_scanned = 0;
  std::vector<pollfd> fds;
  std::vector<int> ports;
  for (const int port : udp_ports) {
    const int fd = dial(SOCK_DGRAM, address, port);
    if (fd < 0) continue;
    static constexpr char kQuestion[] =
        "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01";  // a DNS query
    if (::send(fd, kQuestion, sizeof kQuestion, 0) > 0) ++udp_scanned;
    fds.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    ports.push_back(port);
  }
  gather(fds, [&](std::size_t i) {
    char answer[512];
    if (::recv(fds[i].fd, answer, sizeof answer, 0) >= 0) udp_answered.push_back(ports[i]);
  });
  std::printf("{\"tcp_open\":%s,\"tcp_scanned\":%d,\"udp_answered\":%s,\"udp_scanned\":%d}\n",
              list(tcp_open).c_str(), tcp_scanned, list(udp_answered).c_str(), udp_scanned);
  return {};
}

}  // namespace sally::cli::demo
