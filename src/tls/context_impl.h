// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to tls/.
#include <openssl/ssl.h>

#include "crypto/ossl.h"
#include "tls/context.h"

namespace sally::tls {

/// The library's list-setting macros cast the old way and drop const.
inline bool set_list(SSL_CTX* ctx, int command, std::string list) {
  return SSL_CTX_ctrl(ctx, command, 0, list.data()) == 1;
}

struct Context::Impl {
  ContextOptions options;
  crypto::Ossl<SSL_CTX, SSL_CTX_free> ctx;
  Bytes alpn_wire;  // length-prefixed names, as in the ClientHello
};

/// Installed on every context; session.cc.
int verify_callback(X509_STORE_CTX* store, void* context);
void info_callback(const SSL* ssl, int where, int value);
int client_hello_callback(SSL* ssl, int* alert, void* context);
int alpn_callback(SSL* ssl, const unsigned char** out, unsigned char* out_size,
                  const unsigned char* in, unsigned int in_size, void* context);

}  // namespace sally::tls
