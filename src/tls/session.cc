// SPDX-License-Identifier: Apache-2.0
#include "tls/session.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "crypto/elsewhere.h"
#include "tls/context_impl.h"
#include "tls/transport.h"
#include "tls/verify.h"

namespace sally::tls {
namespace {

constexpr std::uint64_t kKeyUpdateEvery = 1ULL << 23;
constexpr int kMaxPresented = 8;

// RFC 8446 section 4.1.3: SHA-256 of "HelloRetryRequest" in place of the server's random.
constexpr std::uint8_t kRetryRandom[32] = {
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
    0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C};

Error system_error(int number) {
  char text[128] = {};
  return Error(Errc::kIo, strerror_r(number, text, sizeof text), Source::kPeer, true);
}

std::string alert_text(int alert) {
  const char* name = SSL_alert_desc_string_long(alert);
  if (alert == SSL_AD_CERTIFICATE_REQUIRED)
    name = "certificate required";  // not in the library's table
  return std::to_string(alert) + " (" + name + ")";
}

}  // namespace

struct Session::Impl {
  std::shared_ptr<const Context> context;
  crypto::Ossl<SSL, SSL_free> ssl;
  std::unique_ptr<Memory> memory;  // one of the two
  std::unique_ptr<Socket> socket;
  Expectation expected;
  std::optional<PeerIdentity> candidate;        // verified, key not yet proved
  std::optional<crypto::Certificate> captured;  // the same, of the forms without a path
  std::optional<Error> error;
  std::optional<Error> verify_error;
  int alert_sent = -1;
  int alert_received = -1;
  std::unique_ptr<crypto::Pausing> pausing;  // of a slow key, until the handshake is done
  bool waits_for_key = false;
  bool done = false;           // handshake
  bool read_blocked = false;   // the last read found no complete record
  bool write_blocked = false;  // a record is partly out
  bool end_seen = false;
  std::uint64_t records_out = 0;  // since the last key update
  std::uint64_t key_update_every = kKeyUpdateEvery;
  std::uint64_t key_updates = 0;

  const ContextOptions& options() const { return context->options(); }
  bool server() const { return options().side == Side::kServer; }

  Io dead(Error e) {
    if (!error) error = std::move(e);
    return {IoKind::kError, 0};
  }

  /// What an SSL call that did not succeed means.
  Io classify(int rc) {
    const int what = SSL_get_error(ssl.get(), rc);
    const int system = errno;
    switch (what) {
      case SSL_ERROR_WANT_READ:
        return {IoKind::kWantRead, 0};
      case SSL_ERROR_WANT_WRITE:
        return {IoKind::kWantWrite, 0};
      case SSL_ERROR_WANT_ASYNC:
        waits_for_key = true;
        return {IoKind::kWantKey, 0};
      case SSL_ERROR_ZERO_RETURN:
        return {IoKind::kEof, 0};
      default:
        break;
    }
    const unsigned long code = ERR_peek_error();
    const bool eof =
        (what == SSL_ERROR_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) ||
        (what == SSL_ERROR_SYSCALL && code == 0 && system == 0);
    const std::string reason = crypto::ossl_error();
    if (pausing && pausing->error) return dead(*pausing->error);
    if (verify_error) {
      return dead(Error(Errc::kCertificate, verify_error->text()));
    }
    if (alert_received > 0)
      return dead(Error(Errc::kPeerRefused, "alert " + alert_text(alert_received)));
    if (eof) {
      if (!error) error = Error(Errc::kTruncated, "the connection ended without close_notify");
      return {IoKind::kTruncated, 0};
    }
    // The socket's own errors, whichever way the library hands them on.
    if (ERR_SYSTEM_ERROR(code) || (what == SSL_ERROR_SYSCALL && code == 0)) {
      return dead(system_error(ERR_SYSTEM_ERROR(code) ? ERR_GET_REASON(code) : system));
    }
    if (alert_sent == SSL_AD_CERTIFICATE_REQUIRED)
      return dead(Error(Errc::kNoCertificate, "the peer showed no certificate"));
    return dead(Error(Errc::kHandshake, reason));
  }

