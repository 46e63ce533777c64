// SPDX-License-Identifier: Apache-2.0
#include "crypto/pkcs11.h"

#include <dlfcn.h>
#include <openssl/ec.h>
#include <p11-kit-1/p11-kit/pkcs11.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "base/fs.h"
#include "base/random.h"
#include "base/text.h"
#include "crypto/hash.h"
#include "crypto/ossl.h"

namespace sally::crypto {
namespace {

constexpr char kProxy[] = "p11-kit-proxy.so";
constexpr std::size_t kMaxSlots = 256;
constexpr std::size_t kMaxPin = 256;
constexpr std::array<std::uint8_t, 10> kOidP256 = {0x06, 0x08, 0x2a, 0x86, 0x48,
                                                   0xce, 0x3d, 0x03, 0x01, 0x07};
constexpr std::array<std::uint8_t, 7> kOidP384 = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};

std::string_view reason(CK_RV rv) {
  switch (rv) {
    case CKR_DEVICE_ERROR:
      return "the device failed";
    case CKR_DEVICE_MEMORY:
      return "the token is full";
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
      return "the token was pulled out";
    case CKR_PIN_EXPIRED:
      return "the PIN has expired";
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
      return "the PIN is wrong";
    case CKR_PIN_LOCKED:
      return "the PIN is locked";
    case CKR_USER_NOT_LOGGED_IN:
      return "nobody is logged in";
    case CKR_USER_PIN_NOT_INITIALIZED:
      return "the token has no user PIN yet";
    case CKR_MECHANISM_INVALID:
      return "the token does not know the algorithm";
    case CKR_TOKEN_WRITE_PROTECTED:
      return "the token is read-only";
    case CKR_FUNCTION_NOT_SUPPORTED:
      return "the token cannot do that";
    default:
      return "PKCS#11 error";
  }
}

std::string said(std::string_view what, CK_RV rv) {
  return std::string(what) + ": " + std::string(reason(rv)) + " (0x" +
         to_hex(std::array<std::uint8_t, 4>{
             static_cast<std::uint8_t>(rv >> 24U), static_cast<std::uint8_t>(rv >> 16U),
             static_cast<std::uint8_t>(rv >> 8U), static_cast<std::uint8_t>(rv)}) +
         ")";
}

// What a fresh session may mend.
bool is_gone(CK_RV rv) {
  switch (rv) {
    case CKR_DEVICE_ERROR:
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED:
    case CKR_SESSION_HANDLE_INVALID:
    case CKR_SESSION_CLOSED:
    case CKR_OBJECT_HANDLE_INVALID:
    case CKR_KEY_HANDLE_INVALID:
    case CKR_USER_NOT_LOGGED_IN:
    case CKR_CRYPTOKI_NOT_INITIALIZED:
    case CKR_GENERAL_ERROR:
      return true;
    default:
      return false;
  }
}

/// A loaded PKCS#11 library. One per path and process, never unloaded: its other users may be
/// anywhere. Any thread; calls hold `in_use` shared, and whoever starts it anew holds it alone.
struct Module {
  CK_FUNCTION_LIST* f = nullptr;
  std::shared_mutex in_use;
  std::uint64_t generation = 1;
};

struct Modules {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Module>> by_path;
  /// SHA-256 of the PIN that a token did not take, by token: a second try may lock it.
  std::map<std::string, Sha256> refused_pins;
};
Modules& modules() {
  static auto* all = new Modules;
  return *all;
}

CK_RV initialize(CK_FUNCTION_LIST* f) {
  CK_C_INITIALIZE_ARGS args{};
  args.flags = CKF_OS_LOCKING_OK;
  const CK_RV rv = f->C_Initialize(&args);
  return rv == CKR_CRYPTOKI_ALREADY_INITIALIZED ? CKR_OK : rv;
}

Result<Module*> load(const std::string& module_path) {
  const std::string path = module_path.empty() ? kProxy : module_path;
  Modules& all = modules();
  const std::lock_guard lock(all.mutex);
  if (const auto it = all.by_path.find(path); it != all.by_path.end()) return it->second.get();
  const auto missing = [&](const std::string& why) {
    return fail(Errc::kModuleMissing,
                "PKCS#11 library " + path + ": " + why +
                    (module_path.empty()
                         ? "\ninstall the package libp11-kit0, or name a library with module-path="
                         : "\ninstall it, or correct module-path="),
                Source::kConfig);
  };
  void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* why = ::dlerror();
    return missing(why == nullptr ? "not found" : why);
  }
  const auto get = reinterpret_cast<CK_C_GetFunctionList>(::dlsym(handle, "C_GetFunctionList"));
  auto module = std::make_unique<Module>();
  if (get == nullptr || get(&module->f) != CKR_OK || module->f == nullptr)
    return missing("is no PKCS#11 library");
  if (const CK_RV rv = initialize(module->f); rv != CKR_OK) return missing(said("start", rv));
  return all.by_path.emplace(path, std::move(module)).first->second.get();
}

