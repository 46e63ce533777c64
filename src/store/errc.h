// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace sally::store {

enum class Errc : std::uint8_t {
  kNotFound,       ///< no such row in this network
  kConflict,       ///< a name or id is taken
  kNoAudit,        ///< a change without an audit row was to be committed
  kReadOnly,       ///< a change in a read transaction
  kAuditTampered,  ///< the audit chain does not verify
  kLogTampered,    ///< the change log's chain does not verify
  kNewerSchema,    ///< the database was written by a newer version
  kCorrupt,        ///< the engine says the file is damaged
  kIo,             ///< I/O error, permissions
  kFull,           ///< the disk or the quota is full
  kDiskReadOnly,   ///< the disk is mounted read-only
  kBusy,           ///< locked by another process
  kBadFilter,      ///< a text that is no filter, or asks for what there is not
  kBadSort,        ///< nothing that rows can be sorted by
  kInternal,       ///< a statement of ours is wrong
};
std::string_view error_name(Errc e);

}  // namespace sally::store
