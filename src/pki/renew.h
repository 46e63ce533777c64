// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "pki/authority.h"
#include "store/store.h"
#include "wire/messages.h"

namespace sally::pki {

/// Who brought a request: the leaf that a router says was proven on the lane.
struct Presenter {
  std::string_view id;
  std::string_view serial;
};

/// Door 6: the next certificate for who holds the current one. The request is believed, not its
/// carrier: it is signed by the current key over network, identity, serial, CSR and time. Owned by
/// the network object; immutable, any thread. Each refusal has its own code (pki, trust, crypto).
class RenewalDoor {
 public:
  explicit RenewalDoor(AuthorityPtr authority, std::int64_t life_s = kRenewingLifeS)
      : authority_(std::move(authority)), life_s_(life_s) {}

  struct Outcome {
    std::optional<Issued> issued;  ///< none: a use was noted
    std::size_t superseded = 0;    ///< certificates that ended by it
    bool changed = false;          ///< there is something to commit
  };
  /// With a CSR: issues for the same identity; one that was issued before and never used ends, so
  /// that two are valid at most. The current one lives on until the new one's first proven use: a
  /// request without CSR signed by the new key. Audits; the caller commits.
  [[nodiscard]] Result<Outcome> take(store::Transaction& tx, ByteView envelope,
                                     const Presenter& presenter, std::int64_t now_ms,
                                     Random& random) const;

 private:
  struct Checked {
    wire::RenewalRequest request;
    store::CertificateRow row;
    store::Identity identity;
  };
  [[nodiscard]] Result<Checked> check(const store::Transaction& tx, ByteView envelope,
                                      const Presenter& presenter, std::int64_t now_ms) const;
  [[nodiscard]] Result<Outcome> issue(store::Transaction& tx, const Checked& c, ByteView envelope,
                                      std::int64_t now_ms, Random& random) const;
  [[nodiscard]] static Result<Outcome> note_use(store::Transaction& tx, Checked c,
                                                std::int64_t now_ms);
  AuthorityPtr authority_;
  std::int64_t life_s_;
};

}  // namespace sally::pki
