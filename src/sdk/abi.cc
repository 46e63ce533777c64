// SPDX-License-Identifier: Apache-2.0
// The C ABI: checks arguments, moves to the loop's thread, catches everything.
#include <fcntl.h>
#include <sally/sally.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "sdk/core.h"

namespace sally::sdk {
namespace {

thread_local std::string last_error;

// Nothing may leave through a C function; what is left to throw is the allocator. Functions without
// a result run as whole().
template <typename F>
auto guarded(F f) noexcept -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return record_error(SALLY_E_MEMORY, "out of memory");
  } catch (...) {
    return record_error(SALLY_E_INTERNAL, "the system gave no thread or lock");
  }
}

int bad_argument(const char* what) noexcept {
  return record_error(SALLY_E_ARGUMENT, what);
}

template <std::size_t N>
void copy_text(char (&into)[N], const std::string& text) {
  const std::size_t n = std::min(text.size(), N - 1);
  std::memcpy(into, text.data(), n);
  into[n] = 0;
}

int set_nonblocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags < 0 ? flags : ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

}  // namespace

int record_error(int code, std::string_view text) noexcept {
  try {
    last_error = text;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return code;
}
int record_error(const Error& error) {
  return record_error(abi_code(error),
                      error.context().empty() ? std::string(error.code()) : error.context());
}

}  // namespace sally::sdk

using namespace sally;
using namespace sally::sdk;

const char* sally_error_name(int code) {
  if (code == SALLY_OK) return "sally.ok";
  const int index = SALLY_E_ARGUMENT - code;
  if (index < 0 || index > static_cast<int>(Errc::kMemory)) return "sally.unknown";
  return error_name(static_cast<Errc>(index)).data();
}
const char* sally_last_error(void) {
  return last_error.c_str();
}
const char* sally_version(void) {
  return SALLY_VERSION;
}

int sally_open(const sally_options* options, sally_context** out) {
  // A program of before knows fewer members.
  if (options == nullptr || out == nullptr || options->size > sizeof(sally_options) ||
      options->size < offsetof(sally_options, flags))
    return bad_argument("options or out missing, or of an unknown size");
  sally_options o = SALLY_OPTIONS_INIT;
  std::memcpy(&o, options, options->size);
  if (o.identity_path == nullptr || *o.identity_path == 0)
    return bad_argument("identity_path is missing");
  constexpr int kSessionKey = SALLY_SESSION_KEY_ALWAYS | SALLY_SESSION_KEY_NEVER;
  if ((o.flags & ~(SALLY_CALLER_LOOP | kSessionKey)) != 0 || (o.flags & kSessionKey) == kSessionKey)
    return bad_argument("unknown flags");
  return guarded([&] {
    auto material = load_material(o.identity_path);
    if (!material) return record_error(material.error());
    if ((o.flags & SALLY_SESSION_KEY_ALWAYS) != 0)
      material->session_key = identity::SessionKey::kAlways;
    if ((o.flags & SALLY_SESSION_KEY_NEVER) != 0)
      material->session_key = identity::SessionKey::kNever;
    auto handle = std::make_unique<sally_context>(
        sally_context{std::make_shared<Core>(std::move(*material), o)});
    handle->core->start();
    *out = handle.release();
    return static_cast<int>(SALLY_OK);
  });
}

int sally_wait_online(sally_context* ctx, int timeout_ms) {
  if (ctx == nullptr) return bad_argument("no context");
  // A reference of its own: the context may be closed while we wait.
  return guarded([core = ctx->core, timeout_ms] { return core->wait_online(timeout_ms); });
}

void sally_close(sally_context* ctx) {
  if (ctx == nullptr) return;
  if (!ctx->core->may_turn()) {
    record_error(SALLY_E_WOULD_DEADLOCK, ctx->core->caller_loop()
                                             ? "sally_close from a callback or another thread"
                                             : "sally_close on the context's own thread");
    return;
  }
  whole([ctx] { ctx->core->shutdown(); });
  delete ctx;
}

namespace {
int check_turn(sally_context* ctx) {
  if (ctx == nullptr || !ctx->core->caller_loop())
    return bad_argument("no context, or one without SALLY_CALLER_LOOP");
  if (!ctx->core->may_turn())
    return record_error(SALLY_E_WOULD_DEADLOCK, "from a callback or another thread");
  return SALLY_OK;
}
}  // namespace

int sally_loop_fd(sally_context* ctx) {
  const int code = check_turn(ctx);
  return code == SALLY_OK ? ctx->core->loop().poll_fd() : code;
}

