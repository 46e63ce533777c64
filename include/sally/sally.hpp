// SPDX-License-Identifier: Apache-2.0
// Sallyport SDK, C++: a header-only shell over sally.h. Move-only handles, std::expected, no
// exceptions.
#pragma once

#include <sally/sally.h>

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace sally::sdk {

/// A code of sally.h and what it met.
struct Failure {
  int code = SALLY_OK;
  std::string text;
};
template <typename T>
using Expected = std::expected<T, Failure>;

inline std::unexpected<Failure> failure(int code) {
  return std::unexpected(Failure{code, sally_last_error()});
}

namespace detail {
struct CloseStream {
  void operator()(sally_stream* s) const { sally_stream_close(s); }
};
struct CloseListener {
  void operator()(sally_listener* l) const { sally_listener_close(l); }
};
struct CloseContext {
  void operator()(sally_context* c) const { sally_close(c); }
};
}  // namespace detail

/// One end of a stream. Owned by the caller; any thread, one reader and one writer at a time; the
/// peer's failure is SALLY_E_RESET.
class Stream {
 public:
  explicit Stream(sally_stream* handle) : handle_(handle) {}
  /// 0 = end of the peer's direction.
  Expected<std::size_t> read(std::span<std::uint8_t> buffer) {
    return result(sally_read(handle_.get(), buffer.data(), buffer.size()));
  }
  Expected<std::size_t> write(std::span<const std::uint8_t> data) {
    return result(sally_write(handle_.get(), data.data(), data.size()));
  }
  Expected<std::size_t> write(std::string_view text) {
    return result(sally_write(handle_.get(), text.data(), text.size()));
  }
  int shutdown_write() { return sally_shutdown_write(handle_.get()); }
  [[nodiscard]] const sally_peer& peer() const { return *sally_stream_peer(handle_.get()); }
  void reset() { sally_stream_reset(handle_.release()); }
  /// A plain descriptor; the stream is gone from here.
  Expected<int> into_fd() {
    const int fd = sally_stream_fd(handle_.release());
    if (fd < 0) return failure(fd);
    return fd;
  }
  sally_stream* release() { return handle_.release(); }

 private:
  static Expected<std::size_t> result(std::int64_t n) {
    if (n < 0) return failure(static_cast<int>(n));
    return static_cast<std::size_t>(n);
  }
  std::unique_ptr<sally_stream, detail::CloseStream> handle_;
};

/// Hosts one service. Owned by the caller; any thread; lives shorter than its context.
class Listener {
 public:
  explicit Listener(sally_listener* handle) : handle_(handle) {}
  Expected<Stream> accept(int timeout_ms = -1) {
    sally_stream* s = nullptr;
    if (const int code = sally_accept(handle_.get(), timeout_ms, &s); code != SALLY_OK)
      return failure(code);
    return Stream(s);
  }
  [[nodiscard]] int status() const { return sally_listener_status(handle_.get()); }

 private:
  std::unique_ptr<sally_listener, detail::CloseListener> handle_;
};

/// One identity on one network. Owned by the caller; any thread; fails at open only, later it
/// reconnects by itself.
class Context {
 public:
  static Expected<Context> open(const std::string& identity_path) {
    sally_options options = SALLY_OPTIONS_INIT;
    options.identity_path = identity_path.c_str();
    sally_context* handle = nullptr;
    if (const int code = sally_open(&options, &handle); code != SALLY_OK) return failure(code);
    return Context(handle);
  }
  Expected<void> wait_online(int timeout_ms = 10'000) {
    if (const int code = sally_wait_online(handle_.get(), timeout_ms); code != SALLY_OK)
      return failure(code);
    return {};
  }
  Expected<Stream> dial(const std::string& service, int timeout_ms = 10'000) {
    sally_dial_options options = SALLY_DIAL_OPTIONS_INIT;
    options.timeout_ms = timeout_ms;
    sally_stream* s = nullptr;
    if (const int code = sally_dial(handle_.get(), service.c_str(), &options, &s); code != SALLY_OK)
      return failure(code);
    return Stream(s);
  }
  Expected<Listener> bind(const std::string& service) {
    const sally_bind_options options = SALLY_BIND_OPTIONS_INIT;
    sally_listener* l = nullptr;
    if (const int code = sally_bind(handle_.get(), service.c_str(), &options, &l); code != SALLY_OK)
      return failure(code);
    return Listener(l);
  }
  [[nodiscard]] sally_context* get() const { return handle_.get(); }

 private:
  explicit Context(sally_context* handle) : handle_(handle) {}
  std::unique_ptr<sally_context, detail::CloseContext> handle_;
};

}  // namespace sally::sdk
