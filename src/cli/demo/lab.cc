// SPDX-License-Identifier: Apache-2.0
#include "cli/demo/lab.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/fs.h"
#include "cli/errors.h"

namespace sally::cli::demo {
namespace {

std::unexpected<Error> system_error(const std::string& what) {
  return fail(Errc::kFailed, what + ": " + std::strerror(errno), Source::kLocal);
}

// In a child, before exec. We have one thread, so that the allocator may be used here.
[[noreturn]] void exec_in(pid_t holder, const std::vector<std::string>& args, int in, int out,
                          int err) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::setpgid(0, 0);
  const std::string path = "/proc/" + std::to_string(holder) + "/ns/net";
  const int ns = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (ns < 0 || ::setns(ns, CLONE_NEWNET) != 0) ::_exit(126);
  ::dup2(in, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  std::vector<char*> argv;
  for (const auto& a : args) argv.push_back(const_cast<char*>(a.c_str()));  // execvp's signature
  argv.push_back(nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

}  // namespace

Result<std::unique_ptr<Namespace>> Namespace::create(std::string name) {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) return system_error("pipe");
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::setpgid(0, 0);
    const bool made = ::getppid() == parent && ::unshare(CLONE_NEWNET) == 0;
    const char c = made ? 'y' : 'n';
    if (::write(ready[1], &c, 1) != 1 || !made) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char c = 'n';
  const bool ok = pid > 0 && ::read(ready[0], &c, 1) == 1 && c == 'y';
  ::close(ready[0]);
  if (!ok) {
    if (pid > 0) ::waitpid(pid, nullptr, 0);
    return fail(Errc::kFailed, "this machine does not let us make a network namespace",
                Source::kLocal);
  }
  return std::unique_ptr<Namespace>(new Namespace(std::move(name), pid));
}

Namespace::~Namespace() {
  ::kill(holder_, SIGKILL);
  ::waitpid(holder_, nullptr, 0);
}

Result<std::unique_ptr<Child>> Child::start(const Namespace& where,
                                            const std::vector<std::string>& args,
                                            const std::string& log_path, bool feed) {
  int input[2] = {-1, -1};
  if (feed) {
    if (::pipe2(input, O_CLOEXEC) != 0) return system_error("pipe");
  } else {
    input[0] = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  }
  const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const pid_t pid = ::fork();
  if (pid == 0) exec_in(where.holder(), args, input[0], log, log);
  ::close(input[0]);
  ::close(log);
  if (pid < 0) return system_error("fork");
  return std::unique_ptr<Child>(new Child(pid, input[1]));
}

Child::~Child() {
  end_input();
  if (wait(0) == -1) {
    kill(SIGTERM);
    if (wait(8'000) == -1) {
      kill(SIGKILL);
      (void)wait(2'000);
    }
  }
}

void Child::end_input() {
  if (input_ >= 0) ::close(std::exchange(input_, -1));
}

void Child::kill(int signal) const {
  if (exit_ == -1) ::kill(pid_, signal);
}

int Child::wait(std::int64_t timeout_ms) {
  const std::int64_t until = system_clock().mono_us() + timeout_ms * 1000;
  while (exit_ == -1) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else if (system_clock().mono_us() >= until) {
      return -1;
    } else {
      ::poll(nullptr, 0, 5);
    }
  }
  return exit_;
}

Ran run_in(const Namespace& where, const std::vector<std::string>& args, std::int64_t timeout_ms) {
  Ran ran;
  int out[2];
  int err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) return ran;
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t pid = ::fork();
  if (pid == 0) exec_in(where.holder(), args, null, out[1], err[1]);
  for (const int fd : {null, out[1], err[1]}) ::close(fd);
  const std::int64_t until = system_clock().mono_us() + timeout_ms * 1000;
  pollfd fds[2] = {{.fd = out[0], .events = POLLIN, .revents = 0},
                   {.fd = err[0], .events = POLLIN, .revents = 0}};
  bool late = false;
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    const std::int64_t left = (until - system_clock().mono_us()) / 1000;
    if (left <= 0) {
      late = true;
      ::kill(pid, SIGKILL);
      break;
    }
    if (::poll(fds, 2, static_cast<int>(left)) < 0 && errno != EINTR) break;
    for (auto& p : fds) {
      if (p.fd < 0 || p.revents == 0) continue;
      char buffer[8192];
      const ssize_t n = ::read(p.fd, buffer, sizeof buffer);
      if (n > 0) {
        (p.fd == out[0] ? ran.out : ran.err).append(buffer, static_cast<std::size_t>(n));
      } else {
        p.fd = -1;
      }
    }
  }
  ::close(out[0]);
  ::close(err[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (!late) ran.exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ran;
}

Status become_root() {
  if (::geteuid() == 0) return {};
  const uid_t uid = ::getuid();
  const gid_t gid = ::getgid();
  if (::unshare(CLONE_NEWUSER) != 0) {
    return fail(Errc::kFailed,
                "this machine does not let ordinary users make namespaces. Run as root, or allow "
                "it (sysctl kernel.unprivileged_userns_clone=1)",
                Source::kLocal);
  }
  const auto put = [](const char* path, const std::string& text) {
    const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
    const bool ok =
        fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    if (fd >= 0) ::close(fd);
    return ok;
  };
  if (!put("/proc/self/setgroups", "deny") ||
      !put("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1") ||
      !put("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1")) {
    return fail(Errc::kFailed, "the user namespace could not be set up", Source::kLocal);
  }
  return {};
}

}  // namespace sally::cli::demo
