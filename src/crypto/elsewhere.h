// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace sally::crypto {

/// Work that would hold up its thread (a signature in a chip), done by one of a few helper threads
/// of the process. Owner: whoever waits for it, on one thread. Destroying it lets the work run to
/// its end unheard; `done` is called on the helper's thread, never during or after that.
class Errand {
 public:
  Errand(std::move_only_function<void()> work, std::move_only_function<void()> done);
  ~Errand();
  Errand(const Errand&) = delete;
  Errand& operator=(const Errand&) = delete;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

/// Lets a call into OpenSSL be left while a hardware key signs inside it (SSL_MODE_ASYNC): the key
/// sends the signature away as an errand and pauses the call; `wake` tells that it may be gone on
/// with. Owner: a TLS session. One thread but for `wake`, which comes on a helper's.
class Pausing {
 public:
  /// While it lives, calls on this thread may be paused by hardware keys.
  class Scope {
   public:
    explicit Scope(Pausing* pausing);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Pausing* before_;
  };
  /// What the innermost Scope of this thread allows; null: nothing, sign here and now.
  static Pausing* current();
  /// That the library can leave a call, on stacks of our size; else slow keys sign here and now.
  static std::atomic<bool> possible;

  std::function<void()> wake;
  /// The call is not wanted any more: its signature fails, without waiting.
  bool given_up = false;
  /// Why the last signature failed.
  std::optional<Error> error;
};

/// Runs a call of the library that signs, and says why it failed: what the token says where there
/// is one.
Status signing(std::string_view what, const std::function<bool()>& call);

}  // namespace sally::crypto
