// SPDX-License-Identifier: Apache-2.0
// A router and its world on a thread, for tests of the C interface.
#pragma once

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>

#include "identity/identity.h"
#include "world.h"

namespace sally::sim {

/// A network on a thread of its own, with the identity files of "host" and "pump" in `dir`.
class AbiWorld : public ::testing::Test {
 protected:
  AbiWorld() {
    std::promise<void> ready;
    thread_ = std::thread([this, &ready] {
      World world;
      world.controller.put_device("host", {"servers"});
      world.controller.put_device("pump", {"sensors"});
      world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
      world.until([&] { return world.controller.acked > 0; });
      for (const char* id : {"host", "pump"}) {
        const auto leaf = world.pki.leaf(crypto::Role::kDevice, id);
        identity::Identity file{.controller = "https://127.0.0.1:1",
                                .key = leaf.key,
                                .chain = {leaf.cert, world.pki.devices},
                                .anchors = {world.pki.root},
                                .issuing = {world.pki.devices, world.pki.infrastructure},
                                .network = NetworkId(world.pki.network),
                                .role = crypto::Role::kDevice,
                                .id = id,
                                .name = id,
                                .routers = {"127.0.0.1:" + std::to_string(world.ports[0])},
                                .card = {}};
        if (!identity::save(file, world.dir + "/" + id + ".json")) std::abort();
      }
      dir = world.dir;
      loop_ = &world.loop;
      ready.set_value();
      while (!stop_) world.until([&] { return stop_; }, 60'000);
      world.router.reset();
    });
    ready.get_future().wait();
  }
  ~AbiWorld() override {
    (void)loop_->post([this] { stop_ = true; });
    thread_.join();
  }
  std::string dir;

 private:
  std::thread thread_;
  loop::Loop* loop_ = nullptr;
  bool stop_ = false;  // of the network's thread
};

}  // namespace sally::sim