  /// Runs an SSL call with a clean error queue and errno.
  template <typename Call>
  Io run(Call call) {
    if (error) return {IoKind::kError, 0};
    if (ERR_peek_error() != 0) ERR_clear_error();
    errno = 0;
    if (pausing) return run_for_key(call);
    const int rc = call();
    if (rc > 0) return {IoKind::kOk, 0};
    return classify(rc);
  }

  template <typename Call>
  Io run_for_key(Call call) {
    waits_for_key = false;
    const crypto::Pausing::Scope scope(pausing.get());
    const int rc = call();
    return rc > 0 ? Io{IoKind::kOk, 0} : classify(rc);
  }

  Status verify(X509_STORE_CTX* store) {
    const STACK_OF(X509)* sent = X509_STORE_CTX_get0_untrusted(store);
    const int n = sent == nullptr ? 0 : sk_X509_num(sent);
    if (n > kMaxPresented + 1) return fail(crypto::Errc::kTooLarge, "too many certificates");
    TRY_ASSIGN(auto leaf, crypto::Certificate::from_native(X509_STORE_CTX_get0_cert(store)));
    if (options().trust == Trust::kPath) {
      std::vector<crypto::Certificate> presented;  // the first one is the leaf itself
      for (int i = 1; i < n; ++i) {
        TRY_ASSIGN(auto next, crypto::Certificate::from_native(sk_X509_value(sent, i)));
        presented.push_back(std::move(next));
      }
      TRY_ASSIGN(auto peer, Verifier::verify(options(), expected, leaf, presented));
      candidate = std::move(peer);
      return {};
    }
    captured = std::move(leaf);
    return {};
  }

