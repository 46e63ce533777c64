// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "crypto/elsewhere.h"
#include "crypto/key.h"
#include "loop/loop.h"

namespace sally::identity {

/// What an object on a loop has its key sign: at once where the key is fast, else on a helper
/// thread while the loop goes on. Owner: that object. Thread: its loop's. Destroying it forgets
/// what is on its way. Fails through the result given to `use`.
class Signings {
 public:
  using Make = std::function<Result<Bytes>(const crypto::Signer& key)>;
  using Use = std::move_only_function<void(Result<Bytes>)>;
  explicit Signings(loop::Loop& loop) : loop_(loop) {}
  ~Signings() { *alive_ = false; }
  Signings(const Signings&) = delete;
  Signings& operator=(const Signings&) = delete;
  /// `make` may run on another thread and holds copies. `use` is called inside this call where the
  /// key is fast.
  void run(const crypto::SignerPtr& key, Make make, Use use);

 private:
  loop::Loop& loop_;
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, std::unique_ptr<crypto::Errand>> under_way_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::identity
