// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "http/message.h"
#include "loop/loop.h"
#include "tls/context.h"

namespace sally::http {

struct RequestOptions {
  std::string method = "GET";
  Headers headers;
  std::string body;
  /// Who is believed and what we show: see `client_context`. Required.
  std::shared_ptr<const tls::Context> context;
  /// The certificate must carry the URL's host. False only together with `expect_peer` or where the
  /// caller judges the captured leaf.
  bool verify_host = true;
  std::optional<std::pair<tls::Role, std::string>> expect_peer;
  std::int64_t timeout_ms = 30'000;
  std::size_t max_response = 4 * 1024 * 1024;
  bool keep_open = false;  ///< Call::again() will follow
};

struct ClientResponse {
  int status = 0;
  Headers headers;
  std::string body;
  std::shared_ptr<const tls::PeerIdentity> peer;     ///< with Trust::kPath
  std::optional<crypto::Certificate> captured_leaf;  ///< with the other one
};

/// A request under way. Destroying it cancels without a call; the callback may destroy it.
using OnResponse = std::move_only_function<void(Result<ClientResponse>)>;
class Call {
 public:
  virtual ~Call() = default;
  /// Another request to the same peer on the same connection, once there was an answer and where
  /// that request said `keep_open`. Of `options` whom to believe is not read. kClosed where the
  /// peer has ended the connection.
  virtual void again(const std::string& target, RequestOptions options, OnResponse done) = 0;
};

/// One request on a connection of its own. `done` runs once, never from inside this function.
/// Errors: http.*, loop.*, tls.*.
std::unique_ptr<Call> request(loop::Loop& loop, const std::string& url, RequestOptions options,
                              OnResponse done);
/// The same for plain synchronous callers (CLI): runs a loop of its own.
Result<ClientResponse> blocking_request(const std::string& url, RequestOptions options);

/// A client context for HTTP: roots and network believed, optionally our certificate.
/// `clock_may_lag`: see tls::ContextOptions.
Result<std::shared_ptr<const tls::Context>> client_context(
    std::vector<crypto::Certificate> anchors, NetworkId network,
    std::vector<crypto::Certificate> chain = {},
    std::shared_ptr<const crypto::Signer> key = nullptr, const Clock* clock = nullptr,
    bool clock_may_lag = false);
/// Believes nobody: for an enrolment, which judges the captured leaf. Nothing read over it is true
/// until then.
Result<std::shared_ptr<const tls::Context>> unverified_enrolment_context();

}  // namespace sally::http