// Some libraries see a token that went away and came back only when they are started anew.
void start_anew(Module& module, std::uint64_t generation) {
  const std::unique_lock alone(module.in_use);
  if (module.generation != generation) return;  // somebody else did
  (void)module.f->C_Finalize(nullptr);
  (void)initialize(module.f);
  ++module.generation;
}

template <std::size_t N>
std::string padded(const CK_UTF8CHAR (&field)[N]) {
  return std::string(trim(std::string_view(reinterpret_cast<const char*>(field), N)));
}

CK_ATTRIBUTE attribute(CK_ATTRIBUTE_TYPE type, const void* value, std::size_t n) {
  return {type, const_cast<void*>(value), static_cast<CK_ULONG>(n)};
}

/// A session with a token, logged in where there is a PIN. Owned by whoever holds it, one thread at
/// a time, under the module's lock.
class Session {
 public:
  Session(Module& module, CK_SESSION_HANDLE handle) : module_(module), handle_(handle) {}
  ~Session() {
    if (generation_ == module_.generation) (void)module_.f->C_CloseSession(handle_);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  [[nodiscard]] CK_SESSION_HANDLE handle() const { return handle_; }
  [[nodiscard]] CK_FUNCTION_LIST& f() const { return *module_.f; }
  [[nodiscard]] bool stale() const { return generation_ != module_.generation; }

  Result<Bytes> value(CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type) const {
    CK_ATTRIBUTE a{type, nullptr, 0};
    CK_RV rv = f().C_GetAttributeValue(handle_, object, &a, 1);
    if (rv == CKR_OK && a.ulValueLen <= 4'096) {
      Bytes out(a.ulValueLen);
      a.pValue = out.data();
      rv = f().C_GetAttributeValue(handle_, object, &a, 1);
      if (rv == CKR_OK && a.ulValueLen <= out.size()) {
        out.resize(a.ulValueLen);
        return out;
      }
    }
    return fail(Errc::kKeyMissing, said("attribute of the key", rv), Source::kConfig);
  }
  bool is_true(CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, bool unknown) const {
    const auto v = value(object, type);
    return v && v->size() == sizeof(CK_BBOOL) ? v->front() != CK_FALSE : unknown;
  }
  /// At most two: more than one is one too many.
  Result<std::vector<CK_OBJECT_HANDLE>> find(CK_OBJECT_CLASS kind, const KeyName& name) const {
    std::vector<CK_ATTRIBUTE> wanted{attribute(CKA_CLASS, &kind, sizeof kind)};
    if (!name.object.empty())
      wanted.push_back(attribute(CKA_LABEL, name.object.data(), name.object.size()));
    if (!name.id.empty()) wanted.push_back(attribute(CKA_ID, name.id.data(), name.id.size()));
    std::array<CK_OBJECT_HANDLE, 2> found{};
    CK_ULONG n = 0;
    CK_RV rv = f().C_FindObjectsInit(handle_, wanted.data(), wanted.size());
    if (rv == CKR_OK) {
      rv = f().C_FindObjects(handle_, found.data(), found.size(), &n);
      (void)f().C_FindObjectsFinal(handle_);
    }
    if (rv != CKR_OK)
      return fail(Errc::kTokenMissing, said("looking for the key", rv), Source::kLocal, true);
    return std::vector(found.begin(), found.begin() + std::min<std::size_t>(n, found.size()));
  }

 private:
  Module& module_;
  CK_SESSION_HANDLE handle_;
  std::uint64_t generation_ = module_.generation;
};

std::string token_text(const KeyName& name) {
  return !name.token.empty() ? "\"" + name.token + "\"" : "with serial " + name.serial;
}

Result<std::string> read_pin(const std::string& path) {
  struct stat st{};
  if (::stat(path.c_str(), &st) != 0)
    return fail(Errc::kPinNeeded, "PIN file " + path + " is missing", Source::kConfig);
  if (!S_ISREG(st.st_mode) || (st.st_mode & 0077) != 0)
    return fail(Errc::kPinNeeded, path + " must be a file of mode 0600\nchmod 600 " + path,
                Source::kConfig);
  TRY_ASSIGN(auto pin, fs::read_text(path, kMaxPin));
  while (!pin.empty() && (pin.back() == '\n' || pin.back() == '\r')) pin.pop_back();
  if (pin.empty()) return fail(Errc::kPinNeeded, path + " is empty", Source::kConfig);
  return pin;
}

// A wrong PIN is shown to a token once: by this process, and, where the token counts, by all of
// them until somebody has logged in by hand.
Status log_in(const Session& session, const CK_TOKEN_INFO& token, const KeyName& name) {
  if ((token.flags & CKF_LOGIN_REQUIRED) == 0) return {};
  if (name.pin_path.empty())
    return fail(Errc::kPinNeeded,
                "token " + token_text(name) +
                    " wants a PIN\nwrite it into a file of mode 0600 and name that in the URI: "
                    "?pin-source=/path",
                Source::kConfig);
  if ((token.flags & CKF_USER_PIN_LOCKED) != 0)
    return fail(Errc::kPinRefused, "the PIN of token " + token_text(name) + " is locked",
                Source::kConfig);
  if ((token.flags & (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY)) != 0)
    return fail(
        Errc::kPinRefused,
        "token " + token_text(name) +
            " was shown a wrong PIN since its last login; another one could lock it, so none "
            "is tried\nsee that " +
            name.pin_path +
            " is right, then log in once by hand: pkcs11-tool --login --list-objects",
        Source::kConfig);
  const std::string key =
      padded(token.manufacturerID) + "/" + padded(token.serialNumber) + "/" + padded(token.label);
  TRY_ASSIGN(std::string pin, read_pin(name.pin_path));
  const Sha256 hash = sha256(as_bytes(pin));
  Modules& all = modules();
  const std::lock_guard lock(all.mutex);
  const auto before = all.refused_pins.find(key);
  const bool known = before != all.refused_pins.end() && before->second == hash;
  const CK_RV rv =
      known ? CKR_PIN_INCORRECT
            : session.f().C_Login(session.handle(), CKU_USER,
                                  reinterpret_cast<CK_UTF8CHAR*>(pin.data()), pin.size());
  wipe(pin);
  if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) return {};
  if (is_gone(rv)) return fail(Errc::kTokenMissing, said("log in", rv), Source::kLocal, true);
  all.refused_pins[key] = hash;
  return fail(Errc::kPinRefused,
              said("token " + token_text(name), rv) + "; it is not tried again\ncorrect " +
                  name.pin_path + ", then start again",
              Source::kConfig);
}

