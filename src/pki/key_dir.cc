// SPDX-License-Identifier: Apache-2.0
#include "pki/key_dir.h"

#include <sys/stat.h>

#include "base/fs.h"
#include "base/text.h"
#include "crypto/open_key.h"
#include "pki/errc.h"

namespace sally::pki {

std::string KeyDir::file(std::string_view name) const {
  return path_ + "/" + std::string(name) + ".key";
}

Result<std::string> KeyDir::read(const std::string& path) const {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0)
    return fail(Errc::kKeyFile, "missing: " + path, Source::kConfig);
  if (!S_ISREG(st.st_mode) || (st.st_mode & 0077) != 0)
    return fail(Errc::kKeyFile,
                path + " must be a file of mode 0600; others may have read it: replace the key",
                Source::kConfig);
  return fs::read_text(path, 64 * 1024);
}

Result<crypto::SignerPtr> KeyDir::create(std::string_view name, crypto::KeyType type) const {
  if (crypto::names_hardware(name)) return crypto::make_key(name, type);
  if (!valid_name(name)) return fail(Errc::kKeyFile, "key name", Source::kInternal);
  if (fs::exists(file(name))) return fail(Errc::kExists, "key file " + file(name), Source::kConfig);
  TRY(fs::make_dirs(path_, 0700));
  TRY_ASSIGN(auto key, crypto::FileKey::generate(type));
  TRY_ASSIGN(std::string pem, key->to_pem());
  const auto written = fs::write_file_atomic(file(name), as_bytes(pem), 0600);
  wipe(pem);
  TRY(written);
  return key;
}

Result<crypto::SignerPtr> KeyDir::load(std::string_view name) const {
  if (crypto::names_hardware(name)) return crypto::open_key(name);
  if (!valid_name(name)) return fail(Errc::kKeyFile, "key name", Source::kConfig);
  TRY_ASSIGN(std::string pem, read(file(name)));
  auto key = crypto::FileKey::from_pem(pem);
  wipe(pem);
  if (!key) return fail(std::move(key).error().at(file(name)));
  return key;
}

Result<Bytes> KeyDir::secret(std::string_view name, Random& random) const {
  if (!valid_name(name)) return fail(Errc::kKeyFile, "secret name", Source::kConfig);
  const std::string path = file(name);
  if (!fs::exists(path)) {
    TRY(fs::make_dirs(path_, 0700));
    Bytes fresh(32);
    random.fill(fresh);
    TRY(fs::write_file_atomic(path, as_bytes(to_hex(fresh) + "\n"), 0600));
    return fresh;
  }
  TRY_ASSIGN(std::string text, read(path));
  auto bytes = from_hex(trim(text));
  wipe(text);
  if (!bytes || bytes->size() != 32)
    return fail(Errc::kKeyFile, "damaged: " + path, Source::kConfig);
  return std::move(*bytes);
}

}  // namespace sally::pki
