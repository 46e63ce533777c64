// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests of tls/ and of the folders above it: contexts over the small hierarchy of
// crypto/test_pki.h.
#include <memory>
#include <string>
#include <vector>

#include "crypto/test_pki.h"
#include "tls/context.h"

namespace sally::tls {

/// Options with everything set but what a test changes. `leaf` null = no certificate shown.
inline ContextOptions test_options(const crypto::TestPki& pki, Side side,
                                   const crypto::TestLeaf* leaf, const Clock* clock,
                                   std::vector<std::string> alpn = {"sally-edge/1"}) {
  ContextOptions o;
  o.side = side;
  if (leaf != nullptr) {
    o.chain = {leaf->cert};
    o.key = leaf->key;
  }
  o.anchors = {pki.root};
  o.issuing = {pki.devices, pki.infrastructure};
  o.network = NetworkId(pki.network);
  o.alpn = std::move(alpn);
  o.clock = clock;
  return o;
}

inline std::shared_ptr<const Context> test_context(ContextOptions o) {
  return crypto::must(Context::create(std::move(o)));
}

}  // namespace sally::tls
