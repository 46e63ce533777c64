// SPDX-License-Identifier: Apache-2.0
#include "cli/supervisor.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/errors.h"

namespace sally::cli {
namespace {

constexpr std::int64_t kFirstPauseMs = 100;
constexpr std::int64_t kMaxPauseMs = 5'000;
constexpr std::int64_t kStableMs = 10'000;  // a program that ran this long starts again at once
constexpr std::int64_t kWaitForFileMs = 200;
constexpr std::int64_t kKillAfterMs = 5'000;

}  // namespace

struct Supervisor::Child {
  Program program;
  std::unique_ptr<loop::Process> process;
  std::unique_ptr<loop::Timer> timer;
  std::int64_t started_ms = 0;
  std::int64_t pause_ms = 0;
};

Supervisor::Supervisor(loop::Loop& loop, std::vector<Program> programs) : loop_(loop) {
  for (auto& p : programs) {
    auto child = std::make_unique<Child>();
    child->program = std::move(p);
    child->timer =
        std::make_unique<loop::Timer>(loop_.timers(), [this, c = child.get()] { run(*c); });
    children_.push_back(std::move(child));
  }
}

Supervisor::~Supervisor() {
  for (auto& c : children_) {
    if (c->process != nullptr && c->process->running()) c->process->kill(SIGKILL);
  }
}

void Supervisor::start() {
  for (auto& c : children_) run(*c);
}

void Supervisor::run(Child& child) {
  if (stopping_) return;
  const Program& p = child.program;
  if (!p.only_if_exists.empty() && !fs::exists(p.only_if_exists)) {
    child.timer->arm(kWaitForFileMs);
    return;
  }
  const loop::Fd log(
      ::open(p.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  child.started_ms = loop_.now_ms();
  loop::ProcessOptions options;
  options.program = p.path;
  options.args = p.args;
  options.stdout_fd = log.valid() ? log.get() : loop::ProcessOptions::kNull;
  options.stderr_fd = options.stdout_fd;
  auto process = loop::Process::spawn(
      loop_, options, [this, c = &child](loop::Process::Exit exit) { ended(*c, exit); });
  if (!process) {
    ended(child, {.code = 127, .signal = 0});
    return;
  }
  child.process = std::move(*process);
}

void Supervisor::ended(Child& child, loop::Process::Exit exit) {
  child.process.reset();
  if (stopping_) {
    if (std::ranges::all_of(children_, [](const auto& c) { return c->process == nullptr; }) &&
        done_)
      std::exchange(done_, nullptr)();
    return;
  }
  const auto& args = child.program.args;
  const bool json = std::ranges::find(args, "json") != args.end();
  const std::string line =
      log::line(log::Level::kWarn, "cli.program_ended",
                {{"program", child.program.name}, {"code", exit.code}, {"signal", exit.signal}},
                json, child.program.name) +
      "\n";
  const loop::Fd file(::open(child.program.log_path.c_str(),
                             O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (file.valid()) [[maybe_unused]]
    const auto n = ::write(file.get(), line.data(), line.size());
  const bool stable = loop_.now_ms() - child.started_ms > kStableMs;
  child.pause_ms =
      stable || child.pause_ms == 0 ? kFirstPauseMs : std::min(kMaxPauseMs, child.pause_ms * 2);
  child.timer->arm(child.pause_ms);
}

void Supervisor::stop(std::function<void()> done) {
  stopping_ = true;
  done_ = std::move(done);
  bool any = false;
  for (auto& c : children_) {
    c->timer->cancel();
    if (c->process == nullptr) continue;
    any = true;
    c->process->kill(SIGTERM);
  }
  if (!any) {
    std::exchange(done_, nullptr)();
    return;
  }
  kill_timer_ = std::make_unique<loop::Timer>(loop_.timers(), [this] {
    for (auto& c : children_) {
      if (c->process != nullptr) c->process->kill(SIGKILL);
    }
  });
  kill_timer_->arm(kKillAfterMs);
}

Result<FolderLock> FolderLock::take(const std::string& path, std::int64_t wait_ms) {
  loop::Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid())
    return fail(errno == EACCES ? Errc::kDenied : Errc::kFailed, path + ": " + std::strerror(errno),
                Source::kConfig);
  struct flock whole{};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (!wait_until([&] { return ::fcntl(fd.get(), F_SETLK, &whole) == 0; }, wait_ms)) {
    const int pid = holder(path).value_or(0);
    return fail(Errc::kRunning,
                "another process is at it" + (pid == 0 ? "" : " (" + std::to_string(pid) + ")"),
                Source::kConfig);
  }
  return FolderLock(std::move(fd));
}

Result<int> FolderLock::holder(const std::string& path) {
  const loop::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return 0;
    return fail(errno == EACCES ? Errc::kDenied : Errc::kFailed, path + ": " + std::strerror(errno),
                Source::kConfig);
  }
  struct flock whole{};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(fd.get(), F_GETLK, &whole) != 0 || whole.l_type == F_UNLCK) return 0;
  return static_cast<int>(whole.l_pid);
}

}  // namespace sally::cli
