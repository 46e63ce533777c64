// SPDX-License-Identifier: Apache-2.0
// The yardstick of make bench: the least a TLS relay can do. One thread, libuv, mutual TLS 1.3 on
// both legs, AES-128-GCM, libssl on the descriptor with read-ahead, one 16 KB record per wake-up,
// going on only while libssl holds more. No frames, no circuits, no limits. Fixed: it changes only
// when it is wrong, never to become faster.
//
// usage: bare_relay LISTEN_PORT TARGET_PORT DIR
// DIR holds cert.pem (chain), key.pem, ca.pem. Both ports on 127.0.0.1. Prints "ready" once it
// listens.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kRecord = 16'384;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "bare_relay: %s\n", what);
  ERR_print_errors_fp(stderr);
  std::exit(1);
}

struct Pair;

struct Leg {
  Pair* pair = nullptr;
  Leg* other = nullptr;
  uv_poll_t poll{};
  SSL* ssl = nullptr;
  int fd = -1;
  bool up = false;
  bool read_wants_write = false;
  int polled = 0;                // what libuv watches now
  std::size_t at = 0, size = 0;  // of `held`: what this leg's socket did not take
  unsigned char* held = nullptr;
};

struct Pair {
  Leg legs[2];
  bool dirty = false;
  bool dead = false;
  int open_handles = 2;
};

uv_loop_t* loop;
SSL_CTX* server_ctx;
SSL_CTX* client_ctx;
int target_port;
std::vector<Pair*> dirty;

// Interest changes only at the end of a turn: touching another descriptor's poll inside a batch
// loses its event.
void mark(Pair* pair) {
  if (pair->dirty) return;
  pair->dirty = true;
  dirty.push_back(pair);
}

void on_poll(uv_poll_t* poll, int status, int events);

void apply(Pair* pair) {
  pair->dirty = false;
  for (Leg& leg : pair->legs) {
    if (pair->dead) {
      uv_close(reinterpret_cast<uv_handle_t*>(&leg.poll), [](uv_handle_t* handle) {
        Leg* l = static_cast<Leg*>(handle->data);
        SSL_free(l->ssl);
        ::close(l->fd);
        std::free(l->held);
        if (--l->pair->open_handles == 0) delete l->pair;
      });
      continue;
    }
    int want = 0;
    if (!leg.up) {
      want = SSL_want_write(leg.ssl) ? UV_WRITABLE : UV_READABLE;
    } else {
      if (leg.other->up && leg.other->held == nullptr) want |= UV_READABLE;
      if (leg.held != nullptr || leg.read_wants_write) want |= UV_WRITABLE;
    }
    if (want == leg.polled) continue;
    leg.polled = want;
    if (want == 0)
      uv_poll_stop(&leg.poll);
    else
      uv_poll_start(&leg.poll, want, on_poll);
  }
}

void kill_pair(Pair* pair) {
  pair->dead = true;
  mark(pair);
}

bool retry(Leg& leg, int rc) {
  const int what = SSL_get_error(leg.ssl, rc);
  return what == SSL_ERROR_WANT_READ || what == SSL_ERROR_WANT_WRITE;
}

void handshake(Leg& leg) {
  ERR_clear_error();
  const int rc = SSL_do_handshake(leg.ssl);
  if (rc == 1)
    leg.up = true;
  else if (!retry(leg, rc))
    return kill_pair(leg.pair);
  mark(leg.pair);
}

bool flush(Leg& leg) {
  while (leg.at < leg.size) {
    ERR_clear_error();
    std::size_t n = 0;
    const int rc = SSL_write_ex(leg.ssl, leg.held + leg.at, leg.size - leg.at, &n);
    if (rc == 1) {
      leg.at += n;
      continue;
    }
    if (!retry(leg, rc)) kill_pair(leg.pair);
    return false;
  }
  std::free(leg.held);
  leg.held = nullptr;
  mark(leg.pair);
  return true;
}

