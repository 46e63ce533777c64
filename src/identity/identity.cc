// SPDX-License-Identifier: Apache-2.0
#include "identity/identity.h"

#include <algorithm>

#include "base/fs.h"
#include "base/text.h"
#include "crypto/open_key.h"
#include "http/message.h"
#include "identity/json.h"

namespace sally::identity {
namespace {

namespace json = boost::json;
constexpr std::size_t kMaxRouters = 64;
constexpr std::size_t kMaxCard = 64 * 1024;

/// PEM text, "pem:" + PEM, or the content of a named file.
Result<std::string> material(const std::string& value, const char* what, Files files) {
  static constexpr std::string_view kPem = "pem:";
  static constexpr std::string_view kFile = "file://";
  if (value.starts_with("-----BEGIN ")) return value;
  if (value.starts_with(kPem)) return value.substr(kPem.size());
  const std::string path = value.starts_with(kFile) ? value.substr(kFile.size()) : value;
  if (path.starts_with('/') && files != Files::kRefuse) {
    auto text = fs::read_text(path, kMaxFile);
    if (!text) return fail(Errc::kKeyUnavailable, std::string(what) + ": " + text.error().text());
    return text;
  }
  // "keychain:" and the like: name the kind, never the value (it may hold a PIN).
  const std::string kind = value.substr(0, std::min<std::size_t>(value.find(':'), 16));
  return fail(Errc::kKeyUnavailable, std::string(what) + " of kind \"" +
                                         (printable_utf8(kind) ? kind : "?") +
                                         "\" cannot be used by this build");
}

Result<crypto::SignerPtr> open_key(const std::string& text, Files files) {
  if (crypto::names_hardware(text) && files == Files::kLeaveHardware) return nullptr;
  if (crypto::names_hardware(text) && files == Files::kFollow) {
    auto key = crypto::open_key(text);
    if (!key) return fail(std::move(key).error().at("id.key"));
    return key;
  }
  TRY_ASSIGN(std::string pem, material(text, "key", files));
  auto key = crypto::FileKey::from_pem(pem);
  wipe(pem);
  if (!key) return fail(Errc::kBadFile, "id.key: " + std::string(key.error().code()));
  return crypto::SignerPtr(std::move(*key));
}

std::string without_path(std::string url) {
  static constexpr std::string_view kApi = "/edge/client/v1";
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with(kApi)) url.resize(url.size() - kApi.size());
  while (url.ends_with('/')) url.pop_back();
  return url;
}

Status add_authorities(Identity& out, const std::string& pem) {
  auto list = crypto::Certificate::list_from_pem(pem);
  if (!list) return fail(Errc::kBadFile, "id.ca: " + list.error().text());
  for (auto& c : *list) {
    if (!c.is_ca()) return fail(Errc::kMismatch, "id.ca holds a certificate that is no CA");
    (c.self_issued() ? out.anchors : out.issuing).push_back(std::move(c));
  }
  if (out.anchors.empty()) return fail(Errc::kMismatch, "id.ca holds no root");
  return {};
}

}  // namespace

tls::ContextOptions Identity::client_options(std::vector<std::string> alpn, bool whole_chain,
                                             const Clock* clock) const {
  tls::ContextOptions o;
  o.side = tls::Side::kClient;
  o.chain = chain;
  if (!whole_chain) o.chain.erase(o.chain.begin() + 1, o.chain.end());
  o.key = key;
  o.anchors = anchors;
  o.issuing = issuing;
  o.network = network;
  o.alpn = std::move(alpn);
  o.clock = clock;
  return o;
}

std::int64_t Identity::time_floor_ms() const {
  std::int64_t floor = time_ms;
  for (const auto& c : chain) floor = std::max(floor, c.not_before() * 1000);
  return floor;
}

