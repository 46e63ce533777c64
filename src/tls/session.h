// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/chunk.h"
#include "base/error.h"
#include "tls/context.h"
#include "tls/errc.h"
#include "tls/peer_identity.h"

namespace sally::tls {

/// Plaintext of one record inside a circuit: with TLS's own 22 bytes it fills one frame, and with
/// the frame's header one outer record (docs/wire-protocol.md).
inline constexpr std::size_t kInnerFragment = 16'346;

enum class IoKind : std::uint8_t {
  kOk,
  kWantRead,
  kWantWrite,
  kWantKey,    ///< handshake only: the key signs elsewhere; go on when `on_key` calls
  kEof,        ///< the peer's close_notify: an honest end
  kTruncated,  ///< the transport ended without close_notify
  kError,      ///< see `Session::error()`; the session is dead
};
struct Io {
  IoKind kind = IoKind::kOk;
  std::size_t n = 0;
  [[nodiscard]] bool ok() const { return kind == IoKind::kOk; }
};

/// One TLS 1.3 connection over a non-blocking socket or over memory (inside a circuit). Owned by a
/// Stream or a circuit end. One thread. Fails through Io::kError and `error()`; after that only
/// destruction makes sense. `peer()` is null until the handshake, and with it the proof of the
/// leaf's key, is finished.
class Session {
 public:
  /// On a connected, non-blocking socket; the socket stays the caller's.
  static Result<std::unique_ptr<Session>> on_fd(std::shared_ptr<const Context> context, int fd);
  /// On memory: `feed` ciphertext in, `take_output` ciphertext out.
  static Result<std::unique_ptr<Session>> on_memory(std::shared_ptr<const Context> context);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Clients, before the handshake: server name to send, without checking the certificate against
  /// it.
  Status set_sni(const std::string& name);
  /// Clients, before the handshake: host name (or IP text) the certificate must carry; also sent as
  /// SNI when it is a name.
  Status expect_host(const std::string& host);
  /// Before the handshake: the peer's id must be this one.
  void expect_peer(Role role, std::string id);

  /// Where our key is slow (crypto::Signer::slow), the handshake waits for it with kWantKey, and
  /// `wake` is called from another thread when it is to be gone on with; never after abandon().
  void on_key(std::function<void()> wake);
  /// kOk when finished. A server on memory produces its whole first flight in the call that sees
  /// the ClientHello, unless that says kWantKey.
  Io handshake();
  [[nodiscard]] bool handshaken() const;
  /// At most one record per call.
  Io read(MutableBytes into);
  /// Takes at most one record's worth per call (n tells). Repeat with the same bytes after
  /// kWantRead/kWantWrite.
  Io write(ByteView from);
  /// Socket form: while on, what leaves is gathered (64 KiB, then it is written out): for a turn
  /// that writes several records. `flush` writes the rest; kWantWrite: again when the socket takes
  /// more. Nothing else is written before it.
  void gather(bool on);
  Io flush();
  /// True while decrypted or complete undecrypted bytes wait inside.
  [[nodiscard]] bool has_pending() const;
  /// Sends close_notify; kOk when it left. Reading may go on.
  Io shutdown();

  /// Rekeys our sending direction now. On memory the message is a flight of its own: take it before
  /// the next write.
  Status key_update();
  /// Memory form: true once `key_update_every` records went out; the caller picks the moment. The
  /// socket form does it itself.
  [[nodiscard]] bool key_update_due() const;
  /// Default 2^23 records.
  void set_key_update_every(std::uint64_t records);
  void set_max_fragment(std::size_t bytes);

  /// The transport goes, now: a signature that is being waited for is given up. Only destruction
  /// makes sense after it.
  void abandon();

  /// Memory form.
  void feed(ByteView ciphertext);
  /// The same without a copy; the chunk is held until it has been read.
  void feed(ChunkPtr ciphertext);
  /// No more ciphertext will come: reads then end in kEof or kTruncated.
  void feed_end();
  Bytes take_output();
  /// The output, when it is one long record and there is a pool for such; null otherwise.
  ChunkPtr take_chunk();
  /// Long records leave in chunks of this pool; it must outlive the session.
  void use_pool(ChunkPool& pool);
  [[nodiscard]] bool has_output() const;

  /// Verified peer, after the handshake; null when it showed no certificate (where that is
  /// allowed).
  [[nodiscard]] const PeerIdentity* peer() const;
  /// What Trust::kUnverifiedForEnrolmentOnly saw; nullopt before the handshake is finished.
  [[nodiscard]] std::optional<crypto::Certificate> captured_leaf() const;
  [[nodiscard]] std::string alpn() const;
  /// Server: the name the client asked for.
  [[nodiscard]] std::string sni() const;
  /// For `status` and demos: "X25519MLKEM768", "TLS_AES_128_GCM_SHA256".
  [[nodiscard]] std::string group() const;
  [[nodiscard]] std::string cipher() const;
  /// Why the session died.
  [[nodiscard]] const std::optional<Error>& error() const;
  /// Why the peer's certificate was refused; for our log only.
  [[nodiscard]] const std::optional<Error>& verify_error() const;
  /// TLS alert we sent or received last, -1 for none. For logs and tests.
  [[nodiscard]] int alert_sent() const;
  [[nodiscard]] int alert_received() const;
  /// Ciphertext bytes so far.
  [[nodiscard]] std::uint64_t bytes_in() const;
  [[nodiscard]] std::uint64_t bytes_out() const;
  [[nodiscard]] std::uint64_t key_updates_sent() const;

  struct Impl;

 private:
  explicit Session(std::unique_ptr<Impl> impl);
  void note_input(ByteView ciphertext);
  std::unique_ptr<Impl> impl_;
};

/// True when a server's flight starts with a HelloRetryRequest (RFC 8446 section 4.1.4).
bool is_hello_retry(ByteView flight);

}  // namespace sally::tls
