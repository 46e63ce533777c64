// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to crypto/: commands and answers of a TPM 2.0 (TCG Library Specification, parts 2 and
// 3), as bytes, and the file of a wrapped key. Nothing here opens a device.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "crypto/key.h"

namespace sally::crypto::tpm {

inline constexpr std::uint32_t kOwner = 0x4000'0001;
/// Where the storage root key lies, where somebody provisioned one.
inline constexpr std::uint32_t kStorageRoot = 0x8100'0001;
inline constexpr std::size_t kMaxMessage = 4'096;

/// Object attributes that say a key was made in this TPM and cannot leave it.
inline constexpr std::uint32_t kFixedTpm = 1U << 1U;
inline constexpr std::uint32_t kFixedParent = 1U << 4U;
inline constexpr std::uint32_t kSensitiveDataOrigin = 1U << 5U;
inline constexpr std::uint32_t kUserWithAuth = 1U << 6U;
inline constexpr std::uint32_t kNoDictionaryAttacks = 1U << 10U;
inline constexpr std::uint32_t kRestricted = 1U << 16U;
inline constexpr std::uint32_t kDecrypt = 1U << 17U;
inline constexpr std::uint32_t kSign = 1U << 18U;

/// Commands, ready to send. Where the TPM wants an authorisation it is the empty password.
Bytes create_primary();
/// A P-256 key for ECDSA with SHA-256, with every attribute that keeps it where it is.
Bytes create_key(std::uint32_t parent);
/// `pub` and `priv` as create_key's answer or a key file has them, without their lengths.
Bytes load(std::uint32_t parent, ByteView pub, ByteView priv);
Bytes sign(std::uint32_t key, ByteView digest);
Bytes read_public(std::uint32_t handle);
Bytes flush(std::uint32_t handle);

/// Length of a message by its first ten bytes; 0 for one that cannot be.
std::size_t message_size(ByteView header);
/// Response code of an answer; its parameters follow. Total, as all that reads here.
struct Answer {
  std::uint32_t code = 0;
  std::uint32_t handle = 0;  ///< where the command makes one
  Bytes parameters;
};
Result<Answer> parse_answer(ByteView message, bool with_handle);
/// create_key's: private and public area, without their lengths.
struct Created {
  Bytes priv;
  Bytes pub;
};
Result<Created> parse_created(ByteView parameters);
/// The public area in read_public's answer, without its length.
Result<Bytes> parse_read_public(ByteView parameters);
/// DER from sign's answer.
Result<Bytes> parse_signature(ByteView parameters);

struct Public {
  std::uint32_t attributes = 0;
  PublicKey key;
};
/// A TPMT_PUBLIC of an ECC key on P-256. kUnsupportedKey.
Result<Public> parse_public(ByteView area);

/// The file of a key that its TPM has wrapped ("TSS2 PRIVATE KEY", as tpm2-openssl and others write
/// it): useless without that TPM.
struct KeyFile {
  std::uint32_t parent = kOwner;
  Bytes pub;
  Bytes priv;
};
std::string to_pem(const KeyFile& key);
/// kBadKey; kUnsupportedKey for keys with a policy or a password.
Result<KeyFile> parse_pem(std::string_view text);

}  // namespace sally::crypto::tpm
