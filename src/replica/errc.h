// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::replica {

/// Why an update is not taken. Bytes and signatures give codes of wire/ and trust/.
enum class Errc : std::uint8_t {
  kNoHead,    ///< an update without a signed head
  kRollback,  ///< a lower version than what is held
  kFork,      ///< same version, another hash: two histories
  kGap,       ///< entries do not follow what is held: ask for all
  kHash,      ///< entries do not lead to the hash of the head
  kSnapshot,  ///< snapshot and its signed head do not belong together
  kDiverged,  ///< our tables differ from what the writer signed: drop and ask for all
  kDamaged,   ///< file on disk is not what was written
  kAhead,     ///< a reader knows more than the writer
  kTooLarge,  ///< a snapshot over the limit of one message
  kChain,     ///< a stored entry does not continue the writer's chain
};
std::string_view error_name(Errc e);

}  // namespace sally::replica