void relay(Leg& from) {
  static unsigned char buffer[kRecord];
  Leg& to = *from.other;
  if (!from.up || !to.up || to.held != nullptr) return;
  do {
    ERR_clear_error();
    std::size_t n = 0;
    const int rc = SSL_read_ex(from.ssl, buffer, sizeof buffer, &n);
    if (rc != 1) {
      if (!retry(from, rc)) return kill_pair(from.pair);
      const bool wants_write = SSL_want_write(from.ssl);
      if (wants_write != from.read_wants_write) {
        from.read_wants_write = wants_write;
        mark(from.pair);
      }
      return;
    }
    std::size_t done = 0;
    ERR_clear_error();
    const int wrote = SSL_write_ex(to.ssl, buffer, n, &done);
    if (wrote == 1 && done == n) continue;
    if (wrote != 1 && !retry(to, wrote)) return kill_pair(from.pair);
    to.held = static_cast<unsigned char*>(std::malloc(n - done));
    std::memcpy(to.held, buffer + done, n - done);
    to.at = 0;
    to.size = n - done;
    mark(from.pair);
    return;
  } while (SSL_has_pending(from.ssl));
}

void on_poll(uv_poll_t* poll, int status, int events) {
  Leg& leg = *static_cast<Leg*>(poll->data);
  if (leg.pair->dead) return;
  if (status < 0) return kill_pair(leg.pair);
  if (!leg.up) {
    handshake(leg);
    if (!leg.up) return;
    relay(*leg.other);
    if (leg.pair->dead) return;
    relay(leg);
    return;
  }
  if ((events & UV_WRITABLE) != 0 && leg.held != nullptr) {
    if (!flush(leg)) return;
    relay(*leg.other);  // records that libssl has read ahead wake nobody
  }
  if (!leg.pair->dead && ((events & UV_READABLE) != 0 || leg.read_wants_write)) relay(leg);
}

sockaddr_in local(int port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<std::uint16_t>(port));
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

void tune(int fd) {
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

void add_leg(Pair* pair, int i, int fd, SSL_CTX* ctx, bool accepts) {
  Leg& leg = pair->legs[i];
  leg.pair = pair;
  leg.other = &pair->legs[1 - i];
  leg.fd = fd;
  tune(fd);
  leg.ssl = SSL_new(ctx);
  if (leg.ssl == nullptr || SSL_set_fd(leg.ssl, fd) != 1) die("SSL_new");
  if (accepts)
    SSL_set_accept_state(leg.ssl);
  else
    SSL_set_connect_state(leg.ssl);
  if (uv_poll_init(loop, &leg.poll, fd) != 0) die("uv_poll_init");
  leg.poll.data = &leg;
}

void on_accept(uv_poll_t* poll, int, int) {
  int listener = 0;
  uv_fileno(reinterpret_cast<uv_handle_t*>(poll), &listener);
  const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  const int out = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const sockaddr_in to = local(target_port);
  if (::connect(out, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 &&
      errno != EINPROGRESS)
    die("connect");
  auto* pair = new Pair;
  add_leg(pair, 0, fd, server_ctx, true);
  add_leg(pair, 1, out, client_ctx, false);
  for (Leg& leg : pair->legs) {
    leg.polled = UV_READABLE | UV_WRITABLE;
    uv_poll_start(&leg.poll, leg.polled, on_poll);
  }
}

SSL_CTX* context(const SSL_METHOD* method, const std::string& dir, bool server) {
  SSL_CTX* ctx = SSL_CTX_new(method);
  SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
  if (SSL_CTX_use_certificate_chain_file(ctx, (dir + "/cert.pem").c_str()) != 1 ||
      SSL_CTX_use_PrivateKey_file(ctx, (dir + "/key.pem").c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_load_verify_locations(ctx, (dir + "/ca.pem").c_str(), nullptr) != 1 ||
      SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256") != 1)
    die("certificates");
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                     nullptr);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_num_tickets(ctx, 0);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  return ctx;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) die("usage: bare_relay LISTEN_PORT TARGET_PORT DIR");
  ::signal(SIGPIPE, SIG_IGN);
  target_port = std::atoi(argv[2]);
  server_ctx = context(TLS_server_method(), argv[3], true);
  client_ctx = context(TLS_client_method(), argv[3], false);
  loop = uv_default_loop();

  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const sockaddr_in at = local(std::atoi(argv[1]));
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      ::listen(listener, 512) != 0)
    die("listen");
  uv_poll_t accepting;
  uv_poll_init(loop, &accepting, listener);
  uv_poll_start(&accepting, UV_READABLE, on_accept);
  uv_prepare_t prepare;
  uv_prepare_init(loop, &prepare);
  uv_prepare_start(&prepare, [](uv_prepare_t*) {
    for (std::size_t i = 0; i < dirty.size(); ++i) apply(dirty[i]);
    dirty.clear();
  });
  std::puts("ready");
  std::fflush(stdout);
  uv_run(loop, UV_RUN_DEFAULT);
  return 0;
}
