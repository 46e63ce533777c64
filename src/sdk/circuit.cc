// SPDX-License-Identifier: Apache-2.0
#include "sdk/circuit.h"

#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace sally::sdk {
namespace {

// How long a circuit that nobody uses any more waits for its peer.
constexpr std::int64_t kLingerMs = 60'000;

}  // namespace

Circuit::Circuit(loop::Loop& loop, Role role, CircuitId id, std::unique_ptr<tls::Session> session,
                 Opening opening)
    : loop_(loop), opening_(std::move(opening)), end_(role), id_(id), session_(std::move(session)) {
  session_->use_pool(*opening_.pool);
  session_->on_key([this, alive = alive_] {
    (void)loop_.post(
        [this, alive] {
          if (*alive) key_has_signed();
        },
        true);
  });
}

Circuit::~Circuit() {
  *alive_ = false;
  if (opening_.lingering != nullptr) opening_.lingering->erase(this);
}

// ---- opening
// ---------------------------------------------------------------------------------------------

Status Circuit::on_setup_ok(ByteView payload) {
  // The other end's mistakes end the circuit; the lane and its router are not to blame.
  if (Status s = opening_.on_answer(*this, payload); !s) die(std::move(s).error());
  return {};
}

void Circuit::on_setup_err(const wire::SetupErr& err) {
  die(from_setup_err(err));
}

Status Circuit::accept_answer(ByteView flight) {
  if (tls::is_hello_retry(flight))
    return fail(Errc::kVerify, "the host asked for other TLS parameters");
  session_->feed(flight);
  start();
  continue_handshake();
  return {};
}

void Circuit::start() {
  send_due(false);
}

// The dialing end's signature is its last flight; the host's is in its answer, which the engine
// waits for.
void Circuit::key_has_signed() {
  if (opening_.on_signed) return opening_.on_signed(*this);
  after_receive();
}

void Circuit::continue_handshake() {
  while (!open_ && !over_) {
    const tls::Io io = session_->handshake();
    if (io.kind == tls::IoKind::kOk) {
      push_output();
      open_ = true;
      opening_.on_open(*this);
      return;
    }
    if (io.kind == tls::IoKind::kWantKey) return push_output();
    if (io.kind != tls::IoKind::kWantRead) {
      push_output();  // the alert; the peer may read it before the RESET
      const auto& verify = session_->verify_error();
      const auto& error = session_->error();
      die(Error(Errc::kVerify, verify  ? verify->text()
                               : error ? error->text()
                                       : "inner handshake failed"));
      return;
    }
    push_output();
    if (received_.empty()) return;
    feed_next();
  }
}

void Circuit::feed_next() {
  ChunkPtr next = received_.pop_front();
  end_.recv().consumed(next->size());
  session_->feed(std::move(next));
}

void Circuit::push_output() {
  if (!session_->has_output()) return;
  ChunkPtr record = session_->take_chunk();
  Bytes out = record != nullptr ? Bytes() : session_->take_output();
  if (end_.send().fin_pushed()) return;  // our direction is over: nothing may follow close_notify
  // A flight may be longer than a frame; records of data never are.
  if (record != nullptr) {
    end_.send().push(std::move(record));
  } else if (out.size() <= fabric::kMaxPayload) {
    end_.send().push(std::move(out));
  } else {
    for (ByteView rest = out; !rest.empty();) {
      const ByteView part = rest.first(std::min(rest.size(), fabric::kMaxPayload));
      end_.send().push(to_bytes(part));
      rest = rest.subspan(part.size());
    }
  }
  if (lane() != nullptr) lane()->ready(*this);
}

// ---- the user's side
// -------------------------------------------------------------------------------------

void Circuit::set_user(CircuitUser& user) {
  user_ = &user;
  if (over_) {
    tell_over();
    return;
  }
  notify_readable();
}

