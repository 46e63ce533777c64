// SPDX-License-Identifier: Apache-2.0
#include "lane/lane.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "fabric/errors.h"
#include "loop/tcp_info.h"

namespace sally::lane {
namespace {

constexpr std::int64_t kAskEveryMs = 5'000;
// A peer that does not read its control messages: stop reading from it, then give up.
constexpr std::size_t kKeptControlBytes = 512;
constexpr std::size_t kPauseControlBytes = 256 * 1024;
constexpr std::size_t kMaxControlBytes = 16 * 1024 * 1024;
constexpr std::int64_t kTickMs = 20;
constexpr std::uint64_t kTokenMask = wire::kMaxOffset;

// Bytes in a round. Whoever calls his data interactive gets twice the share of the others, not
// more.
std::int32_t quantum_of(const fabric::Turn& turn) {
  constexpr std::int32_t kQuantum = fabric::DeficitRoundRobin::kQuantum;
  switch (static_cast<const Attachment&>(turn).traffic_class()) {
    case wire::Class::kInteractive:
      return 2 * kQuantum;
    case wire::Class::kBulk:
      return kQuantum / 2;
    case wire::Class::kControl:
    case wire::Class::kNormal:
      return kQuantum;
  }
  return kQuantum;
}

}  // namespace

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kVersion:
      return "lane.version";
    case Errc::kNetwork:
      return "lane.network";
    case Errc::kProtocol:
      return "lane.protocol";
    case Errc::kTooLong:
      return "lane.too_long";
    case Errc::kNoHello:
      return "lane.no_hello";
    case Errc::kDead:
      return "lane.dead";
    case Errc::kRefused:
      return "lane.refused";
    case Errc::kClosed:
      return "lane.closed";
    case Errc::kQueueFull:
      return "lane.queue_full";
  }
  return "lane.unknown";
}

/// Stands behind a label whose circuit is gone here, until the peer's terminal frame frees it.
class Lane::Draining final : public Attachment {
 public:
  Status on_data(std::uint64_t, ByteView, ChunkPtr*) override { return {}; }
  Status on_fin(std::uint64_t) override { return {}; }
  void on_credit(std::uint64_t) override {}
  Status on_ack(std::uint64_t) override { return {}; }
  Status on_setup_ok(ByteView) override { return {}; }
  void on_setup_err(const wire::SetupErr&) override {}
  void on_reset(const wire::Reset&) override {}
  bool next_frame(Out&) override { return false; }
};

Attachment::~Attachment() {
  if (lane_ != nullptr) lane_->reset(*this, wire::ResetCode::kClosed);
}

Lane::Lane(loop::Loop& loop, ChunkPool& pool, std::unique_ptr<tls::Stream> stream, LaneOwner& owner,
           LaneOptions options)
    : loop_(loop),
      pool_(pool),
      stream_(std::move(stream)),
      owner_(owner),
      options_(std::move(options)),
      frames_(pool),
      labels_(options_.max_labels),
      draining_(std::make_unique<Draining>()),
      probe_timer_(loop.timers(), [this] { on_probe_timer(); }),
      tick_timer_(loop.timers(), [this] { on_tick_timer(); }) {
  SALLY_CHECK(stream_->peer() != nullptr);
  wire::Hello hello = options_.hello;
  hello.version_min = kVersion;
  hello.version_max = kVersion;
  if (options_.tell_time) hello.time_ms = loop_.clock().unix_ms();
  send_control({std::move(hello)});
  started_ms_ = heard_ms_ = loop_.now_ms();
  probe_timer_.arm(options_.probe_ms);
  stream_->set_handler(*this);
}

Lane::~Lane() {
  *alive_ = false;
  down_ = true;
  labels_.for_each([this](std::uint32_t, Attachment* a) {
    if (a == draining_.get()) return;
    a->lane_ = nullptr;
    a->on_lane_gone();
  });
}

std::int64_t Lane::time_ms() const {
  // By the peer's time and how long ago it said so: our own clock may be set at any moment.
  return time_known_ ? loop_.now_ms() + time_offset_ms_ : loop_.clock().unix_ms();
}

void Lane::learn_time(std::int64_t peer_ms) {
  constexpr std::int64_t kNever = std::int64_t{1} << 52;  // sums of it stay sums
  if (peer_ms <= 0 || peer_ms > kNever) return;
  time_offset_ms_ = peer_ms + rtt_us_ / 2000 - loop_.now_ms();
  time_known_ = true;
}

