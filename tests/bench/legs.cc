// SPDX-License-Identifier: Apache-2.0
#include "legs.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/text.h"
#include "sdk/core.h"

namespace sally::bench {
namespace {

constexpr std::size_t kBatch = 64 * 1024;
constexpr std::int64_t kConnectMs = 10'000;
constexpr std::int64_t kDialMs = 60'000;
const std::string kNetwork = "bench.sally";

void save(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  if (!out.flush()) die("cannot write " + path);
}

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  if (text.str().empty()) die("cannot read " + path);
  return text.str();
}

}  // namespace

void die(const std::string& what) {
  std::fprintf(stderr, "bench_load: %s\n", what.c_str());
  std::_Exit(1);
}

// ---- certificates of the bare legs

void LegPki::make(const std::string& dir) {
  using crypto::must;
  const crypto::TestPki pki(kNetwork, system_clock().unix_ms() / 1000);
  const auto relay = pki.leaf(crypto::Role::kRouter, "relay");
  const auto end = pki.leaf(crypto::Role::kDevice, "end");
  const std::string relay_key = must(relay.key->to_pem());
  const std::string chain = crypto::to_pem({relay.cert, pki.infrastructure});
  save(dir + "/cert.pem", chain);
  save(dir + "/key.pem", relay_key);
  save(dir + "/haproxy.pem", chain + relay_key);
  save(dir + "/ca.pem", crypto::to_pem({pki.root}));
  save(dir + "/end.pem", crypto::to_pem({end.cert, pki.devices}));
  save(dir + "/end.key", must(end.key->to_pem()));
}

std::shared_ptr<const tls::Context> LegPki::context(const std::string& dir, tls::Side side) {
  using crypto::must;
  return must(tls::Context::create(
      {.side = side,
       .chain = must(crypto::Certificate::list_from_pem(slurp(dir + "/end.pem"))),
       .key = must(crypto::FileKey::from_pem(slurp(dir + "/end.key"))),
       .anchors = must(crypto::Certificate::list_from_pem(slurp(dir + "/ca.pem"))),
       .network = NetworkId(kNetwork)}));
}

// ---- TLS

TlsLeg::TlsLeg(loop::Loop& loop, loop::Fd fd, const std::shared_ptr<const tls::Context>& context,
               LegUser& user)
    : fd_(std::move(fd)),
      session_(crypto::must(tls::Session::on_memory(context))),
      user_(user),
      watcher_(loop, fd_.get(), [this](loop::Watcher::Ready r) { on_event(r); }) {
  watcher_.want(true, true);  // the first event starts the handshake
}

std::size_t TlsLeg::write(ByteView piece) {
  if (!session_->handshaken() || pending_ >= kBatch || out_at_ < out_.size()) return 0;
  if (!session_->write(piece).ok()) die("TLS write");
  pending_ += piece.size() + 22;
  return piece.size();
}

void TlsLeg::push() {
  while (out_at_ < out_.size()) {
    const auto n = ::send(fd_.get(), out_.data() + out_at_, out_.size() - out_at_, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) die("send");
    out_at_ += static_cast<std::size_t>(n);
  }
  watcher_.want_write(out_at_ < out_.size());
}

void TlsLeg::flush(bool hungry) {
  if (out_at_ == out_.size() && session_->has_output()) {
    out_ = session_->take_output();
    out_at_ = 0;
    pending_ = 0;
  }
  push();
  if (hungry) watcher_.want_write(true);
}

void TlsLeg::on_event(loop::Watcher::Ready ready) {
  if (ready.readable) {
    static thread_local std::vector<std::uint8_t> cipher(kBatch);
    const auto n = ::recv(fd_.get(), cipher.data(), cipher.size(), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) die("a TLS leg ended early");
    if (n > 0) session_->feed(ByteView(cipher.data(), static_cast<std::size_t>(n)));
  }
  if (!session_->handshaken()) {
    const auto io = session_->handshake();
    if (io.kind == tls::IoKind::kError)
      die("handshake: " + (session_->error() ? session_->error()->text() : ""));
    out_ = session_->take_output();
    out_at_ = 0;
    push();
    if (!session_->handshaken()) return;
    user_.on_open(*this);
  }
  if (ready.writable) {
    push();
    if (out_at_ == out_.size()) {
      watcher_.want_write(false);
      user_.on_writable(*this);
    }
  }
  if (!ready.readable) return;
  std::uint8_t plain[16'384];
  for (;;) {
    const auto io = session_->read(plain);
    if (io.kind == tls::IoKind::kWantRead) return;
    if (!io.ok()) die("TLS read");
    user_.on_data(*this, ByteView(plain, io.n));
  }
}

// ---- TCP

TcpLeg::TcpLeg(loop::Loop& loop, loop::Fd fd, LegUser& user)
    : fd_(std::move(fd)),
      user_(user),
      watcher_(loop, fd_.get(), [this](loop::Watcher::Ready r) { on_event(r); }) {
  watcher_.want(true, true);
}

std::size_t TcpLeg::write(ByteView piece) {
  const auto n = ::send(fd_.get(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && errno != EAGAIN) die("send");
  if (n < static_cast<ssize_t>(piece.size())) watcher_.want_write(true);
  return n < 0 ? 0 : static_cast<std::size_t>(n);
}

void TcpLeg::on_event(loop::Watcher::Ready ready) {
  if (ready.writable) {
    watcher_.want_write(false);
    if (std::exchange(opened_, true))
      user_.on_writable(*this);
    else
      user_.on_open(*this);
  }
  if (!ready.readable) return;
  static thread_local std::vector<std::uint8_t> bytes(kBatch);
  const auto n = ::recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN)) die("a TCP leg ended early");
  if (n > 0) user_.on_data(*this, ByteView(bytes.data(), static_cast<std::size_t>(n)));
}

