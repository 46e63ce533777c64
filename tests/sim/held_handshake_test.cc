// SPDX-License-Identifier: Apache-2.0
// A peer that holds the end of its handshake back until it is revoked.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "loop/net.h"
#include "raw_device.h"
#include "world.h"

namespace sally::sim {
namespace {

TEST(HeldHandshake, ARevocationInTheMiddleGivesNoLane) {
  World world;
  world.controller.put_device("mallory", {"servers"});
  world.controller.put_service("s-1", "plant-mqtt", {"#sensors"}, {"#servers"});
  ASSERT_TRUE(world.until([&] { return world.controller.acked > 0; }));
  const auto leaf = world.pki.leaf(crypto::Role::kDevice, "mallory");
  tls::ContextOptions o{.side = tls::Side::kClient,
                        .chain = {leaf.cert, world.pki.devices},
                        .key = leaf.key,
                        .anchors = {world.pki.root},
                        .issuing = {world.pki.devices, world.pki.infrastructure},
                        .network = NetworkId(world.pki.network),
                        .roles = {tls::Role::kRouter},
                        .alpn = {std::string(lane::kAlpnEdge)}};
  const auto session = must(tls::Session::on_memory(must(tls::Context::create(std::move(o)))));

  loop::Fd fd;
  const auto connecting = loop::connect_tcp(world.loop, "127.0.0.1", world.ports[0], 5'000,
                                            [&](Result<loop::Fd> r) { fd = must(std::move(r)); });
  ASSERT_TRUE(world.until([&] { return fd.valid(); }));
  const auto send = [&](ByteView bytes) {
    ASSERT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  };
  Bytes buffer(65'536);
  // What came meanwhile, or the end.
  const auto receive = [&] {
    const ssize_t n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) session->feed(ByteView(buffer).first(static_cast<std::size_t>(n)));
    return n;
  };
  (void)session->handshake();
  send(session->take_output());
  ASSERT_TRUE(world.until([&] { return receive() > 0 && session->handshake().ok(); }));
  // Everything but the last record, which is the Finished.
  const Bytes flight = session->take_output();
  std::size_t last = 0;
  for (std::size_t at = 0; at + 5 <= flight.size();
       at += 5 + (std::size_t{flight[at + 3]} << 8U) + flight[at + 4])
    last = at;
  send(ByteView(flight).first(last));
  for (int turn = 0; turn < 20; ++turn) world.loop.run_once(false);

  // It has enrolled again elsewhere: the old certificate ends, the identity goes on.
  world.controller.enroll_again("mallory", leaf.cert.serial_hex());
  ASSERT_TRUE(world.until([&] { return world.controller.acked == world.controller.version(); }));
  send(ByteView(flight).subspan(last));
  // At once, not when the time for its HELLO is over (5 s).
  ASSERT_TRUE(world.until(
      [&] {
        for (;;) {
          const ssize_t n = receive();
          if (n > 0) continue;
          return n == 0 || errno == ECONNRESET;
        }
      },
      2'000));
  EXPECT_EQ(world.router->lanes(), 0U);
}

}  // namespace
}  // namespace sally::sim
