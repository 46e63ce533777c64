// SPDX-License-Identifier: Apache-2.0
#include "tls/context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tls/context_impl.h"

namespace sally::tls {
namespace {

constexpr long kMaxPeerChain = 32 * 1024;
// Of one system call on a socket; an idle connection holds none.
constexpr std::size_t kReadBuffer = 64 * 1024;

Error config_error(std::string what) {
  const std::string library = crypto::ossl_error();
  if (!library.empty()) what += ": " + library;
  return Error(Errc::kConfig, std::move(what), Source::kConfig);
}

Status set_chain(SSL_CTX* ctx, const ContextOptions& o) {
  if (o.chain.empty()) {
    if (o.side == Side::kServer) return fail(config_error("a server needs a certificate"));
    return {};
  }
  if (o.key == nullptr) return fail(config_error("certificate without a key"));
  if (!(o.key->public_key() == o.chain.front().public_key()))
    return fail(config_error("the key does not belong to the first certificate"));
  if (SSL_CTX_use_certificate(ctx, o.chain.front().native()) != 1 ||
      SSL_CTX_use_PrivateKey(ctx, o.key->native()) != 1)
    return fail(config_error("certificate and key"));
  for (std::size_t i = 1; i < o.chain.size(); ++i)
    if (SSL_CTX_add1_chain_cert(ctx, o.chain[i].native()) != 1)
      return fail(config_error("certificate chain"));
  return {};
}

Status check_trust(const ContextOptions& o) {
  if (o.peer_certificate != PeerCertificate::kRequired && o.side == Side::kClient)
    return fail(config_error("a client always needs the server's certificate"));
  if (o.strict && (o.side != Side::kServer || o.strict->roles.empty() ||
                   o.peer_certificate == PeerCertificate::kNone))
    return fail(config_error("a strict protocol is of a server that knows peers, and names roles"));
  if (o.peer_certificate == PeerCertificate::kNone) return {};
  switch (o.trust) {
    case Trust::kPath:
      if (o.anchors.empty()) return fail(config_error("no roots to verify the peer against"));
      if (o.network.empty()) return fail(config_error("no network to verify the peer against"));
      return {};
    case Trust::kUnverifiedForEnrolmentOnly:
      if (o.side == Side::kServer) return fail(config_error("servers verify paths"));
      if (!o.chain.empty()) return fail(config_error("no certificate is shown to such a server"));
      return {};
  }
  return fail(config_error("unknown trust"));
}

}  // namespace

Context::Context(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Context::~Context() = default;
const ContextOptions& Context::options() const {
  return impl_->options;
}

Result<std::shared_ptr<const Context>> Context::create(ContextOptions options) {
  TRY(check_trust(options));
  auto impl = std::make_unique<Impl>();
  const bool server = options.side == Side::kServer;
  impl->ctx.reset(SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()));
  SSL_CTX* ctx = impl->ctx.get();
  if (ctx == nullptr) return fail(config_error("TLS context"));
  SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE |
                               SSL_OP_NO_RX_CERTIFICATE_COMPRESSION |
                               SSL_OP_NO_TX_CERTIFICATE_COMPRESSION);
  if (options.inner) SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx, 0);
  SSL_CTX_set_read_ahead(ctx, 1);
  if (!options.inner) SSL_CTX_set_default_read_buffer_len(ctx, kReadBuffer);
  SSL_CTX_set_max_cert_list(ctx, kMaxPeerChain);
  const char* groups =
      options.allow_p256 ? "*X25519MLKEM768:*X25519:P-256" : "*X25519MLKEM768:*X25519";
  if (!set_list(ctx, SSL_CTRL_SET_GROUPS_LIST, groups) ||
      SSL_CTX_set_ciphersuites(
          ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1 ||
      !set_list(ctx, SSL_CTRL_SET_SIGALGS_LIST,
                "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ed25519:rsa_pss_rsae_sha256:"
                "rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:rsa_pkcs1_sha256:rsa_pkcs1_sha384"))
    return fail(config_error("groups, ciphers and signatures"));
  TRY(set_chain(ctx, options));

  int mode = SSL_VERIFY_PEER;
  if (server && options.peer_certificate == PeerCertificate::kRequired)
    mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  if (options.peer_certificate == PeerCertificate::kNone) mode = SSL_VERIFY_NONE;
  SSL_CTX_set_verify(ctx, mode, nullptr);
  SSL_CTX_set_cert_verify_callback(ctx, verify_callback, nullptr);
  SSL_CTX_set_info_callback(ctx, info_callback);

  for (const auto& name : options.alpn) {
    if (name.empty() || name.size() > 255) return fail(config_error("ALPN name: " + name));
    impl->alpn_wire.push_back(static_cast<std::uint8_t>(name.size()));
    append(impl->alpn_wire, as_bytes(name));
  }
  if (server) {
    SSL_CTX_set_client_hello_cb(ctx, client_hello_callback, impl.get());
    if (!options.alpn.empty()) SSL_CTX_set_alpn_select_cb(ctx, alpn_callback, impl.get());
  } else if (!options.alpn.empty()) {
    // 0 is success here.
    if (SSL_CTX_set_alpn_protos(ctx, impl->alpn_wire.data(),
                                static_cast<unsigned>(impl->alpn_wire.size())) != 0)
      return fail(config_error("ALPN"));
  }
  impl->options = std::move(options);
  return std::shared_ptr<const Context>(new Context(std::move(impl)));
}

}  // namespace sally::tls
