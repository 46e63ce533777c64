// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/error.h"
#include "base/ids.h"
#include "fabric/end.h"
#include "fabric/hop.h"
#include "lane/attachment.h"
#include "lane/lane.h"
#include "loop/loop.h"
#include "sdk/errors.h"
#include "tls/session.h"
#include "wire/messages.h"

namespace sally::sdk {

class Circuit;

/// Who uses an open circuit: a pump to a descriptor, or a stream handle of the C ABI. Calls come on
/// the loop's thread; none comes from inside a call to the circuit. on_circuit_over may destroy the
/// circuit, the others may not.
class CircuitUser {
 public:
  virtual ~CircuitUser() = default;
  /// read() has something: data, the end, or nothing after all.
  virtual void on_circuit_readable() = 0;
  /// write() takes again.
  virtual void on_circuit_writable() = 0;
  /// The circuit was cut; once, and nothing follows. When the peer had ended its direction before,
  /// read() still gives the rest of it here, up to kEnd, though only inside this call. An orderly
  /// end is not told here: it is read() giving kEnd after the user's own shutdown_write().
  virtual void on_circuit_over(const Error& why) = 0;
};

/// One end of a circuit: inner TLS over the windows of fabric/, on a lane.
/// Owner: the Engine until opened, then its user. Thread: the engine's. Failure: whatever the other
/// end does wrong ends this circuit only, never the lane: between the two stand routers that are
/// not to blame.
class Circuit final : public lane::Attachment {
 public:
  using Role = fabric::CircuitEnd::Role;
  /// What happens before the circuit is open; set by the engine. Each may destroy the circuit.
  struct Opening {
    /// The dialing end: the host's answer came (payload: SetupOkFrame); verify it, then
    /// accept_answer.
    std::function<Status(Circuit&, ByteView)> on_answer;
    /// The hosting end: the session's first flight goes on, its slow key has signed.
    std::function<void(Circuit&)> on_signed{};
    /// Both: the inner handshake is over and the peer is proven.
    std::function<void(Circuit&)> on_open;
    /// Both: it failed before that.
    std::function<void(Circuit&, const Error&)> on_failed;
    /// The lane's. Kept alive: what was received may be read after the lane and its engine.
    std::shared_ptr<ChunkPool> pool;
    /// Where circuits are listed between finish() and their end.
    std::shared_ptr<std::set<Circuit*>> lingering;
  };

  Circuit(loop::Loop& loop, Role role, CircuitId id, std::unique_ptr<tls::Session> session,
          Opening opening);
  ~Circuit() override;

  [[nodiscard]] const CircuitId& id() const { return id_; }
  [[nodiscard]] tls::Session& session() { return *session_; }
  [[nodiscard]] const tls::PeerIdentity& peer() const { return *session_->peer(); }

  /// The dialing end: the host's first flight, taken from a verified answer.
  Status accept_answer(ByteView flight);
  /// Call when the lane is attached and the set-up done, to grant credit.
  void start();

  /// After on_open: whoever reads and writes.
  void set_user(CircuitUser& user);
  enum class ReadKind : std::uint8_t { kData, kNothing, kEnd };
  struct ReadResult {
    ReadKind kind;
    std::size_t n = 0;
  };
  /// Plaintext, at most one record. kEnd: the peer's close_notify. A failure comes through
  /// on_circuit_over.
  ReadResult read(MutableBytes into);
  /// Bytes taken; fewer than given: on_circuit_writable will come.
  std::size_t write(ByteView data);
  /// close_notify and FIN; idempotent.
  void shutdown_write();
  /// RESET, at once; on_circuit_over is not called.
  void abort(wire::ResetCode code);
  /// The user is done but the peer may not be: what was written is delivered, what comes is
  /// dropped, then the circuit destroys itself; at the latest when nothing was acknowledged for a
  /// minute, or the lane is gone. Takes ownership.
  static void finish(std::unique_ptr<Circuit> self);
  [[nodiscard]] bool over() const { return over_; }
  /// Pieces of ciphertext that wait for read().
  [[nodiscard]] std::size_t waiting_pieces() const { return received_.size(); }
  /// After finish(): the peer has all we wrote, or never will.
  [[nodiscard]] bool delivered() const { return over_ || end_.send().fin_acked(); }
  /// The name on the peer's verified card.
  [[nodiscard]] const std::string& peer_name() const { return peer_name_; }
  void set_peer_name(std::string name) { peer_name_ = std::move(name); }

  // lane::Attachment
  Status on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) override;
  Status on_fin(std::uint64_t offset) override;
  void on_credit(std::uint64_t limit) override;
  Status on_ack(std::uint64_t offset) override;
  Status on_setup_ok(ByteView payload) override;
  void on_setup_err(const wire::SetupErr& err) override;
  void on_reset(const wire::Reset& reset) override;
  void on_lane_gone() override;
  void on_tick() override;
  bool next_frame(Out& out) override;

 private:
  void key_has_signed();
  void continue_handshake();
  void feed_next();
  void push_output();
  void after_receive();
  void send_due(bool flush);
  void notify_readable();
  void maybe_finish();
  void die(Error why);
  void end(const Error* why);
  void tell_over();

  loop::Loop& loop_;
  Opening opening_;  // first: what is below holds chunks of its pool
  fabric::CircuitEnd end_;
  CircuitId id_;
  std::string peer_name_;
  std::unique_ptr<tls::Session> session_;
  CircuitUser* user_ = nullptr;
  ChunkQueue received_;            // ciphertext the session has not seen; at most a window
  std::unique_ptr<Circuit> self_;  // set by finish()
  std::unique_ptr<loop::Timer> linger_;
  bool open_ = false;
  bool read_end_ = false;
  bool write_blocked_ = false;
  bool readable_scheduled_ = false;
  bool over_ = false;
  bool whole_ = false;        // once over_: all that the peer sent is here
  std::optional<Error> why_;  // once over_
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::sdk
