// SPDX-License-Identifier: Apache-2.0
#include "crypto/hardware.h"

#include <openssl/async.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>

#include "base/check.h"
#include "crypto/elsewhere.h"
#include "crypto/ossl.h"

// The provider: what OpenSSL asks of a key it may sign with, answered from a Token.
// EC keys and ECDSA; a key object is the token and its public half, a signature context is a digest
// that is being computed.
namespace sally::crypto {
namespace {

constexpr char kProvider[] = "sally-token";
constexpr char kTokenParam[] = "sally-token-pointer";
constexpr int kMaxSignature = 104;  // of P-384, DER
constexpr std::size_t kStack = 256UL * 1024;

struct Key {
  std::shared_ptr<const Token> token;
};
struct Signature {
  std::shared_ptr<const Token> token;
  MdCtxPtr digest;
};

const PublicKey& public_of(const Key* key) {
  return key->token->public_key();
}
bool is_p384(const PublicKey& key) {
  return key.type() == KeyType::kP384;
}
const EVP_MD* digest_of(const PublicKey& key) {
  return is_p384(key) ? EVP_sha384() : EVP_sha256();
}
// As the library's own EC keys are called: a server looks the name up among its objects.
const char* group_of(const PublicKey& key) {
  return is_p384(key) ? "secp384r1" : "prime256v1";
}
Bytes point_of(const PublicKey& key) {
  Bytes out(160);
  std::size_t n = 0;
  if (EVP_PKEY_get_octet_string_param(key.native(), OSSL_PKEY_PARAM_PUB_KEY, out.data(), out.size(),
                                      &n) != 1)
    n = 0;
  out.resize(n);
  return out;
}

template <typename F>
OSSL_DISPATCH entry(int id, F* function) {
  return {id, reinterpret_cast<void (*)()>(function)};
}

// ---- keys
void* key_new(void*) {
  return new Key;
}
void key_free(void* key) {
  delete static_cast<Key*>(key);
}
void* key_load(const void*, std::size_t) {
  return nullptr;
}
int key_has(const void* data, int) {
  return static_cast<const Key*>(data)->token != nullptr ? 1 : 0;
}
int key_match(const void* a, const void* b, int) {
  return public_of(static_cast<const Key*>(a)) == public_of(static_cast<const Key*>(b)) ? 1 : 0;
}
int key_import(void* data, int, const OSSL_PARAM params[]) {
  const OSSL_PARAM* p = OSSL_PARAM_locate_const(params, kTokenParam);
  const void* pointer = nullptr;
  std::size_t n = 0;
  if (p == nullptr || OSSL_PARAM_get_octet_ptr(p, &pointer, &n) != 1) return 0;
  static_cast<Key*>(data)->token = *static_cast<const std::shared_ptr<const Token>*>(pointer);
  return 1;
}
const OSSL_PARAM* key_import_types(int) {
  static const OSSL_PARAM types[] = {OSSL_PARAM_octet_ptr(kTokenParam, nullptr, 0), OSSL_PARAM_END};
  return types;
}
// The private half is not exported; with that every other provider's signature is out of the way
// and ours is taken.
int key_export(void* data, int selection, OSSL_CALLBACK* callback, void* arg) {
  if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0) return 0;
  const PublicKey& key = public_of(static_cast<Key*>(data));
  std::string group = group_of(key);
  Bytes point = point_of(key);
  OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()),
      OSSL_PARAM_construct_end()};
  return callback(params, arg);
}
const OSSL_PARAM* key_export_types(int) {
  static const OSSL_PARAM types[] = {OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, nullptr, 0),
                                     OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, nullptr, 0),
                                     OSSL_PARAM_END};
  return types;
}
int key_get(void* data, OSSL_PARAM params[]) {
  const PublicKey& key = public_of(static_cast<Key*>(data));
  const auto set = [&](const char* name, auto value) {
    OSSL_PARAM* p = OSSL_PARAM_locate(params, name);
    if (p == nullptr) return true;
    if constexpr (std::is_same_v<decltype(value), int>)
      return OSSL_PARAM_set_int(p, value) == 1;
    else
      return OSSL_PARAM_set_utf8_string(p, value) == 1;
  };
  bool ok = set(OSSL_PKEY_PARAM_BITS, is_p384(key) ? 384 : 256) &&
            set(OSSL_PKEY_PARAM_SECURITY_BITS, is_p384(key) ? 192 : 128) &&
            set(OSSL_PKEY_PARAM_MAX_SIZE, kMaxSignature) &&
            set(OSSL_PKEY_PARAM_GROUP_NAME, group_of(key)) &&
            set(OSSL_PKEY_PARAM_DEFAULT_DIGEST, is_p384(key) ? "SHA384" : "SHA256");
  for (const char* name : {OSSL_PKEY_PARAM_PUB_KEY, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY}) {
    OSSL_PARAM* p = OSSL_PARAM_locate(params, name);
    if (p == nullptr) continue;
    const Bytes point = point_of(key);
    ok = ok && OSSL_PARAM_set_octet_string(p, point.data(), point.size()) == 1;
  }
  return ok ? 1 : 0;
}
const OSSL_PARAM* key_gettable(void*) {
  static const OSSL_PARAM types[] = {
      OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, nullptr),
      OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, nullptr),
      OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, nullptr),
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, nullptr, 0),
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, nullptr, 0),
      OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, nullptr, 0),
      OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, nullptr, 0),
      OSSL_PARAM_END};
  return types;
}
const char* key_operation(int operation) {
  return operation == OSSL_OP_SIGNATURE ? "ECDSA" : nullptr;
}

