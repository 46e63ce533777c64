// SPDX-License-Identifier: Apache-2.0
// The extension that says whose session a certificate is: what is not exactly one of these is no
// certificate at all, so that nobody's session passes for a device's own.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "crypto/ossl.h"
#include "crypto/test_pki.h"

namespace sally::crypto {
namespace {

const TestPki& pki() {
  static const TestPki p;
  return p;
}

struct Extension {
  Bytes value;
  bool critical = false;
};

/// A good device certificate with these beside all else, signed by its CA.
Bytes der_with(const std::vector<Extension>& extensions) {
  const auto leaf = pki().leaf(Role::kDevice, "d-1");
  const X509Ptr x(X509_dup(leaf.cert.native()));
  const Ossl<ASN1_OBJECT, ASN1_OBJECT_free> oid(OBJ_txt2obj(kSessionParentOid, 1));
  for (const auto& e : extensions) {
    const Ossl<ASN1_OCTET_STRING, ASN1_OCTET_STRING_free> value(ASN1_OCTET_STRING_new());
    ASN1_OCTET_STRING_set(value.get(), e.value.data(), static_cast<int>(e.value.size()));
    const Ossl<X509_EXTENSION, X509_EXTENSION_free> one(
        X509_EXTENSION_create_by_OBJ(nullptr, oid.get(), e.critical ? 1 : 0, value.get()));
    X509_add_ext(x.get(), one.get(), -1);
  }
  X509_sign(x.get(), pki().devices_key->native(), EVP_sha256());
  return to_der(i2d_X509, x.get());
}

/// The parent that is read, or the code of the refusal.
std::string read(const std::vector<Extension>& extensions) {
  const auto cert = Certificate::from_der(der_with(extensions));
  if (!cert) return std::string(cert.error().code());
  const auto path = validate_path(*cert, {}, pki().policy(Purpose::kTlsClient));
  return path ? "of " + path->leaf.session_parent() : std::string(path.error().code());
}

Bytes octets(std::size_t n, std::uint8_t tag = V_ASN1_OCTET_STRING) {
  Bytes der{tag, static_cast<std::uint8_t>(n)};
  der.resize(2 + n, 0x4f);
  return der;
}

TEST(SessionExtension, IsExactlyOneSerialNumber) {
  EXPECT_EQ(read({}), "of ");
  EXPECT_EQ(read({{octets(1)}}), "of 4f");
  EXPECT_EQ(read({{octets(32)}}).size(), 3 + 64u);
  EXPECT_EQ(read({{Bytes{4, 3, 0, 0, 1}}}), "of 01") << "a serial has one text";
  Bytes two = octets(16);
  append(two, octets(1));
  Bytes long_form{V_ASN1_OCTET_STRING, 0x81, 16};
  long_form.resize(3 + 16, 0x4f);
  Bytes short_one = octets(16);
  short_one.pop_back();
  const struct {
    const char* what;
    std::vector<Extension> extensions;
    const char* code;
  } table[] = {
      {"no bytes", {{Bytes{}}}, "crypto.malformed"},
      {"a tag alone", {{Bytes{V_ASN1_OCTET_STRING}}}, "crypto.malformed"},
      {"an empty serial", {{octets(0)}}, "crypto.malformed"},
      {"33 bytes", {{octets(33)}}, "crypto.malformed"},
      {"127 bytes", {{octets(127)}}, "crypto.malformed"},
      {"another type", {{octets(16, V_ASN1_INTEGER)}}, "crypto.malformed"},
      {"in pieces", {{octets(16, 0x24)}}, "crypto.malformed"},
      {"without an end", {{Bytes{0x24, 0x80, 4, 1, 0x4f, 0, 0}}}, "crypto.malformed"},
      {"a length in two bytes", {{long_form}}, "crypto.malformed"},
      {"cut short", {{short_one}}, "crypto.malformed"},
      {"bytes behind it", {{two}}, "crypto.malformed"},
      {"no DER", {{Bytes(16, 0x4f)}}, "crypto.malformed"},
      {"twice the same", {{octets(16)}, {octets(16)}}, "crypto.malformed"},
      {"twice", {{octets(16)}, {Bytes{4, 1, 1}}}, "crypto.malformed"},
      {"critical", {{octets(16), true}}, "crypto.unknown_critical"},
  };
  for (const auto& row : table) EXPECT_EQ(read(row.extensions), row.code) << row.what;
}

// Seeds of the fuzz target: SALLY_WRITE_CORPUS=tests/corpus build/dev/bin/crypto_test writes them.
TEST(SessionExtension, Corpus) {
  const char* corpus = std::getenv("SALLY_WRITE_CORPUS");
  if (corpus == nullptr) GTEST_SKIP() << "only on request";
  const std::filesystem::path dir = std::filesystem::path(corpus) / "crypto_certificate_fuzz";
  const auto write = [&](const char* name, const Bytes& bytes) {
    std::ofstream out(dir / name, std::ios::binary);
    out.write(as_text(bytes).data(), static_cast<std::streamsize>(bytes.size()));
  };
  write("session.der", der_with({{octets(16)}}));
  write("session-twice.der", der_with({{octets(16)}, {octets(0)}}));
}

}  // namespace
}  // namespace sally::crypto
