// SPDX-License-Identifier: Apache-2.0
#include "cli/units.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/fs.h"
#include "cli/errors.h"

namespace sally::cli {
namespace {

constexpr char kDir[] = "/var/lib/sallyport";
constexpr std::array kUnits = {"sally-controller.service", "sally-router.service",
                               "sally-agent.service"};

bool systemd_runs() {
  return ::geteuid() == 0 && fs::exists("/run/systemd/system");
}

bool installed(const std::string& unit) {
  return std::ranges::any_of(std::array{"/etc/systemd/system/", "/usr/local/lib/systemd/system/",
                                        "/usr/lib/systemd/system/"},
                             [&](const char* folder) { return fs::exists(folder + unit); });
}

Status systemctl(std::vector<std::string> args, const std::vector<std::string>& units) {
  const std::string verb = args.front();
  args.insert(args.end(), units.begin(), units.end());
  if (run_to_end("systemctl", args)) return {};
  return fail(Errc::kFailed, "systemctl " + verb + " failed\nread journalctl -b -u 'sally-*'",
              Source::kLocal);
}

std::vector<std::string> installed_units() {
  std::vector<std::string> units;
  for (const char* unit : kUnits) {
    if (installed(unit)) units.emplace_back(unit);
  }
  return units;
}

// What we write here as root belongs to the unit's user: systemd gives all of a StateDirectory= to
// him when the folder itself is not his.
void hand_over(const std::string& folder) {
  if (fs::exists(folder)) [[maybe_unused]]
    const int rc = ::lchown(folder.c_str(), 0, 0);
}

Status write_settings(const UpOptions& o) {
  const bool v6 = o.listen.find(':') != std::string::npos;
  const std::string address = v6 ? "[" + o.listen + "]" : o.listen;
  const std::string any = address.empty() ? "*" : address;
  const std::string local = address.empty() ? "127.0.0.1" : address;
  const std::string port = std::to_string(o.port);
  TRY(fs::write_file_atomic(std::string(kDir) + "/controller.env",
                            as_bytes("LISTEN=" + any + ":" + port + "\n")));
  return fs::write_file_atomic(std::string(kDir) + "/router.env",
                               as_bytes("LISTEN=" + any + ":" + std::to_string(o.router_port) +
                                        "\nCONTROLLER=--controller " + local + ":" + port + "\n"));
}

}  // namespace

Status units_usable(const std::string& dir) {
  if (::geteuid() != 0)
    return fail(Errc::kUsage, "--service: only root can\nuse --detach", Source::kConfig);
  if (!systemd_runs())
    return fail(Errc::kUsage, "--service: systemd does not run here\nuse --detach",
                Source::kConfig);
  for (const char* unit : {kUnits[0], kUnits[1]}) {
    if (!installed(unit)) {
      return fail(Errc::kUsage,
                  std::string("--service: ") + unit +
                      " is not installed\ninstall the packages sallyport-controller and "
                      "sallyport-router, or use --detach",
                  Source::kConfig);
    }
  }
  if (dir != kDir) {
    return fail(Errc::kUsage,
                "--service: the units keep everything in " + std::string(kDir) + ", not in " + dir +
                    "\nleave --dir and --context out",
                Source::kConfig);
  }
  return {};
}

bool units_active(const std::string& dir, Units which) {
  if (dir != kDir || !systemd_runs()) return false;
  auto units = installed_units();
  if (which == Units::kNetwork) std::erase(units, kUnits[2]);
  return !units.empty() && systemctl({"is-active", "--quiet"}, units).has_value();
}

Status units_start(const UpOptions& o) {
  TRY(write_settings(o));
  // Each program's user passes through; what is not his he cannot read.
  if (::chmod(kDir, 0711) != 0)
    return fail(Errc::kFailed, std::string(kDir) + ": cannot be opened to its users",
                Source::kLocal);
  std::vector<std::string> units{kUnits[0], kUnits[1]};
  for (const char* folder : {"/controller", "/router"}) hand_over(kDir + std::string(folder));
  TRY(systemctl({"daemon-reload"}, {}));
  TRY(systemctl({"enable", "--now", "--quiet"}, units));
  const std::string agent = std::string(kDir) + "/agent";
  if (fs::exists(agent + "/identity.json") && units_keep_agent(agent)) return units_start_agent();
  return {};
}

Status units_stop() {
  return systemctl({"disable", "--now", "--quiet"}, installed_units());
}

bool units_keep_agent(const std::string& dir) {
  return dir == std::string(kDir) + "/agent" && systemd_runs() && installed(kUnits[2]);
}

Status units_start_agent() {
  hand_over(std::string(kDir) + "/agent");
  if (::chmod(kDir, 0711) != 0)
    return fail(Errc::kFailed, std::string(kDir) + ": cannot be opened to its users",
                Source::kLocal);
  TRY(systemctl({"enable", "--quiet"}, {kUnits[2]}));
  return systemctl({"restart"}, {kUnits[2]});
}

}  // namespace sally::cli
