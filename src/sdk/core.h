// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sally/sally.h>

#include <condition_variable>
#include <future>
#include <latch>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "loop/loop.h"
#include "sdk/engine.h"
#include "sdk/pump.h"
#include "sdk/stream.h"

namespace sally::sdk {

/// Sets what sally_last_error() of this thread says; returns the code. Without memory it says
/// nothing.
int record_error(int code, std::string_view text) noexcept;
int record_error(const Error& error);

class ListenerState;

/// Runs what works on the engine. Where memory ends in the middle of it, so does the process: half
/// of a change is worse than none, and only what comes before it can be refused.
template <typename F>
auto whole(F&& f) noexcept -> decltype(f()) {
  return f();
}

/// What stands behind a sally_context: a loop on a thread of its own or on the caller's, the
/// engine, and all that lives on them. Owner: shared by the context's handle and the handles made
/// from it. Thread: members marked [loop] on the loop's thread. Failure: after shutdown() every
/// call gives SALLY_E_CLOSED.
class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(Material material, sally_options options);
  ~Core();
  void start();
  /// Ends everything; not from a callback, and with a thread of our own not from that thread.
  void shutdown();
  [[nodiscard]] bool caller_loop() const { return (options_.flags & SALLY_CALLER_LOOP) != 0; }
  /// True where shutdown() and turn() may be called.
  [[nodiscard]] bool may_turn() const { return on_loop() == caller_loop() && !turning_; }
  /// One turn of a loop without a thread.
  void turn() noexcept;
  void turn_until(const std::function<bool()>& done, std::int64_t timeout_ms) noexcept;
  [[nodiscard]] bool on_loop() const { return std::this_thread::get_id() == thread_id_; }

  /// Runs `f` on the loop's thread and waits for it. SALLY_E_CLOSED after shutdown. Throws
  /// bad_alloc before `f` has begun, or not at all.
  template <typename F>
  int call(F f) {
    if (on_loop()) return whole(f);
    auto result = std::make_shared<std::promise<int>>();
    auto future = result->get_future();
    {
      const std::lock_guard lock(mutex_);
      const auto run = [this, result, f = std::move(f)]() mutable {
        result->set_value(alive() ? whole(f) : SALLY_E_CLOSED);
      };
      if (closed_ || !loop_.post(run, true)) return closed_error();
    }
    return future.get();
  }
  /// Runs `f` on the loop's thread, soon; `f` asks alive().
  template <typename F>
  int post(F f) {
    const std::lock_guard lock(mutex_);
    if (closed_) return closed_error();
    if (!loop_.post(std::move(f)))
      return record_error(SALLY_E_BUSY, "the context's thread is far behind");
    return SALLY_OK;
  }

  int wait_online(int timeout_ms);
  /// [loop] A handle for a circuit that is open.
  sally_stream* make_stream(std::unique_ptr<Circuit> circuit);
  /// [loop]
  void pump(std::unique_ptr<Circuit> circuit, loop::Fd fd, Bytes first, void (*done)(void*, int),
            void* user);

  [[nodiscard]] loop::Loop& loop() { return loop_; }
  /// [loop] False once the end has begun: there is no engine any more.
  [[nodiscard]] bool alive() const { return engine_ != nullptr; }
  [[nodiscard]] Engine& engine() { return *engine_; }
  /// [loop] Bindings keep their state here.
  std::map<std::uint64_t, std::shared_ptr<ListenerState>> listeners;

 private:
  static int closed_error() { return record_error(SALLY_E_CLOSED, "the context is closed"); }
  void begin();
  void run();
  void end();
  bool delivering();
  void drain();
  void on_event(Event event, const std::string& text);

  sally_options options_;
  loop::Loop loop_;
  std::unique_ptr<Engine> engine_;
  std::unordered_map<BlockingStream*, std::shared_ptr<BlockingStream>> streams_;
  std::list<std::unique_ptr<Pump>> pumps_;
  std::thread thread_;
  std::thread::id thread_id_;
  std::latch started_{1};
  bool turning_ = false;  // on the caller's loop: callbacks may be running

  std::mutex mutex_;
  std::condition_variable changed_;
  bool online_ = false;
  bool closed_ = false;
  std::string denied_;
};

/// One binding of the C ABI: callers wait here for sally_accept, or go to the program's callbacks.
/// Owner: shared by the handle and the Core. Thread: on_* on the loop's; accept from any. Failure:
/// a full queue turns callers away as busy.
class ListenerState final : public Host {
 public:
  ListenerState(Core& core, const sally_bind_options& options) : core_(core), options_(options) {}
  ~ListenerState() override;
  int accept(int timeout_ms, sally_stream** out);
  void close();

  void on_caller(std::uint64_t request, const Caller& caller, Answer answer) override;
  void on_stream(std::uint64_t request, const Caller& caller,
                 std::unique_ptr<Circuit> circuit) override;
  /// [loop]
  void set_token(std::uint64_t request, void* token) { tokens_[request] = token; }
  /// [loop] The binding is over: whoever was let in will not come any more.
  void give_back_tokens();

  std::uint64_t binding = 0;

 private:
  static constexpr std::size_t kBacklog = 128;
  Core& core_;
  sally_bind_options options_;
  std::unordered_map<std::uint64_t, void*> tokens_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<sally_stream*> waiting_;
  std::size_t promised_ = 0;  // accepted, handshake not over
  bool closed_ = false;
};

/// Identity file to what the engine needs; kIdentity with the reason.
Result<Material> load_material(const std::string& path);

}  // namespace sally::sdk

struct sally_context {
  std::shared_ptr<sally::sdk::Core> core;
};
struct sally_listener {
  std::shared_ptr<sally::sdk::Core> core;
  std::shared_ptr<sally::sdk::ListenerState> state;
};
struct sally_stream {
  std::shared_ptr<sally::sdk::Core> core;
  std::shared_ptr<sally::sdk::BlockingStream> stream;
  std::string network;
  std::string id;
  std::string name;
  std::string serial;
  sally_peer peer{};
};
struct sally_request {
  std::shared_ptr<sally::sdk::Core> core;
  std::weak_ptr<sally::sdk::ListenerState> state;
  std::uint64_t number = 0;
  sally::sdk::Host::Answer answer;
  sally::sdk::Caller caller;
  std::string network;
  sally_peer peer{};
};
