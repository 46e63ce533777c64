// SPDX-License-Identifier: Apache-2.0
#include "router/router.h"

#include <algorithm>
#include <utility>

#include "base/fs.h"
#include "base/log.h"
#include "crypto/hash.h"
#include "policy/policy.h"

namespace sally::router {
namespace {

constexpr std::int64_t kUpkeepMs = 5'000;  // how often cards and freshness are looked at
constexpr std::int64_t kCardRefreshMs = 12LL * 3600 * 1000;
// A card whose attributes changed may be used this long while the new one is on its way; then its
// holder may do nothing.
constexpr std::int64_t kStaleCardMs = 5'000;

}  // namespace

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kRevoked:
      return "router.revoked";
    case Errc::kStale:
      return "router.stale";
    case Errc::kNoState:
      return "router.no_state";
    case Errc::kConfig:
      return "router.config";
  }
  return "router.unknown";
}

Router::Router(loop::Loop& loop, Random& random, RouterOptions options)
    : loop_(loop),
      random_(random),
      options_(std::move(options)),
      replica_(options_.anchors),
      upkeep_timer_(loop.timers(), [this] { on_upkeep(); }),
      events_timer_(loop.timers(), [this] { flush_events(); }),
      report_timer_(loop.timers(), [this] { control_->send({terminators_.report()}); }) {
  random_.fill(process_epoch_);
}

Router::~Router() {
  *alive_ = false;
  acceptor_.reset();
  control_.reset();
  // Circuits stand on lanes: they go first, quietly, then the lanes.
  circuits_.clear();
  retired_.clear();
  lanes_.clear();
}

Status Router::start() {
  if (const Status s = replica_.load(options_.state_path, now_ms());
      !s && !s.error().is(fs::Errc::kNotFound)) {
    // Loud, and then on with nothing: the controller sends it again.
    log::error("router.state_refused", {{"path", options_.state_path}, {"why", s.error().text()}});
  }

  tls::ContextOptions server{.side = tls::Side::kServer,
                             .chain = options_.chain,
                             .key = options_.key,
                             .anchors = options_.anchors.roots,
                             .issuing = options_.anchors.issuing,
                             .network = NetworkId(options_.network),
                             .roles = {tls::Role::kDevice},
                             .alpn = {std::string(lane::kAlpnEdge)},
                             .peer_certificate = tls::PeerCertificate::kRequired,
                             .admit = [this](const tls::PeerIdentity& peer) { return admit(peer); },
                             .clock = &loop_.clock()};
  tls::ContextOptions client = server;
  client.side = tls::Side::kClient;
  client.roles = {tls::Role::kController};
  client.alpn = {std::string(lane::kAlpnControl)};
  client.admit = nullptr;
  TRY_ASSIGN(const auto server_context, tls::Context::create(std::move(server)));
  TRY_ASSIGN(const auto client_context, tls::Context::create(std::move(client)));
  TRY_ASSIGN(acceptor_, tls::Acceptor::create(loop_,
                                              {.host = options_.listen.host,
                                               .port = options_.listen.port,
                                               .context = server_context,
                                               .limits = {},
                                               .name = "router"},
                                              [this](std::unique_ptr<tls::Stream> stream) {
                                                accept(std::move(stream));
                                              }));
  control_ = std::make_unique<ControlClient>(loop_, pool_, random_, client_context,
                                             options_.controller, *this);
  control_->start();
  upkeep_timer_.arm(kUpkeepMs);
  log::info("router.listening", {{"id", options_.id},
                                 {"network", options_.network},
                                 {"address", acceptor_->address().str()}});
  return {};
}

// Inside the TLS verify step: whoever is refused here sees the same alert as one with a bad
// certificate.
Status Router::admit(const tls::PeerIdentity& peer) const {
  if (!state().fresh(now_ms(), options_.grace_ms)) {
    return fail(state().version() == 0 ? Errc::kNoState : Errc::kStale,
                "the controller was last heard too long ago", Source::kLocal, true);
  }
  if (state().serial_revoked(peer.serial()))
    return fail(Errc::kRevoked, "certificate " + peer.serial());
  // The credential epoch is the card's; here the standing counts.
  if (standing_of(peer.id()).standing != wire::Standing::kActive)
    return fail(Errc::kRevoked, "device " + peer.id());
  return {};
}

