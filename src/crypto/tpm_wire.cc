// SPDX-License-Identifier: Apache-2.0
#include "crypto/tpm_wire.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/params.h>

#include <array>

#include "base/text.h"
#include "crypto/ossl.h"

namespace sally::crypto::tpm {
namespace {

constexpr std::uint16_t kNoSessions = 0x8001;
constexpr std::uint16_t kSessions = 0x8002;
constexpr std::uint32_t kPassword = 0x4000'0009;
constexpr std::uint32_t kNull = 0x4000'0007;
constexpr std::uint16_t kHashCheck = 0x8024;
constexpr std::uint16_t kAlgAes = 0x0006;
constexpr std::uint16_t kAlgSha256 = 0x000B;
constexpr std::uint16_t kAlgNull = 0x0010;
constexpr std::uint16_t kAlgEcdsa = 0x0018;
constexpr std::uint16_t kAlgEcc = 0x0023;
constexpr std::uint16_t kAlgCfb = 0x0043;
constexpr std::uint16_t kCurveP256 = 0x0003;
constexpr std::size_t kHeader = 10;
constexpr std::size_t kCoordinate = 32;

enum Command : std::uint32_t {
  kCreatePrimary = 0x131,
  kCreate = 0x153,
  kLoad = 0x157,
  kSignCommand = 0x15D,
  kFlushContext = 0x165,
  kReadPublic = 0x173,
};

void put_sized(Bytes& out, ByteView bytes) {
  put_big(out, bytes.size(), 2);
  append(out, bytes);
}

Bytes command(Command code, ByteView handles, bool authorised, ByteView parameters) {
  Bytes auth;
  if (authorised) {
    put_big(auth, 9, 4);  // the empty password: handle, no nonce, no attributes, no bytes
    put_big(auth, kPassword, 4);
    put_big(auth, 0, 2);
    put_big(auth, 0, 1);
    put_big(auth, 0, 2);
  }
  Bytes out;
  put_big(out, authorised ? kSessions : kNoSessions, 2);
  put_big(out, kHeader + handles.size() + auth.size() + parameters.size(), 4);
  put_big(out, code, 4);
  append(out, handles);
  append(out, auth);
  append(out, parameters);
  return out;
}

Bytes handle_bytes(std::uint32_t handle) {
  Bytes out;
  put_big(out, handle, 4);
  return out;
}

// TPMT_PUBLIC of an ECC key on P-256 that is still to be made.
Bytes ecc_template(std::uint32_t attributes, bool storage) {
  Bytes out;
  put_big(out, kAlgEcc, 2);
  put_big(out, kAlgSha256, 2);
  put_big(out, attributes, 4);
  put_big(out, 0, 2);  // no policy
  if (storage) {
    put_big(out, kAlgAes, 2);
    put_big(out, 128, 2);
    put_big(out, kAlgCfb, 2);
    put_big(out, kAlgNull, 2);
  } else {
    put_big(out, kAlgNull, 2);
    put_big(out, kAlgEcdsa, 2);
    put_big(out, kAlgSha256, 2);
  }
  put_big(out, kCurveP256, 2);
  put_big(out, kAlgNull, 2);  // key derivation
  put_big(out, 0, 2);         // x
  put_big(out, 0, 2);         // y
  return out;
}

Bytes creation(std::uint32_t parent, Command code, ByteView area) {
  Bytes parameters;
  put_big(parameters, 4, 2);  // sensitive: no password, no data
  put_big(parameters, 0, 2);
  put_big(parameters, 0, 2);
  put_sized(parameters, area);
  put_big(parameters, 0, 2);  // outside info
  put_big(parameters, 0, 4);  // no PCRs
  return command(code, handle_bytes(parent), true, parameters);
}

std::unexpected<Error> malformed(const char* what) {
  return fail(Errc::kMalformed, std::string("TPM: ") + what, Source::kLocal);
}

ByteView sized(Reader& in) {
  return in.take(in.big(2));
}

}  // namespace

Bytes create_primary() {
  // The template of the TCG's storage root key: others derive the same one from the same seed.
  return creation(kOwner, kCreatePrimary,
                  ecc_template(kFixedTpm | kFixedParent | kSensitiveDataOrigin | kUserWithAuth |
                                   kNoDictionaryAttacks | kRestricted | kDecrypt,
                               true));
}

Bytes create_key(std::uint32_t parent) {
  return creation(parent, kCreate,
                  ecc_template(kFixedTpm | kFixedParent | kSensitiveDataOrigin | kUserWithAuth |
                                   kNoDictionaryAttacks | kSign,
                               false));
}

Bytes load(std::uint32_t parent, ByteView pub, ByteView priv) {
  Bytes parameters;
  put_sized(parameters, priv);
  put_sized(parameters, pub);
  return command(kLoad, handle_bytes(parent), true, parameters);
}

Bytes sign(std::uint32_t key, ByteView digest) {
  Bytes parameters;
  put_sized(parameters, digest);
  put_big(parameters, kAlgEcdsa, 2);
  put_big(parameters, kAlgSha256, 2);
  put_big(parameters, kHashCheck, 2);  // no ticket: the digest is not the TPM's
  put_big(parameters, kNull, 4);
  put_big(parameters, 0, 2);
  return command(kSignCommand, handle_bytes(key), true, parameters);
}

Bytes read_public(std::uint32_t handle) {
  return command(kReadPublic, handle_bytes(handle), false, {});
}

Bytes flush(std::uint32_t handle) {
  // Here the handle is a parameter; the bytes are the same.
  return command(kFlushContext, handle_bytes(handle), false, {});
}

std::size_t message_size(ByteView header) {
  Reader in(header);
  (void)in.big(2);
  const std::uint64_t size = in.big(4);
  return in.ok() && size >= kHeader && size <= kMaxMessage ? size : 0;
}

Result<Answer> parse_answer(ByteView message, bool with_handle) {
  Reader in(message);
  const auto tag = in.big(2);
  const auto size = in.big(4);
  Answer out;
  out.code = static_cast<std::uint32_t>(in.big(4));
  if (!in.ok() || size != message.size() ||
      (tag != kSessions && tag != kNoSessions && out.code == 0))
    return malformed("an answer of a wrong size");
  if (out.code != 0) return out;
  if (with_handle) out.handle = static_cast<std::uint32_t>(in.big(4));
  const std::size_t n = tag == kSessions ? in.big(4) : in.left();
  const ByteView parameters = in.take(n);
  if (!in.ok()) return malformed("an answer that was cut");
  out.parameters = to_bytes(parameters);
  return out;
}

Result<Created> parse_created(ByteView parameters) {
  Reader in(parameters);
  Created out;
  out.priv = to_bytes(sized(in));
  out.pub = to_bytes(sized(in));
  if (!in.ok() || out.priv.empty() || out.pub.empty()) return malformed("a key that does not read");
  return out;
}

Result<Bytes> parse_read_public(ByteView parameters) {
  Reader in(parameters);
  const ByteView area = sized(in);
  if (!in.ok() || area.empty()) return malformed("a public area that does not read");
  return to_bytes(area);
}

Result<Bytes> parse_signature(ByteView parameters) {
  Reader in(parameters);
  const auto algorithm = in.big(2);
  const auto hash = in.big(2);
  const ByteView r = sized(in);
  const ByteView s = sized(in);
  if (!in.ok() || algorithm != kAlgEcdsa || hash != kAlgSha256 || r.empty() || s.empty() ||
      r.size() > kCoordinate || s.size() > kCoordinate)
    return malformed("a signature that does not read");
  Ossl<ECDSA_SIG, ECDSA_SIG_free> sig(ECDSA_SIG_new());
  Ossl<BIGNUM, BN_free> br(BN_bin2bn(r.data(), static_cast<int>(r.size()), nullptr));
  Ossl<BIGNUM, BN_free> bs(BN_bin2bn(s.data(), static_cast<int>(s.size()), nullptr));
  if (!sig || !br || !bs || ECDSA_SIG_set0(sig.get(), br.get(), bs.get()) != 1)
    return malformed("out of memory");
  (void)br.release();
  (void)bs.release();
  return to_der(i2d_ECDSA_SIG, sig.get());
}

Result<Public> parse_public(ByteView area) {
  Reader in(area);
  const auto type = in.big(2);
  const auto name_hash = in.big(2);
  const auto attributes = static_cast<std::uint32_t>(in.big(4));
  const ByteView policy = sized(in);
  const auto symmetric = in.big(2);
  if (in.ok() &&
      (type != kAlgEcc || name_hash != kAlgSha256 || symmetric != kAlgNull || !policy.empty()))
    return fail(Errc::kUnsupportedKey, "the TPM's key is no signing key on P-256 without a policy",
                Source::kConfig);
  const auto scheme = in.big(2);
  const auto scheme_hash = scheme == kAlgNull ? kAlgSha256 : in.big(2);
  const auto curve = in.big(2);
  const auto kdf = in.big(2);
  const ByteView x = sized(in);
  const ByteView y = sized(in);
  if (!in.ok() || in.left() != 0 || kdf != kAlgNull)
    return malformed("a public area that does not read");
  if ((scheme != kAlgNull && scheme != kAlgEcdsa) || scheme_hash != kAlgSha256 ||
      curve != kCurveP256 || x.size() > kCoordinate || y.size() > kCoordinate)
    return fail(Errc::kUnsupportedKey, "the TPM's key is not for ECDSA on P-256 with SHA-256",
                Source::kConfig);
  Bytes point(1 + 2 * kCoordinate, 0);
  point[0] = 0x04;
  std::copy(x.begin(), x.end(), point.begin() + 1 + static_cast<long>(kCoordinate - x.size()));
  std::copy(y.begin(), y.end(), point.end() - static_cast<long>(y.size()));
  TRY_ASSIGN(auto key, PublicKey::from_point(KeyType::kP256, point));
  return Public{attributes, std::move(key)};
}

// ---- the key file: TPMKey ::= SEQUENCE { type OID 2.23.133.10.1.3, emptyAuth [0] EXPLICIT BOOLEAN
// OPTIONAL, parent INTEGER, pubkey OCTET STRING, privkey OCTET STRING }
namespace {

constexpr std::string_view kBegin = "-----BEGIN TSS2 PRIVATE KEY-----";
constexpr std::string_view kEnd = "-----END TSS2 PRIVATE KEY-----";
constexpr std::array<std::uint8_t, 8> kLoadable = {0x06, 0x06, 0x67, 0x81, 0x05, 0x0A, 0x01, 0x03};
constexpr std::array<std::uint8_t, 5> kEmptyAuth = {0xA0, 0x03, 0x01, 0x01, 0xFF};

void put_der(Bytes& out, std::uint8_t tag, ByteView content) {
  out.push_back(tag);
  if (content.size() < 0x80) {
    put_big(out, content.size(), 1);
  } else {
    out.push_back(0x82);
    put_big(out, content.size(), 2);
  }
  append(out, content);
}

// The content of the next element, which has this tag; fails through `in`.
ByteView take_der(Reader& in, std::uint8_t tag) {
  if (in.big(1) != tag) return in.take(SIZE_MAX);
  std::size_t n = in.big(1);
  if (n == 0x81)
    n = in.big(1);
  else if (n == 0x82)
    n = in.big(2);
  else if (n >= 0x80)
    n = SIZE_MAX;
  return in.take(n);
}

}  // namespace

std::string to_pem(const KeyFile& key) {
  Bytes parent(key.parent >= 0x8000'0000 ? 1 : 0, 0);  // an INTEGER has a sign
  put_big(parent, key.parent, 4);
  Bytes pub;
  put_sized(pub, key.pub);
  Bytes priv;
  put_sized(priv, key.priv);
  Bytes body(kLoadable.begin(), kLoadable.end());
  append(body, kEmptyAuth);
  put_der(body, 0x02, parent);
  put_der(body, 0x04, pub);
  put_der(body, 0x04, priv);
  Bytes der;
  put_der(der, 0x30, body);
  const std::string text = to_base64(der);
  std::string out(kBegin);
  for (std::size_t i = 0; i < text.size(); i += 64) out += "\n" + text.substr(i, 64);
  return out + "\n" + std::string(kEnd) + "\n";
}

Result<KeyFile> parse_pem(std::string_view text) {
  const auto bad = [](const char* why) {
    return fail(Errc::kBadKey, std::string("TPM key file: ") + why, Source::kConfig);
  };
  const auto begin = text.find(kBegin);
  const auto end = begin == text.npos ? begin : text.find(kEnd, begin);
  if (end == text.npos) return bad("no TSS2 PRIVATE KEY in it");
  const auto der = from_base64(text.substr(begin + kBegin.size(), end - begin - kBegin.size()));
  if (!der || der->size() > kMaxMessage) return bad("not base64, or too long");
  Reader outer(*der);
  Reader in(take_der(outer, 0x30));
  if (!outer.ok() || outer.left() != 0) return bad("not DER");
  const ByteView type = in.take(kLoadable.size());
  const ByteView auth = in.take(kEmptyAuth.size());
  if (!in.ok() || !std::equal(type.begin(), type.end(), kLoadable.begin()))
    return fail(Errc::kUnsupportedKey, "TPM key file: not a loadable key", Source::kConfig);
  // TRUE is any byte but 0: others do not all write DER's.
  if (!std::equal(auth.begin(), auth.end() - 1, kEmptyAuth.begin()) || auth.back() == 0)
    return fail(Errc::kUnsupportedKey,
                "TPM key file: keys with a password or a policy are not read", Source::kConfig);
  const ByteView parent = take_der(in, 0x02);
  Reader pub(take_der(in, 0x04));
  Reader priv(take_der(in, 0x04));
  if (!in.ok() || in.left() != 0 || parent.empty() || parent.size() > 5) return bad("not DER");
  KeyFile out;
  std::uint64_t number = 0;
  for (const auto b : parent) number = number << 8U | b;
  out.parent = static_cast<std::uint32_t>(number);
  out.pub = to_bytes(sized(pub));
  out.priv = to_bytes(sized(priv));
  // The owner's primary key, or a persistent one.
  if (number > UINT32_MAX || (out.parent != kOwner && out.parent >> 24U != 0x81U))
    return fail(Errc::kUnsupportedKey, "TPM key file: parent of another kind", Source::kConfig);
  if (!pub.ok() || !priv.ok() || pub.left() != 0 || priv.left() != 0 || out.pub.empty() ||
      out.priv.empty())
    return bad("areas do not read");
  return out;
}

}  // namespace sally::crypto::tpm