Circuit::ReadResult Circuit::read(MutableBytes into) {
  if ((over_ && !whole_) || !open_) return {ReadKind::kNothing};
  if (read_end_) return {ReadKind::kEnd};
  for (;;) {
    const tls::Io io = session_->read(into);
    switch (io.kind) {
      case tls::IoKind::kOk:
        return {ReadKind::kData, io.n};
      case tls::IoKind::kEof:
        read_end_ = true;
        return {ReadKind::kEnd};
      case tls::IoKind::kWantRead:
      case tls::IoKind::kWantWrite:
        if (!received_.empty()) {
          feed_next();
          send_due(false);
          continue;
        }
        if (!end_.recv().fin_received()) return {ReadKind::kNothing};
        // FIN without close_notify: somebody cut the stream (docs/wire-protocol.md).
        die(Error(Errc::kReset, "the stream was cut: it ended without close_notify"));
        return {ReadKind::kNothing};
      case tls::IoKind::kWantKey:  // of handshakes only
      case tls::IoKind::kTruncated:
      case tls::IoKind::kError: {
        const auto& error = session_->error();
        die(Error(Errc::kReset, error ? error->text() : "inner TLS failed"));
        return {ReadKind::kNothing};
      }
    }
  }
}

std::size_t Circuit::write(ByteView data) {
  std::size_t taken = 0;
  if (over_ || !open_) return 0;
  while (taken < data.size() && end_.send().has_room()) {
    if (session_->key_update_due()) {
      // A record of its own: in front of data it would overflow the frame.
      if (const Status s = session_->key_update(); !s) {
        die(s.error());
        return taken;
      }
      push_output();
      continue;
    }
    const tls::Io io =
        session_->write(data.subspan(taken, std::min(tls::kInnerFragment, data.size() - taken)));
    if (!io.ok()) {
      die(Error(Errc::kReset, "inner TLS failed"));
      return taken;
    }
    taken += io.n;
    push_output();
  }
  write_blocked_ = taken < data.size();
  return taken;
}

void Circuit::shutdown_write() {
  if (over_ || end_.send().fin_pushed()) return;
  (void)session_->shutdown();
  push_output();
  end_.send().push_fin();
  if (lane() != nullptr) lane()->ready(*this);
}

void Circuit::abort(wire::ResetCode code) {
  if (over_) return;
  over_ = true;
  if (lane() != nullptr) lane()->reset(*this, code);
}

void Circuit::finish(std::unique_ptr<Circuit> self) {
  Circuit& c = *self;
  if (c.over_) return;
  c.user_ = nullptr;
  c.shutdown_write();
  if (c.over_) return;
  if (c.lane() == nullptr && !c.end_.finished()) return;  // nowhere to deliver to
  c.self_ = std::move(self);
  c.opening_.lingering->insert(&c);
  c.linger_ = std::make_unique<loop::Timer>(
      c.loop_.timers(), [&c] { c.die(Error(Errc::kTimeout, "the peer neither reads nor ends")); });
  c.linger_->arm(kLingerMs);
  c.after_receive();
}

// ---- the lane's side
// -------------------------------------------------------------------------------------

Status Circuit::on_data(std::uint64_t offset, ByteView payload, ChunkPtr* whole) {
  if (over_) return {};
  auto fresh = end_.recv().on_data(offset, payload);
  if (!fresh) {
    die(Error(Errc::kReset, fresh.error().text()));
    return {};
  }
  // A part of what came is not the rest of its chunk.
  if (!fresh->empty())
    fabric::merge_into(received_, *fresh, fresh->size() == payload.size() ? whole : nullptr,
                       *opening_.pool);
  after_receive();
  return {};
}

Status Circuit::on_fin(std::uint64_t offset) {
  if (over_) return {};
  if (const Status s = end_.recv().on_fin(offset); !s) {
    die(Error(Errc::kReset, s.error().text()));
    return {};
  }
  after_receive();
  return {};
}

void Circuit::after_receive() {
  const auto alive = alive_;
  if (!open_) {
    continue_handshake();
    if (!*alive || over_) return;
    if (!open_ && end_.recv().fin_received()) {
      die(Error(Errc::kReset, "the stream ended inside the handshake"));
      return;
    }
  }
  if (self_ != nullptr) {
    // Nobody reads any more: drop it, so that the other end can finish.
    while (!received_.empty()) end_.recv().consumed(received_.pop_front()->size());
  } else {
    notify_readable();
  }
  send_due(false);
  if (end_.recv().ack_pending() && lane() != nullptr) lane()->request_tick(*this);
  maybe_finish();
}