wire::IdentityState Router::standing_of(const std::string& id) const {
  const auto* known = state().identity(id);
  if (known != nullptr) return *known;
  // Only identities that are not simply active at epoch 0 are replicated.
  return {.id = id, .standing = wire::Standing::kActive};
}

trust::Context Router::trust_context() const {
  return {.anchors = options_.anchors,
          .signers = state().signers(),
          .revocation = &state(),
          .now_ms = now_ms()};
}

void Router::accept(std::unique_ptr<tls::Stream> stream) {
  auto device = std::make_unique<Device>(options_);
  device->id = stream->peer()->id();
  lane::LaneOptions options;
  options.hello.network = options_.network;
  options.hello.epoch = process_epoch_;
  options.hello.software = "sally-router/" SALLY_VERSION;
  options.tell_time = true;
  device->lane =
      std::make_unique<lane::Lane>(loop_, pool_, std::move(stream), *this, std::move(options));
  lanes_.emplace(device->lane.get(), std::move(device));
}

Router::Device* Router::find(const lane::Lane& lane) const {
  const auto it = lanes_.find(&lane);
  return it == lanes_.end() ? nullptr : it->second.get();
}

std::size_t Router::labels() const {
  std::size_t n = 0;
  for (const auto& [lane, device] : lanes_) n += lane->circuits();
  return n;
}

void Router::on_lane_up(lane::Lane& lane, const wire::Hello& peer) {
  Device& device = *find(lane);
  log::info("router.device_up", {{"device", device.id},
                                 {"from", lane.remote().str()},
                                 {"serial", lane.peer().serial()},
                                 {"group", lane.session().group()}});
  push_routers(device);
  // The newest card wins: the one from our own state, else what the device carries, else the
  // controller's.
  if (const auto* cached = cards_.find(device.id, now_ms(), state());
      cached != nullptr && use_card(device, Bytes(cached->envelope)))
    return;
  if (!peer.card.empty() && use_card(device, peer.card)) return;
  ask_card(device);
}

void Router::push_routers(Device& device) {
  wire::Routers routers;
  for (const auto& [id, router] : state().routers()) routers.entries.push_back(router);
  device.lane->send_control({std::move(routers)});
}

bool Router::use_card(Device& device, const Bytes& envelope) {
  auto card = trust::verify_card(envelope, trust_context());
  if (!card || (*card)->id != device.id) {
    log::info("router.card_refused",
              {{"device", device.id},
               {"why", card ? std::string("it names another device") : card.error().text()}});
    return false;
  }
  if ((*card)->attr_epoch < standing_of(device.id).attr_epoch) return false;
  cards_.put(*card, envelope);
  device.card.emplace(std::move(*card));
  device.card_envelope = envelope;
  device.stale_since_ms = 0;
  push_services(device);  // first: it brings the signers that vouch for the card
  device.lane->send_control({wire::CardUpdate{.card = device.card_envelope}});
  return true;
}

void Router::ask_card(Device& device) {
  control_->send({wire::CardRequest{.request = next_request_++, .id = device.id}});
}

void Router::on_card_reply(const wire::CardReply& reply) {
  if (!reply.error.empty()) {
    log::warn("router.no_card", {{"device", reply.id}, {"code", reply.error}});
    return;
  }
  bool changed = false;
  for (auto& [lane, device] : lanes_) {
    if (device->id != reply.id || !lane->up()) continue;
    const bool had = device->card.has_value();
    changed |= use_card(*device, reply.card) && had;
  }
  // A first card takes nothing away.
  if (changed) enforce();
}

bool Router::may_dial(const Device& device, const std::string& service) const {
  const auto* known = state().service(service, now_ms());
  return known != nullptr && device.card &&
         policy::may_dial(trust::subject(**device.card), known->record.dial);
}

bool Router::may_bind(const Device& device, const std::string& service) const {
  const auto* known = state().service(service, now_ms());
  return known != nullptr && device.card &&
         policy::may_bind(trust::subject(**device.card), known->record.bind);
}