// ---- sending
// ---------------------------------------------------------------------------------------------

void Lane::append_frame(wire::FrameHeader header, ByteView payload) {
  header.length = static_cast<std::uint32_t>(payload.size());
  std::uint8_t raw[wire::kFrameHeaderSize];
  wire::encode(header, raw);
  append(control_out_, raw);
  append(control_out_, payload);
}

void Lane::put_frame(wire::FrameHeader header, ByteView payload) {
  if (down_ || closing_) return;
  append_frame(header, payload);
  const std::size_t waiting = control_out_.size() - control_sent_;
  if (waiting > kMaxControlBytes) {
    // Later, not here: whoever sends is in the middle of its own work.
    loop_.defer([this, alive = alive_] {
      if (*alive) close(Error(Errc::kQueueFull, "the peer does not read"));
    });
    return;
  }
  if (waiting > kPauseControlBytes && options_.pause_reading && !reading_paused_) {
    reading_paused_ = true;
    stream_->want_read(false);
  }
  schedule_pump();
}

void Lane::send_control(const wire::Control& message) {
  const Bytes raw = wire::encode(message);
  ByteView rest = raw;
  do {
    const ByteView part = rest.first(std::min(rest.size(), wire::kMaxPayload));
    rest = rest.subspan(part.size());
    put_frame({.type = wire::FrameType::kControl,
               .flags = rest.empty() ? std::uint8_t{0} : wire::kFlagMore},
              part);
  } while (!rest.empty());
}

bool Lane::attach(Attachment& attachment, std::uint32_t remote_label) {
  SALLY_CHECK(attachment.lane_ == nullptr);
  if (down_ || closing_) return false;
  const std::uint32_t label = labels_.allocate(&attachment);
  if (label == 0) return false;
  attachment.lane_ = this;
  attachment.local_ = label;
  attachment.remote_ = remote_label;
  return true;
}

void Lane::send_setup(Attachment& attachment, const wire::SetupFrame& setup) {
  put_frame({.type = wire::FrameType::kSetup, .offset = attachment.local_}, wire::encode(setup));
}

void Lane::send_setup_ok(Attachment& attachment, ByteView payload) {
  put_frame(
      {.label = attachment.remote_, .type = wire::FrameType::kSetupOk, .offset = attachment.local_},
      payload);
}

void Lane::send_setup_err(std::uint32_t remote_label, const wire::SetupErr& err) {
  put_frame({.label = remote_label, .type = wire::FrameType::kSetupErr}, wire::encode(err));
}

void Lane::want_window(const Attachment& attachment) {
  if (attachment.credit_due_ != 0 || attachment.ack_due_ != 0) return;
  windows_.push_back(attachment.local_);
  schedule_pump();
}

void Lane::send_credit(Attachment& attachment, std::uint64_t limit) {
  want_window(attachment);
  attachment.credit_due_ = std::max(limit, attachment.credit_due_);
}

void Lane::send_ack(Attachment& attachment, std::uint64_t offset) {
  want_window(attachment);
  attachment.ack_due_ = std::max(offset, attachment.ack_due_);
}

void Lane::flush_window(Attachment& a) {
  if (const auto limit = std::exchange(a.credit_due_, 0); limit != 0)
    append_frame({.label = a.remote_, .type = wire::FrameType::kCredit, .offset = limit}, {});
  if (const auto offset = std::exchange(a.ack_due_, 0); offset != 0)
    append_frame({.label = a.remote_, .type = wire::FrameType::kAck, .offset = offset}, {});
}

void Lane::detach(Attachment& attachment) {
  fabric::DeficitRoundRobin::remove(attachment);
  attachment.tick_wanted_ = false;
  attachment.credit_due_ = attachment.ack_due_ = 0;
  attachment.lane_ = nullptr;
}

void Lane::drain_label(std::uint32_t label) {
  labels_.replace(label, draining_.get());
}

