// SPDX-License-Identifier: Apache-2.0
#include <boost/json/serialize.hpp>

#include "base/fs.h"
#include "base/text.h"
#include "cli/demo/stage.h"
#include "cli/errors.h"
#include "cli/output.h"

namespace sally::cli::demo {
namespace {

namespace json = boost::json;

/// A copy of the device's identity, made wrong by `edit`; what dialing with it ends in.
Result<json::object> dial_with(const Stage& stage, const std::string& name,
                               const std::function<void(json::object&)>& edit) {
  TRY_ASSIGN(const auto text, fs::read_text(stage.dir() + "/pump-17/identity.json", 1 << 20));
  auto file = parse(text);
  if (!file) return fail(Errc::kFailed, "no identity file", Source::kLocal);
  edit(*file);
  TRY(fs::make_dirs(stage.dir() + "/" + name, 0700));
  TRY(fs::write_file_atomic(stage.dir() + "/" + name + "/identity.json",
                            as_bytes(json::serialize(*file)), 0600));
  const Ran ran = run_in(
      stage.ns("device"),
      {stage.program(), "-o", "json", "connect", "plant-mqtt", "--dir", stage.dir() + "/" + name},
      20'000);
  const auto said = parse(ran.err);
  const auto* error = said ? said->if_contains("error") : nullptr;
  json::object out{{"exit", ran.exit}, {"said", std::string(trim(ran.err))}};
  if (error != nullptr && error->is_object())
    out["said"] =
        text_of(error->get_object(), "code") + ": " + text_of(error->get_object(), "message");
  return out;
}
void put(json::object& file, const char* name, const std::string& text) {
  file.at("id").get_object()[name] = text;
}
/// Refused, and saying one of the words.
void refused(Point& p, const std::string& what, const Result<json::object>& r,
             const std::vector<std::string>& words) {
  const std::string said = r ? text_of(*r, "said") : r.error().context();
  p.measured[what] = said;
  bool named = false;
  for (const auto& word : words) named = named || said.find(word) != std::string::npos;
  p.pass = p.pass && r && r->at("exit") != 0 && named;
}

}  // namespace

Status break_certificate(Stage& stage, Point& p) {
  p.pass = true;
  TRY_ASSIGN(const auto text, fs::read_text(stage.dir() + "/stranger/identity.json", 1 << 20));
  const auto other = parse(text);
  if (!other) return fail(Errc::kFailed, "no identity file", Source::kLocal);
  refused(p, "its certificate with another device's key",
          dial_with(stage, "key",
                    [&](json::object& f) {
                      put(f, "key", text_of(other->at("id").get_object(), "key"));
                    }),
          {"no certificate in id.cert belongs to id.key"});
  refused(p, "one byte of it flipped",
          dial_with(stage, "byte",
                    [&](json::object& f) {
                      std::string cert = text_of(f.at("id").get_object(), "cert");
                      const std::size_t at = cert.find('\n', cert.find("BEGIN")) + 200;
                      cert[at] = cert[at] == 'A' ? 'B' : 'A';
                      put(f, "cert", cert);
                    }),
          {"sally.denied", "id.cert", "certificate", "identity"});
  const std::string made = stage.dir() + "/made";
  TRY_ASSIGN(const auto mine, fs::read_text(stage.dir() + "/pump-17/identity.json", 1 << 20));
  TRY_ASSIGN(const auto shown, stage.admin({"device", "show", "pump-17"}));
  const auto own = parse(mine);
  const std::string uri = "URI:spiffe://" + text_of(own->at("sally").get_object(), "network") +
                          "/device/" + text_of(shown, "id");
  TRY(stage.must("device", {"openssl",
                            "req",
                            "-x509",
                            "-newkey",
                            "ec",
                            "-pkeyopt",
                            "ec_paramgen_curve:P-256",
                            "-nodes",
                            "-keyout",
                            made + ".key",
                            "-out",
                            made + ".pem",
                            "-days",
                            "30",
                            "-subj",
                            "/CN=" + text_of(shown, "id"),
                            "-addext",
                            "subjectAltName=" + uri,
                            "-addext",
                            "basicConstraints=critical,CA:FALSE",
                            "-addext",
                            "keyUsage=critical,digitalSignature",
                            "-addext",
                            "extendedKeyUsage=clientAuth,serverAuth"}));
  TRY_ASSIGN(const auto key, fs::read_text(made + ".key", 1 << 16));
  TRY_ASSIGN(const auto cert, fs::read_text(made + ".pem", 1 << 16));
  refused(p, "one with its name that somebody else made",
          dial_with(stage, "made",
                    [&](json::object& f) {
                      put(f, "key", key);
                      put(f, "cert", cert);
                    }),
          {"refuses", "refused", "denied", "alert"});
  p.measured["why, in the router's log alone"] =
      stage.field("net/router", "tls.handshake_failed", "code");
  TRY(stage.admin({"device", "rm", "pump-17", "--yes"}));
  refused(p, "its own, after the device was removed",
          dial_with(stage, "gone", [](json::object&) {}),
          {"refuses", "refused", "denied", "alert"});
  return {};
}

Status break_clock(Stage& stage, Point& p) {
  p.pass = true;
  // As if the network had signed that it is 2090: then its routers' certificates are over.
  refused(p, "a device that believes it is 2090 meets the router",
          dial_with(stage, "late",
                    [](json::object& f) {
                      f.at("sally").get_object()["time_ms"] = std::int64_t{3'786'912'000'000};
                    }),
          {"expired"});
  return {};
}

}  // namespace sally::cli::demo
