// SPDX-License-Identifier: Apache-2.0
#include "identity/renew.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "crypto/test_pki.h"

namespace sally::identity {
namespace {

// Whatever a router passes on, a device takes nothing but a certificate of its own, for its key.
TEST(Answer, IsBelievedForThisDeviceAndThisKeyAlone) {
  const crypto::TestPki pki;
  const trust::Anchors anchors{pki.network, {pki.root}, {pki.devices, pki.infrastructure}};
  const auto mine = pki.leaf(crypto::Role::kDevice, "d-1");
  const auto said = [&](const crypto::TestLeaf& leaf, const crypto::Certificate& issuing,
                        const crypto::SignerPtr& key) {
    wire::Renewed answer;
    answer.leaf = leaf.cert.der();
    answer.issuing = issuing.der();
    const auto r =
        answered_credential(answer, anchors, crypto::Role::kDevice, "d-1", key, pki.now_s);
    return r ? "taken" : std::string(r.error().code());
  };
  EXPECT_EQ(said(mine, pki.devices, mine.key), "taken");
  const auto again = pki.leaf(crypto::Role::kDevice, "d-1");
  EXPECT_EQ(said(again, pki.devices, mine.key), "identity.mismatch") << "another key";
  const auto other = pki.leaf(crypto::Role::kDevice, "d-2");
  EXPECT_EQ(said(other, pki.devices, other.key), "identity.mismatch") << "another device";
  const auto router = pki.leaf(crypto::Role::kRouter, "d-1");
  EXPECT_NE(said(router, pki.infrastructure, router.key), "taken");
  const crypto::TestPki foreign("net-b.sally");
  const auto theirs = foreign.leaf(crypto::Role::kDevice, "d-1");
  EXPECT_NE(said(theirs, foreign.devices, theirs.key), "taken");
}

TEST(Schedule, LiesAroundTwoThirdsOfTheLife) {
  SeededRandom random{7};
  const std::int64_t life_s = 30LL * 86'400;
  for (int i = 0; i < 10'000; ++i) {
    const std::string id = random.hex(8);
    const std::int64_t at = renew_at_ms(id, 1'000, 1'000 + life_s);
    EXPECT_GE(at, 1'000'000 + life_s * 566);
    EXPECT_LE(at, 1'000'000 + life_s * 767);
    EXPECT_EQ(at, renew_at_ms(id, 1'000, 1'000 + life_s));
  }
}

// All enrolled in the same second: a fifth of the life to spread over.
TEST(Schedule, TenThousandEnrolledTogetherAreNoHerd) {
  SeededRandom random{11};
  const std::int64_t life_s = 5LL * 3'600;  // its fifth is 60 minutes
  std::map<std::int64_t, int> minutes;
  for (int i = 0; i < 10'000; ++i) ++minutes[renew_at_ms(random.hex(8), 0, life_s) / 60'000];
  int most = 0;
  for (const auto& [minute, n] : minutes) most = std::max(most, n);
  EXPECT_LE(most, 1.5 * 10'000 / 60);
}

}  // namespace
}  // namespace sally::identity
