// SPDX-License-Identifier: Apache-2.0
#include "sdk/core.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace sally::sdk {
namespace {

// How long sally_close lets closed streams deliver.
constexpr std::chrono::seconds kDrain{3};

}  // namespace

Core::Core(Material material, sally_options options)
    : options_(options),
      engine_(std::make_unique<Engine>(loop_, system_random(), std::move(material),
                                       [this](Event e, const std::string& t) { on_event(e, t); })) {
}

Core::~Core() = default;

void Core::start() {
  if (caller_loop()) {
    thread_id_ = std::this_thread::get_id();
    loop_.defer([this] { begin(); });
    return;
  }
  thread_ = std::thread([this] { run(); });
  started_.wait();
}

// A context that is closed before its first turn has no engine any more.
void Core::begin() {
  if (alive()) engine_->start();
}

void Core::run() {
  thread_id_ = std::this_thread::get_id();
  started_.count_down();
  loop_.defer([this] { begin(); });
  loop_.run();
  end();
}

void Core::turn() noexcept {
  turning_ = true;
  loop_.run_once(false);
  turning_ = false;
}

void Core::turn_until(const std::function<bool()>& done, std::int64_t timeout_ms) noexcept {
  const bool before = std::exchange(turning_, true);
  (void)loop_.run_until(done, timeout_ms);
  turning_ = before;
}

void Core::end() {
  for (auto& [key, stream] : std::exchange(streams_, {})) stream->context_closed();
  for (auto& [id, listener] : std::exchange(listeners, {})) {
    listener->give_back_tokens();
    listener->close();
  }
  pumps_.clear();
  engine_.reset();
  // Calls that were posted before the end get their answers; deferred deletions run.
  for (int i = 0; i < 8; ++i) loop_.run_once(false);
}

// What closed streams had written is not with their peers yet.
bool Core::delivering() {
  return engine_->delivering() ||
         (engine_->online() &&
          (std::ranges::any_of(streams_, [](const auto& s) { return s.second->closing(); }) ||
           std::ranges::any_of(pumps_, [](const auto& p) { return p->delivering(); })));
}

// Waits for that, kDrain at most.
void Core::drain() {
  if (caller_loop()) {
    turn_until([this] { return !delivering(); }, std::chrono::milliseconds(kDrain).count());
    return;
  }
  const auto until = std::chrono::steady_clock::now() + kDrain;
  const auto busy = [this] {
    bool yes = false;
    (void)call([this, &yes] {
      yes = delivering();
      return static_cast<int>(SALLY_OK);
    });
    return yes;
  };
  while (busy() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

void Core::shutdown() {
  if (caller_loop()) turning_ = true;  // to the end: what is called now may not come back
  drain();
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(closed_, true)) return;
    changed_.notify_all();
  }
  if (caller_loop()) return end();
  loop_.stop();
  thread_.join();
}

void Core::on_event(Event event, const std::string& text) {
  {
    const std::lock_guard lock(mutex_);
    if (event == Event::kOnline) {
      online_ = true;
      denied_.clear();
    } else if (event == Event::kOffline) {
      online_ = false;
    } else if (event == Event::kDenied) {
      online_ = false;
      denied_ = text;
    }
    changed_.notify_all();
  }
  if (options_.on_event != nullptr)
    options_.on_event(options_.user, static_cast<sally_event>(static_cast<int>(event) + 1),
                      text.c_str());
}

int Core::wait_online(int timeout_ms) {
  const auto decided = [this] { return online_ || closed_ || !denied_.empty(); };
  if (on_loop()) {
    if (!may_turn())
      return record_error(SALLY_E_WOULD_DEADLOCK, "sally_wait_online on the context's own thread");
    turn_until(
        [&] {
          const std::lock_guard lock(mutex_);
          return decided();
        },
        timeout_ms);
  }
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(on_loop() ? 0 : timeout_ms), decided);
  if (online_) return SALLY_OK;
  if (closed_) return closed_error();
  if (!denied_.empty()) return record_error(SALLY_E_DENIED, denied_);
  lock.unlock();
  std::string why;
  (void)call([&] {
    why = engine_->last_error();
    return SALLY_OK;
  });
  return record_error(SALLY_E_UNREACHABLE, why.empty() ? "no router has answered in time" : why);
}