void Lane::reset(Attachment& attachment, wire::ResetCode code, std::string text) {
  if (attachment.lane_ != this) return;
  const std::uint32_t remote = attachment.remote_;
  const std::uint32_t local = attachment.local_;
  flush_window(attachment);  // the last acknowledgement makes the end an orderly one
  detach(attachment);
  drain_label(local);
  // Without a remote label the answer to our SETUP is still to come: it is reset then.
  if (remote != 0) {
    const wire::Reset reset{.code = code, .text = std::move(text)};
    put_frame({.label = remote, .type = wire::FrameType::kReset}, wire::encode(reset));
  }
}

void Lane::path_down(const std::vector<Attachment*>& attachments, wire::ResetCode code) {
  wire::PathDown batch{.labels = {}, .code = code};
  const auto flush = [&] {
    if (batch.labels.empty()) return;
    put_frame({.type = wire::FrameType::kPathDown}, wire::encode(batch));
    batch.labels.clear();
  };
  for (Attachment* a : attachments) {
    if (a->lane_ != this) continue;
    const std::uint32_t remote = a->remote_;
    const std::uint32_t local = a->local_;
    flush_window(*a);
    detach(*a);
    drain_label(local);
    if (remote == 0) continue;
    batch.labels.push_back(remote);
    if (batch.labels.size() == wire::kMaxPathDownLabels) flush();
  }
  flush();
}

void Lane::ready(Attachment& attachment) {
  if (attachment.lane_ != this || attachment.remote_ == 0) return;
  ring_.add(attachment);
  schedule_pump();
}

void Lane::request_tick(Attachment& attachment) {
  if (attachment.lane_ != this || attachment.tick_wanted_) return;
  attachment.tick_wanted_ = true;
  ticks_.push_back(attachment.local_);
  if (!tick_timer_.armed()) tick_timer_.arm(kTickMs);
}

void Lane::on_tick_timer() {
  const auto due = std::exchange(ticks_, {});
  for (const std::uint32_t label : due) {
    Attachment* a = labels_.find(label);
    if (a == nullptr || !a->tick_wanted_) continue;
    a->tick_wanted_ = false;
    a->on_tick();
    if (down_) return;
  }
}

void Lane::schedule_pump() {
  if (pump_scheduled_ || down_) return;
  pump_scheduled_ = true;
  // At the end of the turn, so that what is sent together leaves together.
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    pump_scheduled_ = false;
    pump();
  });
}

std::size_t Lane::gather(ByteView record) {
  const std::size_t written = stream_->gather(record);
  if (options_.counters != nullptr) options_.counters->bytes_out.add(written);
  return written;
}

bool Lane::write_pending() {
  if (record_ == nullptr) return true;
  record_->begin += static_cast<std::uint32_t>(gather(record_->view()));
  if (record_->size() != 0) return false;
  record_ = nullptr;
  return true;
}

ChunkPtr Lane::fresh_record(ByteView first) {
  ChunkPtr chunk = pool_.get();
  chunk->begin = chunk->end = 0;
  chunk->append(first);
  return chunk;
}

// Fills record_ with the next TLS record: control bytes, then frames while they fit. A full-size
// frame is a record by itself and leaves from the chunk it came in; our frames of circuits never
// span records. False when there is nothing to send.
bool Lane::fill_record() {
  if (held_ != nullptr) {
    record_ = std::move(held_);
    return true;
  }
  for (const std::uint32_t label : std::exchange(windows_, {})) {
    if (Attachment* a = labels_.find(label); a != nullptr) flush_window(*a);
  }
  if (control_sent_ < control_out_.size()) {
    record_ = fresh_record();
    control_sent_ += record_->append(ByteView(control_out_).subspan(control_sent_));
    if (control_sent_ == control_out_.size()) {
      // An idle lane does not hold the largest message it ever sent.
      if (control_out_.capacity() > kKeptControlBytes) control_out_ = Bytes();
      control_out_.clear();
      control_sent_ = 0;
    }
  }
  while (record_ == nullptr || record_->room() >= 4096) {
    auto* attachment = static_cast<Attachment*>(ring_.current(quantum_of));
    if (attachment == nullptr) return record_ != nullptr;
    Attachment::Out out;
    if (!attachment->next_frame(out)) {
      ring_.nothing(*attachment);
      continue;
    }
    const ByteView payload = out.chunk != nullptr ? out.chunk->view() : out.view;
    std::uint8_t raw[wire::kFrameHeaderSize];
    wire::encode({.label = attachment->remote_,
                  .length = static_cast<std::uint32_t>(payload.size()),
                  .type = out.fin ? wire::FrameType::kFin : wire::FrameType::kData,
                  .cls = out.fin ? wire::Class::kControl : attachment->class_,
                  .offset = out.offset},
                 raw);
    ring_.charge(*attachment, sizeof raw + payload.size());
    if (options_.counters != nullptr) options_.counters->frames_out.add();
    if (record_ != nullptr && sizeof raw + payload.size() <= record_->room()) {
      record_->append(raw);
      record_->append(payload);
      continue;
    }
    const bool first = record_ == nullptr;
    ChunkPtr& place = first ? record_ : held_;
    Chunk* chunk = out.chunk != nullptr ? out.chunk.get() : out.whole;
    if (chunk == nullptr || payload.size() < 4096) {
      place = fresh_record(raw);
      place->append(payload);
      if (first) continue;
      return true;
    }
    std::uint8_t* head = chunk->data + chunk->begin - sizeof raw;
    std::memcpy(head, raw, sizeof raw);
    if (out.chunk != nullptr) {
      chunk->begin -= sizeof raw;
      place = std::move(out.chunk);
      return true;
    }
    // The attachment keeps it: what does not leave now is copied.
    ByteView frame(head, sizeof raw + payload.size());
    if (first) frame = frame.subspan(gather(frame));
    if (!frame.empty()) place = fresh_record(frame);
    return true;
  }
  return true;
}

