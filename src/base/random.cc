// SPDX-License-Identifier: Apache-2.0
#include "base/random.h"

#include <sys/random.h>

#include <array>
#include <cerrno>

#include "base/check.h"

namespace sally {
namespace {

class SystemRandom final : public Random {
 public:
  void fill(MutableBytes out) override {
    while (!out.empty()) {
      const auto n = ::getrandom(out.data(), out.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      SALLY_CHECK(n > 0);
      out = out.subspan(static_cast<std::size_t>(n));
    }
  }
};

}  // namespace

std::uint64_t Random::u64() {
  std::array<std::uint8_t, 8> raw{};
  fill(raw);
  return get_little(raw.data(), raw.size());
}
std::uint64_t Random::below(std::uint64_t bound) {
  SALLY_CHECK(bound > 0);
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  for (;;) {
    const std::uint64_t v = u64();
    if (v < limit) return v % bound;
  }
}
std::string Random::hex(std::size_t bytes) {
  Bytes raw(bytes);
  fill(raw);
  return to_hex(raw);
}
std::string Random::uuid() {
  std::array<std::uint8_t, 16> raw{};
  fill(raw);
  raw[6] = static_cast<std::uint8_t>((raw[6] & 0x0f) | 0x40);
  raw[8] = static_cast<std::uint8_t>((raw[8] & 0x3f) | 0x80);
  std::string h = to_hex(raw);
  for (const std::size_t at : {20, 16, 12, 8}) h.insert(at, 1, '-');
  return h;
}

std::uint64_t hash_secret() {
  static const std::uint64_t secret = system_random().u64();
  return secret;
}

Random& system_random() {
  static SystemRandom random;
  return random;
}

void SeededRandom::fill(MutableBytes out) {
  for (auto& b : out) {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    b = static_cast<std::uint8_t>(z ^ (z >> 31));
  }
}

}  // namespace sally
