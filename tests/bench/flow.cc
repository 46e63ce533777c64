// SPDX-License-Identifier: Apache-2.0
// Bulk, messages and round trips over streams that stay open.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <deque>
#include <mutex>

#include "runs.h"

namespace sally::bench {
namespace {

constexpr std::size_t kMaxStreams = 256;

// What has arrived, per receiving stream. Written by the receiver's thread, read by the main one.
std::atomic<std::uint64_t> arrived[kMaxStreams];
std::atomic<std::size_t> receivers{0};
std::atomic<std::size_t> open_ends{0};
std::mutex rtt_mutex;
std::vector<double> rtt_us;

std::uint64_t total() {
  std::uint64_t sum = 0;
  for (const auto& a : arrived) sum += a.load(std::memory_order_relaxed);
  return sum;
}

/// Writes pieces of one size for as long as the stream takes them, from `go` on: all streams are
/// open before the first byte, a relay that is busy shakes no hands.
class Sender final : public LegUser {
 public:
  explicit Sender(std::size_t piece) : piece_(piece, 0x5a) {}
  static void go() {
    going = true;
    for (const auto& [sender, leg] : all) sender->on_writable(*leg);
  }
  void on_open(Leg& leg) override {
    all.emplace_back(this, &leg);
    open_ends.fetch_add(1);
  }
  void on_data(Leg&, ByteView) override {}
  void on_writable(Leg& leg) override {
    if (!going) return;
    while (leg.write(piece_) == piece_.size()) {
    }
    leg.flush(true);
  }

 private:
  static inline bool going = false;  // these two are the sending thread's
  static inline std::vector<std::pair<Sender*, Leg*>> all;
  Bytes piece_;
};

class Receiver final : public LegUser {
 public:
  Receiver() : index_(receivers.fetch_add(1)) {
    if (index_ >= kMaxStreams) die("too many streams");
  }
  void on_data(Leg&, ByteView data) override {
    arrived[index_].fetch_add(data.size(), std::memory_order_relaxed);
  }
  void on_open(Leg&) override { open_ends.fetch_add(1); }
  void on_writable(Leg&) override {}

 private:
  std::size_t index_;
};

class Echo final : public LegUser {
 public:
  Echo() { receivers.fetch_add(1); }
  void on_data(Leg& leg, ByteView data) override {
    if (leg.write(data) != data.size()) die("an echo did not fit");
    leg.flush(false);
  }
  void on_open(Leg&) override {}
  void on_writable(Leg&) override {}
};

class Pinger final : public LegUser {
 public:
  explicit Pinger(std::size_t size) : ping_(size, 0x5a) {}
  void on_open(Leg& leg) override { send(leg); }
  void on_writable(Leg&) override {}
  void on_data(Leg& leg, ByteView data) override {
    missing_ -= std::min(missing_, data.size());
    if (missing_ != 0) return;
    const double us =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - sent_).count();
    {
      const std::lock_guard lock(rtt_mutex);
      rtt_us.push_back(us);
    }
    arrived[0].fetch_add(ping_.size(), std::memory_order_relaxed);
    send(leg);
  }

