// SPDX-License-Identifier: Apache-2.0
#include "agent/host_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)sally::agent::parse_host_config({reinterpret_cast<const char*>(data), size});
  return 0;
}
