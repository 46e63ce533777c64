// SPDX-License-Identifier: Apache-2.0
#include "tls/transport.h"

#include <openssl/bio.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace sally::tls {
namespace {

int memory_read(BIO* bio, char* out, std::size_t want, std::size_t* got) {
  auto* m = static_cast<Memory*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  *got = std::min(want, m->waiting());
  if (*got == 0) {
    if (!m->in_end) BIO_set_retry_read(bio);
    return 0;
  }
  if (m->in.empty()) {
    *got = std::min(*got, m->chunk->size());
    std::memcpy(out, m->chunk->view().data(), *got);
    m->chunk->begin += static_cast<std::uint32_t>(*got);
    if (m->chunk->size() == 0) m->chunk.reset();
    return 1;
  }
  *got = std::min(*got, m->in.size() - m->in_at);
  std::memcpy(out, m->in.data() + m->in_at, *got);
  m->in_at += *got;
  if (m->in_at == m->in.size()) {
    m->in = Bytes();  // an idle session holds no buffer
    m->in_at = 0;
  }
  return 1;
}

int memory_write(BIO* bio, const char* from, std::size_t size, std::size_t* done) {
  auto* m = static_cast<Memory*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const ByteView record = as_bytes(std::string_view(from, size));
  m->bytes_out += size;
  constexpr std::size_t kShort = 4096;  // in a chunk it would hold more than it is worth
  const bool alone = m->out.empty() && m->out_chunk == nullptr;
  if (m->pool != nullptr && alone && size >= kShort && size <= Chunk::kSize - Chunk::kHeadroom) {
    m->out_chunk = m->pool->get();
    m->out_chunk->append(record);
  } else {
    if (m->out_chunk != nullptr) append(m->out, std::exchange(m->out_chunk, nullptr)->view());
    append(m->out, record);
  }
  *done = size;
  return 1;
}

long memory_control(BIO* bio, int command, long, void*) {
  auto* m = static_cast<Memory*>(BIO_get_data(bio));
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;
    case BIO_CTRL_PENDING:
      return static_cast<long>(m->waiting());
    case BIO_CTRL_EOF:
      return m->in_end && m->waiting() == 0 ? 1 : 0;
    default:
      return 0;
  }
}

bool again() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

using Read = int(BIO*, char*, std::size_t, std::size_t*);
using Write = int(BIO*, const char*, std::size_t, std::size_t*);
using Control = long(BIO*, int, long, void*);

BIO_METHOD* method(const char* name, Read* read, Write* write, Control* control) {
  BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, name);
  SALLY_CHECK(m != nullptr);
  BIO_meth_set_read_ex(m, read);
  BIO_meth_set_write_ex(m, write);
  BIO_meth_set_ctrl(m, control);
  return m;
}

BIO* make(const BIO_METHOD* method, void* data) {
  BIO* bio = BIO_new(method);
  if (bio == nullptr) return nullptr;
  BIO_set_data(bio, data);
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace

struct Socket::Batch {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::uint8_t bytes[kBatch];
};

struct SocketCalls {
  // One of a thread is kept: a session holds a batch only from its first record to the flush.
  static std::unique_ptr<Socket::Batch>& spare() {
    thread_local std::unique_ptr<Socket::Batch> kept;
    return kept;
  }

  static int read(BIO* bio, char* out, std::size_t want, std::size_t* got) {
    auto* s = static_cast<Socket*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const ssize_t n = ::recv(s->fd_, out, want, 0);
    *got = n > 0 ? static_cast<std::size_t>(n) : 0;
    if (n > 0) return 1;
    if (n == 0) s->ended_ = true;
    if (n < 0 && again()) BIO_set_retry_read(bio);
    return 0;
  }

  static int write(BIO* bio, const char* from, std::size_t size, std::size_t* done) {
    auto* s = static_cast<Socket*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    *done = 0;
    const bool gathers = s->gathering_ && size <= Socket::kBatch;
    if (s->batch_ != nullptr && (!gathers || size > Socket::kBatch - s->batch_->end)) {
      const int left = s->flush();
      if (left == 0) BIO_set_retry_write(bio);
      if (left <= 0) return 0;
    }
    if (gathers) {
      if (s->batch_ == nullptr) s->batch_ = std::move(spare());
      if (s->batch_ == nullptr) s->batch_ = std::make_unique_for_overwrite<Socket::Batch>();
      std::memcpy(s->batch_->bytes + s->batch_->end, from, size);
      s->batch_->end += size;
      *done = size;
      return 1;
    }
    const ssize_t n = ::send(s->fd_, from, size, MSG_NOSIGNAL);
    if (n > 0) {
      *done = static_cast<std::size_t>(n);
      return 1;
    }
    if (n < 0 && again()) BIO_set_retry_write(bio);
    return 0;
  }

  static long control(BIO* bio, int command, long, void*) {
    switch (command) {
      case BIO_CTRL_FLUSH:
        return 1;
      case BIO_CTRL_EOF:
        return static_cast<Socket*>(BIO_get_data(bio))->ended_ ? 1 : 0;
      default:
        return 0;
    }
  }
};

Socket::Socket(int fd) : fd_(fd) {}
Socket::~Socket() = default;

int Socket::flush() {
  while (batch_ != nullptr && batch_->begin < batch_->end) {
    const ssize_t n =
        ::send(fd_, batch_->bytes + batch_->begin, batch_->end - batch_->begin, MSG_NOSIGNAL);
    if (n < 0) return again() ? 0 : -1;
    batch_->begin += static_cast<std::size_t>(n);
  }
  if (batch_ != nullptr) {
    batch_->begin = batch_->end = 0;
    SocketCalls::spare() = std::move(batch_);
  }
  return 1;
}

BIO* memory_bio(Memory& memory) {
  static const BIO_METHOD* const kMethod =
      method("sally memory", memory_read, memory_write, memory_control);
  return make(kMethod, &memory);
}

BIO* socket_bio(Socket& socket) {
  static const BIO_METHOD* const kMethod =
      method("sally socket", SocketCalls::read, SocketCalls::write, SocketCalls::control);
  return make(kMethod, &socket);
}

}  // namespace sally::tls