Result<std::string> to_json(const Identity& identity) {
  TRY_ASSIGN(std::string key, identity.key->stored());
  std::vector<crypto::Certificate> authorities = identity.anchors;
  authorities.insert(authorities.end(), identity.issuing.begin(), identity.issuing.end());
  json::array routers;
  for (const auto& r : identity.routers) routers.emplace_back(r);
  json::object own{{"network", identity.network.str()},
                   {"id", identity.id},
                   {"name", identity.name},
                   {"kind", std::string(crypto::role_name(identity.role))},
                   {"controller", identity.controller},
                   {"routers", std::move(routers)}};
  if (!identity.card.empty()) own["card"] = to_base64(identity.card);
  if (identity.time_ms > 0) own["time_ms"] = identity.time_ms;
  // Written by hand around the key, so that only one copy of it has to be wiped.
  std::string out = "{\"ztAPI\":" + json_quote(identity.controller) + ",\"ztAPIs\":[" +
                    json_quote(identity.controller) + "],\"id\":{\"key\":";
  std::string quoted = json_quote(key);
  out.reserve(out.size() + quoted.size() + 16'384);
  out += quoted;
  wipe(key);
  wipe(quoted);
  out += ",\"cert\":" + json_quote(crypto::to_pem(identity.chain)) +
         ",\"ca\":" + json_quote(crypto::to_pem(authorities)) +
         "},\"sally\":" + json::serialize(own) + "}\n";
  return out;
}

Result<Identity> from_json(std::string_view text, Files files) {
  if (text.size() > kMaxFile) return fail(Errc::kBadFile, "larger than an identity can be");
  const auto file = parse_object(text);
  if (!file) return fail(Errc::kBadFile, "not a JSON object");
  const auto* id = object_at(*file, "id");
  if (id == nullptr) return fail(Errc::kBadFile, "no \"id\" member");
  Identity out;
  out.controller = without_path(text_at(*file, "ztAPI"));
  if (out.controller.empty())
    if (const auto* urls = file->if_contains("ztAPIs"); urls != nullptr && urls->is_array())
      for (const auto& u : urls->get_array())
        if (u.is_string() && out.controller.empty())
          out.controller = without_path(std::string(u.get_string()));
  if (!http::parse_url(out.controller)) return fail(Errc::kBadFile, "no controller URL in ztAPI");

  const std::string key_text = text_at(*id, "key");
  const std::string cert_text = text_at(*id, "cert");
  const std::string ca_text = text_at(*id, "ca");
  if (key_text.empty() || cert_text.empty() || ca_text.empty())
    return fail(Errc::kBadFile, "id needs key, cert and ca");
  TRY_ASSIGN(out.key, open_key(key_text, files));
  TRY_ASSIGN(const std::string cert_pem, material(cert_text, "cert", files));
  auto chain = crypto::Certificate::list_from_pem(cert_pem);
  if (!chain) return fail(Errc::kBadFile, "id.cert: " + chain.error().text());
  // Other clients store leaf and intermediates in any order: the leaf is the one of our key.
  const auto leaf = std::find_if(chain->begin(), chain->end(), [&](const auto& c) {
    return out.key == nullptr ? !c.is_ca() : c.public_key() == out.key->public_key();
  });
  if (leaf == chain->end())
    return fail(Errc::kMismatch, "no certificate in id.cert belongs to id.key");
  std::rotate(chain->begin(), leaf, leaf + 1);
  out.chain = std::move(*chain);
  TRY_ASSIGN(const std::string ca_pem, material(ca_text, "ca", files));
  TRY(add_authorities(out, ca_pem));

  if (out.leaf().uri_sans().size() != 1)
    return fail(Errc::kMismatch, "the certificate names no identity of a Sallyport network");
  auto name = crypto::parse_identity_uri(out.leaf().uri_sans().front());
  if (!name) return fail(Errc::kMismatch, "certificate: " + name.error().text());
  out.network = NetworkId(std::move(name->network));
  out.role = name->role;
  out.id = std::move(name->id);
  out.name = out.id;

  if (const auto* own = object_at(*file, "sally")) {
    const auto agrees = [&](const char* member, std::string_view fact) {
      const std::string said = text_at(*own, member);
      return said.empty() || said == fact;
    };
    if (!agrees("network", out.network.str()) || !agrees("id", out.id) ||
        !agrees("kind", crypto::role_name(out.role)))
      return fail(Errc::kMismatch, "\"sally\" says another identity than the certificate");
    if (const std::string said = text_at(*own, "name"); !said.empty() && printable_utf8(said))
      out.name = said;
    if (const auto* routers = own->if_contains("routers");
        routers != nullptr && routers->is_array())
      for (const auto& r : routers->get_array()) {
        if (!r.is_string() || out.routers.size() >= kMaxRouters)
          return fail(Errc::kBadFile, "routers");
        std::string at(r.get_string());
        if (!parse_host_port(at)) return fail(Errc::kBadFile, "a router is not host:port");
        out.routers.push_back(std::move(at));
      }
    if (const auto* time = own->if_contains("time_ms"); time != nullptr) {
      if (!time->is_int64() || time->get_int64() < 0) return fail(Errc::kBadFile, "time_ms");
      out.time_ms = time->get_int64();
    }
    if (const std::string card = text_at(*own, "card"); !card.empty()) {
      auto bytes = from_base64(card);
      if (!bytes || bytes->size() > kMaxCard) return fail(Errc::kBadFile, "card");
      out.card = std::move(*bytes);
    }
  }
  return out;
}

Result<Identity> load(const std::string& path, Files files) {
  TRY_ASSIGN(std::string text, fs::read_text(path, kMaxFile));
  auto identity = from_json(text, files);
  wipe(text);
  if (!identity) return fail(std::move(identity).error().at(path));
  return identity;
}

namespace {

Status write(const Identity& identity, const std::string& path) {
  TRY_ASSIGN(std::string text, to_json(identity));
  const auto written = fs::write_file_atomic(path, as_bytes(text), 0600);
  wipe(text);
  return written;
}

}  // namespace

Status save(const Identity& identity, const std::string& path) {
  const auto lock = fs::FileLock::take(path);
  if (!lock && !lock.error().is(fs::Errc::kNotFound)) return fail(lock.error());
  return write(identity, path);
}

Status change(const std::string& path, const std::function<Result<bool>(Identity&)>& f) {
  TRY_ASSIGN(const auto lock, fs::FileLock::take(path));
  TRY_ASSIGN(auto identity, load(path));
  TRY_ASSIGN(const bool changed, f(identity));
  return changed ? write(identity, path) : Status{};
}

}  // namespace sally::identity
