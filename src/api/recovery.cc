// SPDX-License-Identifier: Apache-2.0
// The recovery door: the next certificate for whom no router lets in any more. The messages are
// those of a lane (proto/lane.proto); the request's own signature is all that is believed.
#include "api/call.h"
#include "base/log.h"
#include "wire/messages.h"

namespace sally::api {
namespace {

constexpr std::size_t kMaxRequest = 64 * 1024;
constexpr std::uint64_t kPauseMs = 60'000;

// Refused before its signature was found good.
bool stranger(const Error& e) {
  using pki::Errc;
  return e.is(Errc::kCertificateUnknown) || e.is(Errc::kRequestForeign) || e.is(Errc::kNotYours) ||
         !e.code().starts_with("pki.");
}

}  // namespace

bool Api::admit_recovery(const std::function<bool(std::int64_t now_us)>& take) const {
  const std::scoped_lock lock(stats_mutex_);
  if (take(deps_.clock.mono_us())) return true;
  ++recoveries_["api.busy"];
  return false;
}

Response Api::recover(const Request& r) const {
  const std::int64_t now = deps_.clock.unix_ms();
  Response out;
  out.headers.emplace_back("content-type", "application/octet-stream");
  // A device may not know how late it is.
  out.headers.emplace_back("sally-time-ms", std::to_string(now));
  const auto refuse = [&](int status) {
    out.status = status;
    return out;
  };
  if (r.method != "POST") return refuse(405);
  if (r.body.size() > kMaxRequest) return refuse(413);
  const auto busy = [&] {
    out.headers.emplace_back("retry-after", "60");
    return refuse(503);
  };
  // The source before anything else: who floods starves only himself.
  if (!admit_recovery([&](std::int64_t us) { return recovery_sources_.take(r.source, us); }))
    return busy();
  auto message = wire::decode_control(as_bytes(r.body));
  auto* renew = message ? std::get_if<wire::Renew>(&message->member) : nullptr;
  if (renew == nullptr) return refuse(400);
  // One row, read without a change; the signature is checked while nobody waits for us.
  auto from = deps_.renewals->open(
      renew->envelope,
      [&](std::string_view serial) -> Result<std::optional<store::CertificateRow>> {
        TRY_ASSIGN(const auto tx, deps_.store.read(deps_.network));
        return tx->certificate(serial);
      });
  if (from && !admit_recovery([&](std::int64_t us) { return recovery_rate_.take(us); }))
    return busy();
  const auto run = [&]() -> Result<pki::RenewalDoor::Outcome> {
    if (!from) return fail(std::move(from).error());
    TRY_ASSIGN(auto tx, deps_.store.begin(deps_.network, now));
    TRY_ASSIGN(auto done, deps_.renewals->recover(*tx, std::move(*from), now, deps_.random));
    TRY(tx->commit());
    return done;
  };
  auto done = run();
  wire::Renewed reply{.request = renew->request,
                      .id = renew->id.empty() ? "-" : renew->id,
                      .leaf = {},
                      .issuing = {},
                      .error = {},
                      .retry_after_ms = 0};
  bool audit = false;
  {
    const std::scoped_lock lock(stats_mutex_);
    ++recoveries_[done ? "done" : done.error().code()];
    if (!done)
      audit = (stranger(done.error()) ? stranger_rate_ : denial_rate_).take(deps_.clock.mono_us());
  }
  if (done) {
    if (done->superseded > 0) deps_.live.changed();
    reply.leaf = done->issued->leaf.der();
    reply.issuing = done->issued->issuing.der();
    log::info(
        "api.recovered",
        {{"id", renew->id}, {"serial", done->issued->leaf.serial_hex()}, {"remote", r.remote}});
  } else {
    const Error& e = done.error();
    log::warn("api.recovery_refused",
              {{"code", e.code()}, {"context", e.context()}, {"remote", r.remote}});
    // What is our own fault is tried again; nobody is told of it.
    if (e.source() != Source::kPeer) return refuse(503);
    reply.error = e.code();
    // Who was only wrong about the time comes again at once, with ours.
    if (!e.is(pki::Errc::kRequestTime)) reply.retry_after_ms = kPauseMs;
    if (audit) {
      const auto write = [&]() -> Status {
        TRY_ASSIGN(auto tx, deps_.store.begin(deps_.network, now));
        TRY(deps_.renewals->audit_refusal(*tx, renew->envelope, pki::Door::kRecovery, e));
        return tx->commit();
      };
      if (const Status s = write(); !s)
        log::error("api.refusal_not_audited", {{"why", s.error().text()}});
    }
  }
  const Bytes body = wire::encode(wire::Control{std::move(reply)});
  out.body = {body.begin(), body.end()};
  return out;
}

}  // namespace sally::api
