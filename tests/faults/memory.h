// SPDX-License-Identifier: Apache-2.0
// Memory that ends: operator new and OpenSSL's allocations of the program this is linked into.
#pragma once

#include <cstdint>

namespace sally::faults {

/// The n-th allocation of this thread from now on fails, once; 0: none. By operator new, or by
/// OpenSSL.
void fail_allocation(std::uint64_t n);
void fail_crypto_allocation(std::uint64_t n);
/// How many there still are before it; 0 once it has failed.
std::uint64_t allocations_left();

}  // namespace sally::faults
