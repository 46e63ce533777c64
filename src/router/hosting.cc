// SPDX-License-Identifier: Apache-2.0
// A Worker answers for the hosts on its lanes, and keeps its halves of circuits between workers.
#include <utility>

#include "base/log.h"
#include "router/worker.h"

namespace sally::router {

// Both where the dialer's lane is and where it is not.
bool Worker::send_order(Circuit& circuit, Device& host, wire::SetupFrame frame,
                        std::uint32_t epoch) {
  Share share = host.share.more(Use::kAsked);
  if (!share) return false;
  HopSide& side = circuit.make_hosting();
  if (!host.lane->attach(side)) return false;
  circuit.asked = std::make_unique<Asked>(
      Asked{.epoch = epoch, .attempt = frame.attempt, .share = std::move(share)});
  host.lane->send_setup(side, frame);
  return true;
}

Result<Worker::Sealed> Worker::seal_answer(Circuit& circuit, ByteView payload) {
  const Device& host = *device_of(*circuit.hosting());
  const Candidate& asked = *circuit.host();
  TRY_ASSIGN(const auto frame, wire::decode_setup_ok_frame(payload));
  TRY_ASSIGN(auto answer, wire::decode_host_answer(frame.answer));
  if (answer.circuit != circuit.id() || answer.epoch != circuit.asked->epoch ||
      answer.attempt != circuit.asked->attempt)
    return fail(lane::Errc::kProtocol, "an answer to another set-up");
  const auto card = trust::verify_card(answer.card, trust_context());
  if (card && (*card)->id != host.id)
    return fail(lane::Errc::kProtocol, "an answer with another device's card");
  if (!card) {
    // It may have ended while the new one is on its way: this host cannot be shown now, another one
    // may.
    log::warn("router.host_card_refused", {{"device", host.id}, {"why", card.error().text()}});
    asked.load->failed();
    return Sealed{.code = wire::SetupCode::kInvalid, .answer = {}};
  }
  auto sealed = trust::make_answer({.network = options().network,
                                    .terminator = asked.id,
                                    .instance = asked.instance,
                                    .host = std::move(answer),
                                    .egress = options().id,
                                    .egress_leaf = credential_.chain.front().der(),
                                    .egress_issuing = credential_.chain.back().der()},
                                   *credential_.key);
  if (!sealed) {
    log::error("router.answer_failed", {{"why", sealed.error().text()}});
    return Sealed{.code = wire::SetupCode::kBusy, .answer = {}};
  }
  return Sealed{.code = wire::SetupCode::kNone,
                .answer = wire::encode(wire::SetupOkFrame{.answer = std::move(*sealed)})};
}

// ---- between workers ----------------------------------------------------------------------------

void Worker::on_crossing(const CrossingPtr& crossing) {
  const auto end = crossing->end_of(*shared_.crossings[index_]);
  const auto mail = crossing->take(end);
  if (mail == nullptr) return;
  if (end == Crossing::End::kDialing) {
    on_dialing_mail(crossing, *mail);
  } else {
    on_hosting_mail(crossing, *mail);
  }
  // What nobody took any more comes home too, or it would count for ever.
  for (ChunkPtr& chunk : mail->chunks) pool_.adopt(*chunk);
}

void Worker::on_crossing_held(const CrossingPtr& crossing, Crossing::End to) {
  held_.push_back({.crossing = crossing, .to = to, .state = {}});
  if (held_.size() == 1)
    loop_.defer([this, alive = alive_] {
      if (*alive) look_at_held();
    });
}

// Deferred calls run before and after each poll of the loop, which does not sleep while there are
// some.
void Worker::look_at_held() {
  std::erase_if(held_, [](Held& h) { return !h.crossing->still_held(h.to, h.state); });
  if (held_.empty()) return;
  loop_.defer([this, alive = alive_] {
    if (*alive) look_at_held();
  });
}

// In the order in which the other half may have sent them: its answer before what flows, its end
// last.
void Worker::on_dialing_mail(const CrossingPtr& crossing, Crossing::Mail& mail) {
  Circuit* circuit = crossing->half(Crossing::End::kDialing);
  if (circuit == nullptr) return;  // over here, or this attempt is
  if (mail.refusal && circuit->opening != nullptr) {
    wire::SetupErr& last = circuit->opening->last;
    last.code = mail.refusal->code;
    if (!mail.refusal->hop.empty()) {
      last.hop = std::move(mail.refusal->hop);
      last.text = std::move(mail.refusal->text);
    }
    circuit->ended_beyond();
    end_attempt(*circuit, wire::ResetCode::kClosed);
    return try_next(*circuit);
  }
  if (mail.answer && circuit->opening != nullptr) {
    open(*circuit, *mail.answer);
    if (crossing->half(Crossing::End::kDialing) == nullptr) return;  // its dialer's lane is closing
  }
  if (circuit->open()) circuit->deliver(mail);
  if (!mail.reset && circuit->abandoned())
    return on_circuit_over(*circuit, {.code = wire::ResetCode::kClosed, .text = {}});
  if (!mail.reset) return;
  circuit->ended_beyond();
  end_sides(*circuit, *mail.reset);
  retire(*circuit);
}

void Worker::on_hosting_mail(const CrossingPtr& crossing, Crossing::Mail& mail) {
  if (mail.order) {
    if (mail.reset) return;  // the dialer has gone before anybody was asked
    return ask_host_for(crossing, std::move(*mail.order));
  }
  Circuit* circuit = crossing->half(Crossing::End::kHosting);
  if (circuit == nullptr) return;
  if (circuit->open()) circuit->deliver(mail);
  if (!mail.reset && circuit->abandoned())
    return on_circuit_over(*circuit, {.code = wire::ResetCode::kClosed, .text = {}});
  if (!mail.reset) return;
  circuit->ended_beyond();
  if (circuit->open()) {
    end_sides(*circuit, *mail.reset);
  } else {
    // At once: no answer of the host may find the half gone.
    circuit->hosting()->end(mail.reset->code, {});
  }
  retire(*circuit);
}

void Worker::ask_host_for(const CrossingPtr& crossing, Crossing::Order order) {
  const auto refuse = [&](wire::SetupCode code) {
    crossing->send(Crossing::End::kDialing, [&](Crossing::Mail& m) { m.refusal = {.code = code}; });
  };
  auto host = shared_.terminators.find(order.service, order.terminator);
  Device* device = host == nullptr ? nullptr : may_ask(*host);
  if (device == nullptr) return refuse(wire::SetupCode::kNoTerminator);
  auto circuit = std::make_unique<Circuit>(*this, order.circuit, std::move(order.dialer));
  circuit->set_host(std::move(host));
  circuit->set_crossing(crossing, Crossing::End::kHosting);
  const bool asked = order.call != nullptr
                         ? ask_foreign_host(*circuit, *device, *order.call, order.attempt)
                         : send_order(*circuit, *device,
                                      {.setup = std::move(order.setup),
                                       .route = std::move(order.route),
                                       .attempt = order.attempt},
                                      order.epoch);
  if (!asked) return refuse(wire::SetupCode::kBusy);
  shared_.hosted.fetch_add(1, std::memory_order_relaxed);
  list(std::move(circuit));
}

Status Worker::on_hosted_answer(Circuit& circuit, ByteView payload) {
  TRY_ASSIGN(auto sealed, seal_answer(circuit, payload));
  if (sealed.code != wire::SetupCode::kNone) {
    circuit.hosting()->end(wire::ResetCode::kClosed, {});
    refuse_hosted(circuit, sealed.code);
    return {};
  }
  circuit.crossing()->send(Crossing::End::kDialing,
                           [&](Crossing::Mail& m) { m.answer = std::move(sealed.answer); });
  circuit.asked.reset();
  circuit.opened();
  return {};
}

void Worker::on_hosted_refused(Circuit& circuit, const wire::SetupErr& err) {
  circuit.host()->load->failed();
  circuit.crossing()->send(Crossing::End::kDialing, [&](Crossing::Mail& m) {
    m.refusal = {.code = err.code, .hop = circuit.host()->device.str(), .text = err.text};
  });
  circuit.ended_beyond();
  retire(circuit);
}

void Worker::refuse_hosted(Circuit& circuit, wire::SetupCode code) {
  circuit.crossing()->send(Crossing::End::kDialing,
                           [&](Crossing::Mail& m) { m.refusal = {.code = code}; });
  circuit.ended_beyond();
  retire(circuit);
}

void Worker::on_hosted_over(Circuit& circuit, const wire::Reset& reset) {
  // The host's lane broke before it answered: another host may do.
  if (!circuit.open()) return refuse_hosted(circuit, wire::SetupCode::kNoTerminator);
  circuit.end_beyond(reset.code, reset.text);
  retire(circuit);
}

}  // namespace sally::router
