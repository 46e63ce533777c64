// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sally/sally.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/enrolling.h"
#include "cli/errors.h"
#include "cli/fleet.h"
#include "cli/supervisor.h"
#include "cli/units.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr int kDialMs = 10'000;
// A grant of this moment is on its way to the agent.
constexpr std::int64_t kGrantMs = 2'000;
constexpr std::int64_t kOnlineMs = 10'000;
constexpr std::int64_t kListMs = 1'000;
constexpr std::int64_t kSupervisorMs = 3'000;

// Moves bytes between standard input and output and `fd` until both directions are over. False when
// the stream was cut.
bool pump_stdio(int fd) {
  std::uint8_t buffer[65'536];
  bool in_open = true;
  bool out_open = true;
  const auto write_all = [](int to, const std::uint8_t* data, std::size_t n) {
    while (n > 0) {
      const ssize_t w = ::write(to, data, n);
      if (w < 0 && errno == EINTR) continue;
      if (w <= 0) return false;
      data += w;
      n -= static_cast<std::size_t>(w);
    }
    return true;
  };
  while (in_open || out_open) {
    // Without POLLIN it still tells when the stream is gone.
    pollfd fds[2] = {{.fd = fd, .events = static_cast<short>(out_open ? POLLIN : 0), .revents = 0},
                     {.fd = in_open ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0}};
    if (::poll(fds, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    if (fds[1].revents != 0) {
      const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
      if (n <= 0) {
        in_open = false;
        ::shutdown(fd, SHUT_WR);
      } else if (!write_all(fd, buffer, static_cast<std::size_t>(n))) {
        return false;
      }
    }
    if (fds[0].revents == 0) continue;
    if (!out_open) return !in_open;
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0) return false;
    if (n == 0) {
      out_open = false;
      // Who sits at a terminal is not kept waiting for the end of what nobody types.
      if (::isatty(STDIN_FILENO) == 1) return true;
    } else if (!write_all(STDOUT_FILENO, buffer, static_cast<std::size_t>(n))) {
      return true;
    }
  }
  return true;
}

// A path that is too long for the agent's socket is known before a token is spent.
Status fits_a_socket(const std::string& dir) {
  constexpr std::size_t kMaxPath = 107;  // unix(7)
  if ((dir + "/agent.sock").size() <= kMaxPath) return {};
  return fail(Errc::kUsage,
              "the path of " + dir + " is too long: the agent's socket in it has room for " +
                  std::to_string(kMaxPath - std::string_view("/agent.sock").size()) +
                  " characters\nname a shorter folder with --dir",
              Source::kConfig);
}

// By systemd, not by a supervisor of ours.
bool kept_by_unit(const std::string& dir) {
  return FolderLock::holder(dir + "/supervisor.lock") == 0 &&
         FolderLock::holder(dir + "/../up.lock") == 0 && units_keep_agent(dir);
}

}  // namespace

Result<json::array> start_agent(const std::string& dir) {
  TRY_ASSIGN(const int own, FolderLock::holder(dir + "/supervisor.lock"));
  const bool up = FolderLock::holder(dir + "/../up.lock").value_or(0) != 0;
  const auto answers = [&] { return ask_agent(dir, {{"request", "status"}}).has_value(); };
  if (kept_by_unit(dir)) {
    if (!answers()) TRY(units_start_agent());
  } else if (own == 0 &&
             // A supervisor that is there (`up` has one for its own machine) starts it in a moment.
             !wait_until(answers, up ? kSupervisorMs : 0))
    TRY(spawn_detached({sibling("sally"), "supervise", "--dir", dir}, dir + "/supervisor.log"));
  json::object status;
  const auto asked = [&](const auto& done) {
    auto s = ask_agent(dir, {{"request", "status"}});
    if (!s) return false;
    status = std::move(*s);
    return done();
  };
  const auto is = [&](const char* fact) { return is_true(status, fact); };
  (void)wait_until([&] { return asked([&] { return is("online") || is("refused"); }); }, kOnlineMs);
  if (status.empty())
    return fail(Errc::kFailed,
                "the agent of " + dir + " does not start\nread " + dir + "/agent.log",
                Source::kLocal);
  if (is("refused")) return fail(refused_device());
  if (!is("online"))
    return fail(Errc::kUnreachable,
                "no router was reached yet: " + cell(status, "last_error") +
                    "; the agent goes on trying\nsally status --dir " + dir,
                Source::kPeer, true);
  // The list comes right after the greeting; who has no service waits for nothing.
  (void)wait_until(
      [&] { return asked([&] { return !status.at("services").get_array().empty(); }); }, kListMs);
  json::array names;
  for (const auto& s : status.at("services").get_array()) names.push_back(s.at("name"));
  return names;
}

Status join(const Common& c, const JoinOptions& o) {
  const std::string dir = device_dir(o.dir, c.context);
  if (fs::exists(dir + "/up.json"))
    return fail(
        Errc::kConflict,
        dir +
            " is the folder of a network\nits machine's own device is made by `sally expose`; "
            "for another one name a folder with --dir",
        Source::kConfig);
  TRY(fits_a_socket(dir));
  TRY_ASSIGN(auto identity, enroll_into(dir, kIdentityFile, o.token, crypto::Role::kDevice, o.key));
  identity.key.reset();  // a chip may have room for one user: the agent
  // Of a device that was enrolled again: the supervisor starts it with the new key.
  (void)ask_agent(dir, {{"request", "stop"}});
  json::object told{{"network", identity.network.str()},
                    {"id", identity.id},
                    {"name", identity.name},
                    {"certificate_expires", format_time(identity.expires_s() * 1000)},
                    {"dir", dir},
                    {"services", json::array()}};
  Status up;
  if (o.run) {
    if (kept_by_unit(dir)) TRY(units_start_agent());  // one that runs has another identity
    auto services = start_agent(dir);
    if (services) {
      told["services"] = std::move(*services);
    } else {
      up = fail(std::move(services).error().at("joined, but"));
    }
  }
  c.out.item(told, {{"DEVICE", "name"},
                    {"NETWORK", "network"},
                    {"CERTIFICATE UNTIL", "certificate_expires"},
                    {"SERVICES", "services"}});
  TRY(up);
  const std::string option = dir == device_dir({}, {}) ? "" : " --dir " + dir;
  const auto& services = told["services"].get_array();
  if (!o.run) {
    c.out.say("next: sally start --dir " + dir);
  } else if (services.empty()) {
    c.out.say("no service yet; an admin gives one: sally allow " + identity.name + " SERVICE");
  } else {
    c.out.say("next: sally forward" + option + " " + std::string(services[0].get_string()) +
              " PORT");
  }
  return {};
}

Status start(const Common& c, const std::string& dir_option) {
  const std::string dir = device_dir(dir_option, c.context);
  if (!fs::exists(dir + "/" + kIdentityFile)) return fail(no_device(dir));
  TRY(fits_a_socket(dir));
  TRY_ASSIGN(const auto services, start_agent(dir));
  c.out.done("the agent of " + dir + " runs",
             {{"running", true}, {"dir", dir}, {"services", services}});
  return {};
}

Status forward(const Common& c, const std::string& dir_option, const std::string& service,
               const std::string& listen, bool remove) {
  const std::string dir = device_dir(dir_option, c.context);
  json::object request{{"request", remove ? "unforward" : "forward"}, {"service", service}};
  if (!remove && listen.empty())
    return fail(Errc::kUsage, "forward needs a PORT: sally forward " + service + " PORT",
                Source::kConfig);
  if (!listen.empty()) {
    auto address =
        parse_host_port(listen.find(':') == std::string::npos ? "127.0.0.1:" + listen : listen);
    if (address && address->host == "localhost") address->host = "127.0.0.1";
    if (!address || !valid_address(address->host))
      return fail(Errc::kUsage, "\"" + listen + "\" is neither PORT nor ADDRESS:PORT",
                  Source::kConfig);
    request["listen"] = address->str();
  }
  if (remove) {
    TRY(ask_agent(dir, request));
    c.out.done("no forward to " + service + " any more", {{"removed", true}, {"service", service}});
    return {};
  }
  Result<json::object> answer = json::object();
  (void)wait_until(
      [&] {
        answer = ask_agent(dir, request);
        return answer || answer.error().code() != "agent.no_service";
      },
      kGrantMs);
  TRY_ASSIGN(const auto made, std::move(answer));
  if (!c.out.for_people()) {
    c.out.item(made, {});
  } else {
    c.out.say(cell(made, "listen") + " is now " + service);
  }
  return {};
}

Status connect(const Common& c, const std::string& dir_option, const std::string& service) {
  const std::string dir = device_dir(dir_option, c.context);
  const std::string path = dir + "/" + kIdentityFile;
  if (!fs::exists(path)) return fail(no_device(dir));
  sally_options options = SALLY_OPTIONS_INIT;
  options.identity_path = path.c_str();
  sally_context* ctx = nullptr;
  if (const int code = sally_open(&options, &ctx); code != SALLY_OK)
    return fail(sdk_error(code, sally_last_error()));
  sally_dial_options dial = SALLY_DIAL_OPTIONS_INIT;
  dial.timeout_ms = kDialMs;
  sally_stream* stream = nullptr;
  int code = sally_dial(ctx, service.c_str(), &dial, &stream);
  std::string text = sally_last_error();
  if (code == SALLY_OK) {
    const int fd = sally_stream_fd(stream);
    if (fd < 0) {
      code = fd;
      text = sally_last_error();
    } else {
      if (!pump_stdio(fd)) {
        code = SALLY_E_RESET;
        text = "the stream was cut";
      }
      ::close(fd);
    }
  }
  sally_close(ctx);
  if (code != SALLY_OK) return fail(sdk_error(code, std::move(text)));
  return {};
}

}  // namespace sally::cli
