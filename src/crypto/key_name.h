// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "crypto/errc.h"

namespace sally::crypto {

/// Where a private key is: docs/hardware-keys.md. Says nothing secret: a PIN is in a file.
struct KeyName {
  enum class Kind : std::uint8_t { kFile, kPkcs11, kTpm };
  Kind kind = Kind::kFile;
  std::string path;          ///< the PEM file, or the TPM's wrapped key
  std::uint32_t handle = 0;  ///< a persistent key of a TPM, instead of `path`
  std::string device;        ///< of the TPM: a character device or a Unix socket
  // PKCS#11: what is empty is not asked for.
  std::string token;
  std::string manufacturer;
  std::string model;
  std::string serial;
  std::string object;
  std::string id;  ///< raw bytes
  std::string module_path;
  std::string pin_path;

  [[nodiscard]] bool hardware() const { return kind != Kind::kFile; }
  /// The text of a name that takes two names of one key to one text.
  [[nodiscard]] std::string str() const;
};

inline constexpr char kTpmDevice[] = "/dev/tpmrm0";
inline constexpr std::size_t kMaxKeyName = 1'024;

/// "/path" or "file:/path"; "pkcs11:" (RFC 7512: token, manufacturer, model, serial, object, id,
/// type=private ? module-path, pin-source); "tpm:/path" or "tpm:handle:0x81..., both with
/// ?device=/path. Total. kBadKeyName: what it does not know, it refuses.
Result<KeyName> parse_key_name(std::string_view text);
/// By the first letters: whether a key of this name is in hardware.
bool names_hardware(std::string_view text);

}  // namespace sally::crypto