// The caller holds the module's lock.
Result<std::unique_ptr<Session>> open_session(Module& module, const KeyName& name, bool writing) {
  CK_ULONG n = 0;
  CK_RV rv = module.f->C_GetSlotList(CK_TRUE, nullptr, &n);
  std::vector<CK_SLOT_ID> slots(std::min<std::size_t>(n, kMaxSlots));
  n = slots.size();
  if (rv == CKR_OK && n > 0) rv = module.f->C_GetSlotList(CK_TRUE, slots.data(), &n);
  if (rv != CKR_OK)
    return fail(Errc::kTokenMissing, said("list of tokens", rv), Source::kLocal, true);
  slots.resize(std::min<std::size_t>(n, slots.size()));
  std::string there;
  for (const CK_SLOT_ID slot : slots) {
    CK_TOKEN_INFO info{};
    if (module.f->C_GetTokenInfo(slot, &info) != CKR_OK) continue;
    const auto fits = [](const std::string& wanted, const auto& field) {
      return wanted.empty() || wanted == padded(field);
    };
    if (!fits(name.token, info.label) || !fits(name.serial, info.serialNumber) ||
        !fits(name.model, info.model) || !fits(name.manufacturer, info.manufacturerID)) {
      const std::string label = padded(info.label);
      if (!label.empty() && printable_utf8(label)) there += (there.empty() ? "" : ", ") + label;
      continue;
    }
    CK_SESSION_HANDLE handle = 0;
    const CK_FLAGS flags = CKF_SERIAL_SESSION | (writing ? CKF_RW_SESSION : 0UL);
    rv = module.f->C_OpenSession(slot, flags, nullptr, nullptr, &handle);
    if (rv != CKR_OK) return fail(Errc::kTokenMissing, said("session", rv), Source::kLocal, true);
    auto session = std::make_unique<Session>(module, handle);
    TRY(log_in(*session, info, name));
    return session;
  }
  return fail(Errc::kTokenMissing,
              "no token " + token_text(name) +
                  (there.empty() ? "; there is none at all" : "; there is " + there) +
                  "\nplug it in, or correct the name; pkcs11-tool --list-slots shows what is there",
              Source::kConfig, true);
}

