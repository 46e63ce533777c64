// SPDX-License-Identifier: Apache-2.0
#include "crypto/open_key.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>

#include "base/fs.h"
#include "crypto/hardware.h"
#include "crypto/pkcs11.h"
#include "crypto/tpm.h"

namespace sally::crypto {
namespace {

constexpr std::size_t kMaxFile = 64 * 1024;

Result<SignerPtr> open_file(const std::string& path) {
  struct stat st{};
  if (::stat(path.c_str(), &st) == 0 && (!S_ISREG(st.st_mode) || (st.st_mode & 0077) != 0))
    return fail(Errc::kKeyMayLeave,
                path + " must be a file of mode 0600; others may have read it: replace the key",
                Source::kConfig);
  TRY_ASSIGN(std::string pem, fs::read_text(path, kMaxFile));
  auto key = FileKey::from_pem(pem);
  wipe(pem);
  if (!key) return fail(std::move(key).error().at(path));
  return SignerPtr(std::move(*key));
}

struct Opened {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<const Signer>, std::less<>> keys;
};
Opened& opened() {
  static auto* all = new Opened;
  return *all;
}

Result<SignerPtr> open_hardware(const KeyName& name) {
  Opened& all = opened();
  const std::lock_guard lock(all.mutex);
  const std::string text = name.str();
  auto& known = all.keys[text];
  if (auto key = known.lock()) return key;
  auto token = name.kind == KeyName::Kind::kTpm ? open_tpm(name) : open_pkcs11(name);
  if (!token) return fail(std::move(token).error());
  TRY_ASSIGN(auto key, HardwareKey::create(std::move(*token), text));
  known = key;
  return key;
}

}  // namespace

Result<SignerPtr> open_key(std::string_view text) {
  TRY_ASSIGN(const KeyName name, parse_key_name(text));
  return name.hardware() ? open_hardware(name) : open_file(name.path);
}

Result<SignerPtr> make_key(std::string_view text, KeyType type) {
  TRY_ASSIGN(const KeyName name, parse_key_name(text));
  switch (name.kind) {
    case KeyName::Kind::kFile: {
      if (fs::exists(name.path))
        return fail(Errc::kKeyOperation, name.path + " exists", Source::kConfig);
      TRY_ASSIGN(const auto key, FileKey::generate(type));
      TRY_ASSIGN(std::string pem, key->to_pem());
      const Status written = fs::write_file_atomic(name.path, as_bytes(pem), 0600);
      wipe(pem);
      TRY(written);
      return SignerPtr(key);
    }
    case KeyName::Kind::kPkcs11:
      TRY(make_pkcs11(name, type));
      break;
    case KeyName::Kind::kTpm:
      if (type != KeyType::kP256)
        return fail(Errc::kUnsupportedKey, "keys in a TPM are P-256", Source::kConfig);
      TRY(make_tpm(name));
      break;
  }
  return open_hardware(name);
}

Result<std::string> hardware_name(std::string_view option, const std::string& dir) {
  std::string text(option);
  if (option == "tpm" || option.starts_with("tpm:?")) {
    KeyName wrapped{.kind = KeyName::Kind::kTpm};
    wrapped.path = std::filesystem::absolute(dir).lexically_normal().string() + "/key.tpm";
    wrapped.device = kTpmDevice;
    text = wrapped.str() + text.substr(std::min<std::size_t>(4, text.size()));
  }
  TRY_ASSIGN(const KeyName name, parse_key_name(text));
  if (!name.hardware())
    return fail(Errc::kBadKeyName, "a key in hardware is tpm, tpm:... or pkcs11:...",
                Source::kConfig);
  return name.str();
}

Result<SignerPtr> open_or_make_key(std::string_view text, KeyType type) {
  TRY_ASSIGN(const KeyName name, parse_key_name(text));
  if (name.kind == KeyName::Kind::kTpm ? name.handle == 0 && !fs::exists(name.path)
                                       : !name.hardware() && !fs::exists(name.path))
    return make_key(text, type);
  auto key = open_key(text);
  if (!key && key.error().is(Errc::kKeyMissing) && name.kind == KeyName::Kind::kPkcs11)
    return make_key(text, type);
  return key;
}

}  // namespace sally::crypto
