// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sally/sally.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/fleet.h"
#include "identity/enroll.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr int kDialMs = 10'000;
// A grant of this moment is on its way to the agent.
constexpr std::int64_t kGrantMs = 2'000;
constexpr std::size_t kMaxTokenFile = 16'384;

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

}  // namespace

Result<std::string> read_token(const std::string& argument) {
  if (argument == "-") {
    std::string text;
    char buffer[4096];
    std::size_t n = 0;
    while (text.size() <= kMaxTokenFile && (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0)
      text.append(buffer, n);
    return text;
  }
  if (!fs::exists(argument)) return argument;
  return fs::read_text(argument, kMaxTokenFile);
}

Status prepare_dir(const std::string& dir) {
  TRY(fs::make_dirs(dir));
  if (::access(dir.c_str(), W_OK | X_OK) == 0) return {};
  return fail(Errc::kFailed,
              "cannot write in " + dir + ": " + std::strerror(errno) + "; the token was not used",
              Source::kConfig);
}

Status expect_token_for(const std::string& token, crypto::Role role) {
  const auto parsed = identity::parse_token(token);
  // A token without a kind, or one that cannot be read, is the enrolment's to judge.
  if (!parsed || !parsed->role || *parsed->role == role) return {};
  std::string text = "this token is for role " + std::string(crypto::role_name(*parsed->role)) +
                     ", this command for role " + std::string(crypto::role_name(role)) +
                     "; it was not used";
  if (*parsed->role == crypto::Role::kAdmin) text += "\nsally login TOKEN";
  if (*parsed->role == crypto::Role::kDevice) text += "\nsally join TOKEN";
  return fail(Errc::kUsage, std::move(text), Source::kConfig);
}

Status join(const Common& c, const JoinOptions& o) {
  if (o.key != "file")
    return fail(Errc::kNotBuilt,
                "--key " + o.key +
                    ": hardware keys are not built yet; a file key is never used in their place"
                    "\nonly --key file works today",
                Source::kConfig);
  const std::string dir = device_dir(o.dir, c.context);
  const std::string path = dir + "/identity.json";
  if (fs::exists(path))
    return fail(Errc::kConflict,
                path + " exists: this folder is a device already\nname another one with --dir",
                Source::kConfig);
  TRY_ASSIGN(const auto token, read_token(o.token));
  TRY(expect_token_for(token, crypto::Role::kDevice));
  TRY(prepare_dir(dir));
  TRY_ASSIGN(const auto identity, identity::blocking_enroll(token));
  if (identity.role != crypto::Role::kDevice)
    return fail(Errc::kUsage,
                "this token makes a " + std::string(crypto::role_name(identity.role)) +
                    ", not a device\nfor an admin: sally login TOKEN",
                Source::kConfig);
  TRY(identity::save(identity, path));
  json::object told{{"network", identity.network.str()},
                    {"id", identity.id},
                    {"name", identity.name},
                    {"certificate_expires", format_time(identity.expires_s() * 1000)},
                    {"dir", dir},
                    {"services", json::array()}};
  if (o.run) {
    TRY(spawn_detached({sibling("sally"), "supervise", "--dir", dir}, dir + "/supervisor.log"));
    json::object status;
    const bool online = wait_until(
        [&] {
          auto s = ask_agent(dir, {{"request", "status"}});
          if (!s || cell(*s, "online") != "yes") return false;
          status = std::move(*s);
          return true;
        },
        10'000);
    if (!online) {
      c.out.item(told, {{"DEVICE", "name"}, {"CERTIFICATE UNTIL", "certificate_expires"}});
      return fail(
          Errc::kUnreachable,
          "joined, but no router was reached yet; the agent goes on trying\nsally status --dir " +
              dir,
          Source::kPeer, true);
    }
    for (const auto& s : status.at("services").get_array())
      told["services"].get_array().push_back(s.at("name"));
  }
  c.out.item(told, {{"DEVICE", "name"},
                    {"NETWORK", "network"},
                    {"CERTIFICATE UNTIL", "certificate_expires"},
                    {"SERVICES", "services"}});
  const std::string option = o.dir.empty() ? "" : " --dir " + o.dir;
  if (!o.run) {
    c.out.say("next: sally-agent --dir " + dir);
  } else if (told["services"].get_array().empty()) {
    c.out.say("no service yet; an admin gives one: sally allow " + identity.name + " SERVICE");
  } else {
    c.out.say("next: sally forward" + option + " " +
              std::string(told["services"].get_array()[0].get_string()) + " PORT");
  }
  return {};
}

Status forward(const Common& c, const std::string& dir_option, const std::string& service,
               const std::string& listen, bool remove) {
  const std::string dir = device_dir(dir_option, c.context);
  json::object request{{"request", remove ? "unforward" : "forward"}, {"service", service}};
  if (!remove || !listen.empty()) {
    const auto address =
        parse_host_port(listen.find(':') == std::string::npos ? "127.0.0.1:" + listen : listen);
    if (!address)
      return fail(Errc::kUsage, "\"" + listen + "\" is neither PORT nor ADDRESS:PORT",
                  Source::kConfig);
    request["listen"] = address->str();
  }
  if (remove) {
    TRY(ask_agent(dir, request));
    c.out.say("no forward to " + service + " any more");
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

Status connect(const Common& c, const std::string& dir_option, const std::string& service,
               int& sdk_code) {
  const std::string dir = device_dir(dir_option, c.context);
  const std::string path = dir + "/identity.json";
  if (!fs::exists(path)) return fail(no_device(dir));
  sally_options options = SALLY_OPTIONS_INIT;
  options.identity_path = path.c_str();
  sally_context* ctx = nullptr;
  sdk_code = sally_open(&options, &ctx);
  if (sdk_code != SALLY_OK) return fail(Errc::kFailed, sally_last_error());
  const auto give_up = [&] {
    const std::string text = sally_last_error();
    sally_close(ctx);
    return fail(Errc::kFailed, text);
  };
  sally_dial_options dial = SALLY_DIAL_OPTIONS_INIT;
  dial.timeout_ms = kDialMs;
  sally_stream* stream = nullptr;
  sdk_code = sally_dial(ctx, service.c_str(), &dial, &stream);
  if (sdk_code != SALLY_OK) return give_up();
  const int fd = sally_stream_fd(stream);
  if (fd < 0) {
    sdk_code = fd;
    return give_up();
  }
  const bool ok = pump_stdio(fd);
  ::close(fd);
  sally_close(ctx);
  if (ok) return {};
  sdk_code = SALLY_E_RESET;
  return fail(Errc::kFailed, "the stream was cut");
}

}  // namespace sally::cli
