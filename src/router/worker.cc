// SPDX-License-Identifier: Apache-2.0
// A Worker's lanes: who may come, cards, services, binds.
#include "router/worker.h"

#include <utility>

#include "base/log.h"
#include "policy/policy.h"

namespace sally::router {
namespace {

constexpr std::int64_t kUpkeepMs = 5'000;  // how often cards and freshness are looked at
constexpr std::int64_t kCardRefreshMs = 12LL * 3600 * 1000;
// A card whose attributes changed may be used this long while the new one is on its way; then its
// holder may do nothing.
constexpr std::int64_t kStaleCardMs = 5'000;
constexpr std::uint64_t kRenewalPauseMs = 60'000;

}  // namespace

Worker::Worker(loop::Loop& loop, Random& random, Shared& shared, unsigned index)
    : loop_(loop),
      random_(random),
      shared_(shared),
      index_(index),
      credential_{shared.options.chain, shared.options.key},
      upkeep_timer_(loop.timers(), [this] { on_upkeep(); }),
      mark_timer_(loop.timers(), [this] { mark_stalled(); }) {}

Worker::~Worker() {
  *alive_ = false;
  acceptor_.reset();
  // Circuits stand on lanes: they go first, quietly, then the lanes.
  circuits_.clear();
  retired_.clear();
  lanes_.clear();
  channels_.clear();
}

Result<std::shared_ptr<const tls::Context>> Worker::make_context() const {
  tls::ContextOptions server{.side = tls::Side::kServer,
                             .chain = credential_.chain,
                             .key = credential_.key,
                             .anchors = options().anchors.roots,
                             .issuing = options().anchors.issuing,
                             .network = NetworkId(options().network),
                             .roles = {tls::Role::kDevice},
                             // Some foreign SDKs name theirs, most name none.
                             .alpn = {std::string(lane::kAlpnEdge), "ziti-edge"},
                             .alpn_optional = true,
                             .peer_certificate = tls::PeerCertificate::kRequired,
                             .admit = [this](const tls::PeerIdentity& peer) { return admit(peer); },
                             .clock = &loop_.clock()};
  return tls::Context::create(std::move(server));
}

Status Worker::use(const identity::Credential& fresh) {
  auto before = std::exchange(credential_, fresh);
  auto context = make_context();
  if (!context) {
    credential_ = std::move(before);
    return fail(std::move(context).error());
  }
  acceptor_->set_context(std::move(*context));
  return {};
}

Status Worker::listen(const HostPort& at, loop::ListenOptions how) {
  TRY_ASSIGN(const auto context, make_context());
  TRY_ASSIGN(
      acceptor_,
      tls::Acceptor::create(
          loop_,
          {.host = at.host,
           .port = at.port,
           .context = context,
           .limits = {},
           .gate = shared_.gate,
           .listen = how,
           .name = "router",
           .on_bad_certificate = [this](const auto& from,
                                        const Error& why) { on_bad_certificate(from, why); }},
          [this](std::unique_ptr<tls::Stream> stream) { accept(std::move(stream)); }));
  upkeep_timer_.arm(kUpkeepMs);
  return {};
}

void Worker::event(std::string code, std::string actor, std::string subject, std::string text) {
  shared_.desk.event(index_, {.time_ms = now_ms(),
                              .code = std::move(code),
                              .actor = std::move(actor),
                              .subject = std::move(subject),
                              .text = std::move(text)});
}

void Worker::on_bad_certificate(const loop::Address& from, const Error& why) {
  // A path that is not ours. What was ours once, and is revoked, was audited when that happened.
  if (!why.code().starts_with("crypto.") || !refusals_.take(loop_.clock().mono_us())) return;
  event("router.peer_refused", from.ip_text(), std::string(why.code()), why.context());
}

// Inside the TLS verify step: whoever is refused here sees the same alert as one with a bad
// certificate.
Status Worker::admit(const tls::PeerIdentity& peer) const {
  if (!state().fresh(now_ms(), options().grace_ms)) {
    return fail(state().version() == 0 ? Errc::kNoState : Errc::kStale,
                "the controller was last heard too long ago", Source::kLocal, true);
  }
  for (const auto& serial : trust::serials_of(peer.leaf()))
    if (state().serial_revoked(serial)) return fail(Errc::kRevoked, "certificate " + serial);
  return alive(peer);
}

Status Worker::alive(const tls::PeerIdentity& peer) const {
  for (const auto& serial : trust::serials_of(peer.leaf()))
    if (state().serial_cut(serial)) return fail(Errc::kRevoked, "certificate " + serial);
  if (state().serial_revoked(peer.issuer().serial_hex()))
    return fail(Errc::kRevoked, "issuing CA " + peer.issuer().serial_hex());
  // The credential epoch is the card's; here the standing counts.
  if (standing_of(peer.id()).standing != wire::Standing::kActive)
    return fail(Errc::kRevoked, "device " + peer.id());
  return {};
}

wire::IdentityState Worker::standing_of(const std::string& id) const {
  const auto* known = state().identity(id);
  if (known != nullptr) return *known;
  // Only identities that are not simply active at epoch 0 are replicated.
  return {.id = id, .standing = wire::Standing::kActive};
}

trust::Context Worker::trust_context() const {
  return {.anchors = options().anchors,
          .signers = state().signers(),
          .revocation = &state(),
          .now_ms = now_ms()};
}

void Worker::accept(std::unique_ptr<tls::Stream> stream) {
  // Again: whoever held the end of a handshake back over a new state was in no table when that was
  // enforced.
  if (const Status s = admit(*stream->peer()); !s) {
    counters_.devices_refused.add();
    log::warn("router.device_refused",
              {{"device", stream->peer()->id()}, {"why", s.error().text()}});
    return;
  }
  if (stream->session().alpn() != lane::kAlpnEdge) return accept_foreign(std::move(stream));
  auto device = std::make_unique<Device>();
  device->id = stream->peer()->id();
  device->share = shared_.devices.open(device->id, Use::kLane);
  lane::LaneOptions how;
  how.hello.network = options().network;
  how.hello.epoch = shared_.process_epoch;
  how.hello.software = "sally-router/" SALLY_VERSION;
  how.hello.features = wire::kFeatureRenewal;
  how.tell_time = true;
  how.counters = &counters_.lanes;
  device->lane =
      std::make_unique<lane::Lane>(loop_, pool_, std::move(stream), *this, std::move(how));
  lane::Lane& lane = *device->lane;
  const bool too_many = !device->share;
  lanes_.emplace(&lane, std::move(device));
  shared_.lanes.fetch_add(1, std::memory_order_relaxed);
  if (too_many) lane.close(Error(Errc::kTooManyLanes, "of this device"));
}

Device* Worker::find(const lane::Lane& lane) const {
  const auto it = lanes_.find(&lane);
  return it == lanes_.end() ? nullptr : it->second.get();
}

Device* Worker::find(const edge::Channel& channel) const {
  const auto it = channels_.find(&channel);
  return it == channels_.end() ? nullptr : it->second.get();
}

Device* Worker::device_of(Side& side) const {
  if (const HopSide* hop = side.on_lane(); hop != nullptr)
    return hop->lane() == nullptr ? nullptr : find(*hop->lane());
  const ForeignSide* foreign = side.foreign();
  return foreign->channel() == nullptr ? nullptr : find(*foreign->channel());
}

std::size_t Worker::labels() const {
  std::size_t n = 0;
  for (const auto& [lane, device] : lanes_) n += lane->circuits();
  return n;
}

void Worker::on_lane_up(lane::Lane& lane, const wire::Hello& peer) {
  Device& device = *find(lane);
  log::info("router.device_up", {{"device", device.id},
                                 {"from", lane.remote().str()},
                                 {"serial", lane.peer().serial()},
                                 {"group", lane.session().group()}});
  counters_.devices_up.add();
  device.hears_renew_now = (peer.features & wire::kFeatureRenewNow) != 0;
  push_routers(device);
  // Our own first, else what the device carries, else the controller's.
  if (const auto cached = shared_.cards.find(device.id, now_ms(), state());
      cached && use_card(device, *cached))
    return;
  if (!peer.card.empty() && use_card(device, peer.card)) return;
  ask_card(device);
}

void Worker::push_routers(Device& device) {
  wire::Routers routers;
  for (const auto& [id, router] : state().routers()) routers.entries.push_back(router);
  device.lane->send_control({std::move(routers)});
}

bool Worker::use_card(Device& device, const Bytes& envelope) {
  auto card = trust::verify_card(envelope, trust_context());
  if (!card || (*card)->id != device.id) {
    log::info("router.card_refused",
              {{"device", device.id},
               {"why", card ? std::string("it names another device") : card.error().text()}});
    return false;
  }
  if ((*card)->attr_epoch < standing_of(device.id).attr_epoch) return false;
  shared_.cards.put(*card, envelope);
  if (const Status s = trust::check_key(*card, device.peer().leaf()); !s) {
    counters_.devices_refused.add();
    log::warn("router.device_refused", {{"device", device.id}, {"why", s.error().text()}});
    event("router.device_key_only", device.id, device.peer().serial(), s.error().text());
    device.card.reset();
    device.close(Error(Errc::kDeviceKeyOnly, device.id));
    return true;  // of use, though not to this connection
  }
  device.card.emplace(std::move(*card));
  device.card_envelope = envelope;
  device.stale_since_ms = 0;
  if (device.foreign != nullptr) {
    end_hello_wait(device);
    return true;
  }
  push_services(device);  // first: it brings the signers that vouch for the card
  device.lane->send_control({wire::CardUpdate{.card = device.card_envelope}});
  return true;
}

void Worker::on_card_reply(const wire::CardReply& reply) {
  bool changed = false;
  each_device([&](Device& device) {
    const bool waits = device.foreign != nullptr && device.foreign->card != nullptr;
    if (device.id != reply.id || (!device.up() && !waits)) return;
    const bool had = device.card.has_value();
    changed |= use_card(device, reply.card) && had;
  });
  // A first card takes nothing away.
  if (changed) enforce_cards();
}

// What its record's end-to-end protection leaves to a foreign end: all but our own.
static bool open_to(const Device& device, const replica::ServiceView& service) {
  return device.foreign == nullptr || service.record.e2e == wire::E2e::kCompatible ||
         service.record.e2e == wire::E2e::kNone;
}

bool Worker::may_dial(const Device& device, const std::string& service) const {
  const auto* known = state().service(service, now_ms());
  return known != nullptr && device.card && open_to(device, *known) &&
         policy::may_dial(trust::subject(**device.card), known->record.dial);
}

bool Worker::may_bind(const Device& device, const std::string& service) const {
  const auto* known = state().service(service, now_ms());
  return known != nullptr && device.card && open_to(device, *known) &&
         policy::may_bind(trust::subject(**device.card), known->record.bind);
}

void Worker::push_services(Device& device) {
  wire::Services services;
  for (const auto& [id, service] : state().services()) {
    const bool dial = may_dial(device, id);
    const bool bind = may_bind(device, id);
    if (dial || bind)
      services.entries.push_back({.record = service.envelope, .dial = dial, .bind = bind});
  }
  services.signers = state().signers().chains();
  const wire::Control message{std::move(services)};
  const auto hash = trust::hash_of(wire::encode(message));
  if (device.services_sent && hash == device.services_hash) return;
  device.services_hash = hash;
  device.services_sent = true;
  device.lane->send_control(message);
}

void Worker::on_lane_control(lane::Lane& lane, wire::Control&& message) {
  Device& device = *find(lane);
  if (const auto* bind = std::get_if<wire::Bind>(&message.member)) return on_bind(device, *bind);
  if (auto* renew = std::get_if<wire::Renew>(&message.member))
    return on_renew(device, std::move(*renew));
  if (const auto* unbind = std::get_if<wire::Unbind>(&message.member)) {
    if (shared_.terminators.remove(unbind->service, unbind->instance, device))
      return shared_.desk.report_terminators(index_);
    // An end of what is not there happens after a race, not in a flood.
    if (!device.share.account().may_bind_now(loop_.clock().mono_us()))
      lane.close(Error(Errc::kTooFast, "ends of bindings that are not there"));
    return;
  }
  lane.close(Error(lane::Errc::kProtocol, "a message that a device does not send"));
}

// Carried, not judged: the controller believes the request's own signature. Whose lane it came on
// is our word.
void Worker::on_renew(Device& device, wire::Renew renew) {
  if (!device.share.account().may_renew_now(loop_.clock().mono_us())) {
    log::warn("router.renewals_too_fast", {{"device", device.id}});
    device.lane->send_control({wire::Renewed{.request = renew.request,
                                             .id = device.id,
                                             .leaf = {},
                                             .issuing = {},
                                             .error = std::string(error_name(Errc::kTooFast)),
                                             .retry_after_ms = kRenewalPauseMs}});
    return;
  }
  renew.id = device.id;
  // The controller knows the certificates that it has rows of: of a session its parent.
  renew.serial = trust::serials_of(device.lane->peer().leaf()).back();
  if (device.renewals.size() == Device::kMaxRenewals)
    device.renewals.erase(device.renewals.begin());
  device.renewals.push_back(renew.request);
  shared_.desk.renew(index_, std::move(renew));
}

void Worker::on_renewed(const wire::Renewed& reply) {
  for (auto& [lane, device] : lanes_) {
    if (device->id != reply.id || !lane->up() || std::erase(device->renewals, reply.request) == 0)
      continue;
    device->lane->send_control({reply});
  }
}

void Worker::on_renew_now(const wire::RenewNow& wish) {
  for (auto& [lane, device] : lanes_)
    if (device->id == wish.id && device->hears_renew_now && lane->up())
      device->lane->send_control({wish});
}

void Worker::on_bind(Device& device, const wire::Bind& bind) {
  const auto reply = [&](wire::SetupCode code, std::string terminator = {}) {
    device.lane->send_control({wire::BindReply{
        .request = bind.request, .code = code, .text = {}, .terminator = std::move(terminator)}});
  };
  const auto refuse = [&](wire::SetupCode code, const std::string& why) {
    log::warn("router.bind_refused",
              {{"device", device.id}, {"service", bind.service}, {"why", why}});
    event("router.bind_denied", device.id, bind.service, why);
    counters_.binds_refused[static_cast<std::size_t>(code)].add();
    reply(code);
  };
  // Before anything that costs, and before the event: a proof is a signature to verify.
  if (!device.share.account().may_bind_now(loop_.clock().mono_us()))
    return reply(wire::SetupCode::kBusy);
  const wire::BindProof expected{.network = options().network,
                                 .service = bind.service,
                                 .instance = bind.instance,
                                 .router = options().id,
                                 .time_ms = 0};
  if (const Status s = trust::verify_bind_proof(
          bind.proof, expected, device.lane->peer().leaf().public_key(), trust_context());
      !s) {
    return refuse(wire::SetupCode::kInvalid, s.error().text());
  }
  if (!state().fresh(now_ms(), options().grace_ms))
    return refuse(wire::SetupCode::kNoPath, "past the offline grace");
  if (!may_bind(device, bind.service))
    return refuse(wire::SetupCode::kNoService, "unknown or not granted");
  wire::Terminator record{.id = random_.hex(8),
                          .service = bind.service,
                          .device = device.id,
                          .instance = bind.instance,
                          .router = options().id,
                          .since_ms = now_ms(),
                          .proof = bind.proof,
                          .leaf = device.lane->peer().leaf().der(),
                          .issuing = device.lane->peer().issuer().der(),
                          .cost = bind.cost,
                          .precedence = bind.precedence};
  const auto id = shared_.terminators.put(std::move(record), index_, device);
  if (!id) return refuse(wire::SetupCode::kBusy, "too many bindings on one connection");
  log::info("router.bound",
            {{"device", device.id}, {"service", bind.service}, {"terminator", *id}});
  counters_.binds.add();
  reply(wire::SetupCode::kNone, *id);
  shared_.desk.report_terminators(index_);
}

void Worker::on_lane_down(lane::Lane& lane, const Error& why) {
  const auto it = lanes_.find(&lane);
  const std::unique_ptr<Device> device = std::move(it->second);
  lanes_.erase(it);
  shared_.lanes.fetch_sub(1, std::memory_order_relaxed);
  log::info("router.device_down", {{"device", device->id}, {"why", why.text()}});
  forget(*device);
}

// Nothing stands on its connection any more.
void Worker::forget(Device& device) {
  if (shared_.terminators.remove_all(device)) shared_.desk.report_terminators(index_);
  // Set-ups of this dialer that no host has answered: nobody waits any more.
  std::vector<Circuit*> orphans;
  for (const auto& circuit : circuits_) {
    if (circuit->opening != nullptr && circuit->opening->dialer == &device)
      orphans.push_back(circuit.get());
  }
  for (Circuit* circuit : orphans) on_dialer_gone(*circuit);
}

void Worker::on_dialer_gone(Circuit& circuit) {
  if (circuit.place == Circuit::kNowhere) return;
  end_attempt(circuit, wire::ResetCode::kLaneLost);
  retire(circuit);
}

Worker::Figures Worker::figures() {
  Figures f{.accepted = acceptor_->counters(),
            .handshakes = acceptor_->handshakes_in_flight(),
            .lanes = lanes_.size() + channels_.size(),
            .chunks_used = pool_.in_use(),
            .chunks_idle = pool_.idle()};
  for (const auto& circuit : circuits_) {
    (circuit->hosting_half() ? f.hosted : circuit->opening != nullptr ? f.opening : f.open) += 1;
    std::uint64_t queued = 0;
    for (Side* side : {circuit->dialing(), circuit->hosting()})
      if (side != nullptr) queued += side->outlet().queued();
    f.waiting += queued != 0 ? 1 : 0;
    f.queued_bytes += queued;
  }
  return f;
}

std::vector<wire::UsageEntry> Worker::take_usage() {
  constexpr std::int64_t kDayMs = 86'400'000;
  return usage_.take(static_cast<std::uint32_t>(now_ms() / kDayMs), loop_.now_ms());
}

void Worker::on_upkeep() {
  const std::int64_t now = now_ms();
  bool dropped = false;
  each_device([&](Device& device) {
    if (!device.up()) return;
    if (device.foreign != nullptr) {
      if (device.foreign->ends_ms <= now)
        return device.close(Error(trust::Errc::kExpired, "the session's token"));
      for (auto& [bind, hosting] : device.foreign->hostings)
        if (hosting.unpublished) update_hosting(device, hosting);
    }
    if (device.card && (*device.card)->not_after_ms <= now) {
      log::warn("router.card_expired", {{"device", device.id}});
      device.card.reset();
      dropped = true;
    }
    if (device.card && device.stale_since_ms != 0 && now - device.stale_since_ms > kStaleCardMs) {
      log::warn("router.card_stale", {{"device", device.id}});
      device.card.reset();
      dropped = true;
    }
    if (!device.card || device.stale_since_ms != 0 ||
        (*device.card)->not_after_ms - now < kCardRefreshMs)
      ask_card(device);
  });
  if (dropped) enforce_cards();
  rest();
  upkeep_timer_.arm(kUpkeepMs);
}

}  // namespace sally::router