void Lane::pump() {
  if (down_) return;
  // One turn sends at most this many records, so that a fast lane cannot starve the others.
  for (int records = 0; records < 32; ++records) {
    if (!write_pending()) return;  // on_writable comes
    if (fill_record()) continue;
    if (!stream_->flush()) return;
    if (reading_paused_) {
      reading_paused_ = false;
      stream_->want_read(true);
    }
    if (closing_) stream_->close();
    return;
  }
  if (stream_->flush()) schedule_pump();
}

void Lane::on_writable() {
  pump();
}

// ---- receiving
// -------------------------------------------------------------------------------------------

void Lane::on_readable() {
  ChunkPtr chunk = pool_.get();
  chunk->begin = chunk->end = 0;
  const std::size_t n = stream_->read({chunk->data, Chunk::kSize});
  if (n == 0 || closing_ || down_) return;
  chunk->end = static_cast<std::uint32_t>(n);
  heard_ms_ = loop_.now_ms();
  if (options_.counters != nullptr) options_.counters->bytes_in.add(n);
  frames_.feed(std::move(chunk));
  while (!closing_ && !down_) {
    const auto frame = frames_.next();
    if (!frame) return close(frame.error());
    if (!*frame) return;
    if (const Status s = dispatch((*frame)->header, (*frame)->payload, (*frame)->whole); !s)
      close(s.error());
  }
}

Status Lane::dispatch(const wire::FrameHeader& header, ByteView payload, ChunkPtr* whole) {
  if (options_.counters != nullptr) options_.counters->frames_in.add();
  if (!up_ && header.type != wire::FrameType::kControl)
    return fail(Errc::kProtocol, "a frame before HELLO");
  return header.label == 0 ? dispatch_lane(header, payload)
                           : dispatch_circuit(header, payload, whole);
}

Status Lane::dispatch_lane(const wire::FrameHeader& header, ByteView payload) {
  switch (header.type) {
    case wire::FrameType::kControl:
      return on_control_frame(header, payload);
    case wire::FrameType::kSetup:
      owner_.on_lane_setup(*this, static_cast<std::uint32_t>(header.offset), payload);
      return {};
    case wire::FrameType::kPathDown: {
      TRY_ASSIGN(const auto batch, wire::decode_path_down(payload));
      for (const std::uint32_t label : batch.labels) {
        if (!labels_.known(label)) return fail(fabric::Errc::kBadLabel);
        terminal(label, {.code = batch.code, .text = {}});
        if (closing_ || down_) return {};
      }
      return {};
    }
    case wire::FrameType::kPing: {
      std::uint8_t time[wire::kPongPayload];
      put_little(time, options_.tell_time ? static_cast<std::uint64_t>(loop_.clock().unix_ms()) : 0,
                 sizeof time);
      put_frame({.type = wire::FrameType::kPong, .offset = header.offset}, time);
      return {};
    }
    case wire::FrameType::kPong: {
      const auto now = static_cast<std::uint64_t>(loop_.clock().mono_us()) & kTokenMask;
      const auto sample = static_cast<std::int64_t>((now - header.offset) & kTokenMask);
      if (sample < 60'000'000) rtt_us_ = rtt_us_ == 0 ? sample : (7 * rtt_us_ + sample) / 8;
      learn_time(static_cast<std::int64_t>(get_little(payload.data(), payload.size())));
      return {};
    }
    default:
      return fail(Errc::kProtocol, std::string(wire::frame_name(header.type)) + " on label 0");
  }
}

