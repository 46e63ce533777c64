// SPDX-License-Identifier: Apache-2.0
// Identity files. Input that begins with 'M' is a list of edits (offset 2 bytes, length 1,
// replacement 1) of a good file made at the start, so that the corpus needs no private key.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "crypto/test_pki.h"
#include "identity/identity.h"

namespace {

using namespace sally::identity;

std::string good_file() {
  const sally::crypto::TestPki pki;
  const auto leaf = pki.leaf(sally::crypto::Role::kDevice, "dev-1");
  Identity i;
  i.controller = "https://ctrl.example:1280";
  i.key = leaf.key;
  i.chain = {leaf.cert, pki.devices};
  i.anchors = {pki.root};
  i.issuing = {pki.devices};
  i.network = sally::NetworkId(pki.network);
  i.id = i.name = "dev-1";
  i.routers = {"r1.example:3022"};
  return sally::crypto::must(to_json(i));
}

void check(std::string_view text) {
  const auto one = from_json(text, Files::kRefuse);
  if (!one) return;
  if (one->chain.empty() || one->anchors.empty() || one->network.empty() || one->id.empty())
    std::abort();
  // What was read can be written and read again as the same.
  const auto written = to_json(*one);
  if (!written) std::abort();
  const auto two = from_json(*written, Files::kRefuse);
  if (!two || two->id != one->id || two->chain != one->chain || two->routers != one->routers)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string good = good_file();
  if (size == 0 || data[0] != 'M') {
    check(sally::as_text(sally::ByteView(data, size)));
    return 0;
  }
  std::string text = good;
  sally::Reader in(sally::ByteView(data + 1, size - 1));
  for (int i = 0; i < 16 && in.left() >= 4; ++i) {
    const std::size_t at = in.big(2) % (text.size() + 1);
    const std::size_t n = std::min<std::size_t>(in.big(1), text.size() - at);
    const auto c = static_cast<char>(in.big(1));
    text.replace(at, n, 1, c);
  }
  check(text);
  return 0;
}
