// SPDX-License-Identifier: Apache-2.0
// Replays a fuzz corpus without libFuzzer: every file of the given folders and, for each, its
// prefixes and single-byte flips at a fixed stride, through LLVMFuzzerTestOneInput. Fails when a
// folder is missing or empty.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  std::size_t runs = 0;
  for (int i = 1; i < argc; ++i) {
    std::size_t files = 0;
    std::error_code ec;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i], ec)) {
      std::ifstream in(entry.path(), std::ios::binary);
      std::vector<std::uint8_t> input{std::istreambuf_iterator<char>(in), {}};
      ++files;
      LLVMFuzzerTestOneInput(input.data(), input.size());
      const std::size_t step = input.size() / 64 + 1;
      for (std::size_t at = 0; at < input.size(); at += step) {
        std::vector<std::uint8_t> prefix(input.begin(),
                                         input.begin() + static_cast<std::ptrdiff_t>(at));
        LLVMFuzzerTestOneInput(prefix.data(), prefix.size());
        auto flipped = input;
        flipped[at] ^= 0x81;
        LLVMFuzzerTestOneInput(flipped.data(), flipped.size());
        runs += 2;
      }
    }
    if (files == 0) {
      std::fprintf(stderr, "no corpus in %s\n", argv[i]);
      return 1;
    }
    runs += files;
  }
  std::printf("%zu inputs replayed\n", runs);
  return 0;
}
