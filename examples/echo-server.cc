// SPDX-License-Identifier: Apache-2.0
// An echo server without a listening socket: echo-server IDENTITY SERVICE
#include <cstdint>
#include <cstdio>
#include <sally/sally.hpp>
#include <thread>
#include <vector>

static void serve(sally::sdk::Stream stream) {
  const sally_peer& caller = stream.peer();  // proven by its certificate, inside this very stream
  std::printf("caller %s (%s)\n", caller.name, caller.id);
  std::fflush(stdout);
  std::vector<std::uint8_t> buffer(65536);
  for (;;) {
    const auto n = stream.read(buffer);
    if (!n || *n == 0) break;  // cut, or the caller has ended its direction
    if (!stream.write(std::span(buffer).first(*n))) break;
  }
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: echo-server IDENTITY SERVICE\n");
    return 2;
  }
  auto context = sally::sdk::Context::open(argv[1]);
  if (!context) {
    std::fprintf(stderr, "%s\n", context.error().text.c_str());
    return 1;
  }
  auto listener = context->bind(argv[2]);
  if (!listener) {
    std::fprintf(stderr, "%s\n", listener.error().text.c_str());
    return 1;
  }
  for (;;) {
    auto stream = listener->accept();
    if (!stream) return 1;
    std::thread(serve, std::move(*stream)).detach();
  }
}
