// SPDX-License-Identifier: Apache-2.0
#include "identity/renew.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "crypto/csr.h"
#include "crypto/hash.h"
#include "identity/errc.h"
#include "identity/identity.h"
#include "trust/renewal.h"

namespace sally::identity {
namespace {

constexpr std::int64_t kMaxSleepMs = 6LL * 3'600'000;  // clocks jump
constexpr std::int64_t kMaxToldMs = 3'600'000;
constexpr std::int64_t kAnswerMs = 30'000;
constexpr std::int64_t kFirstPauseMs = 2'000;
constexpr std::int64_t kMaxPauseMs = 1'800'000;
constexpr std::int64_t kMostApartMs = 600'000;
constexpr int kRefusalsMeant = 20;
constexpr std::int64_t kMinApartMs = 60'000;
constexpr std::uint64_t kMaxWithinMs = 30ULL * 86'400'000;
constexpr std::uint64_t kSteps = 1'000'000;
// A younger one may be new to the controller: whoever starts with it tells that it is in use.
constexpr std::int64_t kYoungMs = 26LL * 3'600'000;

std::uint64_t step_of(std::string_view id) {
  const auto hash = crypto::sha256(as_bytes(id));
  std::uint64_t n = 0;
  for (std::size_t i = 0; i < 8; ++i) n = n << 8U | hash[i];
  return n % kSteps;
}

}  // namespace

std::int64_t renew_at_ms(std::string_view id, std::int64_t not_before_s, std::int64_t not_after_s) {
  const double life_ms = static_cast<double>(not_after_s - not_before_s) * 1e3;
  const double shift = static_cast<double>(step_of(id)) / static_cast<double>(kSteps) * 0.2 - 0.1;
  return not_before_s * 1000 + static_cast<std::int64_t>(life_ms * (2.0 / 3.0 + shift));
}

Status keep_in_file(const std::string& path, const Credential& fresh) {
  return change(path, [&](Identity& file) -> Result<bool> {
    if (!(file.key->public_key() == fresh.key->public_key()))
      return fail(Errc::kMismatch, path + " holds another key by now", Source::kLocal);
    if (file.expires_s() > fresh.chain.front().not_after()) return false;
    file.chain = fresh.chain;
    return true;
  });
}

Status keep_time_in_file(const std::string& path, std::int64_t ms) {
  return change(path, [&](Identity& file) -> Result<bool> {
    if (file.time_ms >= ms) return false;
    file.time_ms = ms;
    return true;
  });
}

Result<Credential> answered_credential(const wire::Renewed& answer, const trust::Anchors& anchors,
                                       crypto::Role role, std::string_view id,
                                       const crypto::SignerPtr& key, std::int64_t now_s) {
  TRY_ASSIGN(auto leaf, crypto::Certificate::from_der(answer.leaf));
  TRY_ASSIGN(auto issuing, crypto::Certificate::from_der(answer.issuing));
  crypto::PathPolicy policy;
  policy.anchors = anchors.roots;
  policy.known_issuing = anchors.issuing;
  policy.purpose = crypto::Purpose::kTlsClient;
  policy.now_s = std::max(now_s, leaf.not_before());  // its clock may be ahead of ours
  policy.network = anchors.network;
  policy.roles = {role};
  TRY_ASSIGN(const auto path, crypto::validate_path(leaf, {issuing}, policy));
  if (path.id != id) return fail(Errc::kMismatch, "a certificate of " + path.id);
  if (!(leaf.public_key() == key->public_key()))
    return fail(Errc::kMismatch, "the certificate is for another key");
  return Credential{{std::move(leaf), std::move(issuing)}, key};
}

Result<Credential> kept_in_file(const std::string& path) {
  TRY_ASSIGN(auto file, load(path));
  return Credential{std::move(file.chain), std::move(file.key)};
}

Renewer::Renewer(loop::Loop& loop, Random& random, std::string id, crypto::Role role,
                 const trust::Anchors& anchors, Credential current, Hooks hooks)
    : loop_(loop),
      random_(random),
      id_(std::move(id)),
      role_(role),
      anchors_(anchors),
      current_(std::move(current)),
      hooks_(std::move(hooks)),
      timer_(loop.timers(), [this] { tick(); }),
      backoff_(kFirstPauseMs),
      signings_(loop) {}

std::int64_t Renewer::life_ms() const {
  const auto& leaf = current_.chain.front();
  return (leaf.not_after() - leaf.not_before()) * 1000;
}

std::int64_t Renewer::due_ms() const {
  const auto& leaf = current_.chain.front();
  const std::int64_t due =
      renew_at_ms(id_, leaf.not_before(), leaf.not_after()) +
      static_cast<std::int64_t>(static_cast<double>(std::min(life_ms() / 100, kMostApartMs)) *
                                static_cast<double>(apart_) / static_cast<double>(kSteps));
  return wished_ms_ != 0 ? std::min(due, wished_ms_) : due;
}

void Renewer::start() {
  // Processes of one identity have the same moment; the first one's file serves the others.
  apart_ = random_.below(kSteps);
  use_untold_ = hooks_.time_ms() - current_.chain.front().not_before() * 1000 < kYoungMs;
  plan();
}

void Renewer::plan() {
  const std::int64_t most = std::clamp<std::int64_t>(life_ms() / 100, 1'000, kMaxSleepMs);
  timer_.arm(std::clamp<std::int64_t>(due_ms() - hooks_.time_ms(), 0, most));
}

void Renewer::on_up() {
  request_ = 0;  // its answer went with the older lane
  refusals_ = 0;
  if (use_untold_) {
    timer_.arm(kAnswerMs);
    ask(true);
  } else {
    plan();
  }
}

void Renewer::on_refused() {
  ++refusals_;
  // Not at its own next moment: that may be minutes away.
  if (request_ == 0 && (refusals_ == 1 || refusals_ == kRefusalsMeant)) timer_.arm(0);
}

// A router that knows nothing yet refuses as well: that alone is no reason.
bool Renewer::may_recover() const {
  if (!hooks_.recover || refusals_ == 0) return false;
  const bool ended =
      hooks_.ended ? hooks_.ended() : hooks_.time_ms() / 1000 >= current_.chain.front().not_after();
  return ended || refusals_ >= kRefusalsMeant;
}

void Renewer::renew_within(std::uint64_t ms) {
  auto pause =
      static_cast<std::int64_t>(static_cast<double>(step_of(id_)) / static_cast<double>(kSteps) *
                                static_cast<double>(std::min(ms, kMaxWithinMs)));
  // Whoever may ask may not keep us busy with it.
  if (renewed_at_ms_) pause = std::max(pause, *renewed_at_ms_ + kMinApartMs - loop_.now_ms());
  wished_ms_ = hooks_.time_ms() + pause;
  log::info("identity.renewal_wished", {{"id", id_}, {"in_s", pause / 1000}});
  if (request_ == 0) plan();
}

bool Renewer::look() {
  if (!hooks_.kept) return false;
  auto kept = hooks_.kept();
  if (!kept || kept->chain.empty()) return false;
  const auto& there = kept->chain.front();
  const auto& here = current_.chain.front();
  if (there == here || there.not_after() < here.not_after() || !hooks_.use(*kept)) return false;
  log::info("identity.renewal_taken_over", {{"id", id_}, {"serial", there.serial_hex()}});
  current_ = std::move(*kept);
  request_ = 0;
  ++signing_;
  wished_ms_ = 0;
  use_untold_ = true;
  backoff_.reset();
  timer_.arm(0);
  return true;
}

void Renewer::tick() {
  if (request_ != 0) {
    request_ = 0;
    log::warn("identity.renewal_unanswered", {{"id", id_}});
    return again(0);
  }
  // Of what no router takes there is no use to tell.
  const bool tell = use_untold_ && refusals_ == 0;
  if (!tell && refusals_ == 0 && hooks_.time_ms() < due_ms()) return plan();
  if (!tell && look()) return;
  timer_.arm(kAnswerMs);
  ask(tell);
}

// A tenth of what is left of the life at most: a short one cannot wait long.
void Renewer::again(std::int64_t at_least_ms) {
  const std::int64_t cap = std::clamp<std::int64_t>(life_ms() / 20, kFirstPauseMs / 4, kMaxPauseMs);
  const std::int64_t own = backoff_.next_ms(random_, cap);
  // Those that were told the same pause do not come back together.
  const std::int64_t told =
      at_least_ms +
      static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(at_least_ms / 2) + 1));
  timer_.arm(std::max(own, told));
}

