// SPDX-License-Identifier: Apache-2.0
// A Ziti SDK without the SDK: a real TLS connection to the router, and hands that send whatever the
// test wants.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "edge/test_sdk.h"
#include "world.h"

namespace sally::sim {

using edge::Id;
using edge::Type;
using edge::test::Fields;
using edge::test::Heard;
using edge::test::le16;
using edge::test::le32;
using edge::test::message;

class ForeignSdk final : public tls::StreamHandler {
 public:
  ForeignSdk(World& world, std::string name, std::vector<std::string> alpn = {})
      : ForeignSdk(world, name, world.pki.leaf(crypto::Role::kDevice, name), std::move(alpn)) {}
  ForeignSdk(World& world, std::string name, crypto::TestLeaf own,
             std::vector<std::string> alpn = {})
      : id(std::move(name)), leaf(std::move(own)), world_(world) {
    tls::ContextOptions o{.side = tls::Side::kClient,
                          .chain = {leaf.cert, world.pki.devices},
                          .key = leaf.key,
                          .anchors = {world.pki.root},
                          .issuing = {world.pki.devices, world.pki.infrastructure},
                          .network = NetworkId(world.pki.network),
                          .roles = {tls::Role::kRouter},
                          .alpn = std::move(alpn)};
    dialing_ = tls::dial(world.loop, must(tls::Context::create(std::move(o))),
                         {.host = "127.0.0.1", .port = world.port_of(id)},
                         [this](Result<std::unique_ptr<tls::Stream>> s) {
                           if (!s) {
                             down = s.error();
                             return;
                           }
                           stream = std::move(*s);
                           stream->set_handler(*this);
                         });
    world.until([&] { return stream != nullptr || down; });
  }

  /// A token of this identity's session, of any field changed by `change`.
  [[nodiscard]] std::string token(
      wire::SessionUse use, const std::string& service = {},
      const std::function<void(wire::SessionToken&)>& change = {}) const {
    wire::SessionToken t{.network = world_.pki.network,
                         .identity = id,
                         .credential_epoch = 0,
                         .session = "session-of-" + id,
                         .use = use,
                         .service = service,
                         .issued_ms = now_ms(),
                         .not_after_ms = now_ms() + 3'600'000};
    if (change) change(t);
    return must(trust::make_session_token(t, *world_.controller.signer()));
  }
  void say(ByteView bytes) {
    append(out_, bytes);
    on_writable();
  }
  bool hello(const std::string& text) {
    say(message(Type::kHello, -1, {{Id::kSessionToken, to_bytes(text)}}));
    const auto m = heard();
    return m && m->type == Type::kResult && m->headers.at(Id::kResult) == Bytes{1};
  }
  bool hello() { return hello(token(wire::SessionUse::kApi)); }
  /// The next message.
  std::optional<Heard> heard(std::int64_t ms = 8'000) {
    world_.until([&] { return !ear.messages.empty() || down; }, ms);
    return ear.take();
  }
  /// Binds, and takes the answer: empty when bound, else the reason.
  std::string bind(std::uint32_t conn, const std::string& text, Fields more = {}) {
    more.emplace_back(Id::kConn, le32(conn));
    if (ids) more.emplace_back(Id::kRouterConn, Bytes{1});
    if (!key.empty()) more.emplace_back(Id::kPublicKey, key);
    say(message(Type::kBind, 2, more, text));
    const auto m = heard();
    if (!m) return down ? "down" : "silence";
    return m->type == Type::kStateConnected ? "" : m->said();
  }
  void connect(std::uint32_t conn, const std::string& text, Fields more = {}) {
    more.emplace_back(Id::kConn, le32(conn));
    if (!key.empty()) more.emplace_back(Id::kPublicKey, key);
    say(message(Type::kConnect, static_cast<std::int32_t>(100 + conn), more, text));
  }
  /// The same, and what comes of it.
  std::optional<Heard> refused(std::uint32_t conn, const std::string& text,
                               const Fields& more = {}) {
    connect(conn, text, more);
    auto m = heard();
    if (!m || m->type != Type::kStateClosed) return std::nullopt;
    return m;
  }
  void data(std::uint32_t conn, ByteView body, const Fields& more = {}) {
    Fields f = more;
    f.emplace_back(Id::kConn, le32(conn));
    say(message(Type::kData, 7, f, body));
  }
  void close(std::uint32_t conn) { say(message(Type::kStateClosed, 8, {{Id::kConn, le32(conn)}})); }

  void on_readable() override {
    std::uint8_t buffer[16'384];
    ear.hear({buffer, stream->read(buffer)});
  }
  void on_writable() override {
    if (stream == nullptr) return;
    at_ += stream->write(ByteView(out_).subspan(at_));
    if (at_ < out_.size()) return;
    out_.clear();
    at_ = 0;
  }
  void on_closed(const Error& why) override { down = why; }
  /// Said, and not taken by the socket yet.
  [[nodiscard]] std::size_t unsaid() const { return out_.size() - at_; }

  const std::string id;
  crypto::TestLeaf leaf;
  std::unique_ptr<tls::Stream> stream;
  edge::test::Ear ear;
  std::optional<Error> down;
  Bytes key;        ///< shown in dials and binds
  bool ids = true;  ///< takes the router's conn ids

 private:
  World& world_;
  std::unique_ptr<tls::Dialing> dialing_;
  Bytes out_;
  std::size_t at_ = 0;
};

}  // namespace sally::sim
