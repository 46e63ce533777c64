// SPDX-License-Identifier: Apache-2.0
#include "crypto/key_name.h"

#include <array>
#include <optional>
#include <utility>

#include "base/text.h"

namespace sally::crypto {
namespace {

constexpr std::string_view kFileScheme = "file:";
constexpr std::string_view kPkcs11Scheme = "pkcs11:";
constexpr std::string_view kTpmScheme = "tpm:";
constexpr std::string_view kHandle = "handle:";
constexpr std::uint32_t kFirstPersistent = 0x8100'0000;
constexpr std::uint32_t kLastPersistent = 0x81ff'ffff;

std::unexpected<Error> bad(std::string why) {
  return fail(Errc::kBadKeyName, std::move(why), Source::kConfig);
}

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> percent_decoded(std::string_view in) {
  std::string out;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (in[i] != '%') {
      out += in[i];
      continue;
    }
    if (i + 2 >= in.size()) return std::nullopt;
    const int high = nibble(in[i + 1]);
    const int low = nibble(in[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

std::string percent_encoded(std::string_view in) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  static constexpr std::string_view kPlain = "-._~/";
  std::string out;
  for (const char c : in) {
    const auto byte = static_cast<unsigned char>(c);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
        kPlain.find(c) != kPlain.npos) {
      out += c;
    } else {
      out += '%';
      out += kDigits[byte >> 4U];
      out += kDigits[byte & 15U];
    }
  }
  return out;
}

// An absolute path without bytes that no path has.
bool is_path(std::string_view path) {
  return path.starts_with('/') && path.size() > 1 && path.find('\0') == path.npos;
}

// "file:/path", "file:///path", "/path".
std::string_view without_scheme(std::string_view path) {
  if (path.starts_with(kFileScheme)) path.remove_prefix(kFileScheme.size());
  if (path.starts_with("///")) path.remove_prefix(2);
  return path;
}

// Calls take(name, value) for each attribute; each may stand there once.
template <typename Take>
Status attributes(std::string_view text, char between, Take take) {
  if (text.empty()) return {};
  for (const auto& part : split(text, between)) {
    const auto equals = part.find('=');
    if (equals == part.npos) return bad("an attribute without a value");
    const auto name = part.substr(0, equals);
    const auto value = percent_decoded(part.substr(equals + 1));
    if (!value || value->empty()) return bad("the value of an attribute does not read");
    TRY(take(name, *value));
  }
  return {};
}

Status put(std::string& to, std::string value, std::string_view name) {
  if (!to.empty()) return bad(std::string(name) + " stands there twice");
  to = std::move(value);
  return {};
}

struct Attribute {
  std::string_view name;
  std::string KeyName::* to;
};
constexpr std::array kPathAttributes{
    Attribute{"token", &KeyName::token},   Attribute{"manufacturer", &KeyName::manufacturer},
    Attribute{"model", &KeyName::model},   Attribute{"serial", &KeyName::serial},
    Attribute{"object", &KeyName::object}, Attribute{"id", &KeyName::id}};

Result<KeyName> parse_pkcs11(std::string_view text) {
  KeyName out{.kind = KeyName::Kind::kPkcs11};
  const auto question = text.find('?');
  const auto path = text.substr(0, question);
  const auto query = question == text.npos ? std::string_view() : text.substr(question + 1);
  TRY(attributes(path, ';', [&](std::string_view name, const std::string& value) -> Status {
    for (const auto& a : kPathAttributes)
      if (name == a.name) return put(out.*a.to, value, name);
    if (name == "type" && value == "private") return {};
    return bad(
        "pkcs11: attribute this program does not know; it knows token, manufacturer, model, "
        "serial, object, id and type=private");
  }));
  TRY(attributes(query, '&', [&](std::string_view name, const std::string& value) -> Status {
    if (name == "pin-value")
      return bad(
          "pkcs11: a PIN does not belong into a name; write it into a file of mode 0600 and "
          "use pin-source=/path");
    if (name != "module-path" && name != "pin-source")
      return bad("pkcs11: it knows module-path and pin-source after the question mark");
    const auto file = without_scheme(value);
    if (!is_path(file)) return bad("pkcs11: " + std::string(name) + " is an absolute path");
    return put(name == "module-path" ? out.module_path : out.pin_path, std::string(file), name);
  }));
  if (out.token.empty() && out.serial.empty()) return bad("pkcs11: name the token (token=...)");
  if (out.object.empty() && out.id.empty())
    return bad("pkcs11: name the key (object=... or id=...)");
  return out;
}

Result<KeyName> parse_tpm(std::string_view text) {
  KeyName out{.kind = KeyName::Kind::kTpm};
  const auto question = text.find('?');
  const auto place = text.substr(0, question);
  if (question != text.npos)
    TRY(attributes(text.substr(question + 1), '&',
                   [&](std::string_view name, const std::string& value) -> Status {
                     if (name != "device" || !is_path(value))
                       return bad("tpm: it knows device=/path after the question mark");
                     return put(out.device, value, name);
                   }));
  if (out.device.empty()) out.device = kTpmDevice;
  if (place.starts_with(kHandle)) {
    const auto digits = place.substr(kHandle.size());
    if (!digits.starts_with("0x") || digits.size() != 10)
      return bad("tpm: a handle is 0x and eight digits, as 0x81008001");
    for (const char c : digits.substr(2)) {
      if (nibble(c) < 0) return bad("tpm: a handle is 0x and eight digits, as 0x81008001");
      out.handle = out.handle * 16 + static_cast<std::uint32_t>(nibble(c));
    }
    if (out.handle < kFirstPersistent || out.handle > kLastPersistent)
      return bad("tpm: persistent keys have handles from 0x81000000 to 0x81ffffff");
    return out;
  }
  auto path = percent_decoded(place);
  if (!path || !is_path(*path)) return bad("tpm: an absolute path, or handle:0x81...");
  out.path = std::move(*path);
  return out;
}

}  // namespace

bool names_hardware(std::string_view text) {
  return text.starts_with(kPkcs11Scheme) || text.starts_with(kTpmScheme);
}

Result<KeyName> parse_key_name(std::string_view text) {
  if (text.size() > kMaxKeyName) return bad("longer than a name can be");
  if (text.starts_with(kPkcs11Scheme)) return parse_pkcs11(text.substr(kPkcs11Scheme.size()));
  if (text.starts_with(kTpmScheme)) return parse_tpm(text.substr(kTpmScheme.size()));
  const auto path = without_scheme(text);
  if (!is_path(path))
    return bad("a key is /path, file:/path, pkcs11:token=...;object=... or tpm:/path");
  KeyName out;
  out.path = path;
  return out;
}

std::string KeyName::str() const {
  std::string out;
  switch (kind) {
    case Kind::kFile:
      return "file:" + path;
    case Kind::kPkcs11: {
      out = kPkcs11Scheme;
      char before = 0;
      for (const auto& a : kPathAttributes) {
        if ((this->*a.to).empty()) continue;
        if (before != 0) out += before;
        out += std::string(a.name) + "=" + percent_encoded(this->*a.to);
        before = ';';
      }
      before = '?';
      for (const auto& [name, value] :
           {std::pair{"module-path=", &module_path}, std::pair{"pin-source=", &pin_path}}) {
        if (value->empty()) continue;
        out += before + (name + percent_encoded(*value));
        before = '&';
      }
      return out;
    }
    case Kind::kTpm:
      out = kTpmScheme;
      if (handle != 0) {
        static constexpr char kDigits[] = "0123456789abcdef";
        out += std::string(kHandle) + "0x";
        for (int shift = 28; shift >= 0; shift -= 4)
          out += kDigits[(handle >> static_cast<unsigned>(shift)) & 15U];
      } else {
        out += percent_encoded(path);
      }
      if (device != kTpmDevice) out += "?device=" + percent_encoded(device);
      return out;
  }
  return out;
}

}  // namespace sally::crypto