Result<KeyType> type_of(ByteView params) {
  if (std::ranges::equal(params, kOidP256)) return KeyType::kP256;
  if (std::ranges::equal(params, kOidP384)) return KeyType::kP384;
  return fail(Errc::kUnsupportedKey, "the key in the token is neither P-256 nor P-384",
              Source::kConfig);
}

// CKA_EC_POINT: an OCTET STRING around the point; some give the bare one.
ByteView bare_point(ByteView point) {
  const bool wrapped = point.size() == 67 || point.size() == 99;
  return wrapped && point[0] == 0x04 && point[1] == point.size() - 2 ? point.subspan(2) : point;
}

// r || s, as C_Sign gives it.
Bytes to_der_signature(ByteView raw) {
  const int half = static_cast<int>(raw.size() / 2);
  Ossl<ECDSA_SIG, ECDSA_SIG_free> sig(ECDSA_SIG_new());
  BIGNUM* r = BN_bin2bn(raw.data(), half, nullptr);
  BIGNUM* s = BN_bin2bn(raw.data() + half, half, nullptr);
  if (!sig || r == nullptr || s == nullptr || ECDSA_SIG_set0(sig.get(), r, s) != 1) {
    BN_free(r);
    BN_free(s);
    return {};
  }
  return to_der(i2d_ECDSA_SIG, sig.get());
}

class Pkcs11Token final : public Token {
 public:
  Pkcs11Token(Module& module, KeyName name, std::unique_ptr<Session> session, CK_OBJECT_HANDLE key,
              PublicKey pub)
      : module_(module),
        name_(std::move(name)),
        public_(std::move(pub)),
        session_(std::move(session)),
        key_(key) {}
  ~Pkcs11Token() override {
    const std::shared_lock use(module_.in_use);
    session_.reset();
  }

  [[nodiscard]] const PublicKey& public_key() const override { return public_; }

  [[nodiscard]] Result<Bytes> sign_digest(ByteView digest) const override {
    const std::lock_guard lock(mutex_);
    for (int attempt = 0;; ++attempt) {
      std::uint64_t generation = 0;
      {
        const std::shared_lock use(module_.in_use);
        generation = module_.generation;
        auto signature = sign_once(digest);
        if (signature || !signature.error().retry() || attempt == 2) return signature;
        session_.reset();
      }
      if (attempt == 1) start_anew(module_, generation);
    }
  }

 private:
  Result<Bytes> sign_once(ByteView digest) const {
    if (session_ != nullptr && session_->stale()) session_.reset();
    if (session_ == nullptr) {
      TRY_ASSIGN(session_, open_session(module_, name_, false));
      TRY_ASSIGN(const auto found, session_->find(CKO_PRIVATE_KEY, name_));
      if (found.size() != 1)
        return fail(Errc::kKeyMissing, "the key is not in token " + token_text(name_) + " any more",
                    Source::kLocal, true);
      key_ = found.front();
    }
    CK_MECHANISM mechanism{CKM_ECDSA, nullptr, 0};
    Bytes raw(160);
    CK_ULONG n = raw.size();
    CK_RV rv = session_->f().C_SignInit(session_->handle(), &mechanism, key_);
    if (rv == CKR_OK)
      rv = session_->f().C_Sign(session_->handle(), const_cast<CK_BYTE*>(digest.data()),
                                digest.size(), raw.data(), &n);
    if (rv != CKR_OK)
      return fail(is_gone(rv) ? Errc::kTokenMissing : Errc::kKeyOperation,
                  said("signing in token " + token_text(name_), rv), Source::kLocal, is_gone(rv));
    const std::size_t half = public_.type() == KeyType::kP384 ? 48 : 32;
    if (n != 2 * half)
      return fail(Errc::kKeyOperation, "the token's signature has a wrong size", Source::kLocal);
    return to_der_signature(ByteView(raw).first(n));
  }

  Module& module_;
  const KeyName name_;
  const PublicKey public_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Session> session_;
  mutable CK_OBJECT_HANDLE key_;
};

}  // namespace

