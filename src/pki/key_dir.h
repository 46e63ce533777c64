// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/random.h"
#include "crypto/key.h"

namespace sally::pki {

/// The folder of private keys (mode 0700) with one file per key (mode 0600), and of those that are
/// in a token instead: their reference is the token's name of them (crypto/key_name.h). A value:
/// only the path. Any thread. A file that others may read is refused (kKeyFile): that key is no
/// secret any more.
class KeyDir {
 public:
  explicit KeyDir(std::string path) : path_(std::move(path)) {}
  /// Makes and stores a new key; kExists where the name is taken. With a reference it is made in
  /// its token.
  [[nodiscard]] Result<crypto::SignerPtr> create(std::string_view reference,
                                                 crypto::KeyType type) const;
  [[nodiscard]] Result<crypto::SignerPtr> load(std::string_view reference) const;
  /// A random secret of 32 bytes, made on first use.
  [[nodiscard]] Result<Bytes> secret(std::string_view name, Random& random) const;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  [[nodiscard]] std::string file(std::string_view name) const;
  [[nodiscard]] Result<std::string> read(const std::string& file) const;
  std::string path_;
};

}  // namespace sally::pki