// ---- circuits

CircuitLeg::CircuitLeg(std::unique_ptr<sdk::Circuit> circuit, LegUser& user)
    : circuit_(std::move(circuit)), user_(user) {
  circuit_->set_user(*this);
}

CircuitLeg::~CircuitLeg() {
  if (circuit_ != nullptr) circuit_->abort(wire::ResetCode::kClosed);
}

void CircuitLeg::on_circuit_readable() {
  if (!std::exchange(opened_, true)) user_.on_open(*this);
  std::uint8_t plain[16'384];
  for (;;) {
    const auto r = circuit_->read(plain);
    if (r.kind != sdk::Circuit::ReadKind::kData) return;
    user_.on_data(*this, ByteView(plain, r.n));
  }
}

void CircuitLeg::on_circuit_writable() {
  user_.on_writable(*this);
}

void CircuitLeg::on_circuit_over(const Error& why) {
  if (!may_end) die("a circuit was cut: " + why.text());
}

// ---- doors and dialers

Door::Door(loop::Loop& loop, std::uint16_t port, std::shared_ptr<const tls::Context> context,
           MakeUser make)
    : listener_(crypto::must(loop::Listener::tcp(
          loop, "127.0.0.1", port,
          [this, &loop, context = std::move(context), make = std::move(make)](
              loop::Fd fd, const loop::Address&) {
            loop::tune_tcp(fd.get());
            LegUser& user = *make();
            if (context != nullptr)
              legs_.push_back(std::make_unique<TlsLeg>(loop, std::move(fd), context, user));
            else
              legs_.push_back(std::make_unique<TcpLeg>(loop, std::move(fd), user));
          }))) {}

Dialer::Dialer(loop::Loop& loop, std::uint16_t port, std::shared_ptr<const tls::Context> context,
               const MakeUser& make, int streams) {
  for (int i = 0; i < streams; ++i) {
    connecting_.push_back(loop::connect_tcp(
        loop, "127.0.0.1", port, kConnectMs, [this, &loop, context, make](Result<loop::Fd> fd) {
          if (!fd) die("connect: " + fd.error().text());
          LegUser& user = *make();
          if (context != nullptr)
            legs_.push_back(std::make_unique<TlsLeg>(loop, std::move(*fd), context, user));
          else
            legs_.push_back(std::make_unique<TcpLeg>(loop, std::move(*fd), user));
        }));
  }
}

SdkDevice::SdkDevice(loop::Loop& loop, const std::string& identity, const std::string& router) {
  auto material = crypto::must(sdk::load_material(identity));
  if (!router.empty())
    material.routers = {crypto::must([&]() -> Result<HostPort> {
      if (const auto at = parse_host_port(router)) return *at;
      die("--router is HOST:PORT");
    }())};
  engine_ = std::make_unique<sdk::Engine>(loop, system_random(), std::move(material),
                                          [](sdk::Event, const std::string&) {});
  engine_->start();
}

void SdkDevice::host(const std::string& service, MakeUser make) {
  make_ = std::move(make);
  binding_ = engine_->bind(service, 0, *this);
}

void SdkDevice::dial(const std::string& service, const MakeUser& make, int streams) {
  for (int i = 0; i < streams; ++i) {
    engine_->dial(service, {}, kDialMs, [this, make](Result<std::unique_ptr<sdk::Circuit>> c) {
      if (!c) die("dial: " + c.error().text());
      legs_.push_back(std::make_unique<CircuitLeg>(std::move(*c), *make()));
      legs_.back()->may_end = legs_may_end_;
    });
  }
}

void SdkDevice::on_caller(std::uint64_t, const sdk::Caller&, Answer answer) {
  answer(std::nullopt);
}

void SdkDevice::on_stream(std::uint64_t, const sdk::Caller&,
                          std::unique_ptr<sdk::Circuit> circuit) {
  if (circuit == nullptr) {
    if (!legs_may_end_) die("a caller went away");
    return;
  }
  legs_.push_back(std::make_unique<CircuitLeg>(std::move(circuit), *make_()));
  legs_.back()->may_end = legs_may_end_;
}

}  // namespace sally::bench
