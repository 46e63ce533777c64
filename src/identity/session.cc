// SPDX-License-Identifier: Apache-2.0
#include "identity/session.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "crypto/csr.h"
#include "identity/errc.h"
#include "trust/renewal.h"

namespace sally::identity {
namespace {

constexpr std::int64_t kAnswerMs = 30'000;
constexpr std::int64_t kFirstPauseMs = 2'000;
constexpr std::int64_t kMaxPauseMs = 1'800'000;
constexpr std::int64_t kMaxSleepMs = 3'600'000;  // clocks jump
constexpr std::int64_t kMarginMs = 1'000;        // before its end the older key takes over

}  // namespace

SessionKeeper::SessionKeeper(loop::Loop& loop, Random& random, std::string id,
                             const trust::Anchors& anchors, SessionKey mode, Hooks hooks)
    : loop_(loop),
      random_(random),
      id_(std::move(id)),
      anchors_(anchors),
      mode_(mode),
      hooks_(std::move(hooks)),
      timer_(loop.timers(), [this] { tick(); }),
      backoff_(kFirstPauseMs),
      signings_(loop) {}

bool SessionKeeper::wanted() const {
  if (!device_ || !allowed_ || mode_ == SessionKey::kNever) return false;
  return mode_ == SessionKey::kAlways || device_->key->slow();
}

void SessionKeeper::on_up(const Credential& device) {
  device_ = device;
  request_ = 0;  // its answer went with the older lane
  if (wanted()) timer_.arm(0);
}

void SessionKeeper::on_device(const Credential& device) {
  forget();
  device_ = device;
  backoff_.reset();
  if (wanted()) timer_.arm(0);
}

void SessionKeeper::drop() {
  if (!session_) return;
  forget();
  again();
}

void SessionKeeper::allow(bool yes) {
  if (std::exchange(allowed_, yes) == yes) return;
  if (!yes) forget();
  if (wanted()) timer_.arm(0);
}

void SessionKeeper::forget() {
  request_ = 0;
  ++signing_;
  next_key_.reset();
  timer_.cancel();
  if (!std::exchange(session_, std::nullopt)) return;
  log::info("identity.session_over", {{"id", id_}});
  hooks_.use(std::nullopt);
}

void SessionKeeper::tick() {
  if (!wanted()) return;
  if (request_ != 0) {
    request_ = 0;
    log::warn("identity.session_failed", {{"id", id_}, {"why", "no answer"}});
    return again();
  }
  if (session_) {
    const auto& leaf = session_->chain.front();
    const std::int64_t now = hooks_.time_ms();
    const std::int64_t left = leaf.not_after() * 1000 - kMarginMs - now;
    const std::int64_t due =
        renew_at_ms(id_, leaf.not_before(), leaf.not_after()) - now;  // its first two thirds
    if (left <= 0)
      forget();
    else if (due > 0)
      return timer_.arm(std::min(due, kMaxSleepMs));
  }
  ask();
}

// Sooner where one that is in use ends before: nobody is shown what has ended.
void SessionKeeper::again() {
  std::int64_t pause = backoff_.next_ms(random_, kMaxPauseMs);
  if (session_)
    pause = std::clamp<std::int64_t>(
        session_->chain.front().not_after() * 1000 - kMarginMs - hooks_.time_ms(), 0, pause);
  timer_.arm(pause);
}

void SessionKeeper::ask() {
  auto key = crypto::FileKey::generate(crypto::KeyType::kP256);
  auto csr = key ? crypto::make_csr(**key, id_) : fail(key.error());
  if (!csr) return asked(0, fail(csr.error()));
  next_key_ = std::move(*key);
  wire::RenewalRequest request{.network = anchors_.network,
                               .id = id_,
                               .serial = device_->chain.front().serial_hex(),
                               .csr = {},
                               .time_ms = hooks_.time_ms(),
                               .session_csr = to_bytes(as_bytes(*csr))};
  timer_.arm(kAnswerMs);
  signings_.run(
      device_->key,
      [request = std::move(request)](const crypto::Signer& device) {
        return trust::make_renewal(request, device);
      },
      // A later question, or another certificate, makes this one void.
      [this, began = loop_.clock().mono_us() / 1000, number = ++signing_](Result<Bytes> envelope) {
        if (number == signing_) asked(began, std::move(envelope));
      });
}

void SessionKeeper::asked(std::int64_t began_ms, Result<Bytes> envelope) {
  if (!envelope) {
    log::warn("identity.session_failed", {{"id", id_}, {"why", envelope.error().text()}});
    return again();
  }
  const std::int64_t took_ms = loop_.clock().mono_us() / 1000 - began_ms;
  if (mode_ == SessionKey::kAuto && took_ms < kSlowSignMs) {
    log::debug("identity.session_not_needed", {{"id", id_}, {"sign_ms", took_ms}});
    mode_ = SessionKey::kNever;
    return timer_.cancel();
  }
  while (request_ == 0) request_ = random_.below(UINT64_MAX);
  if (hooks_.send({.request = request_, .id = {}, .serial = {}, .envelope = std::move(*envelope)}))
    return;
  request_ = 0;
  again();  // no lane: on_up is sooner
}

Result<Credential> SessionKeeper::check(const wire::Renewed& answer) const {
  TRY_ASSIGN(auto fresh, answered_credential(answer, anchors_, crypto::Role::kDevice, id_,
                                             next_key_, hooks_.time_ms() / 1000));
  if (fresh.chain.front().session_parent() != device_->chain.front().serial_hex())
    return fail(Errc::kMismatch, "not a session of this device's certificate");
  return fresh;
}

bool SessionKeeper::on_renewed(const wire::Renewed& answer) {
  if (request_ == 0 || answer.request != request_ || answer.id != id_) return false;
  request_ = 0;
  if (!answer.error.empty()) {
    log::warn("identity.session_refused", {{"id", id_}, {"code", answer.error}});
    again();
    return true;
  }
  auto fresh = check(answer);
  if (!fresh) {
    log::warn("identity.session_failed", {{"id", id_}, {"why", fresh.error().text()}});
    again();
    return true;
  }
  next_key_.reset();
  session_ = std::move(*fresh);
  ++count_;
  backoff_.reset();
  const auto& leaf = session_->chain.front();
  log::info("identity.session", {{"id", id_},
                                 {"serial", leaf.serial_hex()},
                                 {"until", format_time(leaf.not_after() * 1000)}});
  hooks_.use(session_);
  timer_.arm(std::clamp<std::int64_t>(
      renew_at_ms(id_, leaf.not_before(), leaf.not_after()) - hooks_.time_ms(), 1'000,
      kMaxSleepMs));
  return true;
}

}  // namespace sally::identity
