// SPDX-License-Identifier: Apache-2.0
#include "sdk/core.h"

namespace sally::sdk {
Result<Material> load_material(const std::string& path) {
  return fail(Errc::kIdentity, path);
}
}  // namespace sally::sdk
