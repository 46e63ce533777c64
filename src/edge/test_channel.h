// SPDX-License-Identifier: Apache-2.0
// A channel whose router is the test: it says yes to everything until told otherwise, and joins the
// two conns of a dial like a router would.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "edge/channel.h"
#include "edge/test_sdk.h"

namespace sally::edge::test {

class TestConn final : public Conn {
 public:
  explicit TestConn(ChunkPool& pool) : pool_(pool) {}
  void on_stream(ByteView bytes, ChunkPtr* whole) override {
    append(stream, bytes);
    if (peer != nullptr) peer->send(bytes, whole);
  }
  void on_closed(bool whole) override {
    closed = whole;
    if (peer != nullptr && whole) peer->send_close("close called");
  }
  void on_ended() override { ended = true; }
  void on_stalled() override { stalled = true; }
  void on_dialed(Bytes k) override {
    key = std::move(k);
    dialed = true;
    if (answered) answered();
  }
  void on_dial_failed(const std::string& why) override {
    failed = why;
    if (answered) answered();
  }
  bool next_piece(ChunkPtr& piece) override {
    if (out_.empty()) return false;
    piece = out_.pop_front();
    return true;
  }
  void send(ByteView bytes, ChunkPtr* whole = nullptr) {
    fabric::merge_into(out_, bytes, whole, pool_);
    if (channel() != nullptr) channel()->ready(*this);
  }
  void send_close(std::string_view why) {
    std::uint8_t head[kMaxRecordHead];
    Bytes record(head, head + encode({.length = static_cast<std::uint32_t>(why.size()),
                                      .flags = kClose,
                                      .uuid = std::nullopt},
                                     head));
    append(record, as_bytes(why));
    send(record);
  }

  TestConn* peer = nullptr;
  std::move_only_function<void()> answered;
  Bytes stream;
  Bytes key;
  std::optional<bool> closed;
  std::optional<std::string> failed;
  bool dialed = false;
  bool ended = false;
  bool stalled = false;

 private:
  ChunkPool& pool_;
  ChunkQueue out_;
};

class TestChannel final : public ChannelUser, public ChannelTransport {
 public:
  explicit TestChannel(ChannelOptions options = {.router_id = "r-1",
                                                 .connection_id = "c0ffee",
                                                 .software = "v1|0|2026-01-01|linux|amd64"})
      : channel(std::make_unique<Channel>(*this, *this, pool, std::move(options), now_ms)) {}
  ~TestChannel() override {
    conns.clear();
    channel.reset();
  }

  /// What the SDK says; the answers are in `ear`.
  Status say(ByteView bytes) {
    if (!in_chunks) {
      const Status s = channel->feed(bytes, now_ms);
      hear();
      return s;
    }
    // As they come from a TLS connection.
    while (!bytes.empty()) {
      ChunkPtr chunk = pool.get();
      chunk->begin = chunk->end = 0;
      bytes = bytes.subspan(chunk->append(bytes));
      const Status s = channel->feed(chunk->view(), now_ms, &chunk);
      hear();
      if (!s) return s;
    }
    return {};
  }
  Status pass(std::int64_t ms) {
    now_ms += ms;
    const Status s = channel->on_time(now_ms);
    hear();
    return s;
  }
  void hear() {
    while (const ChunkPtr record = channel->next_record(now_ms)) ear.hear(record->view());
  }
  /// Says hello and takes the answer.
  bool up() {
    return say(message(Type::kHello, -1, {{Id::kSessionToken, to_bytes("token")}})) &&
           ear.take().has_value() && channel->live();
  }
  TestConn& conn() {
    conns.push_back(std::make_unique<TestConn>(pool));
    return *conns.back();
  }

  void on_hello(Channel& c, const Hello& hello) override {
    token = hello.token;
    if (refuse_hello) return c.refuse_hello("not permitted", false, now_ms);
    if (answer_hello) c.accept_hello();
  }
  void on_connect(Channel& c, Connect connect) override {
    connects.push_back(connect);
    if (refuse_with) return c.refuse_connect(connect.conn, connect.sequence, *refuse_with);
    TestConn& dialing = conn();
    if (!c.attach(dialing, connect.conn))
      return c.refuse_connect(connect.conn, connect.sequence, {.text = "in use"});
    if (hold_connects) return;
    TestConn& hosting = conn();
    hosting.answered = [&c, &dialing, &hosting, sequence = connect.sequence] {
      if (hosting.failed)
        return c.refuse(dialing, sequence, {.text = "exceeded retries (" + *hosting.failed + ")"});
      dialing.peer = &hosting;
      hosting.peer = &dialing;
      c.connected(dialing, sequence, "3kVd8Tq0p", hosting.key);
    };
    if (!c.dial(hosting, host,
                {.circuit = "3kVd8Tq0p",
                 .dialer_id = "id.dialer1",
                 .dialer_name = "pump",
                 .caller_id = connect.caller_id,
                 .marker = connect.marker,
                 .key = connect.key,
                 .app_data = connect.app_data}))
      c.refuse(dialing, connect.sequence, {.text = "nobody hosts it"});
  }
  void on_bind(Channel& c, Bind bind) override {
    binds.push_back(bind);
    if (refuse_with) return c.refuse_bind(bind, *refuse_with);
    host = bind.conn;
    c.bound(bind);
  }
  void on_unbind(Channel&, std::uint32_t bind) override { unbound.push_back(bind); }
  void on_update_bind(Channel&, std::uint32_t, std::optional<std::uint16_t> cost,
                      std::optional<std::uint8_t> precedence) override {
    updates.emplace_back(cost, precedence);
  }
  void on_health(Channel&, std::uint32_t, bool passed) override { health.push_back(passed); }
  bool on_update_token(Channel&, const std::string& t) override {
    token = t;
    return !refuse_with;
  }

  ChunkPool pool;
  std::int64_t now_ms = 1'000;
  Ear ear;
  std::string token;
  bool answer_hello = true;
  bool refuse_hello = false;
  bool hold_connects = false;
  bool in_chunks = true;
  std::optional<Failure> refuse_with;
  std::uint32_t host = 0;
  std::vector<Connect> connects;
  std::vector<Bind> binds;
  std::vector<std::uint32_t> unbound;
  std::vector<std::pair<std::optional<std::uint16_t>, std::optional<std::uint8_t>>> updates;
  std::vector<bool> health;
  std::list<std::unique_ptr<TestConn>> conns;
  std::unique_ptr<Channel> channel;

 private:
  void on_channel_changed() override {}
};

}  // namespace sally::edge::test
