// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "identity/identity.h"

namespace sally::cli {

/// Where commands look when nothing says otherwise: /var/lib/sallyport for root, else
/// ~/.local/share/sallyport.
std::string default_dir();
/// The folder of --context, else of SALLY_CONTEXT, else default_dir().
std::string context_dir(const std::string& option);

/// The folder of this machine's device: `dir` where given, else the context where it holds an
/// identity.json, else `agent` in it, which is where `up` keeps the agent it supervises.
std::string device_dir(const std::string& dir, const std::string& context);
/// kDenied: the routers do not take its certificate.
Error refused_device();
/// kNoContext: nothing has joined in `dir`.
Error no_device(const std::string& dir);

/// The fleet API as an admin: one mutual TLS request per call.
/// Owner: a command. Thread: the main one, blocking. Failure: errors carry the server's code,
/// message and fix.
class Fleet {
 public:
  /// Reads DIR/admin.json; kNoContext says how to get one. One that ends within 30 days is renewed;
  /// that failing is a warning.
  static Result<Fleet> open(const std::string& dir);

  Result<boost::json::value> get(const std::string& path) const {
    return call("GET", path, std::nullopt);
  }
  Result<boost::json::value> post(const std::string& path, boost::json::value body) const {
    return call("POST", path, std::move(body));
  }
  Result<boost::json::value> put(const std::string& path, boost::json::value body) const {
    return call("PUT", path, std::move(body));
  }
  Result<boost::json::value> remove(const std::string& path) const {
    return call("DELETE", path, std::nullopt);
  }
  /// All pages of a list.
  Result<boost::json::array> list(const std::string& path) const;
  [[nodiscard]] const identity::Identity& identity() const { return identity_; }

 private:
  Fleet(identity::Identity identity, std::string path)
      : identity_(std::move(identity)), path_(std::move(path)) {}
  Result<boost::json::value> call(const std::string& method, const std::string& path,
                                  const std::optional<boost::json::value>& body) const;
  Result<boost::json::value> call_once(const std::string& method, const std::string& path,
                                       const std::optional<boost::json::value>& body) const;
  Status renew() const;
  /// True when the file holds another certificate than the one we use: from now on that one.
  bool reload() const;
  mutable identity::Identity identity_;
  std::string path_;
};

/// One request to the agent that serves DIR, over its socket. kUnreachable where no agent runs.
Result<boost::json::object> ask_agent(const std::string& dir, const boost::json::object& request);

}  // namespace sally::cli
