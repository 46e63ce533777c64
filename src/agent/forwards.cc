// SPDX-License-Identifier: Apache-2.0
#include "agent/forwards.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <utility>

#include "agent/errors.h"
#include "base/fs.h"
#include "base/log.h"

namespace sally::agent {

struct Forwards::Forward {
  std::uint64_t key = 0;
  Entry entry;
  std::unique_ptr<loop::Listener> listener;
};

/// A local connection that waits for its stream; crosses to the SDK's thread and back.
struct Forwards::Dialing {
  loop::Loop* loop = nullptr;
  Forwards* forwards = nullptr;
  std::shared_ptr<bool> alive;
  std::uint64_t key = 0;
  loop::Fd fd;
};

Forwards::Forwards(loop::Loop& loop, sally_context* ctx, std::string path)
    : loop_(loop), ctx_(ctx), path_(std::move(path)) {}
Forwards::~Forwards() {
  *alive_ = false;
}

Status Forwards::load() {
  if (path_.empty() || !fs::exists(path_)) return {};
  TRY_ASSIGN(const auto text, fs::read_text(path_));
  boost::system::error_code ec;
  const auto parsed = boost::json::parse(text, ec);
  const auto damaged = [&] {
    return fail(Errc::kState,
                path_ + ": not what the agent writes. Remove it and add the forwards again",
                Source::kLocal);
  };
  if (ec || !parsed.is_array()) return damaged();
  for (const auto& item : parsed.get_array()) {
    const auto* o = item.if_object();
    const auto* service = o == nullptr ? nullptr : o->if_contains("service");
    const auto* listen = o == nullptr ? nullptr : o->if_contains("listen");
    if (service == nullptr || listen == nullptr || !service->is_string() || !listen->is_string())
      return damaged();
    const auto address =
        parse_host_port({listen->get_string().data(), listen->get_string().size()});
    if (!address) return damaged();
    auto forward = std::make_unique<Forward>();
    forward->key = next_++;
    forward->entry.service = std::string(service->get_string());
    forward->entry.listen = *address;
    if (const Status made = listen_on(*forward); !made) {
      forward->entry.last_error = made.error().text();
      log::error("agent.forward_waits",
                 {{"service", forward->entry.service}, {"why", made.error().text()}});
    }
    all_.emplace(forward->key, std::move(forward));
  }
  return {};
}

Status Forwards::save(const std::function<bool(const Map::value_type&)>& without) const {
  if (path_.empty()) return {};
  std::string text = "[";
  for (const auto& entry : all_) {
    if (without && without(entry)) continue;
    const auto& f = entry.second;
    text += (text.size() > 1 ? ",\n " : "\n ") + std::string("{\"service\":") +
            json_quote(f->entry.service) + ",\"listen\":" + json_quote(f->entry.listen.str()) + "}";
  }
  return fs::write_file_atomic(path_, as_bytes(text + "\n]\n"));
}

Status Forwards::listen_on(Forward& forward) {
  const HostPort& at = forward.entry.listen;
  TRY_ASSIGN(forward.listener,
             loop::Listener::tcp(loop_, at.host, at.port,
                                 [this, &forward](loop::Fd fd, const loop::Address&) {
                                   accept(forward, std::move(fd));
                                 }));
  forward.entry.listen.port = forward.listener->port();
  forward.entry.last_error.clear();
  log::info("agent.forward",
            {{"service", forward.entry.service}, {"listen", forward.entry.listen.str()}});
  return {};
}

Result<Forwards::Entry> Forwards::add(const std::string& service, const HostPort& listen) {
  for (const auto& [key, f] : all_) {
    if (listen.port == 0 || f->entry.listen.port != listen.port ||
        f->entry.listen.host != listen.host)
      continue;
    if (f->entry.service != service)
      return fail(Errc::kForward, listen.str() + " forwards to " + f->entry.service + " already",
                  Source::kConfig);
    if (f->listener == nullptr) TRY(listen_on(*f));
    return f->entry;
  }
  if (all_.size() >= kMax)
    return fail(Errc::kForward, "at most " + std::to_string(kMax) + " forwards", Source::kConfig);
  auto forward = std::make_unique<Forward>();
  forward->key = next_++;
  forward->entry.service = service;
  forward->entry.listen = listen;
  TRY(listen_on(*forward));
  Entry made = forward->entry;
  const std::uint64_t key = forward->key;
  all_.emplace(key, std::move(forward));
  if (auto ok = save({}); !ok) {
    // Refused is refused: not there until the next start only.
    all_.erase(key);
    return fail(std::move(ok).error());
  }
  return made;
}

Status Forwards::remove(const std::string& service, const std::optional<HostPort>& listen) {
  const auto meant = [&](const Map::value_type& f) {
    const Entry& entry = f.second->entry;
    return entry.service == service && (!listen || entry.listen.str() == listen->str());
  };
  if (std::ranges::none_of(all_, meant)) {
    return fail(Errc::kNoForward,
                "no forward " + (listen ? "from " + listen->str() + " " : "") + "to " + service,
                Source::kConfig);
  }
  TRY(save(meant));  // what cannot be kept away from the next start stays
  std::erase_if(all_, meant);
  return {};
}

std::vector<Forwards::Entry> Forwards::list() const {
  std::vector<Entry> out;
  for (const auto& [key, f] : all_) out.push_back(f->entry);
  return out;
}

void Forwards::accept(Forward& forward, loop::Fd fd) {
  ++forward.entry.connections;
  auto dialing = std::make_unique<Dialing>(Dialing{
      .loop = &loop_, .forwards = this, .alive = alive_, .key = forward.key, .fd = std::move(fd)});
  if (sally_dial_async(ctx_, forward.entry.service.c_str(), nullptr, &Forwards::on_dialed,
                       dialing.get()) == SALLY_OK) {
    (void)dialing.release();  // on_dialed has it now
  } else {
    ++forward.entry.failures;
    forward.entry.last_error = sally_last_error();
  }
}

// On the SDK's thread.
void Forwards::on_dialed(void* user, int code, const char* text, sally_stream* stream) {
  std::unique_ptr<Dialing> d(static_cast<Dialing*>(user));
  if (code == SALLY_OK) {
    (void)sally_stream_attach(stream, d->fd.release(), nullptr, nullptr);
    return;
  }
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(d->fd.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  d->fd.reset();
  loop::Loop* loop = d->loop;
  (void)loop->post([d = std::move(d), why = std::string(sally_error_name(code)) + ": " + text] {
    if (!*d->alive) return;
    const auto it = d->forwards->all_.find(d->key);
    if (it == d->forwards->all_.end()) return;
    ++it->second->entry.failures;
    it->second->entry.last_error = why;
    log::warn("agent.forward_failed", {{"service", it->second->entry.service}, {"why", why}});
  });
}

}  // namespace sally::agent