// ---- signatures
void* sign_new(void*, const char*) {
  return new Signature;
}
void sign_free(void* data) {
  delete static_cast<Signature*>(data);
}
void* sign_dup(void* data) {
  const auto* from = static_cast<Signature*>(data);
  auto to = std::make_unique<Signature>();
  to->token = from->token;
  if (from->digest != nullptr) {
    to->digest.reset(EVP_MD_CTX_new());
    if (to->digest == nullptr || EVP_MD_CTX_copy_ex(to->digest.get(), from->digest.get()) != 1)
      return nullptr;
  }
  return to.release();
}
int sign_begin(void* data, const char* digest, void* key, const OSSL_PARAM[]) {
  auto* s = static_cast<Signature*>(data);
  if (key != nullptr) s->token = static_cast<Key*>(key)->token;
  if (s->token == nullptr) return 0;
  const EVP_MD* md = digest_of(s->token->public_key());
  // One digest per curve, as PublicKey::verify has it.
  if (digest != nullptr && *digest != 0 && EVP_MD_is_a(md, digest) != 1) return 0;
  s->digest.reset(EVP_MD_CTX_new());
  return s->digest != nullptr && EVP_DigestInit_ex(s->digest.get(), md, nullptr) == 1 ? 1 : 0;
}
int sign_update(void* data, const unsigned char* bytes, std::size_t n) {
  auto* s = static_cast<Signature*>(data);
  return s->digest != nullptr ? EVP_DigestUpdate(s->digest.get(), bytes, n) : 0;
}

Result<Bytes> sign_paused(const std::shared_ptr<const Token>& token, Bytes digest,
                          Pausing& pausing) {
  struct Answer {
    std::atomic<bool> here = false;
    Result<Bytes> signature;
  };
  const auto answer = std::make_shared<Answer>();
  const Errand errand(
      [token, digest = std::move(digest), answer] {
        answer->signature = token->sign_digest(digest);
        answer->here.store(true, std::memory_order_release);
      },
      [wake = pausing.wake] { wake(); });
  while (!answer->here.load(std::memory_order_acquire)) {
    if (pausing.given_up)
      return fail(Errc::kKeyOperation, "nobody waits for it any more", Source::kLocal);
    // Back in the caller of the TLS library; here again when it goes on.
    if (ASYNC_pause_job() != 1)
      return fail(Errc::kKeyOperation, "pausing: " + ossl_error(), Source::kInternal);
  }
  return std::move(answer->signature);
}