Result<std::unique_ptr<Token>> open_pkcs11(const KeyName& name) {
  TRY_ASSIGN(Module* const module, load(name.module_path));
  const std::shared_lock use(module->in_use);
  TRY_ASSIGN(auto session, open_session(*module, name, false));
  TRY_ASSIGN(const auto keys, session->find(CKO_PRIVATE_KEY, name));
  if (keys.size() != 1)
    return fail(Errc::kKeyMissing,
                keys.empty() ? "token " + token_text(name) + " has no private key of that name"
                             : "token " + token_text(name) +
                                   " has several private keys of that name\nadd id=",
                Source::kConfig);
  const CK_OBJECT_HANDLE key = keys.front();
  // Where the token does not say, it does. One that was made elsewhere is elsewhere still.
  const bool stays =
      !session->is_true(key, CKA_EXTRACTABLE, true) && session->is_true(key, CKA_SENSITIVE, false);
  const bool own = session->is_true(key, CKA_LOCAL, false) ||
                   (session->is_true(key, CKA_ALWAYS_SENSITIVE, false) &&
                    session->is_true(key, CKA_NEVER_EXTRACTABLE, false));
  if (!stays || !own)
    return fail(Errc::kKeyMayLeave,
                "token " + token_text(name) +
                    (stays ? " did not make this key itself (it was imported)"
                           : " would give this key away (extractable, or not sensitive)") +
                    "\nmake one that stays: pkcs11-tool --keypairgen --key-type EC:prime256v1",
                Source::kConfig);
  KeyName of_public = name;
  TRY_ASSIGN(const Bytes id, session->value(key, CKA_ID));
  if (!id.empty()) of_public.id = to_text(id);
  TRY_ASSIGN(const auto publics, session->find(CKO_PUBLIC_KEY, of_public));
  if (publics.empty())
    return fail(Errc::kKeyMissing,
                "token " + token_text(name) + " has no public key beside that private key",
                Source::kConfig);
  TRY_ASSIGN(const Bytes params, session->value(publics.front(), CKA_EC_PARAMS));
  TRY_ASSIGN(const KeyType type, type_of(params));
  TRY_ASSIGN(const Bytes point, session->value(publics.front(), CKA_EC_POINT));
  TRY_ASSIGN(auto pub, PublicKey::from_point(type, bare_point(point)));
  return std::make_unique<Pkcs11Token>(*module, name, std::move(session), key, std::move(pub));
}

Status make_pkcs11(const KeyName& name, KeyType type) {
  if (name.object.empty())
    return fail(Errc::kBadKeyName, "a new key needs a name (object=...)", Source::kConfig);
  if (type != KeyType::kP256 && type != KeyType::kP384)
    return fail(Errc::kUnsupportedKey, "keys in tokens are P-256 or P-384", Source::kConfig);
  TRY_ASSIGN(Module* const module, load(name.module_path));
  const std::shared_lock use(module->in_use);
  TRY_ASSIGN(const auto session, open_session(*module, name, true));
  TRY_ASSIGN(const auto there, session->find(CKO_PRIVATE_KEY, name));
  if (!there.empty())
    return fail(Errc::kKeyOperation,
                "token " + token_text(name) + " has a key of that name already", Source::kConfig);
  std::string id = name.id;
  if (id.empty()) {
    std::array<std::uint8_t, 8> fresh{};
    system_random().fill(fresh);
    id = to_text(fresh);
  }
  const ByteView curve = type == KeyType::kP384 ? ByteView(kOidP384) : ByteView(kOidP256);
  const CK_BBOOL yes = CK_TRUE;
  const CK_BBOOL no = CK_FALSE;
  const auto is = [](CK_ATTRIBUTE_TYPE what, const CK_BBOOL& flag) {
    return attribute(what, &flag, sizeof flag);
  };
  const auto label = attribute(CKA_LABEL, name.object.data(), name.object.size());
  const auto with_id = attribute(CKA_ID, id.data(), id.size());
  std::array pub{is(CKA_TOKEN, yes), is(CKA_VERIFY, yes),
                 attribute(CKA_EC_PARAMS, curve.data(), curve.size()), label, with_id};
  std::array priv{is(CKA_TOKEN, yes),
                  is(CKA_PRIVATE, yes),
                  is(CKA_SENSITIVE, yes),
                  is(CKA_EXTRACTABLE, no),
                  is(CKA_SIGN, yes),
                  is(CKA_DECRYPT, no),
                  is(CKA_UNWRAP, no),
                  label,
                  with_id};
  CK_MECHANISM mechanism{CKM_EC_KEY_PAIR_GEN, nullptr, 0};
  CK_OBJECT_HANDLE public_handle = 0;
  CK_OBJECT_HANDLE private_handle = 0;
  const CK_RV rv =
      session->f().C_GenerateKeyPair(session->handle(), &mechanism, pub.data(), pub.size(),
                                     priv.data(), priv.size(), &public_handle, &private_handle);
  if (rv != CKR_OK)
    return fail(Errc::kKeyOperation, said("making a key in token " + token_text(name), rv),
                Source::kLocal);
  return {};
}

}  // namespace sally::crypto