int sally_loop_timeout(sally_context* ctx) {
  if (check_turn(ctx) != SALLY_OK) return 0;
  return static_cast<int>(std::min<std::int64_t>(ctx->core->loop().wait_ms(), 3'600'000));
}

int sally_loop_run(sally_context* ctx) {
  const int code = check_turn(ctx);
  if (code != SALLY_OK) return code;
  return guarded([&] {
    ctx->core->turn();
    return static_cast<int>(SALLY_OK);
  });
}

int sally_get_status(sally_context* ctx, sally_status* status) {
  // A program of before knows fewer members.
  if (ctx == nullptr || status == nullptr || status->size > sizeof(sally_status) ||
      status->size < offsetof(sally_status, refused))
    return bad_argument("no context, or a status of an unknown size");
  return guarded([&] {
    return ctx->core->call([&] {
      const Engine& engine = ctx->core->engine();
      const Material& m = engine.material();
      sally_status s{};
      s.size = status->size;
      s.online = engine.online() ? 1 : 0;
      s.refused = engine.refused() ? 1 : 0;
      s.since_ms = engine.since_ms();
      s.connects = engine.connects();
      s.bytes_in = engine.counters().bytes_in.value();
      s.bytes_out = engine.counters().bytes_out.value();
      s.leaf_not_after = m.chain.front().not_after();
      copy_text(s.network, m.network);
      copy_text(s.id, m.id);
      copy_text(s.name, m.name);
      copy_text(s.last_error, engine.last_error());
      if (engine.online()) {
        s.round_trip_us = engine.lane()->round_trip_us();
        s.streams = engine.lane()->circuits();
        copy_text(s.router, engine.lane()->peer().id());
      }
      std::memcpy(status, &s, s.size);
      return static_cast<int>(SALLY_OK);
    });
  });
}

int sally_services(sally_context* ctx, void (*each)(void* user, const sally_service*), void* user) {
  if (ctx == nullptr || each == nullptr) return bad_argument("no context or no function");
  return guarded([&] {
    std::vector<KnownService> known;
    const int code = ctx->core->call([&] {
      for (const auto& [id, service] : ctx->core->engine().services()) known.push_back(service);
      return static_cast<int>(SALLY_OK);
    });
    if (code != SALLY_OK) return code;
    for (const auto& k : known) {
      const sally_service s{sizeof(sally_service),
                            k.record->id.c_str(),
                            k.record->name.c_str(),
                            k.dial ? 1 : 0,
                            k.bind ? 1 : 0,
                            k.record->host_config.c_str(),
                            k.record->intercept_config.c_str()};
      each(user, &s);
    }
    return static_cast<int>(SALLY_OK);
  });
}

int sally_dial_async(sally_context* ctx, const char* service, const sally_dial_options* options,
                     void (*done)(void* user, int code, const char* text, sally_stream* stream),
                     void* user) {
  sally_dial_options o = SALLY_DIAL_OPTIONS_INIT;
  if (options != nullptr) o = *options;
  if (ctx == nullptr || service == nullptr || *service == 0 || done == nullptr ||
      o.size != sizeof o)
    return bad_argument("no context, service or function, or options of an unknown size");
  if (o.timeout_ms <= 0 || o.app_data_len > wire::kMaxAppData ||
      (o.app_data == nullptr && o.app_data_len != 0))
    return bad_argument("timeout_ms must be positive, app_data at most 1,024 bytes");
  return guarded([&] {
    Core* core = ctx->core.get();
    Bytes data;
    if (o.app_data_len != 0)
      data.assign(static_cast<const std::uint8_t*>(o.app_data),
                  static_cast<const std::uint8_t*>(o.app_data) + o.app_data_len);
    return core->post([core, name = std::string(service), data = std::move(data),
                       timeout = o.timeout_ms, done, user]() mutable {
      if (!core->alive()) return done(user, SALLY_E_CLOSED, "the context is closed", nullptr);
      core->engine().dial(std::move(name), std::move(data), timeout,
                          [core, done, user](Result<std::unique_ptr<Circuit>> result) {
                            if (!result) {
                              done(user, abi_code(result.error()), result.error().context().c_str(),
                                   nullptr);
                            } else if (!core->alive()) {
                              done(user, SALLY_E_CLOSED, "the context is closed", nullptr);
                            } else {
                              done(user, SALLY_OK, "", core->make_stream(std::move(*result)));
                            }
                          });
    });
  });
}

