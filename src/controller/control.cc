// SPDX-License-Identifier: Apache-2.0
// Control lanes: what routers hear and say.
#include <algorithm>

#include "base/log.h"
#include "base/text.h"
#include "controller/network.h"
#include "pki/publish.h"
#include "trust/trust.h"

namespace sally::controller {
namespace {

constexpr std::int64_t kHeadMs = 10'000;
constexpr std::int64_t kUpkeepMs = 3'600'000;
// Half of what Sessions forgives after a crash.
constexpr std::int64_t kSessionsMs = 30'000;
constexpr std::int64_t kListsMs = 60'000;
constexpr std::size_t kMaxCodes = 64;

}  // namespace

void Network::start(std::move_only_function<void()> on_certificates) {
  on_certificates_ = std::move(on_certificates);
  head_timer_ = std::make_unique<loop::Timer>(loop_.timers(), [this] {
    for (auto& [lane, peer] : peers_) push(peer);
    head_timer_->arm(kHeadMs);
  });
  head_timer_->arm(kHeadMs);
  upkeep_timer_ = std::make_unique<loop::Timer>(loop_.timers(), [this] {
    if (!pool_.submit([this] {
          if (const auto ok = upkeep(); !ok)
            log::error("controller.upkeep_failed", {{"why", ok.error().text()}});
        }))
      log::warn("controller.upkeep_put_off", {});
    upkeep_timer_->arm(kUpkeepMs);
  });
  upkeep_timer_->arm(kUpkeepMs);
  sessions_timer_ = std::make_unique<loop::Timer>(loop_.timers(), [this] {
    // A full queue: the next time writes both.
    (void)pool_.submit([this] { flush_sessions(); });
    sessions_timer_->arm(kSessionsMs);
  });
  sessions_timer_->arm(kSessionsMs);
  lists_timer_ = std::make_unique<loop::Timer>(loop_.timers(), [this] {
    lists_at_ms_ = loop_.now_ms();
    if (!pool_.submit([this] {
          // A CA that was revoked has a successor, whose responder is new.
          Status ok = renew_responders();
          if (ok) ok = refresh_lists();
          if (!ok) log::error("controller.lists_failed", {{"why", ok.error().text()}});
        }))
      lists_due();
  });
  lists_at_ms_ = loop_.now_ms();
}

void Network::lists_due() {
  if (lists_timer_ == nullptr || lists_timer_->armed()) return;
  lists_timer_->arm(
      std::clamp<std::int64_t>(lists_at_ms_ + kListsMs - loop_.now_ms(), 0, kListsMs));
}

Status Network::admit(const tls::PeerIdentity& peer, bool up) const {
  const auto& tables = writer_->tables();
  for (const auto& serial : trust::serials_of(peer.leaf())) {
    // One that was only superseded does not end what is up.
    if (const auto* row = tables.revoked().find(serial); row != nullptr && !(up && row->superseded))
      return fail(Errc::kRemoved, "certificate " + serial + " is revoked");
  }
  if (tables.revoked().contains(peer.issuer().serial_hex()))
    return fail(Errc::kRemoved, "issuing CA " + peer.issuer().serial_hex() + " is revoked");
  if (const auto* identity = tables.identities().find(peer.id());
      identity != nullptr && identity->standing != wire::Standing::kActive)
    return fail(Errc::kRemoved,
                std::string(tls::role_name(peer.role())) + " " + peer.id() + " is not active");
  if (peer.role() == tls::Role::kRouter && !tables.routers().contains(peer.id()))
    return fail(Errc::kRemoved, "router " + peer.id() + " is not in the directory");
  return {};
}

void Network::take(std::unique_ptr<tls::Stream> stream) {
  const auto* who = stream->peer();
  if (who == nullptr || who->role() != tls::Role::kRouter || who->network() != id_) {
    log::warn("controller.lane_refused", {{"peer", who != nullptr ? who->uri() : "no certificate"},
                                          {"remote", stream->remote().str()}});
    return;
  }
  // Again: a handshake may have been held back over a removal.
  if (const Status s = admit(*who); !s) {
    log::warn("controller.lane_refused", {{"peer", who->uri()}, {"why", s.error().text()}});
    return;
  }
  lane::LaneOptions o;
  o.hello.network = id_.str();
  o.hello.epoch = epoch_;
  o.hello.software = "sally-controller/" SALLY_VERSION;
  o.hello.features = wire::kFeatureUsage | wire::kFeatureRenewal;
  o.tell_time = true;
  o.max_control = wire::kMaxControlMessage;
  o.max_labels = 0;
  Peer peer;
  peer.router = who->id();
  peer.number = next_lane_++;
  peer.lane = std::make_unique<lane::Lane>(loop_, chunks_, std::move(stream), *this, std::move(o));
  const lane::Lane* key = peer.lane.get();
  peers_.emplace(key, std::move(peer));
}

void Network::on_lane_up(lane::Lane& lane, const wire::Hello& hello) {
  const auto it = peers_.find(&lane);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  // The newest lane of a router counts; the older one is what its crash left behind.
  for (auto& [other, p] : peers_)
    if (other != &lane && p.router == peer.router)
      p.lane->close(Error(Errc::kReplaced, "a newer control lane of the same router"));
  {
    const std::scoped_lock lock(mutex_);
    auto& r = routers_[peer.router];
    r.lane = peer.number;
    r.seen_ms = clock_.unix_ms();
    r.usage = {};
    r.before = {};
    r.acks.clear();  // its counts start anew with its process
    r.hosts.clear();
  }
  peer.reports = (hello.features & wire::kFeatureUsage) != 0;
  peer.hears_renew_now = (hello.features & wire::kFeatureRenewNow) != 0;
  peer.acked = {.epoch = hello.epoch, .sequence = 0, .period_ms = period_ms()};
  log::info("controller.router_up", {{"router", peer.router},
                                     {"remote", lane.remote().str()},
                                     {"software", hello.software},
                                     {"version", hello.state_version}});
  auto update = writer_->update_for(hello.state_version, hello.state_hash, clock_.unix_ms());
  if (!update) {
    log::error("controller.router_not_updated", {{"router", peer.router},
                                                 {"why", update.error().text()},
                                                 {"fix", "after a restore: docs/operations.md"}});
    return lane.close(update.error());
  }
  peer.synced = true;
  peer.sent = writer_->version();
  lane.send_control({std::move(*update)});
  if (peer.reports) lane.send_control({peer.acked});
}

void Network::on_lane_control(lane::Lane& lane, wire::Control&& message) {
  const auto it = peers_.find(&lane);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  if (auto* usage = std::get_if<wire::Usage>(&message.member))
    return on_usage(peer, std::move(*usage));
  if (const auto* ack = std::get_if<wire::StateAck>(&message.member))
    return on_ack(peer.router, *ack);
  if (const auto* list = std::get_if<wire::Terminators>(&message.member))
    return on_terminators(peer.router, *list);
  if (const auto* request = std::get_if<wire::CardRequest>(&message.member))
    return on_card_request(peer.number, *request);
  if (auto* renew = std::get_if<wire::Renew>(&message.member))
    return on_renew(peer, std::move(*renew));
  if (auto* events = std::get_if<wire::Events>(&message.member))
    return on_events(peer.router, std::move(*events));
  lane.close(Error(Errc::kUnexpected, "message on a control lane"));
}

void Network::on_lane_setup(lane::Lane& lane, std::uint32_t, ByteView) {
  lane.close(Error(Errc::kUnexpected, "circuits do not end at a controller"));
}

void Network::on_lane_down(lane::Lane& lane, const Error& why) {
  const auto it = peers_.find(&lane);
  if (it == peers_.end()) return;
  {
    const std::scoped_lock lock(mutex_);
    const auto r = routers_.find(it->second.router);
    if (r != routers_.end() && r->second.lane == it->second.number) r->second.lane = 0;
  }
  acked_.notify_all();
  log::info("controller.router_down", {{"router", it->second.router}, {"why", why.text()}});
  peers_.erase(it);
}

void Network::take_rows(std::vector<store::LogRow> rows) {
  for (const auto& row : rows) {
    if (row.version <= writer_->version()) continue;
    if (const auto ok = writer_->append(row.entry, row.hash); !ok) {
      // The store is the truth: start again from it.
      log::error("controller.log_gap", {{"version", row.version}, {"why", ok.error().text()}});
      if (const auto made = make_writer(); !made)
        return log::error("controller.log_writer_failed", {{"why", made.error().text()}});
      break;
    }
  }
  push_all();
  drop_dead();
  lists_due();
}

void Network::push(Peer& peer) {
  if (!peer.synced || !peer.lane->up()) return;
  auto update = writer_->update_since(peer.sent, clock_.unix_ms());
  if (!update)
    return log::error("controller.no_update",
                      {{"router", peer.router}, {"why", update.error().text()}});
  peer.sent = writer_->version();
  peer.lane->send_control({std::move(*update)});
}

void Network::push_all() {
  for (auto& [lane, peer] : peers_)
    if (peer.sent < writer_->version()) push(peer);
}

void Network::drop_dead() {
  for (auto& [lane, peer] : peers_)
    if (const auto ok = admit(peer.lane->peer(), true); !ok) peer.lane->close(ok.error());
}

Network::Peer* Network::find(std::uint64_t number) {
  for (auto& [lane, peer] : peers_)
    if (peer.number == number) return &peer;
  return nullptr;
}

// ---- cards

wire::CardReply Network::answer_card(const wire::CardRequest& request) {
  wire::CardReply reply;
  reply.request = request.request;
  reply.id = request.id;
  const auto card = [&]() -> Result<Bytes> {
    std::optional<store::Identity> identity;
    {
      TRY_ASSIGN(const auto tx, store_->read(id_));
      TRY_ASSIGN(identity, tx->identity(request.id));
    }
    if (!identity || identity->kind != store::Kind::kDevice)
      return fail(pki::Errc::kIdentityInactive, "no device " + request.id);
    return pki::make_card(id_, *identity, *signer_key_, clock_.unix_ms());
  }();
  if (card) {
    reply.card = *card;
  } else {
    reply.error = card.error().code();
  }
  return reply;
}

void Network::on_card_request(std::uint64_t lane, const wire::CardRequest& request) {
  const auto send = [this, lane](wire::CardReply reply) {
    Peer* peer = find(lane);
    if (peer != nullptr) peer->lane->send_control({std::move(reply)});
  };
  const bool ok = pool_.submit([this, send, request] {
    on_loop([send, reply = answer_card(request)]() mutable { send(std::move(reply)); });
  });
  if (!ok) send({request.request, request.id, {}, std::string(error_name(Errc::kBusy))});
}

// ---- events

void Network::on_bad_certificate(const loop::Address& from, const Error& why) {
  // A path that is not ours. What was ours once, and is revoked, was audited when that happened.
  if (!why.code().starts_with("crypto.") || !refusals_.take(clock_.mono_us())) return;
  const bool ok = pool_.submit(
      [this, source = from.ip_text(), code = std::string(why.code()), text = why.context()] {
        const auto write = [&]() -> Status {
          TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
          TRY(tx->audit("unknown", "controller.peer_refused", source,
                        "{\"code\":" + json_quote(code) + ",\"text\":" + json_quote(text) + "}"));
          return tx->commit();
        };
        if (const auto done = write(); !done)
          log::error("controller.peer_not_audited", {{"why", done.error().text()}});
      });
  if (!ok) log::error("controller.peer_not_audited", {{"why", "the work queue is full"}});
}

void Network::on_events(const std::string& router, wire::Events events) {
  {
    const std::scoped_lock lock(mutex_);
    auto& r = routers_[router];
    r.seen_ms = clock_.unix_ms();
    for (const auto& e : events.entries) {
      const bool room = event_counts_.size() < kMaxCodes || event_counts_.contains(e.code);
      ++event_counts_[room ? e.code : "other"];
    }
    std::size_t allowed = 0;
    while (allowed < events.entries.size() && r.events.take(clock_.mono_us())) ++allowed;
    if (allowed < events.entries.size()) {
      log::warn("controller.events_over_limit",
                {{"router", router}, {"count", events.entries.size() - allowed}});
      events.entries.resize(allowed);
    }
  }
  if (events.entries.empty()) return;
  const bool ok = pool_.submit([this, router, list = std::move(events)] {
    const auto write = [&]() -> Status {
      TRY_ASSIGN(auto tx, store_->begin(id_, clock_.unix_ms()));
      for (const auto& e : list.entries)
        TRY(tx->audit("router/" + router, e.code, e.subject,
                      "{\"device\":" + json_quote(e.actor) + ",\"text\":" + json_quote(e.text) +
                          ",\"at\":\"" + format_time(e.time_ms) + "\"}"));
      return tx->commit();
    };
    if (const auto done = write(); !done)
      log::error("controller.events_lost", {{"why", done.error().text()}});
  });
  if (!ok) log::warn("controller.events_dropped", {{"router", router}});
}

}  // namespace sally::controller
