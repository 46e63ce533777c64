// SPDX-License-Identifier: Apache-2.0
// Foreign ends: what a worker knows of a Ziti SDK's connection, and a circuit's side on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "edge/connection.h"
#include "loop/loop.h"
#include "router/circuit.h"
#include "wire/messages.h"

namespace sally::router {

/// A foreign end's connection. Owner: its Device. Thread: the worker's.
struct Foreign {
  std::unique_ptr<edge::Connection> connection;
  std::string session;                 ///< id of the API session of its hello's token
  std::uint64_t credential_epoch = 0;  ///< and of what is believed of the identity
  std::int64_t ends_ms = 0;            ///< when that token does, in Unix time
  std::unique_ptr<loop::Timer> card;   ///< while its hello waits for the identity's card
  struct Hosting {
    wire::Terminator record;
    ForeignBinding binding;
    std::uint8_t precedence = 0;  ///< as the SDK gave it
    bool healthy = true;
    bool unpublished = false;  ///< what it is worth has changed, and its terminator has not yet
  };
  std::unordered_map<std::uint32_t, Hosting> hostings;  ///< by the SDK's id
};

/// One side of a circuit on a foreign end's channel. This router is the end of the circuit:
/// messages are records in it. Owner: a Circuit. Thread: the worker's. Failure: one whose other end
/// takes nothing is closed.
class ForeignSide final : public Side, public edge::Conn {
 public:
  /// What the other end may leave waiting before this end's channel stops being read.
  static constexpr std::uint64_t kMaxWaiting = fabric::kMaxWindow;

  ForeignSide(Circuit& circuit, loop::Loop& loop, const Device& device);
  /// Whose it is, and by which certificate: also when the device has left.
  [[nodiscard]] const std::string& device() const { return device_; }
  [[nodiscard]] const std::string& serial() const { return serial_; }

  // Side
  [[nodiscard]] bool attached() const override { return channel() != nullptr; }
  void wake() override;
  void grant(std::uint64_t forwarded) override;
  void pass_ack(std::uint64_t) override {}  // nothing is kept for it
  void set_class(wire::Class) override {}
  void end(wire::ResetCode code, const std::string& text) override;
  [[nodiscard]] std::size_t chunks() const override { return Side::chunks() + held_chunks(); }
  [[nodiscard]] bool stalled() const override { return Side::stalled() || held_chunks() != 0; }
  [[nodiscard]] ForeignSide* foreign() override { return this; }

  // edge::Conn
  void on_stream(ByteView bytes, ChunkPtr* whole) override;
  void on_closed(bool whole) override;
  void on_ended() override;
  void on_stalled() override;
  void on_dialed(Bytes key) override;
  void on_dial_failed(const std::string& why) override;
  bool next_piece(ChunkPtr& piece) override;

 private:
  /// The SDK has gone, and what it sent is still on its way.
  void linger();

  loop::Loop& loop_;
  const std::string device_;
  const std::string serial_;
  std::uint64_t sent_ = 0;
  std::uint64_t forwarded_ = 0;
  bool blocks_ = false;
  std::uint64_t lingered_at_ = 0;
  std::unique_ptr<loop::Timer> linger_;
};

}  // namespace sally::router
