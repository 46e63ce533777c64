// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "crypto/errc.h"
#include "crypto/key.h"

struct x509_st;  // X509

namespace sally::crypto {

/// Extended key usages as a bit set.
enum Eku : std::uint32_t {
  kEkuClientAuth = 1,
  kEkuServerAuth = 2,
  kEkuOcspSigning = 4,
  kEkuSigner = 8,  ///< ours: kSignerEkuOid
  kEkuOther = 16,  ///< at least one that we do not know
};
/// Marks the network's signer and the CA that may issue it. The arc is RFC 5612's; small numbers,
/// because some parsers refuse larger ones.
inline constexpr char kSignerEkuOid[] = "1.3.6.1.4.1.32473.83.1";

/// Extension of a session certificate: the serial number of the device certificate that it stands
/// for and dies with, an OCTET STRING of 1 to 32 bytes. Not critical.
inline constexpr char kSessionParentOid[] = "1.3.6.1.4.1.32473.83.2";

/// Key usages as a bit set (only those we look at).
enum KeyUsage : std::uint32_t {
  kKuDigitalSignature = 1,
  kKuKeyCertSign = 2,
  kKuCrlSign = 4,
  kKuKeyEncipherment = 8,
  kKuOther = 16,
};

inline constexpr std::size_t kMaxCertificateDer = 16 * 1024;

/// An X.509 certificate as parsed; says nothing about trust (see path.h).
/// Value type, shares an immutable native object; any thread.
/// Parsing is total on hostile input; a certificate with a key we refuse does not parse (kWeakKey,
/// kUnsupportedKey).
class Certificate {
 public:
  /// Exactly one certificate, no trailing bytes, at most kMaxCertificateDer.
  static Result<Certificate> from_der(ByteView der);
  /// Exactly one CERTIFICATE block; other text around it is ignored.
  static Result<Certificate> from_pem(std::string_view text);
  /// One to `max` CERTIFICATE blocks in order.
  static Result<std::vector<Certificate>> list_from_pem(std::string_view text,
                                                        std::size_t max = 16);
  /// Takes a reference of `cert`.
  static Result<Certificate> from_native(x509_st* cert);

  [[nodiscard]] const Bytes& der() const { return impl_->der; }
  [[nodiscard]] std::string pem() const;
  [[nodiscard]] const PublicKey& public_key() const { return impl_->key; }
  /// First CN of the subject, or empty. For people, never for decisions.
  [[nodiscard]] const std::string& subject_cn() const { return impl_->subject_cn; }
  [[nodiscard]] const std::string& issuer_cn() const { return impl_->issuer_cn; }
  [[nodiscard]] const std::vector<std::string>& uri_sans() const { return impl_->uris; }
  [[nodiscard]] const std::vector<std::string>& dns_sans() const { return impl_->dns; }
  /// Text form, "10.0.0.1" or "2001:db8::1".
  [[nodiscard]] const std::vector<std::string>& ip_sans() const { return impl_->ips; }
  /// Unix seconds.
  [[nodiscard]] std::int64_t not_before() const { return impl_->not_before; }
  [[nodiscard]] std::int64_t not_after() const { return impl_->not_after; }
  /// Lower-case hex without leading zero bytes.
  [[nodiscard]] const std::string& serial_hex() const { return impl_->serial; }
  [[nodiscard]] bool is_ca() const { return impl_->ca; }
  [[nodiscard]] std::optional<int> path_length() const { return impl_->path_length; }
  /// Bit set of Eku; nullopt where the extension is absent.
  [[nodiscard]] std::optional<std::uint32_t> eku() const { return impl_->eku; }
  [[nodiscard]] bool has_eku(Eku e) const { return impl_->eku && (*impl_->eku & e) != 0; }
  /// Bit set of KeyUsage; nullopt where the extension is absent.
  [[nodiscard]] std::optional<std::uint32_t> key_usage() const { return impl_->key_usage; }
  /// Of a session certificate: serial of its device's certificate, as serial_hex(); else empty.
  [[nodiscard]] const std::string& session_parent() const { return impl_->session_parent; }
  [[nodiscard]] bool self_issued() const { return impl_->self_issued; }
  /// Lower-case hex over the DER.
  [[nodiscard]] std::string sha256_hex() const;
  [[nodiscard]] std::string sha1_hex() const;
  /// DNS name or IP text against the SANs (never the CN).
  [[nodiscard]] bool matches_host(std::string_view host) const;
  /// Borrowed X509*.
  [[nodiscard]] x509_st* native() const { return impl_->x509.get(); }
  friend bool operator==(const Certificate& a, const Certificate& b) { return a.der() == b.der(); }

 private:
  struct Impl {
    explicit Impl(PublicKey k) : key(std::move(k)) {}
    std::shared_ptr<x509_st> x509;
    Bytes der;
    PublicKey key;
    std::string subject_cn, issuer_cn, serial, session_parent;
    std::vector<std::string> uris, dns, ips;
    std::int64_t not_before = 0, not_after = 0;
    bool ca = false, self_issued = false;
    std::optional<int> path_length;
    std::optional<std::uint32_t> eku, key_usage;
  };
  explicit Certificate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  static Result<Certificate> build(std::shared_ptr<x509_st> x509, Bytes der);
  std::shared_ptr<const Impl> impl_;
};

/// The PEM blocks one after the other.
std::string to_pem(const std::vector<Certificate>& list);
/// A certificates-only PKCS#7 in DER, in the order given (docs/compatible-enrolment.md).
Bytes to_pkcs7(const std::vector<Certificate>& list);

}  // namespace sally::crypto