void Renewer::ask(bool use) {
  wire::RenewalRequest request{.network = anchors_.network,
                               .id = id_,
                               .serial = current_.chain.front().serial_hex(),
                               .csr = {},
                               .time_ms = hooks_.time_ms()};
  signings_.run(
      current_.key,
      [request = std::move(request), use](const crypto::Signer& key) mutable -> Result<Bytes> {
        if (!use) {
          TRY_ASSIGN(const auto csr, crypto::make_csr(key, request.id));
          request.csr = to_bytes(as_bytes(csr));
        }
        return trust::make_renewal(request, key);
      },
      // A later question, or another certificate, makes this one void.
      [this, use, number = ++signing_](Result<Bytes> envelope) {
        if (number == signing_) asked(use, std::move(envelope));
      });
}

void Renewer::asked(bool use, Result<Bytes> envelope) {
  if (!envelope) {
    log::warn("identity.renewal_failed", {{"id", id_}, {"why", envelope.error().text()}});
    return again(0);
  }
  std::uint64_t number = 0;
  while (number == 0) number = random_.below(UINT64_MAX);
  const wire::Renew message{
      .request = number, .id = {}, .serial = {}, .envelope = std::move(*envelope)};
  if (!hooks_.send(message) && (use || !may_recover() || !hooks_.recover(message)))
    return again(0);  // no lane, and no other way now
  request_ = number;
  tells_use_ = use;
}