Status Lane::dispatch_circuit(const wire::FrameHeader& header, ByteView payload, ChunkPtr* whole) {
  Attachment* a = labels_.find(header.label);
  if (a == nullptr) {
    // Late frames of a circuit that is over are harmless; a label that was never given out is not.
    return labels_.known(header.label) ? Status{} : fail(fabric::Errc::kBadLabel);
  }
  // Between our SETUP and its answer nothing may come for the circuit but the answer: neither end
  // is proven yet.
  const bool unanswered = a->remote_ == 0 && a != draining_.get();
  if (unanswered &&
      (header.type == wire::FrameType::kData || header.type == wire::FrameType::kFin ||
       header.type == wire::FrameType::kCredit || header.type == wire::FrameType::kAck)) {
    return fail(Errc::kProtocol,
                std::string(wire::frame_name(header.type)) + " before the answer to SETUP");
  }
  switch (header.type) {
    case wire::FrameType::kData:
      a->heard_class_ = header.cls;
      return a->on_data(header.offset, payload, whole);
    case wire::FrameType::kFin:
      return a->on_fin(header.offset);
    case wire::FrameType::kCredit:
      a->on_credit(header.offset);
      return {};
    case wire::FrameType::kAck:
      return a->on_ack(header.offset);
    case wire::FrameType::kReset: {
      TRY_ASSIGN(const auto reset, wire::decode_reset(payload));
      terminal(header.label, reset);
      return {};
    }
    case wire::FrameType::kSetupOk: {
      const auto remote = static_cast<std::uint32_t>(header.offset);
      if (a == draining_.get()) {
        // We gave up meanwhile: the circuit ends before it began.
        put_frame({.label = remote, .type = wire::FrameType::kReset},
                  wire::encode(wire::Reset{.code = wire::ResetCode::kClosed, .text = {}}));
        return {};
      }
      if (a->remote_ != 0) return fail(Errc::kProtocol, "a second SETUP_OK");
      a->remote_ = remote;
      return a->on_setup_ok(payload);
    }
    case wire::FrameType::kSetupErr: {
      TRY_ASSIGN(const auto err, wire::decode_setup_err(payload));
      // Before the label goes: a circuit that stands on this lane is in its table, or it would
      // outlive the lane without being told.
      if (a != draining_.get() && a->remote_ != 0)
        return fail(Errc::kProtocol, "SETUP_ERR after SETUP_OK");
      labels_.release(header.label);
      if (a == draining_.get()) return {};
      detach(*a);
      a->on_setup_err(err);
      return {};
    }
    default:
      return fail(Errc::kProtocol, std::string(wire::frame_name(header.type)) + " on a circuit");
  }
}

// The peer's last frame for a label of ours. It is answered once, and the label is free.
void Lane::terminal(std::uint32_t label, const wire::Reset& reset) {
  Attachment* a = labels_.find(label);
  if (a == nullptr) return;
  labels_.release(label);
  if (a == draining_.get()) return;
  const std::uint32_t remote = a->remote_;
  detach(*a);
  if (remote != 0)
    put_frame({.label = remote, .type = wire::FrameType::kReset},
              wire::encode(wire::Reset{.code = reset.code, .text = {}}));
  a->on_reset(reset);
}

