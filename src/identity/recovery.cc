// SPDX-License-Identifier: Apache-2.0
#include "identity/recovery.h"

#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "identity/errc.h"

namespace sally::identity {
namespace {

constexpr std::size_t kMaxAnswer = 64 * 1024;

}  // namespace

RecoveryDoor::RecoveryDoor(loop::Loop& loop, std::string url, const trust::Anchors& anchors,
                           const Clock& clock, std::function<void(std::int64_t)> learn)
    : loop_(loop),
      url_(std::move(url)),
      anchors_(anchors),
      clock_(clock),
      learn_(std::move(learn)) {}

bool RecoveryDoor::send(const std::string& id, wire::Renew request,
                        std::function<void(const wire::Renewed&)> answer) {
  if (busy_ || url_.empty()) return false;
  auto context =
      http::client_context(anchors_.roots, NetworkId(anchors_.network), {}, nullptr, &clock_, true);
  if (!context) {
    last_error_ = context.error().text();
    return false;
  }
  http::RequestOptions o;
  o.method = "POST";
  o.headers.add("Content-Type", "application/octet-stream");
  request.id = id;
  const Bytes body = wire::encode(wire::Control{std::move(request)});
  o.body = {body.begin(), body.end()};
  o.context = std::move(*context);
  o.max_response = kMaxAnswer;
  busy_ = true;
  call_ = http::request(loop_, url_ + std::string(kRecoveryPath), std::move(o),
                        [this, answer = std::move(answer)](Result<http::ClientResponse> r) {
                          busy_ = false;
                          auto renewed = r ? read(*r) : Result<wire::Renewed>(fail(r.error()));
                          last_error_ = renewed ? std::string() : renewed.error().text();
                          if (renewed) return answer(*renewed);
                          log::warn("identity.recovery_failed",
                                    {{"controller", url_}, {"why", last_error_}});
                        });
  return true;
}

Result<wire::Renewed> RecoveryDoor::read(const http::ClientResponse& response) {
  // Any role but the controller's may not speak for it, whatever names its certificate has.
  if (response.peer == nullptr || response.peer->role() != tls::Role::kController)
    return fail(Errc::kNotBelieved, url_ + " is not the controller");
  // One whose certificate ends before the time it tells is wrong about it.
  const auto ms = parse_u64(response.headers.get(kTimeHeader));
  if (ms && static_cast<std::int64_t>(*ms / 1000) <= response.peer->leaf().not_after())
    learn_(static_cast<std::int64_t>(*ms));
  if (response.status != 200)
    return fail(Errc::kController, "HTTP status " + std::to_string(response.status), Source::kPeer,
                true);
  TRY_ASSIGN(auto message, wire::decode_control(as_bytes(response.body)));
  auto* renewed = std::get_if<wire::Renewed>(&message.member);
  if (renewed == nullptr) return fail(Errc::kController, "not an answer to a renewal");
  return std::move(*renewed);
}

}  // namespace sally::identity