void Router::push_services(Device& device) {
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

void Router::on_lane_control(lane::Lane& lane, wire::Control&& message) {
  Device& device = *find(lane);
  if (const auto* bind = std::get_if<wire::Bind>(&message.member)) return on_bind(device, *bind);
  if (const auto* unbind = std::get_if<wire::Unbind>(&message.member)) {
    if (terminators_.remove(unbind->service, unbind->instance, lane)) report_terminators();
    return;
  }
  lane.close(Error(lane::Errc::kProtocol, "a message that a device does not send"));
}

void Router::on_bind(Device& device, const wire::Bind& bind) {
  const auto reply = [&](wire::SetupCode code, std::string terminator = {}) {
    device.lane->send_control({wire::BindReply{
        .request = bind.request, .code = code, .text = {}, .terminator = std::move(terminator)}});
  };
  const auto refuse = [&](wire::SetupCode code, const std::string& why) {
    log::warn("router.bind_refused",
              {{"device", device.id}, {"service", bind.service}, {"why", why}});
    event("router.bind_denied", device.id, bind.service, why);
    reply(code);
  };
  // Before anything that costs, and before the event: a proof is a signature to verify.
  if (!device.binds.take(loop_.clock().mono_us())) return reply(wire::SetupCode::kBusy);
  const wire::BindProof expected{.network = options_.network,
                                 .service = bind.service,
                                 .instance = bind.instance,
                                 .router = options_.id,
                                 .time_ms = 0};
  if (const Status s = trust::verify_bind_proof(
          bind.proof, expected, device.lane->peer().leaf().public_key(), trust_context());
      !s) {
    return refuse(wire::SetupCode::kInvalid, s.error().text());
  }
  if (!state().fresh(now_ms(), options_.grace_ms))
    return refuse(wire::SetupCode::kNoPath, "past the offline grace");
  if (!may_bind(device, bind.service))
    return refuse(wire::SetupCode::kNoService, "unknown or not granted");
  wire::Terminator record{.id = random_.hex(8),
                          .service = bind.service,
                          .device = device.id,
                          .instance = bind.instance,
                          .router = options_.id,
                          .since_ms = now_ms(),
                          .proof = bind.proof,
                          .leaf = device.lane->peer().leaf().der(),
                          .issuing = device.lane->peer().issuer().der(),
                          .cost = bind.cost,
                          .precedence = bind.precedence};
  const LocalTerminator* t = terminators_.put(std::move(record), *device.lane);
  if (t == nullptr) return refuse(wire::SetupCode::kBusy, "too many bindings on one connection");
  log::info("router.bound",
            {{"device", device.id}, {"service", bind.service}, {"terminator", t->record.id}});
  reply(wire::SetupCode::kNone, t->record.id);
  report_terminators();
}

void Router::on_lane_down(lane::Lane& lane, const Error& why) {
  const auto it = lanes_.find(&lane);
  const std::unique_ptr<Device> device = std::move(it->second);
  lanes_.erase(it);
  log::info("router.device_down", {{"device", device->id}, {"why", why.text()}});
  if (terminators_.remove_lane(lane)) report_terminators();
  // Set-ups of this dialer that no host has answered: nobody waits any more.
  std::vector<Circuit*> orphans;
  for (auto& [id, entry] : circuits_) {
    if (entry.opening != nullptr && entry.opening->dialer == device.get())
      orphans.push_back(entry.circuit.get());
  }
  for (Circuit* circuit : orphans) {
    if (circuit->hosting().lane() != nullptr)
      circuit->hosting().lane()->reset(circuit->hosting(), wire::ResetCode::kLaneLost);
    retire(*circuit);
  }
}

void Router::on_upkeep() {
  const std::int64_t now = now_ms();
  bool dropped = false;
  for (auto& [lane, device] : lanes_) {
    if (!lane->up()) continue;
    if (device->card && (*device->card)->not_after_ms <= now) {
      log::warn("router.card_expired", {{"device", device->id}});
      device->card.reset();
      dropped = true;
    }
    if (device->card && device->stale_since_ms != 0 &&
        now - device->stale_since_ms > kStaleCardMs) {
      log::warn("router.card_stale", {{"device", device->id}});
      device->card.reset();
      dropped = true;
    }
    if (!device->card || device->stale_since_ms != 0 ||
        (*device->card)->not_after_ms - now < kCardRefreshMs)
      ask_card(*device);
  }
  if (dropped) enforce();
  upkeep_timer_.arm(kUpkeepMs);
}

}  // namespace sally::router
