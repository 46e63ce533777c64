// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/bio.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/chunk.h"

namespace sally::tls {

/// What carries the records of a session inside a circuit: bytes in, bytes out.
/// Owner: its session; the BIO made of it must not outlive it. Thread: the session's. Never fails.
struct Memory {
  Bytes in;
  std::size_t in_at = 0;
  ChunkPtr chunk;  ///< after `in`
  bool in_end = false;
  Bytes out;
  ChunkPool* pool = nullptr;  ///< where a long record leaves in a chunk
  ChunkPtr out_chunk;         ///< instead of `out`: all there is
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  [[nodiscard]] std::size_t waiting() const {
    return in.size() - in_at + (chunk == nullptr ? 0 : chunk->size());
  }
};
/// nullptr when memory is out.
BIO* memory_bio(Memory& memory);

/// What carries the records of a session on a socket. While `gathering`, records collect here
/// instead of being written one by one: a system call on loopback or a fast network costs more than
/// the copy.
/// Owner: its session; the socket stays the caller's, the BIO must not outlive it. Thread: the
/// session's. Failure: errno of the socket, as the library expects it of a socket BIO.
class Socket {
 public:
  static constexpr std::size_t kBatch = 64 * 1024;

  explicit Socket(int fd);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  void gather(bool on) { gathering_ = on; }
  /// Writes out what was gathered. 1: all of it left; 0: the socket takes no more now; -1: errno
  /// tells.
  int flush();

 private:
  friend struct SocketCalls;
  struct Batch;
  int fd_;
  bool gathering_ = false;
  bool ended_ = false;  // the peer's FIN was read
  std::unique_ptr<Batch> batch_;
};
/// nullptr when memory is out.
BIO* socket_bio(Socket& socket);

}  // namespace sally::tls
