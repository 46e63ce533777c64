// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/output.h"
#include "crypto/path.h"

namespace sally::cli {

/// What every command gets from the common options.
struct Common {
  std::string context;  ///< --context, may be empty
  Output out;
};

// ---- the network: network_commands.cc
struct UpOptions {
  std::string dir;
  std::string name;  ///< host name or IP that devices reach this machine by; empty = the machine's
                     ///< host name
  std::uint16_t port = 0;         ///< of the controller; 0 = 1280, or as the network was made
  std::uint16_t router_port = 0;  ///< 0 = 3022, or as the network was made
  std::string listen;             ///< address to listen on; empty = all
  std::optional<bool> metrics;    ///< Unix sockets <program>.metrics in `dir`; none = as before
  std::string log;                ///< what the programs' --log gets; empty = as before
  bool detach = false;
  bool service = false;
  std::string ca_key;      ///< pkcs11:token=...: the CA keys of a new network are made there
  std::string router_key;  ///< of a new network's router: tpm, tpm:... or pkcs11:...
};
Status up(const Common& common, const UpOptions& options);
/// The part of `join` that stays: keeps the agent of a folder running.
Status supervise_agent(const std::string& dir);
Status down(const Common& common, const std::string& dir);
/// status.cc
Status network_status(const Common& common, const std::string& dir);

// ---- what flows and what flowed: watch_commands.cc
struct TopOptions {
  bool once = false;
  bool json = false;
};
Status top(const Common& common, const TopOptions& options);
struct UsageOptions {
  std::string device;
  std::string service;
  std::string since;  ///< a date, or days: "7d"
  std::string until;
  bool by_day = false;
};
Status usage(const Common& common, const UsageOptions& options);

// ---- admins: admin_commands.cc
Status admin_add(const Common& common, const std::string& name);
/// A new token for an admin whose certificate has ended or is lost.
Status admin_token(const Common& common, const std::string& name);
Status admin_list(const Common& common);
Status admin_remove(const Common& common, const std::string& name, bool yes);
Status login(const Common& common, const std::string& token, const std::string& dir);

// ---- the audit: audit_commands.cc
struct AuditOptions {
  std::uint64_t limit = 50;
  std::uint64_t before = 0;  ///< list: older than this number; 0 = from the end
  std::uint64_t after = 0;   ///< export: newer than this number
  std::string file;          ///< export: where to; empty or "-" = standard output
  std::uint64_t keep_days = 400;
};
Status audit_list(const Common& common, const AuditOptions& options);
/// Of the controller, or of a file that `audit_export` made: then nobody is asked.
Status audit_verify(const Common& common, const std::string& file);
Status audit_export(const Common& common, const AuditOptions& options);
Status audit_prune(const Common& common, const AuditOptions& options, bool yes);
/// Destructive verbs ask a person, and want --yes from a program.
Status confirm(const std::string& what, bool yes);

// ---- certificates: cert_commands.cc
struct CertOptions {
  std::string of;             ///< name or id of whose
  bool all = false;           ///< also those that are over
  std::int64_t within_s = 0;  ///< only those that end within; 0 = all
};
Status cert_list(const Common& common, const CertOptions& options);
Status cert_show(const Common& common, const std::string& serial);
/// Asks a device or router to renew, and waits until it has.
Status cert_renew(const Common& common, const std::string& name);
/// session_commands.cc; no name: of everybody.
Status session_list(const Common& common, const std::string& name);
Status session_end(const Common& common, const std::string& id);

// ---- devices, routers, services, grants: fleet_commands.cc
Status device_add(const Common& common, const std::string& name,
                  const std::vector<std::string>& tags, const std::string& batch, bool qr);
/// A new token for a device that has lost its own.
Status device_token(const Common& common, const std::string& name, bool qr);
/// Its tags are these from now on.
Status device_tag(const Common& common, const std::string& name,
                  const std::vector<std::string>& tags);
Status device_list(const Common& common, const std::string& selector);
Status device_show(const Common& common, const std::string& name);
Status device_remove(const Common& common, const std::string& name, bool yes);
Status router_list(const Common& common);
Status service_list(const Common& common);
Status service_show(const Common& common, const std::string& name);
Status service_remove(const Common& common, const std::string& name, bool yes);
/// Prints a token that was made, and where it is used.
enum class Token : std::uint8_t { kDevice, kAdmin };
Status show_token(const Common& common, const boost::json::object& made, Token of, bool qr = false);
/// DELETE of one thing of a collection, after the question; says who has enforced it.
Status remove_from(const Common& common, const std::string& collection, const std::string& kind,
                   const std::string& name, bool yes);
struct ServiceOptions {
  std::string name;
  std::string address;  ///< expose: what the hosting agent connects to
  std::string host;     ///< selector of who hosts
  std::string allow;    ///< selector of who may dial
  std::string e2e = "tls";
  std::string dir;  ///< expose: folder of this machine's own agent
};
Status service_add(const Common& common, const ServiceOptions& options);
Status expose(const Common& common, const ServiceOptions& options);
Status allow(const Common& common, const std::string& selector, const std::string& service);
Status deny(const Common& common, const std::string& selector, const std::string& service);

// ---- what ends early: revoke_commands.cc
struct RevokeOptions {
  enum class What : std::uint8_t { kDevice, kCertificate, kBatch, kCa };
  What what = What::kDevice;
  std::string name;    ///< or a serial
  std::string reason;  ///< as RFC 5280 has them: "key-compromise"
  bool yes = false;
};
Status revoke(const Common& common, const RevokeOptions& options);
Status suspend(const Common& common, const std::string& name);
Status resume(const Common& common, const std::string& name);

// ---- changes that routers enforce: fleet_commands.cc
inline constexpr char kWait[] = "?wait_ms=5000";
/// Path of one thing of a collection.
std::string at(const std::string& collection, const std::string& name);
/// Destructive verbs ask a person, and want --yes from a program.
Status confirm(const std::string& what, bool yes);
/// "enforced by N of N routers, M flows cut, T ms"
std::string enforced(const boost::json::object& answer);
/// What was taken away is taken away only where it is enforced: a script must hear of the rest
/// (exit 6).
Status confirmed(const boost::json::object& answer);

// ---- this machine as a device: device_commands.cc
struct JoinOptions {
  std::string token;
  std::string dir;
  std::string key = "file";
  bool run = true;
};
Status join(const Common& common, const JoinOptions& options);
/// Runs the agent of a folder under its supervisor, if it does not run, and waits until it is on
/// line. The names of the services it may dial.
Result<boost::json::array> start_agent(const std::string& dir);
/// The agent of a device that has joined, again: after `down` or a reboot.
Status start(const Common& common, const std::string& dir);
Status forward(const Common& common, const std::string& dir, const std::string& service,
               const std::string& listen, bool remove);
/// Standard input and output to a service.
Status connect(const Common& common, const std::string& dir, const std::string& service);

/// Path of a program that is installed beside this one.
std::string sibling(const std::string& program);
/// Runs a program to its end; its standard output is thrown away, its errors are ours.
Status run_to_end(const std::string& program, const std::vector<std::string>& args);
/// Starts `args` as a process of its own session that outlives us; its output goes to `log_path`.
Status spawn_detached(const std::vector<std::string>& args, const std::string& log_path);
/// Calls `done` every 50 ms until it is true; false after `timeout_ms`.
bool wait_until(const std::function<bool()>& done, std::int64_t timeout_ms);

}  // namespace sally::cli
