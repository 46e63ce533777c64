// SPDX-License-Identifier: Apache-2.0
// One byte stream of the load generator, whatever carries it: TLS through a relay, plain TCP to an
// agent, a circuit of the SDK.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "crypto/test_pki.h"
#include "loop/fd.h"
#include "loop/loop.h"
#include "loop/net.h"
#include "sdk/circuit.h"
#include "sdk/engine.h"
#include "tls/context.h"
#include "tls/session.h"

namespace sally::bench {

class Leg;

/// What a run does with a stream.
class LegUser {
 public:
  virtual ~LegUser() = default;
  virtual void on_open(Leg& leg) { on_writable(leg); }
  virtual void on_data(Leg& leg, ByteView data) = 0;
  virtual void on_writable(Leg& leg) = 0;
};
using MakeUser = std::function<LegUser*()>;

/// A stream. Owner: whoever made it. Thread: its loop's. Failure: the whole program ends, a run
/// with a broken stream measures nothing.
class Leg {
 public:
  virtual ~Leg() = default;
  /// Takes the whole piece or nothing of it where pieces are records; may take a part on TCP.
  virtual std::size_t write(ByteView piece) = 0;
  /// What was written leaves now. `hungry`: on_writable is wanted as soon as there is room again.
  virtual void flush(bool /*hungry*/) {}
};

[[noreturn]] void die(const std::string& what);

/// Certificates of a run: made at its start, kept in a directory for the processes of the run.
struct LegPki {
  static void make(const std::string& dir);
  static std::shared_ptr<const tls::Context> context(const std::string& dir, tls::Side side);
};

/// TLS on memory with big sends: the generator must not be what is slow.
class TlsLeg final : public Leg {
 public:
  TlsLeg(loop::Loop& loop, loop::Fd fd, const std::shared_ptr<const tls::Context>& context,
         LegUser& user);
  std::size_t write(ByteView piece) override;
  void flush(bool hungry) override;

 private:
  void on_event(loop::Watcher::Ready ready);
  void push();
  loop::Fd fd_;
  std::unique_ptr<tls::Session> session_;
  LegUser& user_;
  loop::Watcher watcher_;
  Bytes out_;
  std::size_t out_at_ = 0;
  std::size_t pending_ = 0;  // ciphertext still in the session
};

class TcpLeg final : public Leg {
 public:
  TcpLeg(loop::Loop& loop, loop::Fd fd, LegUser& user);
  std::size_t write(ByteView piece) override;

 private:
  void on_event(loop::Watcher::Ready ready);
  loop::Fd fd_;
  LegUser& user_;
  loop::Watcher watcher_;
  bool blocked_ = true;  // on_open comes with the first event
  bool opened_ = false;
};

class CircuitLeg final : public Leg, public sdk::CircuitUser {
 public:
  CircuitLeg(std::unique_ptr<sdk::Circuit> circuit, LegUser& user);
  ~CircuitLeg() override;
  std::size_t write(ByteView piece) override { return circuit_->write(piece); }
  void on_circuit_readable() override;
  void on_circuit_writable() override;
  void on_circuit_over(const Error& why) override;
  /// Both ends are to end in order: no complaint when the circuit is over.
  bool may_end = false;

 private:
  std::unique_ptr<sdk::Circuit> circuit_;
  LegUser& user_;
  bool opened_ = false;
};

/// Accepts TCP or TLS (context set) on 127.0.0.1 and gives every connection a user.
class Door {
 public:
  Door(loop::Loop& loop, std::uint16_t port, std::shared_ptr<const tls::Context> context,
       MakeUser make);

 private:
  std::unique_ptr<loop::Listener> listener_;
  std::list<std::unique_ptr<Leg>> legs_;
};

/// Opens TCP or TLS connections.
class Dialer {
 public:
  Dialer(loop::Loop& loop, std::uint16_t port, std::shared_ptr<const tls::Context> context,
         const MakeUser& make, int streams);

 private:
  std::list<std::unique_ptr<loop::Connecting>> connecting_;
  std::list<std::unique_ptr<Leg>> legs_;
};

/// A device of the network: an SDK engine that hosts a service or dials one.
class SdkDevice final : public sdk::Host {
 public:
  SdkDevice(loop::Loop& loop, const std::string& identity, const std::string& router);
  void host(const std::string& service, MakeUser make);
  /// Dials; every circuit becomes a leg.
  void dial(const std::string& service, const MakeUser& make, int streams);
  [[nodiscard]] bool bound() const { return binding_ != 0 && !engine_->binding_error(binding_); }
  [[nodiscard]] sdk::Engine& engine() { return *engine_; }
  [[nodiscard]] std::size_t legs() const { return legs_.size(); }
  /// Legs that ended in order are forgotten instead of ending the program.
  void legs_may_end() { legs_may_end_ = true; }

  void on_caller(std::uint64_t request, const sdk::Caller& caller, Answer answer) override;
  void on_stream(std::uint64_t request, const sdk::Caller& caller,
                 std::unique_ptr<sdk::Circuit> circuit) override;

 private:
  std::unique_ptr<sdk::Engine> engine_;
  std::uint64_t binding_ = 0;
  MakeUser make_;
  bool legs_may_end_ = false;
  std::list<std::unique_ptr<CircuitLeg>> legs_;
};

}  // namespace sally::bench
