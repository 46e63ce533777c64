// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "base/error.h"
#include "loop/fd.h"
#include "loop/loop.h"
#include "loop/net.h"
#include "tls/context.h"
#include "tls/stream.h"

namespace sally::tls {

/// What a peer may cost us before it is authenticated. A source is an IPv4 address or an IPv6 /64.
struct AcceptLimits {
  double rate_total = 500;  ///< new connections per second
  double burst_total = 1000;
  double rate_per_source = 50;
  double burst_per_source = 200;
  std::uint32_t handshakes_total = 512;
  std::uint32_t handshakes_per_source = 64;
  std::size_t sources = 8192;  ///< remembered; beyond it the least recent idle one is forgotten
  StreamLimits stream;
};

/// Token buckets and counts in front of handshakes. Owned by an Acceptor, or by several that share
/// the limits; any thread (a lock beside a handshake costs nothing). Never fails; when its table is
/// full of busy sources it refuses new ones.
class AcceptGate {
 public:
  enum class Verdict : std::uint8_t {
    kAdmit,
    kRateTotal,
    kRateSource,
    kBusyTotal,
    kBusySource,
    kTableFull
  };
  using Source = std::array<std::uint8_t, 16>;
  AcceptGate(const AcceptLimits& limits, const Clock& clock) : limits_(limits), clock_(clock) {}
  /// kAdmit must be followed by one `finished`.
  Verdict admit(const Source& source);
  void finished(const Source& source);
  [[nodiscard]] std::uint32_t in_flight() const;
  [[nodiscard]] std::size_t sources() const;

 private:
  struct Bucket {
    double tokens = 0;
    std::int64_t at_us = 0;
    bool started = false;
    bool take(double rate, double burst, std::int64_t now_us);
  };
  struct Entry {
    Source source;
    Bucket bucket;
    std::uint32_t in_flight = 0;
  };
  using Order = std::list<Entry>;  // least recently seen first
  struct Hash {
    std::size_t operator()(const Source& s) const noexcept;
  };
  bool make_room();
  const AcceptLimits limits_;
  const Clock& clock_;
  mutable std::mutex mutex_;  // all below
  Bucket total_;
  std::uint32_t in_flight_ = 0;
  Order order_;
  std::unordered_map<Source, Order::iterator, Hash> table_;
};

struct AcceptorOptions {
  std::string host;
  std::uint16_t port = 0;
  std::shared_ptr<const Context> context;
  AcceptLimits limits;
  /// Shared with other listeners: what is admitted counts for all of them; null = one of its own.
  std::shared_ptr<AcceptGate> gate = nullptr;
  loop::ListenOptions listen = {};
  std::string name = "tls";  ///< in log lines
  /// Somebody showed a certificate that was refused. For an audit, which limits the rate: any
  /// stranger can.
  std::function<void(const loop::Address& from, const Error& why)> on_bad_certificate = {};
};
struct AcceptorCounters {
  std::uint64_t accepted = 0;  ///< connections that began a handshake
  std::uint64_t established = 0;
  std::uint64_t refused_limit = 0;
  std::uint64_t failed_certificate = 0;
  std::uint64_t failed_other = 0;
  std::uint64_t timed_out = 0;
};

/// Listens, shakes hands within limits, hands over authenticated streams. Owned by a server object;
/// loop's thread only. Refusals are closed without an answer and logged with their reason, rate
/// limited. Nothing of the application is read before `on_stream`.
class Acceptor {
 public:
  /// The stream is established and has no handler yet: dispatch by `stream->session().alpn()` and
  /// `set_handler`.
  using OnStream = std::move_only_function<void(std::unique_ptr<Stream> stream)>;
  static Result<std::unique_ptr<Acceptor>> create(loop::Loop& loop, AcceptorOptions options,
                                                  OnStream on_stream);
  ~Acceptor();
  [[nodiscard]] loop::Address address() const;
  [[nodiscard]] std::uint16_t port() const { return address().port; }
  /// For later handshakes (new certificates, new bundle).
  void set_context(std::shared_ptr<const Context> context);
  [[nodiscard]] const AcceptorCounters& counters() const;
  [[nodiscard]] std::uint32_t handshakes_in_flight() const;

  struct Impl;

 private:
  explicit Acceptor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sally::tls
