// SPDX-License-Identifier: Apache-2.0
// A state update of a peer: without our signer's signature nothing of it is taken.
#include "base/check.h"
#include "crypto/issue.h"
#include "replica/replica.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sally;
  static const trust::Anchors anchors = [] {
    const auto key = crypto::FileKey::generate(crypto::KeyType::kP256).value();
    crypto::CertSpec spec;
    spec.common_name = "root";
    spec.not_after_s = 4'000'000'000;
    spec.ca = true;
    SeededRandom random(1);
    return trust::Anchors{
        "net-a.sally",
        {crypto::sign_certificate(spec, key->public_key(), nullptr, *key, random).value()},
        {}};
  }();
  const ByteView in(data, size);
  replica::Replica r(anchors);
  SALLY_CHECK(!r.apply(in, 1'800'000'000'000));
  SALLY_CHECK(r.state()->version() == 0);
  // Below the signatures: the tables take any well-formed ops, and their snapshot makes the same
  // tables.
  replica::Tables tables;
  if (const auto snapshot = wire::decode_snapshot(in)) {
    for (const auto& bytes : snapshot->ops) {
      if (const auto op = wire::decode_state_op(bytes)) (void)tables.apply(*op, "net-a.sally");
    }
    replica::Tables again;
    const Bytes first = tables.snapshot();
    const auto ops = wire::decode_snapshot(first);
    if (!ops) return 0;
    for (const auto& bytes : ops->ops) {
      const auto op = wire::decode_state_op(bytes);
      SALLY_CHECK(op && again.apply(*op, "net-a.sally"));
    }
    SALLY_CHECK(again.snapshot() == first);
  }
  return 0;
}
