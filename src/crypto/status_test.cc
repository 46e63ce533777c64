// SPDX-License-Identifier: Apache-2.0
#include "crypto/status.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "crypto/test_pki.h"
#include "crypto/test_status.h"

namespace sally::crypto {
namespace {

const TestPki& pki() {
  static const TestPki p;
  return p;
}
constexpr std::int64_t kNow = TestPki::kNow;

TestLeaf responder() {
  auto spec = pki().leaf_spec(Role::kDevice, "ocsp");
  spec.uris.clear();
  spec.eku = kEkuOcspSigning;
  spec.ocsp_no_check = true;
  return pki().leaf(spec, true);
}

TEST(Crl, IsWhatAStockLibraryReads) {
  const auto a = pki().leaf(Role::kDevice, "a").cert;
  const auto b = pki().leaf(Role::kDevice, "b").cert;
  const auto c = pki().leaf(Role::kDevice, "c").cert;
  const CrlSpec spec{.number = 77,
                     .this_s = kNow,
                     .next_s = kNow + 86'400,
                     .revoked = {{a.serial_hex(), kNow - 50, 1}, {b.serial_hex(), kNow - 60, 0}}};
  const Bytes der = must(sign_crl(spec, pki().devices, *pki().devices_key));
  const CrlRows rows = crl_rows(der, pki().devices);
  EXPECT_TRUE(rows.believed);
  EXPECT_EQ(rows.number, 77);
  EXPECT_EQ(rows.reasons, (std::map<std::string, int>{{a.serial_hex(), 1}, {b.serial_hex(), -1}}));
  EXPECT_FALSE(crl_rows(der, pki().infrastructure).believed);

  const unsigned char* at = der.data();
  const Ossl<X509_CRL, X509_CRL_free> crl(
      d2i_X509_CRL(nullptr, &at, static_cast<long>(der.size())));
  // A chain with that list, as somebody's TLS server checks it.
  for (const auto& [leaf, want] :
       {std::pair{a, X509_V_ERR_CERT_REVOKED}, std::pair{c, X509_V_OK}}) {
    const Ossl<X509_STORE, X509_STORE_free> store(X509_STORE_new());
    const Ossl<X509_STORE_CTX, X509_STORE_CTX_free> ctx(X509_STORE_CTX_new());
    X509_STORE_add_cert(store.get(), pki().root.native());
    X509_STORE_add_cert(store.get(), pki().devices.native());
    X509_STORE_add_crl(store.get(), crl.get());
    X509_STORE_CTX_init(ctx.get(), store.get(), leaf.native(), nullptr);
    auto* param = X509_STORE_CTX_get0_param(ctx.get());
    X509_VERIFY_PARAM_set_time(param, kNow);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_X509_STRICT);
    X509_verify_cert(ctx.get());
    EXPECT_EQ(X509_STORE_CTX_get_error(ctx.get()), want);
  }
  EXPECT_TRUE(sign_crl(spec, pki().devices, *pki().infra_key).error().is(Errc::kKeyMismatch));
  for (const char* bad : {"", "xyz"}) {
    auto wrong = spec;
    wrong.revoked[0].serial_hex = bad;
    EXPECT_TRUE(sign_crl(wrong, pki().devices, *pki().devices_key).error().is(Errc::kBadSpec))
        << bad;
  }
}

TEST(Ocsp, AnswersWhatAStockClientAsksAndIsBelieved) {
  const auto r = responder();
  const auto a = pki().leaf(Role::kDevice, "a").cert;
  const auto b = pki().leaf(Role::kDevice, "b").cert;
  for (const EVP_MD* digest : {EVP_sha1(), EVP_sha256()}) {
    const Bytes der = ocsp_request({{a, pki().devices}, {b, pki().devices}}, digest);
    const auto request = must(OcspRequest::parse(der));
    ASSERT_EQ(request.size(), 2U);
    EXPECT_EQ(request.serial_hex(0), a.serial_hex());
    EXPECT_EQ(request.serial_hex(1), b.serial_hex());
    EXPECT_TRUE(request.is_of(0, pki().devices));
    EXPECT_FALSE(request.is_of(0, pki().infrastructure));
    const Bytes answer =
        must(sign_ocsp(request,
                       {{.status = OcspStatus::kGood},
                        {.status = OcspStatus::kRevoked, .revoked_s = kNow - 5, .reason = 1}},
                       r.cert, *r.key, kNow, kNow + 600));

    const auto says = [&](const Certificate& leaf) {
      return ocsp_says(answer, der, {leaf, pki().devices}, pki().root, kNow, digest);
    };
    EXPECT_EQ(says(a), "good");
    EXPECT_EQ(says(b), "revoked 1");
    // Asked for with other digests, answers are wrong in number or key.
    EXPECT_TRUE(
        sign_ocsp(request, {{}}, r.cert, *r.key, kNow, kNow + 1).error().is(Errc::kBadSpec));
    EXPECT_TRUE(sign_ocsp(request, {{}, {}}, r.cert, *pki().devices_key, kNow, kNow + 1)
                    .error()
                    .is(Errc::kKeyMismatch));
  }
}

TEST(Ocsp, RequestsAreBounded) {
  const auto a = pki().leaf(Role::kDevice, "a").cert;
  const Bytes good = ocsp_request({{a, pki().devices}});
  EXPECT_TRUE(OcspRequest::parse(good));
  for (std::size_t n = 0; n < good.size(); ++n)
    EXPECT_FALSE(OcspRequest::parse(ByteView(good).first(n))) << n;
  auto more = good;
  more.push_back(0);
  EXPECT_TRUE(OcspRequest::parse(more).error().is(Errc::kMalformed));
  EXPECT_TRUE(OcspRequest::parse(ocsp_request({})).error().is(Errc::kMalformed));
  const std::vector<CertAndIssuer> many(17, {a, pki().devices});
  EXPECT_TRUE(OcspRequest::parse(ocsp_request(many)).error().is(Errc::kMalformed));
  EXPECT_TRUE(OcspRequest::parse(Bytes(4'097, 0x30)).error().is(Errc::kTooLarge));
  EXPECT_FALSE(must(OcspRequest::parse(ocsp_request({{a, pki().devices}}, EVP_md5())))
                   .is_of(0, pki().devices));
}

// Seeds of the fuzz target: SALLY_WRITE_CORPUS=tests/corpus build/dev/bin/crypto_test writes them.
TEST(Ocsp, Corpus) {
  const char* corpus = std::getenv("SALLY_WRITE_CORPUS");
  if (corpus == nullptr) GTEST_SKIP() << "only on request";
  const auto a = pki().leaf(Role::kDevice, "a").cert;
  const std::filesystem::path dir = std::filesystem::path(corpus) / "crypto_ocsp_fuzz";
  std::filesystem::create_directories(dir);
  const auto write = [&](const char* name, const Bytes& bytes) {
    std::ofstream out(dir / name, std::ios::binary);
    out.write(as_text(bytes).data(), static_cast<std::streamsize>(bytes.size()));
  };
  write("one", ocsp_request({{a, pki().devices}}));
  write("two-sha256", ocsp_request({{a, pki().devices}, {a, pki().infrastructure}}, EVP_sha256()));
  write("none", ocsp_request({}));
}

}  // namespace
}  // namespace sally::crypto
