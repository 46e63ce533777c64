// SPDX-License-Identifier: Apache-2.0
// Circuits whose receiver never reads: what they hold in the router, and whether the next one
// flows.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <list>
#include <memory>
#include <utility>

#include "base/text.h"
#include "runs.h"
#include "sdk/core.h"

namespace sally::bench {
namespace {

constexpr std::size_t kInFlight = 16;

/// Writes so many bytes, as far as the circuit takes them; reads only when told.
class Stuck final : public sdk::CircuitUser {
 public:
  Stuck(std::unique_ptr<sdk::Circuit> circuit, std::size_t bytes)
      : circuit_(std::move(circuit)), left_(bytes) {
    circuit_->set_user(*this);
    on_circuit_writable();
  }
  ~Stuck() override {
    if (!over) circuit_->abort(wire::ResetCode::kClosed);
  }
  void read() {
    reads_ = true;
    on_circuit_readable();
  }
  void on_circuit_readable() override {
    std::uint8_t buffer[16'384];
    while (reads_ && !over) {
      const auto r = circuit_->read(buffer);
      if (r.kind != sdk::Circuit::ReadKind::kData) return;
      received += r.n;
    }
  }
  void on_circuit_writable() override {
    static const Bytes piece(16'000, 0x5a);
    while (left_ > 0 && !over) {
      const auto n = circuit_->write(ByteView(piece).first(std::min(left_, piece.size())));
      left_ -= n;
      if (n == 0) return;
    }
  }
  void on_circuit_over(const Error&) override { over = true; }

  std::uint64_t received = 0;
  bool over = false;

 private:
  std::unique_ptr<sdk::Circuit> circuit_;
  std::size_t left_;
  bool reads_ = false;
};

class DeafHost final : public sdk::Host {
 public:
  void on_caller(std::uint64_t, const sdk::Caller&, Answer answer) override {
    answer(std::nullopt);
  }
  void on_stream(std::uint64_t, const sdk::Caller&,
                 std::unique_ptr<sdk::Circuit> circuit) override {
    if (circuit == nullptr) return;
    circuits.push_back(std::make_unique<Stuck>(std::move(circuit), 0));
    if (listens) circuits.back()->read();
  }
  std::list<std::unique_ptr<Stuck>> circuits;
  bool listens = false;
};

}  // namespace

void run_stalled(const Options& o) {
  loop::Loop loop;
  const pid_t router = o.watch().at(0);
  const auto count = static_cast<std::size_t>(o.number("count", 10'000));
  const auto bytes = static_cast<std::size_t>(o.number("bytes", 128 * 1024));
  const auto routers = text_list(o.text("routers"));
  const std::string port = ":" + o.text("port");
  const std::string service = o.text("service");
  const auto at = [&](std::size_t i) { return routers[i % routers.size()] + port; };
  DeafHost deaf;
  const auto host = start_engine(loop, o.text("host"), at(0));
  const auto binding = host->bind(service, 0, deaf);
  if (!loop.run_until([&] { return !host->binding_error(binding); }, 20'000)) die("not bound");
  std::vector<std::unique_ptr<sdk::Engine>> dialers;
  for (int i = 0; i < o.number("lanes", 64); ++i)
    dialers.push_back(start_engine(loop, o.text("dialer"), at(static_cast<std::size_t>(i))));

  std::list<std::unique_ptr<Stuck>> stuck;
  std::size_t failed = 0;
  const double before = status_kb(router, "VmRSS");
  for (std::size_t asked = 0; asked < count;) {
    for (std::size_t i = 0; i < kInFlight && asked < count; ++i, ++asked)
      dialers[asked % dialers.size()]->dial(
          service, {}, 20'000, [&](Result<std::unique_ptr<sdk::Circuit>> c) {
            if (!c)
              ++failed;
            else
              stuck.push_back(std::make_unique<Stuck>(std::move(*c), bytes));
          });
    if (!loop.run_until([&] { return stuck.size() + failed >= asked; }, 60'000))
      die("circuits do not open: " + std::to_string(stuck.size()));
  }
  (void)loop.run_until([] { return false; }, 5'000);
  const double held = status_kb(router, "VmRSS");
  const auto reset =
      static_cast<std::size_t>(std::ranges::count_if(stuck, [](const auto& s) { return s->over; }));

  // One more, whose receiver reads.
  deaf.listens = true;
  constexpr std::size_t kFlows = 4'000'000;
  std::unique_ptr<Stuck> next;
  const auto start = std::chrono::steady_clock::now();
  dialers[0]->dial(service, {}, 20'000, [&](Result<std::unique_ptr<sdk::Circuit>> c) {
    if (!c) die("circuit " + std::to_string(count + 1) + ": " + c.error().text());
    next = std::make_unique<Stuck>(std::move(*c), kFlows);
  });
  const bool flows = loop.run_until(
      [&] {
        return next != nullptr && !deaf.circuits.empty() &&
               deaf.circuits.back()->received == kFlows;
      },
      60'000);
  Json json;
  json.add("before_mb", before / 1024)
      .add("held_mb", held / 1024)
      .add("peak_mb", status_kb(router, "VmHWM") / 1024)
      .add("opened", std::uint64_t{stuck.size()})
      .add("failed", std::uint64_t{failed})
      .add("reset", std::uint64_t{reset})
      .add("next_bytes", next == nullptr ? std::uint64_t{0} : deaf.circuits.back()->received)
      .add("next_s",
           flows ? std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()
                 : -1.0)
      .add("foreign", 0.0);
  std::puts(json.text().c_str());
}

}  // namespace sally::bench