 private:
  void send(Leg& leg) {
    missing_ = ping_.size();
    sent_ = std::chrono::steady_clock::now();
    if (leg.write(ping_) != ping_.size()) die("a ping did not fit");
    leg.flush(false);
  }
  Bytes ping_;
  std::size_t missing_ = 0;
  std::chrono::steady_clock::time_point sent_;
};

/// Users live as long as the program.
template <typename T, typename... Args>
MakeUser make(Args... args) {
  return [args...] { return new T(args...); };
}

std::shared_ptr<const tls::Context> context(const Options& o, tls::Side side) {
  return o.text("via") == "tls" ? LegPki::context(o.text("dir"), side) : nullptr;
}

std::atomic<bool> receiving{false};
std::atomic<loop::Loop*> sending{nullptr};

void receive(const Options& o, const MakeUser& user) {
  loop::Loop loop;
  if (o.text("via") == "sdk") {
    SdkDevice device(loop, o.text("host"), o.text("host-router", ""));
    device.host(o.text("service"), user);
    if (!loop.run_until([&] { return device.bound(); }, 20'000)) die("not bound");
    receiving = true;
    loop.run();
  } else {
    const Door door(loop, static_cast<std::uint16_t>(o.number("listen", 0)),
                    context(o, tls::Side::kServer), user);
    receiving = true;
    loop.run();
  }
}

void send(const Options& o, const MakeUser& user) {
  loop::Loop loop;
  sending = &loop;
  const int streams = o.number("streams", 1);
  if (o.text("via") == "sdk") {
    SdkDevice device(loop, o.text("dialer"), o.text("dialer-router", ""));
    device.dial(o.text("service"), user, streams);
    loop.run();
  } else {
    const Dialer dialer(loop, static_cast<std::uint16_t>(o.number("connect", 0)),
                        context(o, tls::Side::kClient), user, streams);
    loop.run();
  }
}

}  // namespace

void run_flow(const Options& o) {
  const std::string kind = o.text("kind");
  const bool ping = kind == "ping";
  const auto size = static_cast<std::size_t>(o.number("size", ping ? 64 : 16'346));
  std::thread receiver([&] { receive(o, ping ? make<Echo>() : make<Receiver>()); });
  receiver.detach();
  for (int i = 0; !receiving; ++i) {
    if (i > 2'500) die("the receiver does not start");
    sleep_s(0.01);
  }
  std::thread sender([&] { send(o, ping ? make<Pinger>(size) : make<Sender>(size)); });
  sender.detach();

  const auto streams = static_cast<std::size_t>(o.number("streams", 1));
  // TCP legs through an agent reach the receiver with the first byte only: they are not waited for.
  const std::size_t ends = o.text("via") == "tcp" ? streams : 2 * streams;
  for (int i = 0; !ping && open_ends < ends; ++i) {
    if (i > 1'500) die("the streams do not open");
    sleep_s(0.01);
  }
  if (!ping) sending.load()->post([] { Sender::go(); });
  for (int i = 0; receivers < streams || total() == 0; ++i) {
    if (i > 1'500) die("nothing arrives");
    sleep_s(0.01);
  }
  sleep_s(o.seconds("warm", 0.5));
  const auto watched = o.watch();
  std::vector<double> first(streams);
  for (std::size_t i = 0; i < streams; ++i) first[i] = static_cast<double>(arrived[i].load());
  std::size_t first_rtt = 0;
  if (ping) {
    const std::lock_guard lock(rtt_mutex);
    first_rtt = rtt_us.size();
  }
  const std::uint64_t before = total();
  const auto from = CpuSample::now(watched);
  sleep_s(o.seconds("seconds", 2.5));
  const std::uint64_t bytes = total() - before;
  const auto to = CpuSample::now(watched);

  Json json;
  json.add("bytes", bytes).add("pieces", bytes / size);
  add_cpu(json, from, to);
  std::vector<double> shares;
  for (std::size_t i = 0; i < streams; ++i)
    shares.push_back((static_cast<double>(arrived[i].load()) - first[i]) *
                     static_cast<double>(streams) /
                     static_cast<double>(std::max<std::uint64_t>(bytes, 1)));
  json.add("slowest_share", *std::min_element(shares.begin(), shares.end()));
  if (ping) {
    const std::lock_guard lock(rtt_mutex);
    const std::vector<double> seen(rtt_us.begin() + static_cast<std::ptrdiff_t>(first_rtt),
                                   rtt_us.end());
    json.add("rtt_p50_us", quantile(seen, 0.5)).add("rtt_p99_us", quantile(seen, 0.99));
  }
  std::puts(json.text().c_str());
}

}  // namespace sally::bench
