// SPDX-License-Identifier: Apache-2.0
// A Worker's foreign ends: who may come, and what they host (docs/edge-protocol.md).
#include "router/foreign.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "router/worker.h"

namespace sally::router {
namespace {

constexpr std::int64_t kCardMs = 4'000;  // an SDK waits 15 s and more for the answer to its hello

// A binding that comes again, on whatever connection, is the same one: by the name that the SDK
// gave its listener, else by its session and the host's name.
wire::InstanceId instance_of(const edge::Bind& bind) {
  Bytes text = to_bytes(bind.listener.empty() ? "session" : "listener");
  text.push_back(0);
  append(text, as_bytes(bind.listener.empty() ? bind.token : bind.listener));
  text.push_back(0);
  append(text, as_bytes(bind.instance));
  const auto hash = trust::hash_of(text);
  wire::InstanceId out{};
  std::copy_n(hash.begin(), out.size(), out.begin());
  return out;
}

// Of a router terminators count upwards, and a foreign end says 0 default, 1 required, 2 failed.
std::uint32_t rank_of(const Foreign::Hosting& h) {
  if (!h.healthy) return 2;
  return h.precedence == 0 ? 1 : h.precedence == 1 ? 0 : 2;
}

}  // namespace

void Worker::accept_foreign(std::unique_ptr<tls::Stream> stream) {
  auto device = std::make_unique<Device>();
  device->id = stream->peer()->id();
  device->share = shared_.devices.open(device->id, Use::kLane);
  if (!device->share) {
    counters_.devices_refused.add();
    log::warn("router.device_refused",
              {{"device", device->id}, {"why", error_name(Errc::kTooManyLanes)}});
    return;
  }
  device->foreign = std::make_unique<Foreign>();
  device->foreign->connection = std::make_unique<edge::Connection>(
      loop_, pool_, std::move(stream), *this,
      edge::ChannelOptions{.router_id = options().id,
                           .connection_id = random_.hex(8),
                           .software = "v" SALLY_VERSION "|sallyport||linux|",
                           .stalled_ms = options().foreign_stall_ms},
      edge::Traffic{.bytes_in = counters_.lanes.bytes_in, .bytes_out = counters_.lanes.bytes_out});
  channels_.emplace(&device->foreign->connection->channel(), std::move(device));
  shared_.lanes.fetch_add(1, std::memory_order_relaxed);
}

Status Worker::check_hello(Device& device, const std::string& token) {
  TRY_ASSIGN(const auto session, trust::verify_session_token(token, wire::SessionUse::kApi,
                                                             device.id, trust_context()));
  Foreign& foreign = *device.foreign;
  if (!foreign.session.empty() && foreign.session != session->session)
    return fail(trust::Errc::kMismatch, "a token of another session");
  foreign.session = session->session;
  foreign.credential_epoch = session->credential_epoch;
  foreign.ends_ms = session->not_after_ms;
  return {};
}

void Worker::refuse_foreign(Device& device, const Error& why, bool busy) {
  counters_.devices_refused.add();
  log::warn("router.foreign_refused", {{"device", device.id},
                                       {"from", device.foreign->connection->remote().str()},
                                       {"why", why.text()}});
  if (!busy) event("router.foreign_denied", device.id, device.peer().serial(), why.text());
  device.foreign->connection->channel().refuse_hello(busy ? "try again later" : "not permitted",
                                                     busy, loop_.now_ms());
}

// The identity is the leaf's; the token says that its session is one of this identity. What it may
// do, its card says: without one it is not let in.
void Worker::on_hello(edge::Channel& channel, const edge::Hello& hello) {
  Device& device = *find(channel);
  if (const Status s = check_hello(device, hello.token); !s)
    return refuse_foreign(device, s.error(), false);
  device.foreign->card = std::make_unique<loop::Timer>(loop_.timers(), [this, &device] {
    device.foreign->card.reset();
    refuse_foreign(device, Error(Errc::kNoState, "no card"), true);
  });
  device.foreign->card->arm(kCardMs);
  if (const auto cached = shared_.cards.find(device.id, now_ms(), state());
      cached && use_card(device, *cached))
    return;
  ask_card(device);
}

void Worker::end_hello_wait(Device& device) {
  if (device.foreign->card == nullptr) return;
  device.foreign->card.reset();
  edge::Connection& connection = *device.foreign->connection;
  log::info("router.foreign_up", {{"device", device.id},
                                  {"from", connection.remote().str()},
                                  {"serial", connection.peer().serial()},
                                  {"group", connection.session().group()}});
  counters_.devices_up.add();
  connection.channel().accept_hello();
}

bool Worker::on_update_token(edge::Channel& channel, const std::string& token) {
  Device& device = *find(channel);
  const Status s = check_hello(device, token);
  if (!s) refuse_foreign(device, s.error(), false);
  return s.has_value();
}

void Worker::on_channel_down(edge::Channel& channel, const Error& why) {
  const auto it = channels_.find(&channel);
  const std::unique_ptr<Device> device = std::move(it->second);
  channels_.erase(it);
  shared_.lanes.fetch_sub(1, std::memory_order_relaxed);
  log::info("router.foreign_down", {{"device", device->id}, {"why", why.text()}});
  forget(*device);
}

// ---- tokens and bindings
// -------------------------------------------------------------------------

// In the order in which SDKs expect the reasons (docs/edge-protocol.md).
Result<const replica::ServiceView*> Worker::check_token(const Device& device,
                                                        const std::string& token,
                                                        wire::SessionUse use,
                                                        edge::Failure& failure) const {
  const auto deny = [&](edge::Code code, edge::Hint hint, std::string text, Error why) {
    failure = {.code = code, .hint = hint, .text = std::move(text)};
    return fail(std::move(why));
  };
  const auto session = trust::verify_session_token(token, use, device.id, trust_context());
  if (!session) {
    const auto other =
        use == wire::SessionUse::kDial ? wire::SessionUse::kBind : wire::SessionUse::kDial;
    if (trust::verify_session_token(token, other, device.id, trust_context()))
      return deny(edge::Code::kWrongSessionType, edge::Hint::kStartOver, "incorrect session type",
                  session.error());
    // With these words an SDK asks for a new one.
    return deny(edge::Code::kInvalidSession, edge::Hint::kStartOver, "Invalid Session",
                session.error());
  }
  if ((*session)->session != device.foreign->session)
    return deny(edge::Code::kInvalidSession, edge::Hint::kStartOver, "Invalid Session",
                Error(trust::Errc::kMismatch, "a token of another session"));
  const auto* known = state().service((*session)->service, now_ms());
  if (known == nullptr)
    return deny(edge::Code::kInvalidService, edge::Hint::kNotRetriable, "invalid service",
                Error(trust::Errc::kNotGranted, "unknown service"));
  const bool dial = use == wire::SessionUse::kDial;
  if (known->record.e2e != wire::E2e::kCompatible && known->record.e2e != wire::E2e::kNone)
    return deny(edge::Code::kAccessDenied, edge::Hint::kNotRetriable,
                "the service is end to end TLS between Sallyport's own clients",
                Error(trust::Errc::kNotGranted, "a tls service"));
  if (dial ? !may_dial(device, known->record.id) : !may_bind(device, known->record.id))
    return deny(edge::Code::kAccessDenied, edge::Hint::kStartOver,
                dial ? "no dial access to the service" : "no bind access to the service",
                Error(trust::Errc::kNotGranted, known->record.id));
  return known;
}

void Worker::on_bind(edge::Channel& channel, edge::Bind bind) {
  Device& device = *find(channel);
  if (const auto failure = bind_foreign(device, bind)) {
    counters_.binds_refused[static_cast<std::size_t>(wire::SetupCode::kRefused)].add();
    channel.refuse_bind(bind, *failure);
  }
}

std::optional<edge::Failure> Worker::bind_foreign(Device& device, const edge::Bind& bind) {
  edge::Failure failure{
      .code = edge::Code::kInternal, .hint = edge::Hint::kTooBusy, .text = "too many binds"};
  const auto refuse = [&](const std::string& service, const std::string& why) {
    log::warn("router.bind_refused", {{"device", device.id}, {"service", service}, {"why", why}});
    event("router.bind_denied", device.id, service, why);
    return std::optional(failure);
  };
  if (!device.share.account().may_bind_now(loop_.clock().mono_us())) return failure;
  if (!state().fresh(now_ms(), options().grace_ms)) {
    failure.text = "no controller available, cannot create terminator";
    return failure;
  }
  const auto service = check_token(device, bind.token, wire::SessionUse::kBind, failure);
  if (!service) return refuse({}, service.error().text());
  const std::string& id = (*service)->record.id;
  if (bind.instance.size() > wire::kMaxName) {
    failure = {.code = edge::Code::kInvalidTerminator,
               .hint = edge::Hint::kNotRetriable,
               .text = "instance id is too long"};
    return refuse(id, failure.text);
  }
  Foreign::Hosting hosting{.record = {.id = random_.hex(8),
                                      .service = id,
                                      .device = device.id,
                                      .instance = instance_of(bind),
                                      .router = options().id,
                                      .since_ms = now_ms(),
                                      .proof = {},
                                      .leaf = {},
                                      .issuing = {},
                                      .cost = bind.cost,
                                      .precedence = 0},
                           .binding = {.conn = bind.conn, .instance = bind.instance},
                           .precedence = bind.precedence};
  hosting.record.precedence = rank_of(hosting);
  CandidatePtr before;
  const auto terminator =
      shared_.terminators.put(hosting.record, index_, device, hosting.binding, &before);
  if (!terminator) return refuse(id, "too many bindings of one identity");
  hosting.record.id = *terminator;
  // The same listener on an older connection, or under another number: that one hears of it, where
  // it is here.
  if (before != nullptr && before->worker == index_ && before->foreign &&
      (before->on != &device || before->foreign->conn != bind.conn)) {
    before->on->foreign->hostings.erase(before->foreign->conn);
    before->on->foreign->connection->channel().end_bind(
        before->foreign->conn, {.code = edge::Code::kInternal,
                                .hint = edge::Hint::kDefault,
                                .text = "found a newer terminator for listener id"});
  }
  log::info("router.bound", {{"device", device.id}, {"service", id}, {"terminator", *terminator}});
  counters_.binds.add();
  // What this number stood for before, if it was something else, is over.
  auto& slot = device.foreign->hostings[bind.conn];
  if (!slot.record.service.empty() &&
      (slot.record.service != id || slot.record.instance != hosting.record.instance))
    (void)shared_.terminators.remove(slot.record.service, slot.record.instance, device);
  slot = std::move(hosting);
  device.foreign->connection->channel().bound(bind);
  shared_.desk.report_terminators(index_);
  return std::nullopt;
}

void Worker::on_unbind(edge::Channel& channel, std::uint32_t bind) {
  Device& device = *find(channel);
  const auto it = device.foreign->hostings.find(bind);
  if (it == device.foreign->hostings.end()) return;
  const wire::Terminator& record = it->second.record;
  if (shared_.terminators.remove(record.service, record.instance, device))
    shared_.desk.report_terminators(index_);
  device.foreign->hostings.erase(it);
}

// Over the rate it waits for the next upkeep.
void Worker::update_hosting(Device& device, Foreign::Hosting& hosting) {
  hosting.unpublished = !device.share.account().may_bind_now(loop_.clock().mono_us());
  if (hosting.unpublished) return;
  hosting.record.precedence = rank_of(hosting);
  // Not where a newer connection has taken it over.
  const auto t = shared_.terminators.find(hosting.record.service, hosting.record.id);
  if (t == nullptr || t->on != &device) return;
  (void)shared_.terminators.put(hosting.record, index_, device, hosting.binding);
  shared_.desk.report_terminators(index_);
}

void Worker::on_update_bind(edge::Channel& channel, std::uint32_t bind,
                            std::optional<std::uint16_t> cost,
                            std::optional<std::uint8_t> precedence) {
  Device& device = *find(channel);
  const auto it = device.foreign->hostings.find(bind);
  if (it == device.foreign->hostings.end()) return;
  Foreign::Hosting& hosting = it->second;
  const std::uint32_t new_cost = cost.value_or(hosting.record.cost);
  const std::uint8_t new_precedence = precedence.value_or(hosting.precedence);
  if (new_cost == hosting.record.cost && new_precedence == hosting.precedence) return;
  hosting.record.cost = new_cost;
  hosting.precedence = new_precedence;
  update_hosting(device, hosting);
}

void Worker::on_health(edge::Channel& channel, std::uint32_t bind, bool passed) {
  Device& device = *find(channel);
  const auto it = device.foreign->hostings.find(bind);
  if (it == device.foreign->hostings.end() || it->second.healthy == passed) return;
  it->second.healthy = passed;
  update_hosting(device, it->second);
}

// Their terminators are gone already.
void Worker::end_lost_bindings() {
  for (const auto& [channel, device] : channels_) {
    auto& hostings = device->foreign->hostings;
    for (auto it = hostings.begin(); it != hostings.end();) {
      if (may_bind(*device, it->second.record.service)) {
        ++it;
        continue;
      }
      const std::uint32_t bind = it->first;
      it = hostings.erase(it);
      device->foreign->connection->channel().end_bind(bind, {.code = edge::Code::kAccessDenied,
                                                             .hint = edge::Hint::kStartOver,
                                                             .text = "bind access lost"});
    }
  }
}

}  // namespace sally::router
