// SPDX-License-Identifier: Apache-2.0
#include "edge/connection.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sally::edge {
namespace {

// One that takes nothing for so long while much waits for it is as good as gone. Where little waits
// its program may have its reasons.
constexpr std::int64_t kStalledMs = 60'000;

}  // namespace

Connection::Connection(loop::Loop& loop, ChunkPool& pool, std::unique_ptr<tls::Stream> stream,
                       ConnectionOwner& owner, ChannelOptions options, Traffic traffic)
    : loop_(loop),
      pool_(pool),
      stream_(std::move(stream)),
      owner_(owner),
      traffic_(traffic),
      channel_(owner, *this, pool, std::move(options), loop.now_ms()),
      moved_ms_(loop.now_ms()),
      timer_(loop.timers(), [this] { on_timer(); }) {
  SALLY_CHECK(stream_->peer() != nullptr);
  stream_->set_handler(*this);
  on_channel_changed();
}

Connection::~Connection() {
  *alive_ = false;
}

void Connection::on_readable() {
  ChunkPtr chunk = pool_.get();
  const std::size_t n = stream_->read({chunk->data, Chunk::kSize});
  if (n == 0 || down_) return;
  traffic_.bytes_in.add(n);
  chunk->begin = 0;
  chunk->end = static_cast<std::uint32_t>(n);
  if (const Status s = channel_.feed(chunk->view(), loop_.now_ms(), &chunk); !s)
    return close(s.error());
  on_channel_changed();
}

// At the end of the turn, so that what is sent together leaves together.
void Connection::on_channel_changed() {
  if (settling_ || down_) return;
  settling_ = true;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    settling_ = false;
    settle();
  });
}

void Connection::settle() {
  if (down_) return;
  pump();
  if (down_) return;
  stream_->want_read(channel_.wants_read());
  std::int64_t at = channel_.deadline_ms();
  if (stuck()) at = std::min(at, moved_ms_ + kStalledMs);
  timer_.arm(std::max<std::int64_t>(0, at - loop_.now_ms()));
}

void Connection::on_timer() {
  const std::int64_t now = loop_.now_ms();
  if (stuck() && now >= moved_ms_ + kStalledMs)
    return close(Error(Errc::kStalled, "it takes nothing that is sent"));
  if (const Status s = channel_.on_time(now); !s) return close(s.error());
  on_channel_changed();
}

bool Connection::write_pending() {
  const std::size_t n = stream_->gather(record_->view());
  traffic_.bytes_out.add(n);
  if (n != 0) moved_ms_ = loop_.now_ms();
  record_->begin += static_cast<std::uint32_t>(n);
  if (record_->size() != 0) return false;
  record_ = nullptr;
  return true;
}

void Connection::pump() {
  if (down_) return;
  // One turn sends at most this many, so that a fast one cannot starve the others.
  for (int records = 0; records < 32; ++records) {
    if (record_ == nullptr) record_ = channel_.next_record(loop_.now_ms());
    if (record_ == nullptr) {
      if (stream_->flush()) moved_ms_ = loop_.now_ms();
      return;
    }
    if (!write_pending()) return;  // on_writable comes
  }
  if (stream_->flush()) on_channel_changed();
}

void Connection::end(const Error& why, bool cut) {
  if (down_) return;
  if (why.is(Errc::kRefused)) {  // the refusal itself; of everything else nothing leaves any more
    pump();
    (void)stream_->flush();
  }
  down_ = true;
  timer_.cancel();
  loop_.defer([this, alive = alive_, why, cut] {
    if (!*alive) return;
    stream_->close();
    channel_.end(cut);
    if (*alive) owner_.on_channel_down(channel_, why);
  });
}

}  // namespace sally::edge
