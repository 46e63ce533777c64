// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "http/client.h"
#include "loop/loop.h"
#include "trust/trust.h"
#include "wire/messages.h"

namespace sally::identity {

/// Where the controller serves it, and the header of its answers with its Unix time in ms.
inline constexpr std::string_view kRecoveryPath = "/identity/v1/renew";
inline constexpr std::string_view kTimeHeader = "sally-time-ms";

/// The controller's door for whom no router lets in any more: slept over the end of the
/// certificate, or lost what followed it. Carries the same messages as a lane does, over HTTPS
/// without a client certificate: the request is its own proof, the controller proves itself. Owner:
/// an SDK engine or a router. Thread: its loop's. Failure: an answer with an error; nothing where
/// the controller cannot be reached, the Renewer asks again.
class RecoveryDoor {
 public:
  /// `url`: of the controller. `learn`: the time that the proven controller told, Unix ms.
  /// All references outlive it.
  RecoveryDoor(loop::Loop& loop, std::string url, const trust::Anchors& anchors, const Clock& clock,
               std::function<void(std::int64_t)> learn);
  /// As `id`, since no router says it. One at a time: false while another one is under way, or
  /// without a controller.
  bool send(const std::string& id, wire::Renew request,
            std::function<void(const wire::Renewed&)> answer);
  [[nodiscard]] bool known() const { return !url_.empty(); }
  /// Why the last one came to nothing; empty after an answer.
  [[nodiscard]] const std::string& last_error() const { return last_error_; }

 private:
  [[nodiscard]] Result<wire::Renewed> read(const http::ClientResponse& response);

  loop::Loop& loop_;
  const std::string url_;
  const trust::Anchors& anchors_;
  const Clock& clock_;
  std::function<void(std::int64_t)> learn_;
  std::unique_ptr<http::Call> call_;
  bool busy_ = false;
  std::string last_error_;
};

}  // namespace sally::identity
