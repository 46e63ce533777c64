// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace sally {

/// Who is to blame for an error; decides the log level and whether a retry makes sense.
enum class Source : std::uint8_t { kPeer, kLocal, kConfig, kInternal };

/// What went wrong. `code` is stable text such as "crypto.expired": one enum per folder names its
/// codes, and an `error_name(E)` beside the enum, found by argument-dependent lookup, maps it to
/// static text.
class [[nodiscard]] Error {
 public:
  template <typename E>
    requires requires(E e) { error_name(e); }
  explicit Error(E e, std::string context = {}, Source source = Source::kPeer, bool retry = false)
      : code_(error_name(e)), context_(std::move(context)), source_(source), retry_(retry) {}

  /// Stable code, static storage.
  [[nodiscard]] std::string_view code() const { return code_; }
  /// What, where and how to fix; never a secret.
  [[nodiscard]] const std::string& context() const { return context_; }
  [[nodiscard]] Source source() const { return source_; }
  /// True where the same call may succeed later.
  [[nodiscard]] bool retry() const { return retry_; }
  /// "code: context", for people.
  [[nodiscard]] std::string text() const {
    return context_.empty() ? std::string(code_) : std::string(code_) + ": " + context_;
  }
  template <typename E>
    requires requires(E e) { error_name(e); }
  [[nodiscard]] bool is(E e) const {
    return code_ == error_name(e);
  }
  /// The same error with a place in front of its context.
  [[nodiscard]] Error at(std::string_view place) && {
    context_ = std::string(place) + (context_.empty() ? "" : ": ") + context_;
    return std::move(*this);
  }

 private:
  std::string_view code_;
  std::string context_;
  Source source_;
  bool retry_;
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

/// Shorthand: `return fail(Errc::kX, "context")`.
template <typename E>
[[nodiscard]] std::unexpected<Error> fail(E e, std::string context = {},
                                          Source source = Source::kPeer, bool retry = false) {
  return std::unexpected(Error(e, std::move(context), source, retry));
}
[[nodiscard]] inline std::unexpected<Error> fail(Error e) {
  return std::unexpected(std::move(e));
}

}  // namespace sally

#define SALLY_CONCAT_(a, b) a##b
#define SALLY_CONCAT(a, b) SALLY_CONCAT_(a, b)
/// Returns the error of `expr`, if it has one.
#define TRY(expr)                                             \
  do {                                                        \
    if (auto try_result_ = (expr); !try_result_) [[unlikely]] \
      return std::unexpected(std::move(try_result_).error()); \
  } while (false)
/// TRY_ASSIGN(auto x, expr): x is the value of `expr`, or its error is returned.
#define TRY_ASSIGN(lhs, expr) TRY_ASSIGN_(SALLY_CONCAT(try_result_, __LINE__), lhs, expr)
#define TRY_ASSIGN_(tmp, lhs, expr)                 \
  auto tmp = (expr);                                \
  if (!tmp) [[unlikely]]                            \
    return std::unexpected(std::move(tmp).error()); \
  lhs = std::move(*tmp)