void Circuit::notify_readable() {
  if (user_ == nullptr || readable_scheduled_ || over_) return;
  readable_scheduled_ = true;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    readable_scheduled_ = false;
    if (user_ != nullptr && !over_) user_->on_circuit_readable();
  });
}

void Circuit::on_credit(std::uint64_t limit) {
  end_.send().on_credit(limit);
  lane()->ready(*this);
}

Status Circuit::on_ack(std::uint64_t offset) {
  if (over_) return {};
  if (const Status s = end_.send().on_ack(offset); !s) {
    die(Error(Errc::kReset, s.error().text()));
    return {};
  }
  if (linger_ != nullptr) linger_->arm(kLingerMs);
  if (write_blocked_ && end_.send().has_room() && user_ != nullptr) {
    write_blocked_ = false;
    loop_.defer([this, alive = alive_] {
      if (*alive && user_ != nullptr && !over_) user_->on_circuit_writable();
    });
  }
  maybe_finish();
  return {};
}

void Circuit::send_due(bool flush) {
  if (lane() == nullptr || remote_label() == 0) return;
  const auto due = end_.take_due(flush, [this] {
    return fabric::WindowConditions{.now_us = loop_.clock().mono_us(),
                                    .rtt_us = lane()->round_trip_us(),
                                    .first = fabric::kFirstEndWindow};
  });
  if (due.credit) lane()->send_credit(*this, *due.credit);
  if (due.ack) lane()->send_ack(*this, *due.ack);
}

void Circuit::on_lane_gone() {
  const auto gone = std::move(self_);
}

void Circuit::on_tick() {
  if (over_) return;
  send_due(true);
  maybe_finish();
}

bool Circuit::next_frame(Out& out) {
  const auto piece = end_.send().next();
  if (!piece) return false;
  out.fin = piece->fin;
  out.offset = piece->offset;
  out.view = piece->payload;
  out.whole = piece->whole;
  return true;
}

void Circuit::maybe_finish() {
  if (over_ || !end_.finished()) return;
  // What was received but not read yet still belongs to the user: it reads on, the labels are given
  // back.
  if (end_.take_orderly_reset() && lane() != nullptr) lane()->reset(*this, wire::ResetCode::kNone);
  if (self_ != nullptr) end(nullptr);
}

void Circuit::on_reset(const wire::Reset& reset) {
  if (over_) return;
  if (reset.code == wire::ResetCode::kNone && end_.finished()) {
    if (self_ != nullptr) end(nullptr);
    return;
  }
  if (reset.code == wire::ResetCode::kPolicy) {
    die(Error(Errc::kReset, "cut: the grant or the identity was withdrawn"));
    return;
  }
  // Nobody's wish: the peer had written its last byte, then it or the way to it was lost. What was
  // acknowledged is the reader's. A peer that resets takes back what was not read yet.
  whole_ = open_ && end_.recv().fin_received() && reset.code != wire::ResetCode::kClosed;
  std::string text = "cut: " + std::string(wire::reset_code_name(reset.code));
  if (!reset.text.empty()) text += ": " + reset.text;
  die(Error(Errc::kReset, std::move(text), Source::kPeer, true));
}

void Circuit::die(Error why) {
  if (over_) return;
  log::debug("sdk.circuit_failed",
             {{"circuit", id_.hex()}, {"code", why.code()}, {"why", why.context()}});
  // A lingering circuit has told all it had: its time is over, nothing is taken back.
  if (lane() != nullptr)
    lane()->reset(*this, self_ != nullptr ? wire::ResetCode::kTimeout : wire::ResetCode::kClosed);
  end(&why);
}

void Circuit::end(const Error* why) {
  over_ = true;
  if (self_ != nullptr) {
    loop_.defer([self = std::shared_ptr<Circuit>(std::move(self_))] {});
    return;
  }
  why_ = why == nullptr ? Error(Errc::kReset) : *why;
  if (user_ != nullptr || !open_) tell_over();
}

// In a turn of its own: whoever called us is still using the circuit.
void Circuit::tell_over() {
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    if (user_ != nullptr) {
      user_->on_circuit_over(*why_);
    } else {
      opening_.on_failed(*this, *why_);
    }
  });
}

}  // namespace sally::sdk
