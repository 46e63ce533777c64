// SPDX-License-Identifier: Apache-2.0
// A Worker answers for the hosts on its lanes, and keeps its halves of circuits between workers.
#include <utility>

#include "base/log.h"
#include "router/worker.h"

namespace sally::router {

Result<Worker::Sealed> Worker::seal_answer(Circuit& circuit, ByteView payload, std::uint32_t epoch,
                                           std::uint32_t attempt, const Candidate& asked) {
  const Device& host = *find(*circuit.hosting().lane());
  TRY_ASSIGN(const auto frame, wire::decode_setup_ok_frame(payload));
  TRY_ASSIGN(auto answer, wire::decode_host_answer(frame.answer));
  if (answer.circuit != circuit.id() || answer.epoch != epoch || answer.attempt != attempt)
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
                                    .egress_leaf = options().chain.front().der(),
                                    .egress_issuing = options().chain.back().der()},
                                   *options().key);
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
  crossing->take(end, mail_);
  if (end == Crossing::End::kDialing) {
    on_dialing_mail(crossing, mail_);
  } else {
    on_hosting_mail(crossing, mail_);
  }
  mail_.clear();
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
  const auto entry_of = [&]() -> Entry* {
    const auto it = circuits_.find(crossing->id());
    const bool ours = it != circuits_.end() && it->second.circuit->crossing() == crossing;
    return ours ? &it->second : nullptr;  // none: over here, or this attempt is
  };
  Entry* entry = entry_of();
  if (entry == nullptr) return;
  if (mail.refusal && entry->opening != nullptr) {
    wire::SetupErr& last = entry->opening->last;
    last.code = mail.refusal->code;
    if (!mail.refusal->hop.empty()) {
      last.hop = std::move(mail.refusal->hop);
      last.text = std::move(mail.refusal->text);
    }
    entry->circuit->ended_beyond();
    end_attempt(*entry->circuit, wire::ResetCode::kClosed);
    return try_next(*entry);
  }
  if (mail.answer && entry->opening != nullptr) {
    open(*entry, *mail.answer);
    entry = entry_of();
    if (entry == nullptr) return;  // its dialer's lane is closing
  }
  Circuit& circuit = *entry->circuit;
  if (circuit.open()) circuit.deliver(mail);
  if (!mail.reset) return;
  circuit.ended_beyond();
  end_side(circuit, circuit.dialing(), *mail.reset);
  retire(circuit);
}

void Worker::on_hosting_mail(const CrossingPtr& crossing, Crossing::Mail& mail) {
  if (mail.order) {
    if (mail.reset) return;  // the dialer has gone before anybody was asked
    return ask_host_for(crossing, std::move(*mail.order));
  }
  const auto it = hosted_.find(crossing.get());
  if (it == hosted_.end()) return;
  Circuit& circuit = *it->second.circuit;
  if (circuit.open()) circuit.deliver(mail);
  if (!mail.reset) return;
  circuit.ended_beyond();
  if (circuit.open()) {
    end_side(circuit, circuit.hosting(), *mail.reset);
  } else if (circuit.hosting().lane() != nullptr) {
    // At once: no answer of the host may find the half gone.
    circuit.hosting().lane()->reset(circuit.hosting(), mail.reset->code);
  }
  retire_hosted(it->second);
}

void Worker::ask_host_for(const CrossingPtr& crossing, Crossing::Order order) {
  const auto refuse = [&](wire::SetupCode code) {
    crossing->send(Crossing::End::kDialing, [&](Crossing::Mail& m) { m.refusal = {.code = code}; });
  };
  auto host = shared_.terminators.find(crossing->service().str(), order.terminator);
  if (!host || !may_ask(*host)) return refuse(wire::SetupCode::kNoTerminator);
  auto circuit =
      std::make_unique<Circuit>(*this, crossing->id(), crossing->service(), crossing->dialer());
  circuit->set_host(host->device);
  circuit->set_crossing(crossing, Crossing::End::kHosting);
  HopSide& side = circuit->hosting();
  lane::Lane& lane = *host->lane;
  if (!lane.attach(side)) return refuse(wire::SetupCode::kBusy);
  lane.send_setup(side, {.setup = std::exchange(order.setup, {}),
                         .route = std::exchange(order.route, {}),
                         .attempt = order.attempt});
  hosted_.emplace(
      crossing.get(),
      Hosted{.circuit = std::move(circuit), .order = std::move(order), .host = std::move(*host)});
  shared_.hosted.fetch_add(1, std::memory_order_relaxed);
}

Status Worker::on_hosted_answer(Hosted& hosted, ByteView payload) {
  Circuit& circuit = *hosted.circuit;
  TRY_ASSIGN(auto sealed,
             seal_answer(circuit, payload, hosted.order.epoch, hosted.order.attempt, hosted.host));
  if (sealed.code != wire::SetupCode::kNone) {
    circuit.hosting().lane()->reset(circuit.hosting(), wire::ResetCode::kClosed);
    refuse_hosted(hosted, sealed.code);
    return {};
  }
  circuit.crossing()->send(Crossing::End::kDialing,
                           [&](Crossing::Mail& m) { m.answer = std::move(sealed.answer); });
  circuit.opened();
  return {};
}

void Worker::on_hosted_refused(Hosted& hosted, const wire::SetupErr& err) {
  hosted.host.load->failed();
  hosted.circuit->crossing()->send(Crossing::End::kDialing, [&](Crossing::Mail& m) {
    m.refusal = {.code = err.code, .hop = hosted.circuit->host().str(), .text = err.text};
  });
  hosted.circuit->ended_beyond();
  retire_hosted(hosted);
}

void Worker::refuse_hosted(Hosted& hosted, wire::SetupCode code) {
  hosted.circuit->crossing()->send(Crossing::End::kDialing,
                                   [&](Crossing::Mail& m) { m.refusal = {.code = code}; });
  hosted.circuit->ended_beyond();
  retire_hosted(hosted);
}

void Worker::on_hosted_over(Hosted& hosted, const wire::Reset& reset) {
  // The host's lane broke before it answered: another host may do.
  if (!hosted.circuit->open()) return refuse_hosted(hosted, wire::SetupCode::kNoTerminator);
  hosted.circuit->end_beyond(reset.code, reset.text);
  retire_hosted(hosted);
}

void Worker::retire_hosted(Hosted& hosted) {
  hosted.circuit->end_beyond(wire::ResetCode::kClosed);  // unless it knows already
  const Crossing* key = hosted.circuit->crossing().get();
  bury(std::move(hosted.circuit));
  hosted_.erase(key);
  shared_.hosted.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace sally::router
