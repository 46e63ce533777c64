// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "loop/loop.h"
#include "sdk/circuit.h"

namespace sally::sdk {

/// A stream as threads of the application use it: blocking reads and writes over a circuit that
/// lives on the engine's thread. Owner: shared by the application's handle and the engine, which
/// drops it when the circuit is over. Thread: read, write and the flags from any; everything marked
/// [loop] on the loop's. Failure: a cut stream gives its error to reads and writes.
class BlockingStream final : public CircuitUser,
                             public std::enable_shared_from_this<BlockingStream> {
 public:
  /// [loop] `drop` tells the owner on the loop that it may forget us. `keep` keeps the loop alive
  /// as long as we are.
  BlockingStream(loop::Loop& loop, std::shared_ptr<void> keep, std::unique_ptr<Circuit> circuit,
                 std::function<void(BlockingStream&)> drop);
  ~BlockingStream() override;
  /// [loop] Takes the circuit's calls.
  void start();

  /// 0 = end in order.
  Result<std::size_t> read(MutableBytes into);
  /// All of it.
  Status write(ByteView data);
  /// The same for what can go at once; kWouldBlock, after which `ready` of watch() is called.
  Result<std::size_t> try_read(MutableBytes into);
  Result<std::size_t> try_write(ByteView data);
  /// `ready` runs on the loop; null ends it.
  void watch(std::function<void()> ready);
  void set_class(wire::Class traffic_class);
  void shutdown_write();
  /// The handle is given back; what was written is delivered.
  void close();
  void reset();
  /// [loop] The circuit and what was read ahead, for a pump; the stream is over. Null when it is
  /// over already.
  std::unique_ptr<Circuit> detach(Bytes& read_ahead);
  /// [loop] close() was called, and what was written before is not with the circuit yet.
  [[nodiscard]] bool closing();
  /// [loop] The context ends.
  void context_closed();

  void on_circuit_readable() override;
  void on_circuit_writable() override;
  void on_circuit_over(const Error& why) override;

 private:
  static constexpr std::size_t kBuffer = 256 * 1024;
  void pull();
  void push();
  void fail_with(Error why);
  /// [mutex] What there is to read; nullopt: nothing yet.
  std::optional<Result<std::size_t>> take(MutableBytes into);
  /// [mutex, loop] Tells a thread that waits, and `ready`.
  void changed(bool readable, bool writable);
  void drop();
  template <typename F>
  void on_loop(F f, bool always = false);
  void make_room(std::size_t n);

  std::shared_ptr<void> keep_;
  loop::Loop& loop_;
  const std::thread::id thread_ = std::this_thread::get_id();  // the loop's: it makes us
  std::unique_ptr<Circuit> circuit_;                           // the loop's
  std::function<void(BlockingStream&)> drop_;
  bool pulling_ = false;  // the loop's: a reader has asked at least once

  bool dead_ = false;  // circuit or loop are gone: nothing is posted any more

  std::mutex mutex_;
  std::condition_variable changed_;
  Bytes in_;
  std::size_t in_at_ = 0;
  Bytes out_;
  std::size_t out_at_ = 0;
  bool in_ended_ = false;
  bool out_ended_ = false;
  bool closed_ = false;
  std::optional<Error> error_;
  std::function<void()> ready_;
  bool wants_read_ = false;   // try_read had nothing
  bool wants_write_ = false;  // try_write could not take all
  bool telling_ = false;      // a call of ready_ is on its way
};

}  // namespace sally::sdk
