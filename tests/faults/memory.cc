// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <openssl/crypto.h>

#include <cstdlib>
#include <new>

namespace sally::faults {
namespace {

thread_local std::uint64_t countdown = 0;
thread_local bool of_crypto = false;

bool fails(bool crypto) {
  return countdown != 0 && crypto == of_crypto && --countdown == 0;
}
void* crypto_malloc(std::size_t n, const char*, int) {
  return fails(true) ? nullptr : std::malloc(n);
}
void* crypto_realloc(void* p, std::size_t n, const char*, int) {
  return fails(true) ? nullptr : std::realloc(p, n);
}
void crypto_free(void* p, const char*, int) {
  std::free(p);
}
// Before the library's first allocation, or it takes no more hooks.
const int kHooked = CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free);

}  // namespace

void fail_allocation(std::uint64_t n) {
  countdown = n;
  of_crypto = false;
}
void fail_crypto_allocation(std::uint64_t n) {
  if (kHooked != 1) std::abort();
  countdown = n;
  of_crypto = true;
}
std::uint64_t allocations_left() {
  return countdown;
}

}  // namespace sally::faults

void* operator new(std::size_t n) {
  void* p = sally::faults::fails(false) ? nullptr : std::malloc(n == 0 ? 1 : n);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
// All forms, so that none of them meets another allocator's.
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return sally::faults::fails(false) ? nullptr : std::malloc(n == 0 ? 1 : n);
}
void* operator new[](std::size_t n) {
  return operator new(n);
}
void* operator new[](std::size_t n, const std::nothrow_t& t) noexcept {
  return operator new(n, t);
}
void operator delete[](void* p) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  std::free(p);
}
