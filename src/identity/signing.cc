// SPDX-License-Identifier: Apache-2.0
#include "identity/signing.h"

#include <utility>

namespace sally::identity {

void Signings::run(const crypto::SignerPtr& key, Make make, Use use) {
  if (!key->slow()) return use(make(*key));
  struct Job {
    Result<Bytes> result;
    Use use;
  };
  const auto job = std::make_shared<Job>(Result<Bytes>{}, std::move(use));
  const std::uint64_t id = next_++;
  under_way_[id] = std::make_unique<crypto::Errand>(
      [key, make = std::move(make), job] { job->result = make(*key); },
      [this, id, job, alive = alive_] {
        (void)loop_.post(
            [this, id, job, alive] {
              if (!*alive) return;
              under_way_.erase(id);
              job->use(std::move(job->result));
            },
            true);
      });
}

}  // namespace sally::identity
