// SPDX-License-Identifier: Apache-2.0
#include "cli/qr.h"

#include <qrencode.h>

#include <memory>

#include "cli/errors.h"

namespace sally::cli {

Result<std::string> qr_code(const std::string& text) {
  constexpr int kQuiet = 4;  // ISO/IEC 18004: modules of light around the code
  const std::unique_ptr<QRcode, decltype(&QRcode_free)> code(
      QRcode_encodeString8bit(text.c_str(), 0, QR_ECLEVEL_L), &QRcode_free);
  if (code == nullptr) return fail(Errc::kUsage, "the text is too long for a QR code");
  const auto dark = [&](int x, int y) {
    return x >= 0 && y >= 0 && x < code->width && y < code->width &&
           (code->data[y * code->width + x] & 1) != 0;
  };
  std::string out;
  for (int y = -kQuiet; y < code->width + kQuiet; y += 2) {
    out += "\x1b[30;107m";  // black on white, whatever the terminal's colours are
    for (int x = -kQuiet; x < code->width + kQuiet; ++x) {
      const bool upper = dark(x, y);
      const bool lower = dark(x, y + 1);
      out += upper && lower ? "\u2588" : upper ? "\u2580" : lower ? "\u2584" : " ";
    }
    out += "\x1b[0m\n";
  }
  return out;
}

}  // namespace sally::cli