sally_stream* Core::make_stream(std::unique_ptr<Circuit> circuit) {
  auto* handle = new sally_stream;
  const tls::PeerIdentity& peer = circuit->peer();
  handle->core = shared_from_this();
  handle->network = peer.network().str();
  handle->id = peer.id();
  handle->name = circuit->peer_name();
  handle->serial = peer.serial();
  handle->peer = {sizeof(sally_peer), handle->network.c_str(), handle->id.c_str(),
                  handle->name.c_str(), handle->serial.c_str()};
  handle->stream = std::make_shared<BlockingStream>(
      loop_, shared_from_this(), std::move(circuit), [this](BlockingStream& s) {
        // Later: the stream is still on the stack.
        loop_.defer([this, key = &s] { streams_.erase(key); });
      });
  streams_.emplace(handle->stream.get(), handle->stream);
  handle->stream->start();
  return handle;
}

void Core::pump(std::unique_ptr<Circuit> circuit, loop::Fd fd, Bytes first,
                void (*done)(void*, int), void* user) {
  pumps_.emplace_back();
  const auto at = std::prev(pumps_.end());
  *at = std::make_unique<Pump>(loop_, std::move(circuit), std::move(fd), std::move(first),
                               [this, at, done, user](bool ok) {
                                 // The element is moved out first: `done` may do anything, and this
                                 // function lives inside the pump.
                                 const std::shared_ptr<Pump> gone(std::move(*at));
                                 pumps_.erase(at);
                                 loop_.defer([gone] {});
                                 if (done != nullptr) done(user, ok ? SALLY_OK : SALLY_E_RESET);
                               });
}

// ---- listeners
// -------------------------------------------------------------------------------------------

ListenerState::~ListenerState() {
  close();
}

void ListenerState::give_back_tokens() {
  for (const auto& [request, token] : std::exchange(tokens_, {})) {
    if (options_.on_stream != nullptr) options_.on_stream(options_.user, nullptr, token);
  }
}

void ListenerState::close() {
  std::list<sally_stream*> waiting;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    waiting.swap(waiting_);
    changed_.notify_all();
  }
  for (auto* stream : waiting) sally_stream_reset(stream);
}

void ListenerState::on_caller(std::uint64_t request, const Caller& caller, Answer answer) {
  if (options_.on_request != nullptr) {
    auto* handle = new sally_request;
    handle->core = core_.shared_from_this();
    handle->state = std::static_pointer_cast<ListenerState>(core_.listeners.at(binding));
    handle->number = request;
    handle->answer = std::move(answer);
    handle->caller = caller;
    handle->network = core_.engine().material().network;
    handle->peer = {sizeof(sally_peer), handle->network.c_str(), handle->caller.id.c_str(),
                    handle->caller.name.c_str(), handle->caller.serial.c_str()};
    options_.on_request(options_.user, handle);
    return;
  }
  if (options_.on_stream == nullptr) {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() + promised_ >= kBacklog) {
      answer(Error(Errc::kBusy, "callers are waiting already"));
      return;
    }
    ++promised_;
  }
  answer(std::nullopt);
}

void ListenerState::on_stream(std::uint64_t request, const Caller&,
                              std::unique_ptr<Circuit> circuit) {
  void* token = nullptr;
  if (const auto it = tokens_.find(request); it != tokens_.end()) {
    token = it->second;
    tokens_.erase(it);
  }
  sally_stream* stream = circuit == nullptr ? nullptr : core_.make_stream(std::move(circuit));
  if (options_.on_stream != nullptr) {
    options_.on_stream(options_.user, stream, token);
    return;
  }
  const std::lock_guard lock(mutex_);
  if (promised_ > 0) --promised_;
  if (stream == nullptr) return;
  waiting_.push_back(stream);
  changed_.notify_one();
}

int ListenerState::accept(int timeout_ms, sally_stream** out) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return !waiting_.empty() || closed_; };
  if (timeout_ms < 0) {
    changed_.wait(lock, ready);
  } else if (!changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) {
    return record_error(SALLY_E_TIMEOUT, "nobody called in time");
  }
  if (closed_) return record_error(SALLY_E_CLOSED, "the listener is closed");
  *out = waiting_.front();
  waiting_.pop_front();
  return SALLY_OK;
}

}  // namespace sally::sdk