int sign_final(void* data, unsigned char* out, std::size_t* n, std::size_t room) {
  auto* s = static_cast<Signature*>(data);
  if (out == nullptr) {
    *n = kMaxSignature;
    return 1;
  }
  Bytes digest(EVP_MAX_MD_SIZE);
  unsigned size = 0;
  if (s->digest == nullptr || EVP_DigestFinal_ex(s->digest.get(), digest.data(), &size) != 1)
    return 0;
  digest.resize(size);
  Pausing* pausing = ASYNC_get_current_job() == nullptr ? nullptr : Pausing::current();
  auto signature = pausing == nullptr ? s->token->sign_digest(digest)
                                      : sign_paused(s->token, std::move(digest), *pausing);
  if (!signature) {
    if (Pausing* waiting = Pausing::current()) waiting->error = std::move(signature).error();
    return 0;
  }
  if (signature->size() > room) return 0;
  std::memcpy(out, signature->data(), signature->size());
  *n = signature->size();
  return 1;
}
int sign_get(void* data, OSSL_PARAM params[]) {
  OSSL_PARAM* p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_ALGORITHM_ID);
  if (p == nullptr) return 1;
  const auto* s = static_cast<Signature*>(data);
  if (s->token == nullptr) return 0;
  // AlgorithmIdentifier of ecdsa-with-SHA256 or -SHA384 (RFC 5758).
  std::array<std::uint8_t, 12> id = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                     0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
  if (is_p384(s->token->public_key())) id.back() = 0x03;
  return OSSL_PARAM_set_octet_string(p, id.data(), id.size());
}
const OSSL_PARAM* sign_gettable(void*, void*) {
  static const OSSL_PARAM types[] = {
      OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, nullptr, 0), OSSL_PARAM_END};
  return types;
}

const OSSL_ALGORITHM* query(void*, int operation, int* no_cache) {
  static const OSSL_DISPATCH keys[] = {entry(OSSL_FUNC_KEYMGMT_NEW, key_new),
                                       entry(OSSL_FUNC_KEYMGMT_FREE, key_free),
                                       entry(OSSL_FUNC_KEYMGMT_LOAD, key_load),
                                       entry(OSSL_FUNC_KEYMGMT_HAS, key_has),
                                       entry(OSSL_FUNC_KEYMGMT_MATCH, key_match),
                                       entry(OSSL_FUNC_KEYMGMT_IMPORT, key_import),
                                       entry(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, key_import_types),
                                       entry(OSSL_FUNC_KEYMGMT_EXPORT, key_export),
                                       entry(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, key_export_types),
                                       entry(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get),
                                       entry(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable),
                                       entry(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, key_operation),
                                       OSSL_DISPATCH_END};
  static const OSSL_DISPATCH signatures[] = {
      entry(OSSL_FUNC_SIGNATURE_NEWCTX, sign_new),
      entry(OSSL_FUNC_SIGNATURE_FREECTX, sign_free),
      entry(OSSL_FUNC_SIGNATURE_DUPCTX, sign_dup),
      entry(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, sign_begin),
      entry(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, sign_update),
      entry(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, sign_final),
      entry(OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, sign_get),
      entry(OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, sign_gettable),
      OSSL_DISPATCH_END};
  static const OSSL_ALGORITHM key_algorithms[] = {
      {"EC:id-ecPublicKey:1.2.840.10045.2.1", "provider=sally-token", keys, "key in a token"},
      {nullptr, nullptr, nullptr, nullptr}};
  static const OSSL_ALGORITHM signature_algorithms[] = {
      {"ECDSA", "provider=sally-token", signatures, "signature by a token"},
      {nullptr, nullptr, nullptr, nullptr}};
  *no_cache = 0;
  switch (operation) {
    case OSSL_OP_KEYMGMT:
      return key_algorithms;
    case OSSL_OP_SIGNATURE:
      return signature_algorithms;
    default:
      return nullptr;
  }
}