Status Lane::on_control_frame(const wire::FrameHeader& header, ByteView payload) {
  const std::size_t cap = up_ ? options_.max_control : wire::kMaxPayload;
  if (control_in_.size() + payload.size() > cap)
    return fail(Errc::kTooLong, "control message over " + std::to_string(cap) + " bytes");
  const bool more = (header.flags & wire::kFlagMore) != 0;
  if (more && payload.size() < wire::kMaxPayload) return fail(Errc::kProtocol, "a short fragment");
  if (more || !control_in_.empty()) append(control_in_, payload);
  if (more) return {};
  const Bytes joined = std::exchange(control_in_, {});
  TRY_ASSIGN(auto message, wire::decode_control(joined.empty() ? payload : ByteView(joined)));
  if (const auto* refused = std::get_if<wire::Refused>(&message.member)) {
    go_down(Error(Errc::kRefused,
                  refused->text.empty() ? refused->code : refused->code + ": " + refused->text));
    return {};
  }
  if (const auto* hello = std::get_if<wire::Hello>(&message.member)) return on_hello(*hello);
  if (!up_) return fail(Errc::kProtocol, "a message before HELLO");
  owner_.on_lane_control(*this, std::move(message));
  return {};
}

Status Lane::on_hello(const wire::Hello& hello) {
  if (up_) return fail(Errc::kProtocol, "a second HELLO");
  if (hello.version_min > kVersion || hello.version_max < kVersion) {
    return fail(Errc::kVersion, "we speak version " + std::to_string(kVersion) + ", the peer " +
                                    std::to_string(hello.version_min) + " to " +
                                    std::to_string(hello.version_max));
  }
  if (hello.network != peer().network().str())
    return fail(Errc::kNetwork, "HELLO names another network than the certificate");
  learn_time(hello.time_ms);
  up_ = true;
  owner_.on_lane_up(*this, hello);
  return {};
}

// ---- liveness and the end
// --------------------------------------------------------------------------------

void Lane::on_probe_timer() {
  if (down_) return;
  const std::int64_t now = loop_.now_ms();
  if (!up_ && now - started_ms_ >= options_.hello_ms) {
    close(Error(Errc::kNoHello, "no HELLO within " + std::to_string(options_.hello_ms) + " ms"));
    return;
  }
  // A probe may be stuck behind data: then the kernel's acknowledgements are a sign of life. They
  // are none once everything is acknowledged, or a process that hangs behind a living kernel would
  // never be noticed.
  const loop::TcpProgress progress = loop::tcp_progress(stream_->fd());
  if (progress.acked > acked_bytes_ && progress.outstanding) heard_ms_ = now;
  acked_bytes_ = progress.acked;
  const std::int64_t silence = now - heard_ms_;
  if (silence >= options_.dead_ms) {
    go_down(Error(Errc::kDead, "nothing heard for " + std::to_string(silence) + " ms",
                  Source::kPeer, true));
    return;
  }
  // A lane that is never silent asks too: its peer's clock may have been set.
  if (silence >= options_.probe_ms || rtt_us_ == 0 || now - asked_ms_ >= kAskEveryMs) {
    asked_ms_ = now;
    put_frame({.type = wire::FrameType::kPing,
               .offset = static_cast<std::uint64_t>(loop_.clock().mono_us()) & kTokenMask},
              {});
  }
  probe_timer_.arm(options_.probe_ms);
}

void Lane::close(const Error& why) {
  if (closing_ || down_) return;
  if (!why.is(Errc::kClosed)) {
    log::warn("lane.closing", {{"peer", peer().uri()},
                               {"from", remote().str()},
                               {"code", why.code()},
                               {"why", why.context()}});
  }
  // The code tells an honest peer what to mend; the context stays here.
  send_control({wire::Refused{.code = std::string(why.code()), .text = {}}});
  closing_ = true;
  go_down(why);
}

void Lane::go_down(const Error& why) {
  if (down_) return;
  if (!closing_) closing_ = true;
  // What is queued may leave, then the connection ends; circuits end now.
  (void)write_pending();
  if (record_ == nullptr) {
    fill_record();
    (void)write_pending();
  }
  (void)stream_->flush();
  down_ = true;
  probe_timer_.cancel();
  tick_timer_.cancel();
  loop_.defer([this, alive = alive_, why] {
    if (!*alive) return;
    // Each call may destroy other attachments; those leave the table by themselves.
    for (std::uint32_t label = 1; label <= labels_.highest(); ++label) {
      Attachment* a = labels_.find(label);
      if (a == nullptr || a == draining_.get()) continue;
      labels_.release(label);
      detach(*a);
      a->on_reset({.code = wire::ResetCode::kLaneLost, .text = {}});
      if (!*alive) return;
    }
    stream_->close();
    owner_.on_lane_down(*this, why);
  });
}

void Lane::on_closed(const Error& why) {
  go_down(why);
}

}  // namespace sally::lane
