// SPDX-License-Identifier: Apache-2.0
// Sends standard input to a service and prints what comes back: echo-client IDENTITY SERVICE
#include <cstdint>
#include <cstdio>
#include <sally/sally.hpp>
#include <thread>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: echo-client IDENTITY SERVICE\n");
    return 2;
  }
  auto context = sally::sdk::Context::open(argv[1]);
  if (!context) {
    std::fprintf(stderr, "%s\n", context.error().text.c_str());
    return 1;
  }
  auto stream = context->dial(argv[2]);
  if (!stream) {
    std::fprintf(stderr, "%s: %s\n", sally_error_name(stream.error().code),
                 stream.error().text.c_str());
    return 1;
  }
  std::fprintf(stderr, "connected to %s, proven by its certificate\n", stream->peer().name);
  std::thread sender([&] {
    std::vector<std::uint8_t> buffer(65536);
    while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), stdin)) {
      if (!stream->write(std::span(buffer).first(n))) return;
    }
    stream->shutdown_write();
  });
  std::vector<std::uint8_t> buffer(65536);
  int code = 0;
  for (;;) {
    const auto n = stream->read(buffer);
    if (!n) {
      std::fprintf(stderr, "%s\n", n.error().text.c_str());
      code = 1;
    }
    if (!n || *n == 0) break;
    std::fwrite(buffer.data(), 1, *n, stdout);
  }
  sender.join();
  return code;
}
