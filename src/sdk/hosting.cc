// SPDX-License-Identifier: Apache-2.0
// The Engine's second half: bindings and the circuits that callers open to them.
#include <utility>

#include "base/log.h"
#include "sdk/dial.h"
#include "sdk/engine.h"

namespace sally::sdk {
namespace {

// Between SETUP and the caller's Finished: whoever is slower is gone (docs/wire-protocol.md).
constexpr std::int64_t kIncomingMs = 10'000;
constexpr std::size_t kMaxIncoming = 1'024;

}  // namespace

std::uint64_t Engine::bind(std::string service, std::uint32_t cost, Host& host) {
  const std::uint64_t id = next_id_++;
  Binding binding{.service = std::move(service),
                  .cost = cost,
                  .host = &host,
                  .error = Error(Errc::kUnreachable, "not connected yet", Source::kPeer, true)};
  random_.fill(binding.instance);
  bindings_.emplace(id, std::move(binding));
  sync_bindings();
  return id;
}

void Engine::unbind(std::uint64_t id) {
  const auto it = bindings_.find(id);
  if (it == bindings_.end()) return;
  if (online() && !it->second.bound_as.empty()) {
    lane_->send_control(
        {wire::Unbind{.service = it->second.bound_as, .instance = it->second.instance}});
  }
  bindings_.erase(it);
  // Whoever waits for an answer gets one now; another host may have time for it.
  for (const auto& [request, in] : incoming_) {
    if (in->binding != id || in->circuit->lane() != nullptr || !online()) continue;
    lane_->send_setup_err(in->label, {.circuit = in->setup.circuit,
                                      .attempt = in->attempt,
                                      .hop = material_.id,
                                      .code = wire::SetupCode::kNoTerminator,
                                      .text = {}});
  }
  std::erase_if(incoming_, [&](const auto& entry) { return entry.second->binding == id; });
}

std::optional<Error> Engine::binding_error(std::uint64_t id) const {
  const auto it = bindings_.find(id);
  if (it == bindings_.end()) return Error(Errc::kClosed);
  return it->second.error;
}

void Engine::sync_bindings() {
  if (!online() || !services_known_ || card_.empty()) return;
  for (auto& [id, binding] : bindings_) {
    const KnownService* service = find_service(binding.service, false);
    if (service == nullptr) {
      binding.bound_as.clear();  // the router dropped it with the grant
      binding.error = Error(Errc::kNoService, "no such service: " + binding.service);
    } else if (binding.bound_as != service->record->id) {
      send_bind(binding, *service);
    }
  }
}

void Engine::send_bind(Binding& binding, const KnownService& service) {
  const wire::BindProof proof{.network = material_.network,
                              .service = service.record->id,
                              .instance = binding.instance,
                              .router = lane_->peer().id(),
                              .time_ms = lane_->time_ms()};
  binding.request = next_id_++;
  binding.bound_as = service.record->id;
  binding.error = Error(Errc::kUnreachable, "the router has not answered yet", Source::kPeer, true);
  // Routers check it by the leaf of the lane.
  signings_.run(
      lane_credential_.key,
      [proof](const crypto::Signer& key) { return trust::make_bind_proof(proof, key); },
      [this, proof, request = binding.request](Result<Bytes> sealed) {
        const auto it = std::ranges::find_if(
            bindings_, [&](const auto& b) { return b.second.request == request; });
        // Unbound, or asked again on another lane, while the key signed.
        if (it == bindings_.end() || !online() || lane_->peer().id() != proof.router ||
            it->second.bound_as != proof.service)
          return;
        if (!sealed) {
          log::error("sdk.key_failed", {{"why", sealed.error().text()}});
          it->second.bound_as.clear();
          it->second.error = Error(Errc::kIdentity, sealed.error().text());
          return;
        }
        lane_->send_control({wire::Bind{.request = request,
                                        .service = proof.service,
                                        .instance = proof.instance,
                                        .proof = std::move(*sealed),
                                        .cost = it->second.cost}});
      });
}

void Engine::on_bind_reply(const wire::BindReply& reply) {
  for (auto& [id, binding] : bindings_) {
    if (binding.request != reply.request || binding.bound_as.empty()) continue;
    if (reply.code == wire::SetupCode::kNone) {
      binding.error.reset();
      log::info("sdk.bound", {{"service", binding.service}, {"router", lane_->peer().id()}});
    } else {
      binding.error = from_setup_err({.circuit = {},
                                      .attempt = 0,
                                      .hop = lane_->peer().id(),
                                      .code = reply.code,
                                      .text = reply.text});
      binding.bound_as.clear();  // asked again with the next list of services
      log::warn("sdk.bind_refused", {{"service", binding.service}, {"why", binding.error->text()}});
    }
    return;
  }
}

void Engine::on_lane_setup(lane::Lane& lane, std::uint32_t label, ByteView payload) {
  wire::SetupErr err{.circuit = {},
                     .attempt = 0,
                     .hop = material_.id,
                     .code = wire::SetupCode::kInvalid,
                     .text = {}};
  if (const auto code = receive_setup(label, payload, err)) {
    err.code = *code;
    lane.send_setup_err(label, err);
  }
}

// A caller arrives. Everything it claims is checked here, before any code of the application runs:
// the ingress router's signature, the caller's proof and card, and that our own record of the
// service lets it in. A code refuses.
std::optional<wire::SetupCode> Engine::receive_setup(std::uint32_t label, ByteView payload,
                                                     wire::SetupErr& err) {
  const auto refuse = [&](wire::SetupCode code, const std::string& why) {
    log::warn(
        "sdk.caller_refused",
        {{"circuit", err.circuit.hex()}, {"code", wire::setup_code_name(code)}, {"why", why}});
    return std::optional(code);
  };
  learn_time();
  const auto frame = wire::decode_setup_frame(payload);
  if (!frame) return refuse(wire::SetupCode::kInvalid, frame.error().text());
  auto setup = wire::decode_setup(frame->setup);
  if (!setup) return refuse(wire::SetupCode::kInvalid, setup.error().text());
  err.circuit = setup->circuit;
  err.attempt = frame->attempt;
  if (setup->kind != wire::SetupKind::kOpen)
    return refuse(wire::SetupCode::kNotKnown, "no such circuit here");
  if (incoming_.size() >= kMaxIncoming)
    return refuse(wire::SetupCode::kBusy, "too many callers in their handshakes");

  const std::int64_t now = lane_->time_ms();
  const trust::Context ctx = trust_context(now);
  const auto route = trust::verify_route(frame->route, frame->setup, *setup, frame->attempt, ctx);
  if (!route) return refuse(wire::SetupCode::kInvalid, "route: " + route.error().text());
  if (const Status s = trust::check_egress(route->route, lane_->peer().id()); !s)
    return refuse(wire::SetupCode::kInvalid, "route: " + s.error().text());
  const auto dial = trust::verify_dial(*setup, route->route.hops.front(), ctx);
  if (!dial) return refuse(wire::SetupCode::kInvalid, "caller: " + dial.error().text());
  const auto known = services_.find(setup->service);
  const auto bound = std::ranges::find_if(bindings_, [&](const auto& b) {
    return b.second.bound_as == setup->service && b.second.instance == route->route.instance;
  });
  if (known == services_.end() || bound == bindings_.end())
    return refuse(wire::SetupCode::kNoTerminator, "not hosted here");
  if (const Status s = trust::check_caller(dial->card, dial->caller.id, known->second.record); !s) {
    return refuse(wire::SetupCode::kNoService,
                  "caller " + dial->caller.id + ": " + s.error().text());
  }
  if (const Status s =
          seen_.remember(setup->circuit, setup->epoch, frame->attempt, route->route.expiry_ms, now);
      !s) {
    return refuse(wire::SetupCode::kInvalid, s.error().text());
  }

  auto session = tls::Session::on_memory(inner_server_tls_);
  if (!session) return refuse(wire::SetupCode::kInvalid, session.error().text());
  // The inner handshake must prove the very device whose card was checked.
  (*session)->expect_peer(tls::Role::kDevice, dial->caller.id);
  (*session)->feed(setup->client_hello);
  const std::uint64_t request = next_id_++;
  auto incoming = std::make_unique<Incoming>();
  incoming->label = label;
  incoming->attempt = frame->attempt;
  incoming->binding = bound->first;
  incoming->caller = {
      .id = dial->caller.id, .name = dial->card->name, .serial = dial->caller.leaf.serial_hex()};
  incoming->setup = std::move(*setup);
  incoming->circuit = std::make_unique<Circuit>(
      loop_, Circuit::Role::kHost, incoming->setup.circuit, std::move(*session),
      Circuit::Opening{
          .on_answer = [](Circuit&, ByteView) -> Status {
            return fail(Errc::kVerify, "an answer to a host");
          },
          .on_signed = [this, request](Circuit&) { resume_incoming(request); },
          .on_open = [this, request](Circuit&) { incoming_open(request); },
          .on_failed = [this, request](Circuit&,
                                       const Error& why) { incoming_failed(request, why); },
          .pool = pool_,
          .lingering = lingering_});
  incoming->circuit->set_peer_name(incoming->caller.name);
  incoming->deadline = std::make_unique<loop::Timer>(loop_.timers(), [this, request] {
    incoming_failed(request, Error(Errc::kTimeout, "the caller did not finish its handshake"));
  });
  incoming->deadline->arm(kIncomingMs);
  incoming_.emplace(request, std::move(incoming));
  auto refused = offer(request);
  if (refused) incoming_.erase(request);
  return refused;
}

// The inner handshake to the end of our first flight, then the caller goes to the program. A slow
// key signs meanwhile: resume_incoming comes here again.
std::optional<wire::SetupCode> Engine::offer(std::uint64_t request) {
  Incoming& in = *incoming_.at(request);
  const auto refuse = [&](wire::SetupCode code, const std::string& why) {
    log::warn(
        "sdk.caller_refused",
        {{"circuit", in.setup.circuit.hex()}, {"code", wire::setup_code_name(code)}, {"why", why}});
    return std::optional(code);
  };
  tls::Session& session = in.circuit->session();
  const tls::Io io = session.handshake();
  if (io.kind == tls::IoKind::kWantKey) return std::nullopt;
  if (io.kind != tls::IoKind::kWantRead || !session.has_output())
    return refuse(wire::SetupCode::kE2eParameters,
                  "inner ClientHello not accepted" +
                      (session.error() ? ": " + session.error()->text() : std::string()));
  if (session.sni() != in.setup.circuit.hex() + "." + in.setup.service)
    return refuse(wire::SetupCode::kInvalid, "inner SNI names another circuit or service");
  const auto bound = bindings_.find(in.binding);
  if (bound == bindings_.end())
    return refuse(wire::SetupCode::kNoTerminator, "not hosted here any more");
  const Caller caller = in.caller;
  in.offered = true;
  bound->second.host->on_caller(request, caller,
                                [this, request, binding = bound->first, caller,
                                 alive = alive_](std::optional<Error> refused) {
                                  if (!*alive) return;
                                  const bool welcome = !refused;
                                  answer_caller(request, std::move(refused));
                                  // Too late, or no room: a welcome hears what became of it.
                                  if (welcome && !incoming_.contains(request))
                                    tell_gone(binding, request, caller);
                                });
  return std::nullopt;
}

void Engine::resume_incoming(std::uint64_t request) {
  const auto it = incoming_.find(request);
  if (it == incoming_.end() || it->second->offered || !online()) return;
  const auto refused = offer(request);
  if (!refused) return;
  const Incoming& in = *it->second;
  lane_->send_setup_err(in.label, {.circuit = in.setup.circuit,
                                   .attempt = in.attempt,
                                   .hop = material_.id,
                                   .code = *refused,
                                   .text = {}});
  // In a turn of its own: the circuit is on the stack.
  loop_.defer([in = std::shared_ptr<Incoming>(std::move(it->second))] { in->circuit.reset(); });
  incoming_.erase(it);
}

void Engine::answer_caller(std::uint64_t request, std::optional<Error> refused) {
  const auto it = incoming_.find(request);
  if (it == incoming_.end()) return;
  Incoming& in = *it->second;
  if (in.circuit->lane() != nullptr) return;  // answered before
  const wire::SetupErr err{.circuit = in.setup.circuit,
                           .attempt = in.attempt,
                           .hop = material_.id,
                           .code = wire::SetupCode::kBusy,
                           .text = {}};
  if (refused) {
    wire::SetupErr why = err;
    why.code = refused->is(Errc::kBusy) ? wire::SetupCode::kBusy : wire::SetupCode::kRefused;
    why.text = refused->context();
    lane_->send_setup_err(in.label, why);
    incoming_.erase(it);
    return;
  }
  if (!lane_->attach(*in.circuit, in.label)) {
    lane_->send_setup_err(in.label, err);
    incoming_.erase(it);
    return;
  }
  const wire::HostAnswer answer{.circuit = in.setup.circuit,
                                .epoch = in.setup.epoch,
                                .attempt = in.attempt,
                                .flight = in.circuit->session().take_output(),
                                .card = card_,
                                .next_expected = 0,
                                .app_data = {}};
  in.welcomed = true;
  lane_->send_setup_ok(*in.circuit,
                       wire::encode(wire::SetupOkFrame{.answer = wire::encode(answer)}));
  in.circuit->start();
}

void Engine::incoming_open(std::uint64_t request) {
  const auto it = incoming_.find(request);
  if (it == incoming_.end()) return;
  // The certificate whose proof was checked, and no other one of this device.
  if (it->second->circuit->peer().serial() != it->second->caller.serial)
    return incoming_failed(request, Error(Errc::kVerify, "another certificate than the proof's"));
  // In a turn of its own: the circuit is still on the stack.
  auto in = std::shared_ptr<Incoming>(std::move(it->second));
  incoming_.erase(it);
  loop_.defer([this, in, request, alive = alive_] {
    if (!*alive) return;
    in->deadline.reset();
    const auto bound = bindings_.find(in->binding);
    if (bound == bindings_.end()) return;
    bound->second.host->on_stream(request, in->caller,
                                  in->circuit->over() ? nullptr : std::move(in->circuit));
  });
}

void Engine::incoming_failed(std::uint64_t request, const Error& why) {
  const auto it = incoming_.find(request);
  if (it == incoming_.end()) return;
  log::warn("sdk.caller_failed", {{"caller", it->second->caller.id}, {"why", why.text()}});
  auto in = std::shared_ptr<Incoming>(std::move(it->second));
  incoming_.erase(it);
  if (in->welcomed) {
    tell_gone(in->binding, request, in->caller);
  } else if (online()) {
    // Without an answer the router could never use its label again.
    lane_->send_setup_err(in->label, {.circuit = in->setup.circuit,
                                      .attempt = in->attempt,
                                      .hop = material_.id,
                                      .code = wire::SetupCode::kTimeout,
                                      .text = {}});
  }
  loop_.defer([in] {
    in->deadline.reset();
    in->circuit.reset();
  });
}

void Engine::tell_gone(std::uint64_t binding, std::uint64_t request, const Caller& caller) {
  loop_.defer([this, binding, request, caller, alive = alive_] {
    if (!*alive) return;
    if (const auto bound = bindings_.find(binding); bound != bindings_.end())
      bound->second.host->on_stream(request, caller, nullptr);
  });
}

}  // namespace sally::sdk
