// SPDX-License-Identifier: Apache-2.0
#include "sdk/engine.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "sdk/dial.h"

namespace sally::sdk {
namespace {

// A short outage is a restart: come back fast. A long one must not become a storm when it ends.
constexpr std::int64_t kShortOutageMs = 60'000;
constexpr std::int64_t kMaxBackoffShortMs = 2'000;
constexpr std::int64_t kMaxBackoffLongMs = 15'000;
// Of what is signed anew every day, one write is enough.
constexpr std::int64_t kKeepTimeMs = 12LL * 3'600'000;

std::int64_t end_of(const std::vector<crypto::Certificate>& chain) {
  return chain.empty() ? INT64_MAX : chain.front().not_after() * 1000;
}
std::int64_t floor_of(const Material& m) {
  std::int64_t floor = m.time_floor_ms;
  for (const auto& c : m.chain) floor = std::max(floor, c.not_before() * 1000);
  return floor;
}

}  // namespace

Engine::Engine(loop::Loop& loop, Random& random, Material material,
               std::function<void(Event, const std::string&)> on_event)
    : loop_(loop),
      random_(random),
      material_(std::move(material)),
      on_event_(std::move(on_event)),
      shown_{material_.chain, material_.key},
      signings_(loop),
      clock_(loop.clock(), floor_of(material_), end_of(material_.chain)),
      recovery_(loop, material_.controller, material_.anchors, clock_,
                [this](std::int64_t ms) { clock_.learn(ms); }),
      renewer_(loop, random, material_.id, crypto::Role::kDevice, material_.anchors,
               {material_.chain, material_.key},
               {.send =
                    [this](const wire::Renew& message) {
                      if (!online() || !renewals_) return false;
                      lane_->send_control({message});
                      return true;
                    },
                .time_ms = [this] { return online() ? lane_->time_ms() : clock_.guess_ms(); },
                .keep =
                    [this](const identity::Credential& fresh) {
                      return material_.keep ? material_.keep(fresh) : Status{};
                    },
                .use = [this](const identity::Credential& fresh) { return use(fresh); },
                .kept = material_.kept,
                .recover = [this](const wire::Renew& message) { return recover(message); },
                .ended =
                    [this] {
                      return clock_.in_doubt() || clock_.unix_ms() >= end_of(material_.chain);
                    }}),
      sessions_(loop, random, material_.id, material_.anchors, material_.session_key,
                {.send =
                     [this](const wire::Renew& message) {
                       if (!online() || !renewals_) return false;
                       lane_->send_control({message});
                       return true;
                     },
                 .time_ms = [this] { return online() ? lane_->time_ms() : clock_.guess_ms(); },
                 .use =
                     [this](const std::optional<identity::Credential>& session) {
                       use_session(session);
                     }}),
      retry_timer_(loop.timers(), [this] { connect(); }) {
  random_.fill(process_epoch_);
  offline_since_ms_ = loop_.now_ms();
  since_ms_ = loop_.clock().unix_ms();
}

Engine::~Engine() {
  *alive_ = false;
  // Circuits in the making go before the lane that they stand on.
  for (auto& [id, dial] : std::exchange(dials_, {})) {
    dial->done(fail(Errc::kClosed, "the context was closed", Source::kLocal));
  }
  incoming_.clear();
}

bool Engine::delivering() const {
  return online() &&
         std::ranges::any_of(*lingering_, [](const Circuit* c) { return !c->delivered(); });
}

Status Engine::make_lane_context() {
  tls::ContextOptions lane{.side = tls::Side::kClient,
                           .chain = shown_.chain,
                           .key = shown_.key,
                           .anchors = material_.anchors.roots,
                           .issuing = material_.anchors.issuing,
                           .network = NetworkId(material_.network),
                           .roles = {tls::Role::kRouter},
                           .alpn = {std::string(lane::kAlpnEdge)},
                           .clock = &clock_,
                           .clock_may_lag = true};
  if (!whole_chain_) lane.chain.resize(1, shown_.chain.front());
  TRY_ASSIGN(lane_tls_, tls::Context::create(std::move(lane)));
  return {};
}

Status Engine::make_contexts() {
  tls::ContextOptions inner{.side = tls::Side::kClient,
                            .chain = shown_.chain,
                            .key = shown_.key,
                            .anchors = material_.anchors.roots,
                            .issuing = material_.anchors.issuing,
                            .network = NetworkId(material_.network),
                            .roles = {tls::Role::kDevice},
                            .alpn = {"sally-circuit/1"},
                            .inner = true,
                            .clock = &clock_,
                            .clock_may_lag = true};
  TRY_ASSIGN(auto inner_client, tls::Context::create(inner));
  inner.side = tls::Side::kServer;
  TRY_ASSIGN(auto inner_server, tls::Context::create(std::move(inner)));
  TRY(make_lane_context());
  inner_client_tls_ = std::move(inner_client);
  inner_server_tls_ = std::move(inner_server);
  return {};
}

void Engine::start() {
  if (const Status made = make_contexts(); !made) {
    last_error_ = made.error().text();
    log::error("sdk.identity_unusable", {{"why", last_error_}});
    on_event_(Event::kDenied, last_error_);
    return;
  }
  renewer_.start();
  connect();
}

// The lane that is up and its circuits stay; what begins from now on has the new certificate.
Status Engine::use(const identity::Credential& fresh) {
  auto before = std::exchange(shown_, fresh);
  if (const Status made = make_contexts(); !made) {
    shown_ = std::move(before);
    return made;
  }
  material_.chain = fresh.chain;
  material_.key = fresh.key;
  sessions_.on_device(fresh);
  clock_.raise(fresh.chain.front().not_before() * 1000);
  clock_.set_end(end_of(fresh.chain));
  if (lane_ == nullptr) {
    backoff_.reset();
    retry_timer_.arm(0);
  }
  return {};
}

// As use() does it, for a while: what is up stays up.
void Engine::use_session(const std::optional<identity::Credential>& session) {
  auto before = std::exchange(
      shown_, session ? *session : identity::Credential{material_.chain, material_.key});
  if (const Status made = make_contexts(); !made) {
    log::error("sdk.session_unusable", {{"why", made.error().text()}});
    shown_ = std::move(before);
  }
}

bool Engine::recover(const wire::Renew& message) {
  if (lane_ != nullptr) return false;
  return recovery_.send(material_.id, message, [this](const wire::Renewed& answer) {
    if (answer.error.empty()) log::info("sdk.recovered", {{"controller", material_.controller}});
    renewer_.on_renewed(answer);
  });
}

void Engine::learn_time() {
  // A router whose certificate ends before the time that it tells is wrong about it.
  if (online() && lane_->time_known() &&
      lane_->time_ms() / 1000 <= lane_->peer().leaf().not_after())
    clock_.learn(lane_->time_ms());
}

void Engine::note_signed_time(std::int64_t ms) {
  clock_.raise(ms);
  if (ms < kept_time_ms_ + kKeepTimeMs || !material_.keep_time) return;
  kept_time_ms_ = ms;
  if (const Status kept = material_.keep_time(ms); !kept)
    log::warn("sdk.time_not_kept", {{"why", kept.error().text()}});
}

trust::Context Engine::trust_context(std::int64_t now_ms) const {
  return {
      .anchors = material_.anchors, .signers = signers_, .revocation = nullptr, .now_ms = now_ms};
}

// ---- the lane
// --------------------------------------------------------------------------------------------

void Engine::connect() {
  if (material_.routers.empty()) {
    last_error_ = "the identity names no router";
    retry_later();
    return;
  }
  const HostPort& router = material_.routers[next_router_++ % material_.routers.size()];
  lane_credential_ = shown_;
  dialing_ = tls::dial(loop_, lane_tls_, {.host = router.host, .port = router.port},
                       [this, at = router.str()](Result<std::unique_ptr<tls::Stream>> stream) {
                         if (!stream) {
                           last_error_ = at + ": " + stream.error().text();
                           // One router's wrong time must not keep us from all others.
                           if (stream.error().is(tls::Errc::kCertificate)) clock_.forget();
                           // A router that knows nothing yet refuses like that too: so we go on.
                           note_refusal(stream.error().is(tls::Errc::kPeerRefused));
                           log::debug("sdk.connect_failed",
                                      {{"router", at}, {"why", stream.error().text()}});
                           retry_later();
                           return;
                         }
                         lane::LaneOptions options;
                         options.hello.network = material_.network;
                         options.hello.epoch = process_epoch_;
                         options.hello.software = "sally-sdk/" SALLY_VERSION;
                         options.hello.features = wire::kFeatureRenewNow;
                         options.hello.card = card_.empty() ? material_.card : card_;
                         options.max_control = wire::kMaxControlMessage;
                         options.counters = &counters_;
                         options.pause_reading = false;
                         lane_ = std::make_unique<lane::Lane>(loop_, *pool_, std::move(*stream),
                                                              *this, std::move(options));
                       });
}

void Engine::retry_later() {
  // Superseded by what another process of this identity has renewed?
  if (refused_) (void)renewer_.look();
  // Or of a CA that this router does not hold: from now on it comes along.
  if (refused_ && !whole_chain_) {
    whole_chain_ = true;
    (void)make_lane_context();  // the older one serves on
  }
  const bool long_outage = loop_.now_ms() - offline_since_ms_ > kShortOutageMs;
  const std::int64_t cap = long_outage ? kMaxBackoffLongMs : kMaxBackoffShortMs;
  retry_timer_.arm(backoff_.next_ms(random_, cap));
}

void Engine::note_refusal(bool refused) {
  // What is said of a session certificate is not said of the device: it tries its own.
  if (refused && !lane_credential_.chain.front().session_parent().empty()) {
    sessions_.drop();
    refused = false;
  }
  refused_ = refused;
  if (refused) renewer_.on_refused();
}

void Engine::on_lane_up(lane::Lane& lane, const wire::Hello& peer) {
  since_ms_ = loop_.clock().unix_ms();
  last_error_.clear();
  refused_ = false;
  services_known_ = false;
  learn_time();
  ++connects_;
  renewals_ = (peer.features & wire::kFeatureRenewal) != 0;
  renewer_.on_up();
  sessions_.on_up({material_.chain, material_.key});
  log::info("sdk.online", {{"router", lane.peer().id()}, {"at", lane.remote().str()}});
  on_event_(Event::kOnline, lane.peer().id());
}

void Engine::on_lane_down(lane::Lane& lane, const Error& why) {
  const bool was_up = lane.up();
  last_error_ = why.text();
  if (was_up) {
    offline_since_ms_ = loop_.now_ms();
    since_ms_ = loop_.clock().unix_ms();
    backoff_.reset();
  }
  log::info("sdk.offline", {{"router", lane.peer().id()}, {"why", last_error_}});
  while (!incoming_.empty()) incoming_failed(incoming_.begin()->first, why);
  for (auto& [id, binding] : bindings_) {
    binding.bound_as.clear();
    binding.error = Error(Errc::kUnreachable, last_error_, Source::kPeer, true);
  }
  lane_.reset();
  // "Refused" may be a queue that was full; that this identity is not wanted has one code.
  const bool session = !lane_credential_.chain.front().session_parent().empty();
  const bool denied =
      why.is(lane::Errc::kRefused) && (why.context().starts_with("router.revoked") ||
                                       why.context().starts_with("router.device_key_only"));
  // TLS 1.3 tells a client that its certificate is not taken after its handshake is done.
  note_refusal(denied || (!was_up && why.is(tls::Errc::kPeerRefused)));
  on_event_(denied && !session ? Event::kDenied : Event::kOffline, last_error_);
  retry_later();
}

void Engine::on_lane_control(lane::Lane& lane, wire::Control&& message) {
  if (auto* services = std::get_if<wire::Services>(&message.member)) return on_services(*services);
  if (auto* card = std::get_if<wire::CardUpdate>(&message.member)) return on_card(*card);
  if (auto* reply = std::get_if<wire::BindReply>(&message.member)) return on_bind_reply(*reply);
  if (const auto* renewed = std::get_if<wire::Renewed>(&message.member))
    return sessions_.on_renewed(*renewed) ? void() : renewer_.on_renewed(*renewed);
  if (const auto* wish = std::get_if<wire::RenewNow>(&message.member))
    return wish->id == material_.id ? renewer_.renew_within(wish->within_ms) : void();
  if (auto* routers = std::get_if<wire::Routers>(&message.member)) {
    std::vector<HostPort> addresses;
    for (const auto& router : routers->entries) {
      for (const auto& text : router.addresses) {
        if (const auto address = parse_host_port(text)) addresses.push_back(*address);
      }
    }
    if (!addresses.empty()) material_.routers = std::move(addresses);
    return;
  }
  lane.close(Error(lane::Errc::kProtocol, "a message that a router does not send to a device"));
}

void Engine::on_card(const wire::CardUpdate& message) {
  const auto card = trust::verify_card(message.card, trust_context(lane_->time_ms()));
  if (!card || (*card)->id != material_.id) {
    log::warn("sdk.card_refused",
              {{"why", card ? std::string("names another device") : card.error().text()}});
    return;
  }
  material_.name = (*card)->name;
  sessions_.allow(!std::ranges::contains((*card)->attributes, trust::kDeviceKeyOnly));
  // Signed by the controller, and this router's clock has come so far: one of the two that is far
  // ahead must not shut us out for good.
  note_signed_time(std::min((*card)->issued_ms, lane_->time_ms()));
  card_ = message.card;
  try_dials();
  sync_bindings();
}

void Engine::on_services(const wire::Services& message) {
  const std::int64_t now = lane_->time_ms();
  for (const auto& chain : message.signers) {
    if (const Status s = signers_.add(chain, material_.anchors, now / 1000); !s) {
      log::warn("sdk.signer_refused", {{"why", s.error().text()}});
    }
  }
  std::map<std::string, KnownService> fresh;
  for (const auto& entry : message.entries) {
    auto record = trust::verify_service_record(entry.record, trust_context(now));
    if (!record) {
      log::warn("sdk.service_refused", {{"why", record.error().text()}});
      continue;
    }
    const std::string id = (*record)->id;
    fresh.insert_or_assign(
        id, KnownService{.record = std::move(*record), .dial = entry.dial, .bind = entry.bind});
  }
  services_ = std::move(fresh);
  services_known_ = true;
  on_event_(Event::kServices, std::to_string(services_.size()));
  try_dials();
  sync_bindings();
}

const KnownService* Engine::find_service(const std::string& name_or_id, bool to_dial) const {
  for (const auto& [id, service] : services_) {
    if ((id == name_or_id || service.record->name == name_or_id) &&
        (to_dial ? service.dial : service.bind))
      return &service;
  }
  return nullptr;
}

// ---- dialing
// ---------------------------------------------------------------------------------------------

void Engine::dial(std::string service, Bytes app_data, std::int64_t timeout_ms, DialDone done) {
  const std::uint64_t id = next_id_++;
  auto dial = std::make_unique<Dial>(id, std::move(service), std::move(app_data), std::move(done));
  dial->deadline = std::make_unique<loop::Timer>(loop_.timers(), [this, id] {
    const auto it = dials_.find(id);
    if (it == dials_.end()) return;
    const Dial& d = *it->second;
    if (!online())
      return end_dial(id, refused_ ? fail(Errc::kDenied, "the network refuses this identity")
                                   : fail(Errc::kUnreachable, "no router: " + last_error_,
                                          Source::kPeer, true));
    end_dial(id, fail(Errc::kTimeout,
                      d.circuit ? "the host did not answer in time"
                                : "the router told no services in time",
                      Source::kPeer, true));
  });
  dial->deadline->arm(timeout_ms);
  dials_.emplace(id, std::move(dial));
  loop_.defer([this, alive = alive_] {
    if (*alive) try_dials();
  });
}

void Engine::try_dials() {
  if (!online() || !services_known_ || card_.empty()) return;
  std::vector<std::uint64_t> waiting;
  for (const auto& [id, dial] : dials_) {
    if (!dial->begun) waiting.push_back(id);
  }
  for (const std::uint64_t id : waiting) {
    const auto it = dials_.find(id);
    if (it == dials_.end()) continue;
    const KnownService* service = find_service(it->second->service, true);
    if (service != nullptr && service->record->e2e != wire::E2e::kTls) {
      end_dial(id, fail(Errc::kVerify,
                        "service " + service->record->name + " is not an end-to-end TLS service"));
    } else {
      begin_dial(*it->second, service);
    }
  }
}

// Without a service we know nothing by that name: the router is asked all the same, so that a dial
// without a grant is refused and audited where the policy is; no answer to it is believed.
void Engine::begin_dial(Dial& dial, const KnownService* service) {
  const std::uint64_t id = dial.id;
  CircuitId circuit_id;
  random_.fill(circuit_id.raw);
  learn_time();
  const std::string service_id = service == nullptr ? dial.service : service->record->id;
  if (service != nullptr) dial.record = service->record;
  auto session = tls::Session::on_memory(inner_client_tls_);
  if (!session) return end_dial(id, fail(Errc::kInternal, session.error().text()));
  const std::string sni = circuit_id.hex() + "." + service_id;
  if (const Status s = (*session)->set_sni(sni); !s) {
    return end_dial(id, fail(Errc::kNoService, "no such service: " + dial.service));
  }
  (void)(*session)->handshake();
  wire::Setup setup{.kind = wire::SetupKind::kOpen,
                    .network = material_.network,
                    .circuit = circuit_id,
                    .service = service_id,
                    .client_hello = (*session)->take_output(),
                    .app_data = dial.app_data,
                    .leaf = shown_.chain.front().der(),
                    .issuing = shown_.chain.size() > 1 ? shown_.chain[1].der() : Bytes{},
                    .card = card_};
  dial.begun = true;
  const std::string router = lane_->peer().id();
  auto proof_of = [setup, router, now = lane_->time_ms()](const crypto::Signer& key) {
    return trust::make_dial_proof(setup, router, now, key);
  };
  signings_.run(shown_.key, std::move(proof_of),
                [this, id, router, setup = std::move(setup),
                 session = std::move(*session)](Result<Bytes> proof) mutable {
                  const auto it = dials_.find(id);
                  if (it == dials_.end()) return;
                  if (!proof) {
                    log::error("sdk.key_failed", {{"why", proof.error().text()}});
                    return end_dial(id, fail(Errc::kIdentity, proof.error().text()));
                  }
                  if (!online() || lane_->peer().id() != router) {
                    it->second->begun = false;  // another lane meanwhile, another proof
                    return try_dials();
                  }
                  setup.proof = std::move(*proof);
                  send_dial(id, std::move(setup), std::move(session));
                });
}

void Engine::send_dial(std::uint64_t id, wire::Setup setup, std::unique_ptr<tls::Session> session) {
  Dial& dial = *dials_.at(id);
  Circuit::Opening opening{
      .on_answer = [this, id](Circuit& c, ByteView payload) -> Status {
        const auto it = dials_.find(id);
        return it == dials_.end() ? fail(Errc::kTimeout) : on_answer(*it->second, c, payload);
      },
      .on_open =
          [this, id](Circuit& c) {
            const auto it = dials_.find(id);
            if (it == dials_.end()) return;
            Dial& d = *it->second;
            // The card came in the answer, the certificate in the inner handshake: they must name
            // the same device.
            Status s = trust::check_host(*d.host_card, c.peer().id(), *d.record);
            if (s) s = trust::check_key(*d.host_card, c.peer().leaf());
            if (!s) {
              end_dial(id, fail(Errc::kVerify,
                                "whoever answered may not host this service: " + s.error().text()));
              return;
            }
            d.circuit->set_peer_name((*d.host_card)->name);
            end_dial(id, std::move(d.circuit));
          },
      .on_failed = [this, id](Circuit&, const Error& why) { end_dial(id, fail(why)); },
      .pool = pool_,
      .lingering = lingering_};
  dial.circuit = std::make_unique<Circuit>(loop_, Circuit::Role::kDialer, setup.circuit,
                                           std::move(session), std::move(opening));
  if (!lane_->attach(*dial.circuit))
    return end_dial(id,
                    fail(Errc::kBusy, "too many streams on this connection", Source::kLocal, true));
  lane_->send_setup(*dial.circuit, {.setup = wire::encode(setup), .route = {}, .attempt = 0});
}

Status Engine::on_answer(Dial& dial, Circuit& circuit, ByteView payload) {
  if (!dial.record) return fail(Errc::kNoService, "no such service: " + dial.service);
  TRY_ASSIGN(const auto frame, wire::decode_setup_ok_frame(payload));
  const trust::Context ctx = trust_context(lane_->time_ms());
  auto answer = trust::verify_answer(frame.answer, {.circuit = circuit.id()}, ctx);
  if (!answer) return fail(Errc::kVerify, "answer: " + answer.error().text());
  const wire::HostAnswer& host = answer->answer.host;
  auto card = trust::verify_card(host.card, ctx);
  if (!card) return fail(Errc::kVerify, "host's card: " + card.error().text());
  dial.host_card.emplace(std::move(*card));
  return circuit.accept_answer(host.flight);
}

void Engine::end_dial(std::uint64_t id, Result<std::unique_ptr<Circuit>> result) {
  const auto it = dials_.find(id);
  if (it == dials_.end()) return;
  it->second->deadline->cancel();
  // Not inside whoever noticed the end: a timer, the circuit or the lane is still on the stack.
  loop_.defer(
      [dial = std::shared_ptr<Dial>(std::move(it->second)), result = std::move(result)]() mutable {
        auto done = std::move(dial->done);
        dial->deadline.reset();
        dial->circuit.reset();
        done(std::move(result));
      });
  dials_.erase(it);
}

}  // namespace sally::sdk
