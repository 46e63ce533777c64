// SPDX-License-Identifier: Apache-2.0
#include "cli/fleet.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/clock.h"
#include "base/fs.h"
#include "cli/errors.h"
#include "cli/output.h"
#include "cli/supervisor.h"
#include "http/client.h"
#include "identity/enroll.h"
#include "loop/net.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

// Admins live 90 days: whoever works once in the last 30 gets a new certificate on the way.
constexpr std::int64_t kRenewS = 30LL * 86'400;
constexpr std::int64_t kRenewMs = 10'000;
constexpr std::size_t kRoom = 32'768;  // more than an identity takes
constexpr std::int64_t kAnswerMs = 15'000;
constexpr std::size_t kMaxAgentAnswer = 16U << 20U;

// What another process refused with: its code, its text, its fix.
Error remote_error(const json::object& e, Exit exit) {
  std::string text = text_of(e, "message");
  if (const auto fix = text_of(e, "fix"); !fix.empty()) text += "\n" + fix;
  return Error(RemoteCode(text_of(e, "code"), exit), std::move(text));
}

// The controller's refusal; exit codes follow the status.
Error from_response(int status, const std::string& body) {
  const Exit exit = status == 401 || status == 403   ? kDenied
                    : status == 404                  ? kNotFound
                    : status == 409                  ? kConflict
                    : status == 400                  ? kUsage
                    : status == 429 || status >= 503 ? kUnreachable  // 507: its disk is full
                                                     : kFailed;
  boost::system::error_code ec;
  const auto parsed = json::parse(body, ec);
  if (!ec && parsed.is_object()) {
    if (const auto* e = parsed.get_object().if_contains("error"); e != nullptr && e->is_object()) {
      return remote_error(e->get_object(), exit);
    }
  }
  return Error(RemoteCode("cli.controller", exit),
               "the controller answered " + std::to_string(status));
}

// Why a request had no answer, and what to look at.
Error explain(Error e) {
  if (e.code() == "tls.peer_refused") {
    return Error(
        RemoteCode("cli.refused", kDenied),
        "the controller does not take this admin's certificate (" + e.context() +
            "): ended, or removed\nanother admin gives a token: sally admin token NAME; on "
            "the controller's machine `sally down` and `sally up` make a new one");
  }
  const bool away = exit_of(e.code()) == kUnreachable;
  Error out = std::move(e).at("the controller does not answer");
  if (!away) return out;
  return Error(Errc::kUnreachable,
               out.context() + "\ndoes it run? On its machine: sally status, sally up --detach",
               Source::kPeer, true);
}

// URL of the controller of a network that `sally up` runs from this folder.
std::optional<std::string> local_controller(const std::string& dir) {
  const auto text = fs::read_text(dir + "/up.json");
  if (!text) return std::nullopt;
  boost::system::error_code ec;
  const auto parsed = json::parse(*text, ec);
  if (ec || !parsed.is_object()) return std::nullopt;
  const std::string listen = text_of(parsed.get_object(), "listen");
  const std::string port = cell(parsed.get_object(), "port");
  // Its certificate names 127.0.0.1 and ::1 always, another address only when that is its name.
  if (listen.empty() || listen == "127.0.0.1") return "https://127.0.0.1:" + port;
  if (listen == "::1") return "https://[::1]:" + port;
  return std::nullopt;
}

}  // namespace

std::string default_dir() {
  if (::geteuid() == 0) return "/var/lib/sallyport";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == 0) {
    const passwd* user = ::getpwuid(::geteuid());
    home = user == nullptr ? "/tmp" : user->pw_dir;
  }
  return std::string(home) + "/.local/share/sallyport";
}

std::string context_dir(const std::string& option) {
  if (!option.empty()) return option;
  const char* env = std::getenv("SALLY_CONTEXT");
  return env != nullptr && *env != 0 ? std::string(env) : default_dir();
}

std::string device_dir(const std::string& dir, const std::string& context) {
  if (!dir.empty()) return dir;
  const std::string base = context_dir(context);
  return fs::exists(base + "/identity.json") ? base : base + "/agent";
}

Error refused_device() {
  return Error(
      Errc::kDenied,
      "the network refuses this device: removed, suspended, or enrolled again elsewhere"
      "\nan admin knows: sally device list; where it is still there: sally device token NAME, "
      "then sally join TOKEN here");
}

Error no_device(const std::string& dir) {
  if (::access((dir + "/identity.json").c_str(), F_OK) != 0 && errno == EACCES)
    return Error(Errc::kDenied, "cannot look into " + dir + ": permission denied", Source::kConfig);
  return Error(Errc::kNoContext,
               "no device in " + dir +
                   "\nmake this machine one: sally join TOKEN, with a token of `sally device "
                   "add NAME`; or name its folder with --dir",
               Source::kConfig);
}

// One process renews, the others take what it has made.
Status Fleet::renew() const {
  TRY_ASSIGN(const auto one_at_a_time, FolderLock::take(path_ + ".lock", kRenewMs));
  if (reload()) return {};
  TRY(fs::room_for(path_, kRoom));
  TRY_ASSIGN(const auto v,
             post("/fleet/v1/tokens", json::object{{"kind", "admin"}, {"identity", identity_.id}}));
  auto fresh = identity::blocking_enroll(text_of(v.get_object(), "token"));
  if (!fresh) return fail(std::move(fresh).error());
  TRY(identity::save(*fresh, path_));
  (void)reload();
  return {};
}

