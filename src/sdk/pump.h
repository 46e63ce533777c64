// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "loop/fd.h"
#include "loop/loop.h"
#include "sdk/circuit.h"

namespace sally::sdk {

/// Moves bytes between a circuit and the application's own descriptor until both directions are
/// over. EOF becomes half close, a reset of either side a reset of the other. Owner: the Engine.
/// Thread: its loop's. Failure: `done` says how it ended; the descriptor is closed in any case.
class Pump final : public CircuitUser {
 public:
  /// `done(ok)` once, in a turn of its own; it may destroy the pump.
  /// `first`: plaintext that was read from the circuit already.
  Pump(loop::Loop& loop, std::unique_ptr<Circuit> circuit, loop::Fd fd, Bytes first,
       std::function<void(bool ok)> done);
  ~Pump() override;

  /// The application has ended its side, and what it wrote before is not with the peer yet.
  [[nodiscard]] bool delivering() const;

  void on_circuit_readable() override;
  void on_circuit_writable() override;
  void on_circuit_over(const Error& why) override;

 private:
  void on_fd(loop::Watcher::Ready ready);
  void from_fd();
  void to_fd();
  bool to_circuit(ByteView data);
  bool to_descriptor(ByteView data);
  bool take_rest();
  void maybe_done();
  void cut();
  void end(bool ok);

  loop::Loop& loop_;
  std::unique_ptr<Circuit> circuit_;
  loop::Fd fd_;
  std::function<void(bool)> done_;
  std::unique_ptr<loop::Watcher> watcher_;
  Bytes outward_;  // read from the descriptor, not yet taken by the circuit
  Bytes inward_;   // read from the circuit, not yet taken by the descriptor
  bool fd_ended_ = false;
  bool circuit_ended_ = false;
  bool ended_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::sdk
