// SPDX-License-Identifier: Apache-2.0
#include "loop/process.h"

#include <sys/prctl.h>
#include <unistd.h>
#include <uv.h>

#include <csignal>
#include <utility>

#include "base/check.h"

namespace sally::loop {
namespace {

void set_stdio(uv_stdio_container_t& slot, int fd, int own) {
  if (fd == ProcessOptions::kNull) {
    slot.flags = UV_IGNORE;  // libuv opens /dev/null
    return;
  }
  slot.flags = UV_INHERIT_FD;
  slot.data.fd = fd == ProcessOptions::kInherit ? own : fd;
}

}  // namespace

struct Process::Impl {
  uv_process_t process{};
  std::move_only_function<void(Exit)> on_exit;
  bool orphan = false;  // the Process object is gone
  bool exited = false;
  bool closing = false;

  static void close(Impl* impl) {
    if (std::exchange(impl->closing, true)) return;
    uv_close(reinterpret_cast<uv_handle_t*>(&impl->process),
             [](uv_handle_t* h) { delete static_cast<Impl*>(h->data); });
  }
};

Result<std::unique_ptr<Process>> Process::spawn(Loop& loop, const ProcessOptions& options,
                                                std::move_only_function<void(Exit)> on_exit) {
  loop.check_thread();
  // libuv takes mutable strings that it does not change.
  std::vector<std::string> words;
  words.push_back(options.program);
  words.insert(words.end(), options.args.begin(), options.args.end());
  std::vector<char*> args;
  for (auto& word : words) args.push_back(word.data());
  args.push_back(nullptr);
  std::vector<std::string> lines = options.env.value_or(std::vector<std::string>{});
  std::vector<char*> env;
  for (auto& line : lines) env.push_back(line.data());
  env.push_back(nullptr);

  uv_stdio_container_t stdio[3] = {};
  set_stdio(stdio[0], options.stdin_fd, 0);
  set_stdio(stdio[1], options.stdout_fd, 1);
  set_stdio(stdio[2], options.stderr_fd, 2);

  uv_process_options_t uv{};
  uv.file = words.front().c_str();
  uv.args = args.data();
  uv.env = options.env ? env.data() : nullptr;
  uv.cwd = options.cwd.empty() ? nullptr : options.cwd.c_str();
  if (options.detached) uv.flags = UV_PROCESS_DETACHED;
  uv.stdio = stdio;
  uv.stdio_count = 3;
  uv.exit_cb = [](uv_process_t* p, std::int64_t status, int signal) {
    auto* impl = static_cast<Impl*>(p->data);
    impl->exited = true;
    if (impl->orphan) return Impl::close(impl);
    auto callback = std::move(impl->on_exit);
    if (callback) callback({static_cast<int>(status), signal});  // may destroy the Process
  };

  auto* impl = new Impl;
  impl->process.data = impl;
  impl->on_exit = std::move(on_exit);
  const int rc = uv_spawn(loop.uv(), &impl->process, &uv);
  if (rc != 0) {
    Impl::close(impl);
    return fail(Errc::kSpawn, options.program + ": " + uv_strerror(rc), Source::kLocal);
  }
  return std::unique_ptr<Process>(new Process(impl));
}

Process::~Process() {
  impl_->orphan = true;
  // A child that still runs goes on; its handle is closed, nobody waits for it.
  Impl::close(impl_);
}

int Process::pid() const {
  return impl_->process.pid;
}
bool Process::running() const {
  return !impl_->exited;
}
void Process::kill(int signal) {
  if (running()) uv_process_kill(&impl_->process, signal);
}

bool die_with_parent(int signal, int parent) {
  if (::prctl(PR_SET_PDEATHSIG, signal) != 0) return false;
  return ::getppid() == parent;
}

void mark_supervisor() {
  ::setenv("SALLY_SUPERVISOR", std::to_string(::getpid()).c_str(), 1);
}

void die_with_supervisor() {
  const char* text = std::getenv("SALLY_SUPERVISOR");
  if (text == nullptr) return;
  // A supervisor that is gone already has nobody to end us later.
  if (!die_with_parent(SIGTERM, std::atoi(text))) std::_Exit(0);
  ::unsetenv("SALLY_SUPERVISOR");
}

struct Signals::Impl {
  std::move_only_function<void(int)> callback;
  std::vector<uv_signal_t*> handles;
};

Signals::Signals(Loop& loop, std::initializer_list<int> signals,
                 std::move_only_function<void(int)> callback)
    : impl_(std::make_shared<Impl>()) {
  loop.check_thread();
  impl_->callback = std::move(callback);
  for (const int signal : signals) {
    auto* h = new uv_signal_t{};
    SALLY_CHECK(uv_signal_init(loop.uv(), h) == 0);
    h->data = impl_.get();
    SALLY_CHECK(
        uv_signal_start(
            h, [](uv_signal_t* s, int number) { static_cast<Impl*>(s->data)->callback(number); },
            signal) == 0);
    impl_->handles.push_back(h);
  }
}

Signals::~Signals() {
  for (auto* h : impl_->handles) {
    uv_signal_stop(h);
    h->data = new std::shared_ptr<Impl>(impl_);  // keeps a running callback alive until closed
    uv_close(reinterpret_cast<uv_handle_t*>(h), [](uv_handle_t* closed) {
      delete static_cast<std::shared_ptr<Impl>*>(closed->data);
      delete reinterpret_cast<uv_signal_t*>(closed);
    });
  }
}

}  // namespace sally::loop
