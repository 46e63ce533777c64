// SPDX-License-Identifier: Apache-2.0
// What ends early, and what comes back.
#include "cli/commands.h"
#include "cli/fleet.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

Status change(const Common& c, const std::string& path, const json::object& body,
              const std::function<std::string(const json::object&)>& said) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  TRY_ASSIGN(const auto v, fleet.post(path + std::string(kWait), body));
  const auto& o = v.get_object();
  c.out.done(said(o) + "; " + enforced(o), o);
  return confirmed(o);
}

}  // namespace

Status revoke(const Common& c, const RevokeOptions& o) {
  json::object body;
  if (!o.reason.empty()) body["reason"] = o.reason;
  switch (o.what) {
    case RevokeOptions::What::kDevice:
      TRY(confirm("Revoke device " + o.name + " and cut its connections", o.yes));
      return change(c, at("devices", o.name) + "/revoke", body, [&](const json::object& r) {
        return "device " + o.name + " revoked with " + cell(r, "certificates") + " certificates";
      });
    case RevokeOptions::What::kCertificate:
      TRY(confirm("Revoke certificate " + o.name + " and cut what is up with it", o.yes));
      return change(c, at("certificates", o.name) + "/revoke", body, [&](const json::object& r) {
        return cell(r, "certificates") + " certificates of " + cell(r, "name") + " revoked";
      });
    case RevokeOptions::What::kBatch:
      TRY(confirm("Revoke all devices of batch " + o.name + " and cut their connections", o.yes));
      return change(c, at("batches", o.name) + "/revoke", body, [&](const json::object& r) {
        return "batch " + o.name + ": " + cell(r, "devices") + " devices revoked with " +
               cell(r, "certificates") + " certificates";
      });
    case RevokeOptions::What::kCa:
      TRY(confirm("Revoke CA " + o.name +
                      ", cut every device that has a certificate of it; each "
                      "must join again with a new token",
                  o.yes));
      return change(c, at("cas", o.name) + "/revoke", body, [&](const json::object& r) {
        const std::string done =
            "CA " + o.name + " revoked with " + cell(r, "certificates") + " certificates";
        if (!r.contains("successor")) return done;
        if (!text_of(r, "successor").empty())
          return done + "; " + text_of(r, "successor") + " issues from now on";
        return done +
               "; no device can join before it has a successor, for which the root's key is " +
               "needed (" + cell(r, "why") + "): bring it back and give the same command again";
      });
  }
  return {};
}

Status suspend(const Common& c, const std::string& name) {
  return change(c, at("devices", name) + "/suspend", {},
                [&](const json::object&) { return "device " + name + " suspended"; });
}

Status resume(const Common& c, const std::string& name) {
  return change(c, at("devices", name) + "/activate", {}, [&](const json::object& r) {
    return "device " + name + " active" +
           (is_true(r, "enrolled") ? std::string()
                                   : "; it has no valid certificate: sally device token " + name);
  });
}

}  // namespace sally::cli