int sally_dial(sally_context* ctx, const char* service, const sally_dial_options* options,
               sally_stream** out) {
  if (ctx == nullptr || out == nullptr)
    return bad_argument("no context or no place for the stream");
  if (ctx->core->on_loop())
    return record_error(SALLY_E_WOULD_DEADLOCK,
                        "sally_dial on the context's own thread; use sally_dial_async");
  return guarded([&] {
    struct Wait {
      std::promise<std::tuple<int, std::string, sally_stream*>> promise;
    } wait;
    auto future = wait.promise.get_future();
    const int code = sally_dial_async(
        ctx, service, options,
        [](void* user, int c, const char* text, sally_stream* stream) {
          static_cast<Wait*>(user)->promise.set_value({c, text, stream});
        },
        &wait);
    if (code != SALLY_OK) return code;
    const auto [result, text, stream] = future.get();
    *out = stream;
    return result == SALLY_OK ? result : record_error(result, text);
  });
}

int64_t sally_read(sally_stream* stream, void* buffer, size_t len) {
  if (stream == nullptr || (buffer == nullptr && len != 0))
    return bad_argument("no stream or no buffer");
  if (stream->core->on_loop())
    return record_error(SALLY_E_WOULD_DEADLOCK, "sally_read on the context's own thread");
  return guarded([&]() -> std::int64_t {
    auto n = stream->stream->read({static_cast<std::uint8_t*>(buffer), len});
    return n ? static_cast<std::int64_t>(*n) : record_error(n.error());
  });
}

int64_t sally_write(sally_stream* stream, const void* data, size_t len) {
  if (stream == nullptr || (data == nullptr && len != 0))
    return bad_argument("no stream or no data");
  if (stream->core->on_loop())
    return record_error(SALLY_E_WOULD_DEADLOCK, "sally_write on the context's own thread");
  return guarded([&]() -> std::int64_t {
    const Status s = stream->stream->write({static_cast<const std::uint8_t*>(data), len});
    return s ? static_cast<std::int64_t>(len) : record_error(s.error());
  });
}

int64_t sally_try_read(sally_stream* stream, void* buffer, size_t len) {
  if (stream == nullptr || (buffer == nullptr && len != 0))
    return bad_argument("no stream or no buffer");
  return guarded([&]() -> std::int64_t {
    auto n = stream->stream->try_read({static_cast<std::uint8_t*>(buffer), len});
    return n ? static_cast<std::int64_t>(*n) : record_error(n.error());
  });
}

int64_t sally_try_write(sally_stream* stream, const void* data, size_t len) {
  if (stream == nullptr || (data == nullptr && len != 0))
    return bad_argument("no stream or no data");
  return guarded([&]() -> std::int64_t {
    auto n = stream->stream->try_write({static_cast<const std::uint8_t*>(data), len});
    return n ? static_cast<std::int64_t>(*n) : record_error(n.error());
  });
}

int sally_stream_watch(sally_stream* stream, void (*ready)(void* user, sally_stream* stream),
                       void* user) {
  if (stream == nullptr) return bad_argument("no stream");
  return guarded([&] {
    std::function<void()> call;
    if (ready != nullptr) call = [ready, user, stream] { ready(user, stream); };
    stream->stream->watch(std::move(call));
    return static_cast<int>(SALLY_OK);
  });
}

int sally_stream_set_class(sally_stream* stream, int traffic_class) {
  if (stream == nullptr) return bad_argument("no stream");
  if (traffic_class < SALLY_CLASS_INTERACTIVE || traffic_class > SALLY_CLASS_BULK)
    return bad_argument(
        "a class is SALLY_CLASS_INTERACTIVE, SALLY_CLASS_NORMAL or SALLY_CLASS_BULK");
  return guarded([&] {
    stream->stream->set_class(static_cast<wire::Class>(traffic_class));
    return static_cast<int>(SALLY_OK);
  });
}

int sally_shutdown_write(sally_stream* stream) {
  if (stream == nullptr) return bad_argument("no stream");
  return guarded([&] {
    stream->stream->shutdown_write();
    return static_cast<int>(SALLY_OK);
  });
}

void sally_stream_close(sally_stream* stream) {
  if (stream == nullptr) return;
  whole([stream] { stream->stream->close(); });
  delete stream;
}

void sally_stream_reset(sally_stream* stream) {
  if (stream == nullptr) return;
  whole([stream] { stream->stream->reset(); });
  delete stream;
}

const sally_peer* sally_stream_peer(const sally_stream* stream) {
  return stream == nullptr ? nullptr : &stream->peer;
}

