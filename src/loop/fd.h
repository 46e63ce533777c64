// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <utility>

struct sockaddr;

namespace sally::loop {

/// Owns one file descriptor. Move only; any thread; never fails: closing ignores errors.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept;
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

/// An IP address and port, IPv4 stored as v4-mapped. All zero for a local (Unix) peer.
struct Address {
  std::array<std::uint8_t, 16> ip{};
  std::uint16_t port = 0;

  [[nodiscard]] bool is_v4() const;
  [[nodiscard]] bool is_loopback() const;
  /// "192.0.2.1" or "2001:db8::1".
  [[nodiscard]] std::string ip_text() const;
  /// "192.0.2.1:80" or "[2001:db8::1]:80".
  [[nodiscard]] std::string str() const;
  /// What limits count by: the IPv4 address or the IPv6 /64.
  [[nodiscard]] std::array<std::uint8_t, 16> source_key() const;
  static Address from(const sockaddr* from);
  /// Of a connected or bound socket.
  static Address of_peer(int fd);
  static Address of_local(int fd);
  friend auto operator<=>(const Address&, const Address&) = default;
};

/// TCP_NODELAY, keep-alive off, TCP_NOTSENT_LOWAT 64 KiB: what every lane and HTTP connection
/// wants.
void tune_tcp(int fd);

}  // namespace sally::loop