  /// The message has to leave before anything else; on memory as a flight of its own.
  Status rekey() {
    if (SSL_key_update(ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
      return fail(Errc::kHandshake, "key update: " + crypto::ossl_error(), Source::kInternal);
    records_out = 0;
    ++key_updates;
    return {};
  }
};

int verify_callback(X509_STORE_CTX* store, void*) {
  auto* ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* session = static_cast<Session::Impl*>(SSL_get_app_data(ssl));
  const auto verdict = session->verify(store);
  ERR_clear_error();
  if (verdict) {
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
  }
  session->verify_error = verdict.error();
  // One alert (bad_certificate, 42) for every reason: the peer learns nothing.
  X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
  return 0;
}

void info_callback(const SSL* ssl, int where, int value) {
  if ((where & SSL_CB_ALERT) == 0) return;
  auto* session = static_cast<Session::Impl*>(SSL_get_app_data(ssl));
  if (session == nullptr) return;
  if ((where & SSL_CB_WRITE) != 0)
    session->alert_sent = value & 0xff;
  else
    session->alert_received = value & 0xff;
}

int client_hello_callback(SSL* ssl, int* alert, void* context) {
  const auto* impl = static_cast<const Context::Impl*>(context);
  const unsigned char* data = nullptr;
  std::size_t size = 0;
  if (!impl->options.alpn.empty() && !impl->options.alpn_optional &&
      SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &data,
                                &size) != 1) {
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
  }
  return SSL_CLIENT_HELLO_SUCCESS;
}

int alpn_callback(SSL* ssl, const unsigned char** out, unsigned char* out_size,
                  const unsigned char* in, unsigned int in_size, void* context) {
  const auto* impl = static_cast<const Context::Impl*>(context);
  for (const auto& name : impl->options.alpn) {
    for (unsigned at = 0; at < in_size; at += 1U + in[at]) {
      const unsigned size = in[at];
      if (at + 1 + size > in_size) break;
      if (size != name.size() || std::memcmp(in + at + 1, name.data(), size) != 0) continue;
      if (const auto& strict = impl->options.strict; strict && strict->alpn == name) {
        // The group was chosen from the client's key shares before; others on this port may have
        // any.
        const char* group = SSL_get0_group_name(ssl);
        const std::string_view name_of_group = group == nullptr ? "" : group;
        if (name_of_group != "X25519MLKEM768" && name_of_group != "x25519")
          return SSL_TLSEXT_ERR_ALERT_FATAL;
        // Runs before our CertificateRequest leaves.
        SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
        static_cast<Session::Impl*>(SSL_get_app_data(ssl))->expected.roles = strict->roles;
      }
      *out = in + at + 1;
      *out_size = static_cast<unsigned char>(size);
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

namespace {

Result<std::unique_ptr<Session::Impl>> make(std::shared_ptr<const Context> context) {
  auto impl = std::make_unique<Session::Impl>();
  impl->context = std::move(context);
  impl->ssl.reset(SSL_new(impl->context->impl().ctx.get()));
  if (impl->ssl == nullptr)
    return fail(Errc::kConfig, "TLS connection: " + crypto::ossl_error(), Source::kInternal);
  SSL* ssl = impl->ssl.get();
  SSL_set_app_data(ssl, impl.get());
  if (impl->options().inner) SSL_set_max_send_fragment(ssl, kInnerFragment);
  if (impl->options().key != nullptr && impl->options().key->slow()) {
    impl->pausing = std::make_unique<crypto::Pausing>();
  }
  if (impl->server())
    SSL_set_accept_state(ssl);
  else
    SSL_set_connect_state(ssl);
  return impl;
}

}  // namespace

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::~Session() {
  abandon();
}

void Session::abandon() {
  if (!impl_->waits_for_key) return;
  // Its call into the library has to end before the library lets go of it: with a signature that
  // failed, and an alert that nobody hears.
  impl_->pausing->given_up = true;
  SSL_set_bio(impl_->ssl.get(), BIO_new(BIO_s_null()), BIO_new(BIO_s_null()));
  impl_->memory.reset();
  const crypto::Pausing::Scope scope(impl_->pausing.get());
  (void)SSL_do_handshake(impl_->ssl.get());
  impl_->waits_for_key = false;
  ERR_clear_error();
}

void Session::on_key(std::function<void()> wake) {
  if (!impl_->pausing || !crypto::Pausing::possible) return;
  impl_->pausing->wake = std::move(wake);
  SSL_set_mode(impl_->ssl.get(), SSL_MODE_ASYNC);
}

Result<std::unique_ptr<Session>> Session::on_fd(std::shared_ptr<const Context> context, int fd) {
  TRY_ASSIGN(auto impl, make(std::move(context)));
  impl->socket = std::make_unique<Socket>(fd);
  BIO* bio = socket_bio(*impl->socket);
  if (bio == nullptr) return fail(Errc::kConfig, "out of memory", Source::kInternal);
  SSL_set_bio(impl->ssl.get(), bio, bio);
  return std::unique_ptr<Session>(new Session(std::move(impl)));
}

Result<std::unique_ptr<Session>> Session::on_memory(std::shared_ptr<const Context> context) {
  TRY_ASSIGN(auto impl, make(std::move(context)));
  impl->memory = std::make_unique<Memory>();
  BIO* bio = memory_bio(*impl->memory);
  if (bio == nullptr) return fail(Errc::kConfig, "out of memory", Source::kInternal);
  SSL_set_bio(impl->ssl.get(), bio, bio);
  return std::unique_ptr<Session>(new Session(std::move(impl)));
}

Status Session::set_sni(const std::string& name) {
  std::string copy = name;  // the macro around this call casts the old way
  if (SSL_ctrl(impl_->ssl.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               copy.data()) != 1)
    return fail(Errc::kConfig, "server name: " + crypto::ossl_error(), Source::kConfig);
  return {};
}

Status Session::expect_host(const std::string& host) {
  impl_->expected.host = host;
  const bool ip = host.find_first_not_of("0123456789.") == std::string::npos ||
                  host.find(':') != std::string::npos;
  return ip ? Status{} : set_sni(host);
}

void Session::expect_peer(Role role, std::string id) {
  impl_->expected.peer = {role, std::move(id)};
}

Io Session::handshake() {
  if (impl_->done) return {IoKind::kOk, 0};
  const bool silent = impl_->memory && impl_->memory->bytes_out == 0;
  Io io = impl_->run([&] { return SSL_do_handshake(impl_->ssl.get()); });
  if (io.kind == IoKind::kEof) {
    return impl_->dead(Error(Errc::kPeerRefused, "close_notify during the handshake"));
  }
  if (silent && impl_->server() && impl_->options().inner && is_hello_retry(impl_->memory->out))
    return impl_->dead(Error(Errc::kHelloRetry, "the client's key shares do not fit"));
  if (!io.ok()) return io;
  // Contexts allow no resumption. If one ever did: it proves no certificate, and nobody would ask
  // whether that still stands.
  if (SSL_session_reused(impl_->ssl.get()) == 1)
    return impl_->dead(Error(Errc::kHandshake, "a resumed session"));
  if (!impl_->server() && !impl_->options().alpn.empty() && !impl_->options().alpn_optional &&
      alpn().empty())
    return impl_->dead(Error(Errc::kHandshake, "the server chose no application protocol"));
  impl_->done = true;
  if (impl_->pausing) {
    SSL_clear_mode(impl_->ssl.get(), SSL_MODE_ASYNC);
    impl_->pausing.reset();
  }
  return io;
}

bool Session::handshaken() const {
  return impl_->done;
}

Io Session::read(MutableBytes into) {
  if (!impl_->done) return {impl_->error ? IoKind::kError : IoKind::kWantRead, 0};
  std::size_t n = 0;
  Io io = impl_->run([&] { return SSL_read_ex(impl_->ssl.get(), into.data(), into.size(), &n); });
  impl_->read_blocked = !io.ok();
  // A peer that asked us to rekey: on memory the answer must not ride inside the next write.
  if (impl_->memory && SSL_get_key_update_type(impl_->ssl.get()) != SSL_KEY_UPDATE_NONE &&
      (io.ok() || io.kind == IoKind::kWantRead)) {
    impl_->run([&] { return SSL_do_handshake(impl_->ssl.get()); });
  }
  io.n = n;
  return io;
}

Io Session::write(ByteView from) {
  if (!impl_->done) return {impl_->error ? IoKind::kError : IoKind::kWantWrite, 0};
  if (from.empty()) return {IoKind::kOk, 0};
  if (!impl_->memory && !impl_->write_blocked && impl_->records_out >= impl_->key_update_every) {
    if (auto s = impl_->rekey(); !s) return impl_->dead(std::move(s).error());
  }
  std::size_t n = 0;
  Io io = impl_->run([&] { return SSL_write_ex(impl_->ssl.get(), from.data(), from.size(), &n); });
  impl_->write_blocked = io.kind == IoKind::kWantWrite;
  if (io.ok()) ++impl_->records_out;
  io.n = n;
  return io;
}

void Session::gather(bool on) {
  impl_->socket->gather(on);
}

Io Session::flush() {
  if (impl_->error) return {IoKind::kError, 0};
  const int left = impl_->socket->flush();
  if (left > 0) return {IoKind::kOk, 0};
  if (left == 0) return {IoKind::kWantWrite, 0};
  return impl_->dead(system_error(errno));
}

bool Session::has_pending() const {
  return !impl_->read_blocked && SSL_has_pending(impl_->ssl.get()) == 1;
}

Io Session::shutdown() {
  if (!impl_->done) return {IoKind::kError, 0};
  return impl_->run([&] {
    const int rc = SSL_shutdown(impl_->ssl.get());
    return rc == 0 ? 1 : rc;  // 0: ours is out, the peer's not yet in
  });
}

Status Session::key_update() {
  if (!impl_->done || impl_->error)
    return fail(Errc::kHandshake, "no key update now", Source::kInternal);
  TRY(impl_->rekey());
  if (!impl_->memory) return {};  // goes out before the next record
  if (!impl_->run([&] { return SSL_do_handshake(impl_->ssl.get()); }).ok())
    return fail(impl_->error ? *impl_->error : Error(Errc::kHandshake, "key update"));
  return {};
}

bool Session::key_update_due() const {
  return impl_->records_out >= impl_->key_update_every;
}
void Session::set_key_update_every(std::uint64_t records) {
  impl_->key_update_every = records;
}
void Session::set_max_fragment(std::size_t bytes) {
  SSL_set_max_send_fragment(impl_->ssl.get(), static_cast<long>(bytes));
}

void Session::feed(ByteView ciphertext) {
  Memory& m = *impl_->memory;
  note_input(ciphertext);
  if (m.chunk != nullptr) {
    append(m.in, m.chunk->view());
    m.chunk.reset();
  }
  append(m.in, ciphertext);
}
void Session::feed(ChunkPtr ciphertext) {
  Memory& m = *impl_->memory;
  if (m.chunk != nullptr) return feed(ciphertext->view());
  note_input(ciphertext->view());
  m.chunk = std::move(ciphertext);
}
void Session::note_input(ByteView ciphertext) {
  Memory& m = *impl_->memory;
  if (!impl_->server() && m.bytes_in == 0 && impl_->options().inner && is_hello_retry(ciphertext))
    impl_->dead(Error(Errc::kHelloRetry, "the server asks for other key shares"));
  m.bytes_in += ciphertext.size();
  impl_->read_blocked = false;
}
void Session::feed_end() {
  impl_->memory->in_end = true;
  impl_->read_blocked = false;
}
Bytes Session::take_output() {
  if (const ChunkPtr chunk = take_chunk(); chunk != nullptr) return to_bytes(chunk->view());
  return std::exchange(impl_->memory->out, {});
}
ChunkPtr Session::take_chunk() {
  return std::move(impl_->memory->out_chunk);
}
void Session::use_pool(ChunkPool& pool) {
  impl_->memory->pool = &pool;
}
bool Session::has_output() const {
  return !impl_->memory->out.empty() || impl_->memory->out_chunk != nullptr;
}

const PeerIdentity* Session::peer() const {
  return impl_->done && impl_->candidate ? &*impl_->candidate : nullptr;
}
std::optional<crypto::Certificate> Session::captured_leaf() const {
  if (!impl_->done) return std::nullopt;
  return impl_->captured;
}
std::string Session::alpn() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(impl_->ssl.get(), &name, &size);
  return name == nullptr ? std::string() : to_text(ByteView(name, size));
}
std::string Session::sni() const {
  const char* name = SSL_get_servername(impl_->ssl.get(), TLSEXT_NAMETYPE_host_name);
  return name == nullptr ? std::string() : std::string(name);
}
std::string Session::group() const {
  const char* name = SSL_get0_group_name(impl_->ssl.get());
  return name == nullptr ? std::string() : std::string(name);
}
std::string Session::cipher() const {
  const SSL_CIPHER* cipher = SSL_get_current_cipher(impl_->ssl.get());
  return cipher == nullptr ? std::string() : std::string(SSL_CIPHER_get_name(cipher));
}
const std::optional<Error>& Session::error() const {
  return impl_->error;
}
const std::optional<Error>& Session::verify_error() const {
  return impl_->verify_error;
}
int Session::alert_sent() const {
  return impl_->alert_sent;
}
int Session::alert_received() const {
  return impl_->alert_received;
}
std::uint64_t Session::bytes_in() const {
  return impl_->memory ? impl_->memory->bytes_in : BIO_number_read(SSL_get_rbio(impl_->ssl.get()));
}
std::uint64_t Session::bytes_out() const {
  return impl_->memory ? impl_->memory->bytes_out
                       : BIO_number_written(SSL_get_wbio(impl_->ssl.get()));
}
std::uint64_t Session::key_updates_sent() const {
  return impl_->key_updates;
}

bool is_hello_retry(ByteView flight) {
  constexpr std::size_t kRandomAt = 5 + 4 + 2;
  return flight.size() >= kRandomAt + sizeof kRetryRandom && flight[0] == 22 && flight[5] == 2 &&
         std::memcmp(flight.data() + kRandomAt, kRetryRandom, sizeof kRetryRandom) == 0;
}

}  // namespace sally::tls