int sally_stream_attach(sally_stream* stream, int fd, void (*done)(void* user, int code),
                        void* user) {
  if (stream == nullptr || fd < 0) return bad_argument("no stream or no descriptor");
  return guarded([&] {
    if (set_nonblocking(fd) < 0) return record_error(SALLY_E_ARGUMENT, "not a descriptor");
    const auto core = stream->core;
    const int code = core->call([core, s = stream->stream, fd, done, user] {
      loop::Fd owned(fd);
      Bytes first;
      auto circuit = s->detach(first);
      if (circuit == nullptr) return record_error(SALLY_E_RESET, "the stream is over");
      core->pump(std::move(circuit), std::move(owned), std::move(first), done, user);
      return static_cast<int>(SALLY_OK);
    });
    // Only now are they ours: without memory the call threw and neither was touched.
    delete stream;
    if (code == SALLY_E_CLOSED) loop::Fd(fd).reset();  // the call did not run
    return code;
  });
}

int sally_stream_fd(sally_stream* stream) {
  if (stream == nullptr) return bad_argument("no stream");
  return guarded([&] {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
      return record_error(SALLY_E_INTERNAL, "no socket pair");
    const int code = sally_stream_attach(stream, pair[0], nullptr, nullptr);
    if (code == SALLY_OK) return pair[1];
    if (code == SALLY_E_MEMORY) ::close(pair[0]);
    loop::Fd unused(pair[1]);
    return code;
  });
}

int sally_bind(sally_context* ctx, const char* service, const sally_bind_options* options,
               sally_listener** out) {
  sally_bind_options o = SALLY_BIND_OPTIONS_INIT;
  if (options != nullptr) o = *options;
  if (ctx == nullptr || service == nullptr || *service == 0 || out == nullptr || o.size != sizeof o)
    return bad_argument(
        "no context, service or place for the listener, or options of an unknown size");
  return guarded([&] {
    const auto core = ctx->core;
    auto state = std::make_shared<ListenerState>(*core, o);
    auto handle = std::make_unique<sally_listener>(sally_listener{core, state});
    const int code = core->call([core, state, name = std::string(service), cost = o.cost] {
      state->binding = core->engine().bind(name, cost, *state);
      core->listeners.emplace(state->binding, state);
      return static_cast<int>(SALLY_OK);
    });
    if (code == SALLY_OK) *out = handle.release();
    return code;
  });
}

int sally_accept(sally_listener* listener, int timeout_ms, sally_stream** out) {
  if (listener == nullptr || out == nullptr)
    return bad_argument("no listener or no place for the stream");
  if (listener->core->on_loop())
    return record_error(SALLY_E_WOULD_DEADLOCK, "sally_accept on the context's own thread");
  return guarded([&] { return listener->state->accept(timeout_ms, out); });
}

int sally_listener_status(sally_listener* listener) {
  if (listener == nullptr) return bad_argument("no listener");
  return guarded([&] {
    std::optional<Error> error;
    const int code = listener->core->call([&] {
      error = listener->core->engine().binding_error(listener->state->binding);
      return static_cast<int>(SALLY_OK);
    });
    if (code != SALLY_OK) return code;
    return error ? record_error(*error) : static_cast<int>(SALLY_OK);
  });
}

void sally_listener_close(sally_listener* listener) {
  if (listener == nullptr) return;
  whole([listener] {
    (void)listener->core->call([core = listener->core, state = listener->state] {
      core->engine().unbind(state->binding);
      core->listeners.erase(state->binding);
      state->give_back_tokens();
      return static_cast<int>(SALLY_OK);
    });
    listener->state->close();
  });
  delete listener;
}

const sally_peer* sally_request_peer(const sally_request* request) {
  return request == nullptr ? nullptr : &request->peer;
}

void sally_request_accept(sally_request* request, void* token) {
  if (request == nullptr) return;
  whole([request, token] {
    const auto core = request->core;
    (void)core->post([owned = std::unique_ptr<sally_request>(request), token]() mutable {
      if (!owned->core->alive()) return;
      const auto state = owned->state.lock();
      if (state == nullptr) return;
      state->set_token(owned->number, token);
      if (owned->core->listeners.contains(state->binding)) {
        owned->answer(std::nullopt);
      } else {
        state->give_back_tokens();
      }
    });
  });
}

void sally_request_refuse(sally_request* request, int code, const char* text) {
  if (request == nullptr) return;
  whole([request, code, text] {
    const auto core = request->core;
    const Error why(code == SALLY_E_BUSY ? Errc::kBusy : Errc::kRefused,
                    text == nullptr ? "" : text);
    (void)core->post([owned = std::unique_ptr<sally_request>(request), why]() mutable {
      if (owned->core->alive()) owned->answer(why);
    });
  });
}
