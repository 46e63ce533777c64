// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "base/bytes.h"
#include "http/message.h"

namespace sally::http {

struct ParserLimits {
  std::size_t head = 16 * 1024;  ///< start line and header fields
  std::size_t headers = 100;
  std::size_t body = 1024 * 1024;
};

/// HTTP/1.1 messages out of bytes (RFC 9112), on llhttp in its strict form. Owned by one
/// connection; one thread. Total: every input ends in kMore, kComplete or kError. Stops exactly at
/// the end of a message; the rest is the caller's. After kError nothing more is parsed;
/// `error_status()` says what to answer.
class Parser {
 public:
  enum class Kind : std::uint8_t { kRequest, kResponse };
  enum class State : std::uint8_t { kMore, kComplete, kError };

  explicit Parser(Kind kind, ParserLimits limits = {});
  ~Parser();
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;

  /// Adds what it consumed to `consumed`.
  State feed(ByteView in, std::size_t& consumed);
  /// The transport ended: completes a response that runs until the end.
  State finish();
  /// After kComplete: the message, and the parser is ready for the next one.
  Request take_request();
  Response take_response();
  /// A response to HEAD has no body whatever its header fields say. Before the first byte of the
  /// response.
  void expect_no_body();

  /// True after a complete message whose sender keeps the connection.
  [[nodiscard]] bool keep_alive() const;
  /// True once: the head is complete and its sender waits for "100 Continue" before the body.
  bool take_expect_continue();
  /// True once the first byte of a message is in.
  [[nodiscard]] bool started() const;
  [[nodiscard]] std::size_t body_size() const;
  /// 400, 413, 431, 501 or 505.
  [[nodiscard]] int error_status() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace sally::http