Result<Credential> Renewer::check(const wire::Renewed& answer) const {
  TRY_ASSIGN(auto fresh, answered_credential(answer, anchors_, role_, id_, current_.key,
                                             hooks_.time_ms() / 1000));
  if (fresh.chain.front().not_after() <= current_.chain.front().not_after() && wished_ms_ == 0)
    return fail(Errc::kMismatch, "it ends no later than the one before");
  return fresh;
}

void Renewer::told_no(const wire::Renewed& answer) {
  log::warn("identity.renewal_refused", {{"id", id_}, {"code", answer.error}});
  if (look()) return;
  again(static_cast<std::int64_t>(
      std::min<std::uint64_t>(answer.retry_after_ms, static_cast<std::uint64_t>(kMaxToldMs))));
}

void Renewer::on_renewed(const wire::Renewed& answer) {
  if (request_ == 0 || answer.request != request_ || answer.id != id_) return;
  request_ = 0;
  if (!answer.error.empty()) return told_no(answer);
  if (tells_use_) {
    use_untold_ = false;
    backoff_.reset();
    return plan();
  }
  auto fresh = check(answer);
  if (fresh) {
    if (const Status kept = hooks_.keep(*fresh); !kept) fresh = fail(kept.error());
  }
  if (fresh) {
    if (const Status used = hooks_.use(*fresh); !used) fresh = fail(used.error());
  }
  if (!fresh) {
    log::error("identity.renewal_not_kept", {{"id", id_}, {"why", fresh.error().text()}});
    return again(0);
  }
  current_ = std::move(*fresh);
  wished_ms_ = 0;
  ++count_;
  renewed_at_ms_ = loop_.now_ms();
  refusals_ = 0;
  use_untold_ = true;
  backoff_.reset();
  log::info("identity.renewed",
            {{"id", id_},
             {"serial", current_.chain.front().serial_hex()},
             {"until", format_time(current_.chain.front().not_after() * 1000)}});
  timer_.arm(0);  // tells the use
}

}  // namespace sally::identity
