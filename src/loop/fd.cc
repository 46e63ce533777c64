// SPDX-License-Identifier: Apache-2.0
#include "loop/fd.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace sally::loop {

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Fd::reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

namespace {
constexpr std::array<std::uint8_t, 12> kV4Prefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
}

bool Address::is_v4() const {
  return std::equal(kV4Prefix.begin(), kV4Prefix.end(), ip.begin());
}

bool Address::is_loopback() const {
  if (is_v4()) return ip[12] == 127;
  return std::all_of(ip.begin(), ip.end() - 1, [](std::uint8_t b) { return b == 0; }) &&
         ip[15] == 1;
}

std::string Address::ip_text() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_v4())
    inet_ntop(AF_INET, ip.data() + 12, text, sizeof text);
  else
    inet_ntop(AF_INET6, ip.data(), text, sizeof text);
  return text;
}

std::string Address::str() const {
  return (is_v4() ? ip_text() : "[" + ip_text() + "]") + ":" + std::to_string(port);
}

std::array<std::uint8_t, 16> Address::source_key() const {
  auto key = ip;
  if (!is_v4()) std::fill(key.begin() + 8, key.end(), std::uint8_t{0});
  return key;
}

Address Address::from(const sockaddr* from) {
  Address out;
  if (from->sa_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, from, sizeof in);
    std::copy(kV4Prefix.begin(), kV4Prefix.end(), out.ip.begin());
    std::memcpy(out.ip.data() + 12, &in.sin_addr, 4);
    out.port = ntohs(in.sin_port);
  } else if (from->sa_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, from, sizeof in);
    std::memcpy(out.ip.data(), &in.sin6_addr, 16);
    out.port = ntohs(in.sin6_port);
  }
  return out;
}

namespace {
Address of(int fd, int (*get)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  auto* plain = reinterpret_cast<sockaddr*>(&storage);
  if (get(fd, plain, &size) != 0) return {};
  return Address::from(plain);
}
}  // namespace

Address Address::of_peer(int fd) {
  return of(fd, [](int f, sockaddr* a, socklen_t* n) { return getpeername(f, a, n); });
}
Address Address::of_local(int fd) {
  return of(fd, [](int f, sockaddr* a, socklen_t* n) { return getsockname(f, a, n); });
}

void tune_tcp(int fd) {
  const int on = 1;
  const int low = 64 * 1024;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef TCP_NOTSENT_LOWAT
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low, sizeof low);
#endif
}

}  // namespace sally::loop
