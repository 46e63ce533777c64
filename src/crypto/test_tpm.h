// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests of this folder: what a TPM says, and one on a socket that is late when it is told to
// be.
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <initializer_list>
#include <string>
#include <thread>
#include <utility>

#include "crypto/ossl.h"
#include "crypto/test_pki.h"
#include "crypto/tpm_wire.h"

namespace sally::crypto::tpm {

inline constexpr std::uint32_t kStaysAttributes =
    kFixedTpm | kFixedParent | kSensitiveDataOrigin | kUserWithAuth | kSign;

/// What a TPM says of a key on P-256.
inline Bytes public_area(const PublicKey& key) {
  Bytes point(65);
  std::size_t n = 0;
  if (EVP_PKEY_get_octet_string_param(key.native(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                      point.size(), &n) != 1)
    std::abort();
  Bytes out;
  for (const auto& [value, width] :
       std::initializer_list<std::pair<std::uint64_t, std::size_t>>{{0x23, 2},
                                                                    {0x0B, 2},
                                                                    {kStaysAttributes, 4},
                                                                    {0, 2},
                                                                    {0x10, 2},
                                                                    {0x18, 2},
                                                                    {0x0B, 2},
                                                                    {0x03, 2},
                                                                    {0x10, 2},
                                                                    {32, 2}})
    put_big(out, value, width);
  append(out, ByteView(point).subspan(1, 32));
  put_big(out, 32, 2);
  append(out, ByteView(point).subspan(33, 32));
  return out;
}

/// `handle`: where the command makes one.
inline Bytes answer(std::uint32_t code, ByteView parameters, bool sessions = true,
                    std::optional<std::uint32_t> handle = {}) {
  Bytes out;
  put_big(out, sessions ? 0x8002 : 0x8001, 2);
  put_big(out, 10 + (handle ? 4 : 0) + (sessions ? 4 : 0) + parameters.size(), 4);
  put_big(out, code, 4);
  if (handle) put_big(out, *handle, 4);
  if (sessions) put_big(out, parameters.size(), 4);
  append(out, parameters);
  return out;
}

/// A TPM that holds one key, for one connection after the other, on a thread of its own. Told to be
/// late, it keeps the next answer to that command until another command comes on the connection.
class LateTpm {
 public:
  static constexpr std::uint32_t kCreatePrimary = 0x131;
  static constexpr std::uint32_t kLoad = 0x157;
  static constexpr std::uint32_t kSignDigest = 0x15D;
  static constexpr std::uint32_t kFlushContext = 0x165;

  LateTpm(FileKeyPtr key, std::string path) : key_(std::move(key)), path_(std::move(path)) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    if (path_.size() >= sizeof at.sun_path) std::abort();
    path_.copy(at.sun_path, path_.size());
    if (::bind(listener_, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
        ::listen(listener_, 8) != 0)
      std::abort();
    thread_ = std::thread([this] { serve(); });
  }
  ~LateTpm() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
    ::unlink(path_.c_str());
  }
  LateTpm(const LateTpm&) = delete;
  LateTpm& operator=(const LateTpm&) = delete;

  std::atomic<std::uint32_t> late_with = 0;  ///< a command; once
  std::atomic<int> connections = 0;

 private:
  void serve() {
    for (int fd = 0; (fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
      ++connections;
      Bytes kept;
      Bytes in(kMaxMessage);
      for (ssize_t n = 0; (n = ::recv(fd, in.data(), in.size(), 0)) >= 10;) {
        const ByteView command(in.data(), static_cast<std::size_t>(n));
        std::uint32_t code = 0;
        for (std::size_t i = 6; i < 10; ++i) code = code << 8U | command[i];
        send(fd, std::exchange(kept, {}));
        Bytes said = said_to(code, command);
        auto late = code;
        if (late_with.compare_exchange_strong(late, 0))
          kept = std::move(said);
        else
          send(fd, said);
      }
      ::close(fd);
    }
  }
  static void send(int fd, const Bytes& bytes) {
    (void)::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  Bytes said_to(std::uint32_t code, ByteView command) const {
    switch (code) {
      case kCreatePrimary:
      case kLoad:
        return answer(0, {}, true, 0x8000'0001);
      case kSignDigest:
        return answer(0, signature_of(command.subspan(kDigestAt, 32)));
      default:
        return answer(0, {}, false);
    }
  }
  Bytes signature_of(ByteView digest) const {
    const PkeyCtxPtr ctx(EVP_PKEY_CTX_new(key_->native(), nullptr));
    Bytes der(80);
    std::size_t n = der.size();
    if (EVP_PKEY_sign_init(ctx.get()) != 1 ||
        EVP_PKEY_sign(ctx.get(), der.data(), &n, digest.data(), digest.size()) != 1)
      std::abort();
    const unsigned char* at = der.data();
    const Ossl<ECDSA_SIG, ECDSA_SIG_free> pair(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(n)));
    Bytes out;
    put_big(out, 0x18, 2);  // ECDSA with
    put_big(out, 0x0B, 2);  // SHA-256
    for (const BIGNUM* half : {ECDSA_SIG_get0_r(pair.get()), ECDSA_SIG_get0_s(pair.get())}) {
      Bytes digits(32);
      BN_bn2binpad(half, digits.data(), 32);
      put_big(out, digits.size(), 2);
      append(out, digits);
    }
    return out;
  }
  // Header, key, the empty password's size and 9 bytes, the digest's size.
  static constexpr std::size_t kDigestAt = 10 + 4 + 4 + 9 + 2;
  const FileKeyPtr key_;
  const std::string path_;
  int listener_ = -1;
  std::thread thread_;
};

}  // namespace sally::crypto::tpm