bool Fleet::reload() const {
  auto now = identity::load(path_);
  if (!now || now->chain.front().der() == identity_.chain.front().der()) return false;
  now->controller = identity_.controller;
  identity_ = std::move(*now);
  return true;
}

Result<Fleet> Fleet::open(const std::string& dir) {
  const std::string path = dir + "/admin.json";
  auto identity = identity::load(path);
  if (!identity) {
    if (identity.error().is(fs::Errc::kNotFound)) {
      return fail(Errc::kNoContext,
                  "no admin identity in " + dir +
                      "\nrun `sally up` here, `sally login TOKEN` with a token of `sally admin "
                      "add`, or name a folder with --context",
                  Source::kConfig);
    }
    return fail(std::move(identity).error());
  }
  if (identity->role != crypto::Role::kAdmin)
    return fail(Errc::kNoContext, path + " is not an admin's identity", Source::kConfig);
  // On the controller's own machine its public name need not lead back to it.
  if (const auto local = local_controller(dir)) identity->controller = *local;
  const std::int64_t left_s = identity->expires_s() - system_clock().unix_s();
  Fleet fleet(std::move(*identity), path);
  if (left_s > 0 && left_s < kRenewS) {
    if (const Status s = fleet.renew(); !s)
      std::fprintf(stderr, "sally: warning: this admin's certificate ends in %lld days: %s\n",
                   static_cast<long long>(left_s / 86'400), s.error().text().c_str());
  }
  return fleet;
}

// Another command may have renewed the certificate since we read it.
Result<json::value> Fleet::call(const std::string& method, const std::string& path,
                                const std::optional<json::value>& body) const {
  auto answer = call_once(method, path, body);
  if (!answer && exit_of(answer.error().code()) == kDenied && reload())
    answer = call_once(method, path, body);
  return answer;
}

Result<json::value> Fleet::call_once(const std::string& method, const std::string& path,
                                     const std::optional<json::value>& body) const {
  TRY_ASSIGN(auto context, tls::Context::create(identity_.client_options({"http/1.1"}, true)));
  http::RequestOptions options;
  options.timeout_ms = kAnswerMs;
  options.method = method;
  options.context = std::move(context);
  options.headers.add("Accept", "application/json");
  if (body) {
    options.body = json::serialize(*body);
    options.headers.add("Content-Type", "application/json");
  }
  auto response = http::blocking_request(identity_.controller + path, std::move(options));
  if (!response) return fail(explain(std::move(response).error()));
  if (response->status < 200 || response->status > 299)
    return fail(from_response(response->status, response->body));
  boost::system::error_code ec;
  auto parsed = json::parse(response->body, ec);
  if (ec) return fail(Errc::kFailed, "the controller's answer is not JSON");
  return parsed;
}

Result<json::array> Fleet::list(const std::string& path) const {
  constexpr std::size_t kPage = 1'000;
  json::array all;
  for (;;) {
    const std::string at = path + (path.find('?') == std::string::npos ? "?" : "&") +
                           "limit=" + std::to_string(kPage) +
                           "&offset=" + std::to_string(all.size());
    TRY_ASSIGN(auto page, get(at));
    auto* items = page.is_object() ? page.get_object().if_contains("items") : nullptr;
    if (items == nullptr || !items->is_array())
      return fail(Errc::kFailed, "the controller's answer is not a list");
    const std::size_t n = items->get_array().size();
    for (auto& item : items->get_array()) all.push_back(std::move(item));
    if (n < kPage) return all;
  }
}

Result<json::object> ask_agent(const std::string& dir, const json::object& request) {
  const std::string path = dir + "/agent.sock";
  if (!fs::exists(dir + "/identity.json")) return fail(no_device(dir));
  const auto nobody = [&](const char* what) {
    return fail(Errc::kUnreachable, what + (" for " + dir) + "\nstart it: sally start --dir " + dir,
                Source::kLocal, true);
  };
  auto fd = loop::connect_local(path);
  if (!fd) return nobody("no agent runs");
  const int flags = ::fcntl(fd->get(), F_GETFL);
  ::fcntl(fd->get(), F_SETFL, flags & ~O_NONBLOCK);
  const timeval limit{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(fd->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  const std::string line = json::serialize(request) + "\n";
  if (::send(fd->get(), line.data(), line.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(line.size()))
    return nobody("no agent runs");
  std::string answer;
  char buffer[16'384];
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(limit.tv_sec);
  for (;;) {
    const ssize_t n = ::recv(fd->get(), buffer, sizeof buffer, 0);
    // Each piece in time is not enough: one byte a second would be an answer without end.
    if (n < 0 || std::chrono::steady_clock::now() > until)
      return nobody("the agent does not answer");
    if (n == 0) break;
    if (answer.size() + static_cast<std::size_t>(n) > kMaxAgentAnswer)
      return fail(Errc::kFailed, "the agent's answer is too long");
    answer.append(buffer, static_cast<std::size_t>(n));
  }
  boost::system::error_code ec;
  auto parsed = json::parse(answer, ec);
  if (ec || !parsed.is_object()) return fail(Errc::kFailed, "the agent's answer is not JSON");
  if (const auto* e = parsed.get_object().if_contains("error"); e != nullptr && e->is_object()) {
    return fail(remote_error(e->get_object(), exit_of(text_of(e->get_object(), "code"))));
  }
  return std::move(parsed.get_object());
}

}  // namespace sally::cli
