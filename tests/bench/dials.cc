// SPDX-License-Identifier: Apache-2.0
// Dials one after the other or several in flight; and the delaying proxy between a lane and its
// router, for kernels without netem.
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <deque>
#include <functional>

#include "base/text.h"
#include "runs.h"
#include "sdk/core.h"

namespace sally::bench {
namespace {

/// Lets everybody in and ends each circuit in order.
class EndingHost final : public sdk::Host {
 public:
  void on_caller(std::uint64_t, const sdk::Caller&, Answer answer) override {
    answer(std::nullopt);
  }
  void on_stream(std::uint64_t, const sdk::Caller&,
                 std::unique_ptr<sdk::Circuit> circuit) override {
    if (circuit != nullptr) sdk::Circuit::finish(std::move(circuit));
  }
};

}  // namespace

std::unique_ptr<sdk::Engine> start_engine(loop::Loop& loop, const std::string& identity,
                                          const std::string& router) {
  auto material = crypto::must(sdk::load_material(identity));
  const auto at = parse_host_port(router);
  if (!at) die("HOST:PORT wanted: " + router);
  material.routers = {*at};
  auto e = std::make_unique<sdk::Engine>(loop, system_random(), std::move(material),
                                         [](sdk::Event, const std::string&) {});
  e->start();
  return e;
}

void run_dials(const Options& o) {
  loop::Loop loop;
  const std::string service = o.text("service");
  const int count = o.number("count", 1'000);
  const auto hosts = text_list(o.text("routers"));
  const std::string port = ":" + o.text("port");
  const int lanes = o.number("lanes", 16);
  const std::int64_t limit_ms = o.number("limit", 120) * std::int64_t{1'000};
  EndingHost ending;
  auto host = start_engine(loop, o.text("host"), hosts[0] + port);
  const auto binding = host->bind(service, 0, ending);
  if (!loop.run_until([&] { return !host->binding_error(binding); }, 20'000)) die("not bound");

  std::vector<std::unique_ptr<sdk::Engine>> dialers;
  for (int i = 0; i < lanes; ++i)
    dialers.push_back(start_engine(loop, o.text("dialer"),
                                   hosts[static_cast<std::size_t>(i) % hosts.size()] + port));
  int asked = 0;
  int done = 0;
  std::vector<double> us;
  std::function<void(sdk::Engine&)> next = [&](sdk::Engine& e) {
    ++asked;
    const auto start = std::chrono::steady_clock::now();
    e.dial(service, {}, 20'000, [&, start](Result<std::unique_ptr<sdk::Circuit>> c) {
      if (!c) die("dial: " + c.error().text());
      us.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
              .count());
      sdk::Circuit::finish(std::move(*c));
      ++done;
      if (asked < count) next(e);
    });
  };
  const auto settled = [&] {
    for (const auto& d : dialers) {
      if (d->delivering()) return false;
    }
    return done == asked && !host->delivering();
  };
  for (auto& d : dialers) next(*d);  // the first of each lane waits for its card
  if (!loop.run_until([&] { return done >= count / 10; }, limit_ms)) die("no dials");
  const auto watched = o.watch();
  const int first = done;
  us.clear();
  const auto from = CpuSample::now(watched);
  if (!loop.run_until([&] { return done >= count && settled(); }, limit_ms))
    die("dials do not end");
  const auto to = CpuSample::now(watched);
  Json json;
  json.add("count", static_cast<std::uint64_t>(done - first))
      .add("p50_us", quantile(us, 0.5))
      .add("p99_us", quantile(us, 0.99));
  add_cpu(json, from, to);
  std::puts(json.text().c_str());
}

// ---- delay

namespace {

/// One direction of a delayed connection.
struct Pipe {
  struct Piece {
    std::int64_t due_us;
    Bytes bytes;
    std::size_t at = 0;
  };
  std::deque<Piece> queue;
};

/// A connection whose bytes arrive `delay_us` late, both ways. Owner: the run. Thread: its loop's.
/// Failure: closes both sides.
class Delayed {
 public:
  Delayed(loop::Loop& loop, loop::Fd a, std::uint16_t target, std::int64_t delay_us)
      : loop_(loop), delay_us_(delay_us) {
    fd_[0] = std::move(a);
    loop::tune_tcp(fd_[0].get());
    connecting_ = loop::connect_tcp(loop, "127.0.0.1", target, 5'000, [this](Result<loop::Fd> fd) {
      if (!fd) return;
      fd_[1] = std::move(*fd);
      for (int i = 0; i < 2; ++i) {
        watcher_[i] = std::make_unique<loop::Watcher>(loop_, fd_[i].get(),
                                                      [this, i](loop::Watcher::Ready) { read(i); });
        watcher_[i]->want(true, false);
      }
    });
  }
  /// Sends what is due; the earliest time at which more will be.
  std::int64_t push(std::int64_t now_us) {
    std::int64_t next = INT64_MAX;
    for (int i = 0; i < 2; ++i) {
      auto& q = to_[i].queue;
      while (!q.empty() && q.front().due_us <= now_us) {
        auto& p = q.front();
        const auto n = ::send(fd_[i].get(), p.bytes.data() + p.at, p.bytes.size() - p.at,
                              MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0) break;
        p.at += static_cast<std::size_t>(n);
        if (p.at == p.bytes.size()) q.pop_front();
      }
      if (!q.empty()) next = std::min(next, q.front().due_us);
    }
    return next;
  }

 private:
  void read(int from) {
    Bytes bytes(64 * 1024);
    const auto n = ::recv(fd_[from].get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      ::shutdown(fd_[1 - from].get(), SHUT_RDWR);
      watcher_[from]->want(false, false);
      return;
    }
    bytes.resize(static_cast<std::size_t>(n));
    to_[1 - from].queue.push_back({loop_.clock().mono_us() + delay_us_, std::move(bytes)});
  }
  loop::Loop& loop_;
  std::int64_t delay_us_;
  loop::Fd fd_[2];
  std::unique_ptr<loop::Watcher> watcher_[2];
  std::unique_ptr<loop::Connecting> connecting_;
  Pipe to_[2];
};

}  // namespace

void run_delay(const Options& o) {
  loop::Loop loop;
  std::list<std::unique_ptr<Delayed>> connections;
  const auto target = static_cast<std::uint16_t>(o.number("target", 0));
  const std::int64_t delay_us = o.number("us", 5'000);
  const auto listener = crypto::must(loop::Listener::tcp(
      loop, "127.0.0.1", static_cast<std::uint16_t>(o.number("listen", 0)),
      [&](loop::Fd fd, const loop::Address&) {
        connections.push_back(std::make_unique<Delayed>(loop, std::move(fd), target, delay_us));
      }));
  std::puts("ready");
  std::fflush(stdout);
  // Polls: a timer of a millisecond would be a twentieth of what is measured.
  for (;;) {
    loop.run_once(false);
    const std::int64_t now = loop.clock().mono_us();
    std::int64_t next = now + 200;
    for (auto& c : connections) next = std::min(next, c->push(now));
    if (next > now) sleep_s(static_cast<double>(std::min<std::int64_t>(next - now, 100)) / 1e6);
  }
}

}  // namespace sally::bench