int provider_init(const OSSL_CORE_HANDLE* handle, const OSSL_DISPATCH*, const OSSL_DISPATCH** out,
                  void** context) {
  static const OSSL_DISPATCH functions[] = {entry(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
                                            OSSL_DISPATCH_END};
  *out = functions;
  *context = const_cast<OSSL_CORE_HANDLE*>(handle);
  return 1;
}

// A paused handshake lives on a stack of its own, and our verification of the peer runs there: the
// library's 32 KiB would be short. With a page below it that nobody may touch.
void* stack_new(std::size_t* size) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  *size = kStack;
  void* all =
      ::mmap(nullptr, page + kStack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  void* stack = static_cast<char*>(all) + page;
  if (::mprotect(stack, kStack, PROT_READ | PROT_WRITE) == 0) return stack;
  ::munmap(all, page + kStack);
  return nullptr;
}
void stack_free(void* stack) {
  if (stack == nullptr) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  ::munmap(static_cast<char*>(stack) - page, page + kStack);
}

// For the life of the process: keys may be in use until its end.
OSSL_LIB_CTX* library() {
  static OSSL_LIB_CTX* context = [] {
    OSSL_LIB_CTX* made = OSSL_LIB_CTX_new();
    SALLY_CHECK(made != nullptr);
    SALLY_CHECK(OSSL_PROVIDER_add_builtin(made, kProvider, provider_init) == 1);
    SALLY_CHECK(OSSL_PROVIDER_load(made, kProvider) != nullptr);
    Pausing::possible =
        ASYNC_is_capable() == 1 && ASYNC_set_mem_functions(stack_new, stack_free) == 1;
    return made;
  }();
  return context;
}

}  // namespace

HardwareKey::~HardwareKey() = default;

Result<SignerPtr> HardwareKey::create(std::unique_ptr<Token> token, std::string name) {
  std::shared_ptr<const Token> shared = std::move(token);
  const KeyType type = shared->public_key().type();
  if (type != KeyType::kP256 && type != KeyType::kP384)
    return fail(Errc::kUnsupportedKey, "keys in tokens are P-256 or P-384", Source::kConfig);
  ERR_clear_error();
  PkeyCtxPtr ctx(EVP_PKEY_CTX_new_from_name(library(), "EC", nullptr));
  EVP_PKEY* raw = nullptr;
  void* pointer = &shared;
  OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_ptr(kTokenParam, &pointer, sizeof shared),
                         OSSL_PARAM_construct_end()};
  if (!ctx || EVP_PKEY_fromdata_init(ctx.get()) != 1 ||
      EVP_PKEY_fromdata(ctx.get(), &raw, EVP_PKEY_KEYPAIR, params) != 1)
    return fail(Errc::kKeyOperation, "key of a token: " + ossl_error(), Source::kInternal);
  std::shared_ptr<EVP_PKEY> native(raw, EVP_PKEY_free);
  return SignerPtr(new HardwareKey(std::move(shared), std::move(native), std::move(name)));
}

Result<Bytes> HardwareKey::sign(ByteView message) const {
  Bytes digest(EVP_MAX_MD_SIZE);
  unsigned n = 0;
  if (EVP_Digest(message.data(), message.size(), digest.data(), &n, digest_of(public_key()),
                 nullptr) != 1)
    return fail(Errc::kKeyOperation, "digest: " + ossl_error(), Source::kInternal);
  digest.resize(n);
  return token_->sign_digest(digest);
}

const PublicKey& HardwareKey::public_key() const {
  return token_->public_key();
}

evp_pkey_st* HardwareKey::native() const {
  return native_.get();
}

}  // namespace sally::crypto
