// SPDX-License-Identifier: Apache-2.0
#include "agent/hosting.h"

#include <unistd.h>

#include <utility>

#include "base/log.h"

namespace sally::agent {
namespace {

constexpr std::int64_t kProbeMs = 1'000;

}  // namespace

/// One service. The SDK calls it with `this` until sally_listener_close has returned.
struct Hosting::Binding {
  Hosting* hosting = nullptr;
  loop::Loop* loop = nullptr;
  std::shared_ptr<bool> alive;
  std::string id;
  std::string name;
  std::string config;
  HostTarget target;
  sally_listener* listener = nullptr;
  std::string why;  // host.v1 we cannot serve
  ~Binding() {
    if (listener != nullptr) sally_listener_close(listener);
  }
};

Hosting::Hosting(loop::Loop& loop, sally_context* ctx) : loop_(loop), ctx_(ctx) {}
Hosting::~Hosting() {
  *alive_ = false;
  bindings_.clear();
}

void Hosting::sync() {
  struct Granted {
    std::string name;
    std::string config;
  };
  std::map<std::string, Granted> granted;
  (void)sally_services(
      ctx_,
      [](void* user, const sally_service* s) {
        if (s->bind != 0 && *s->host_config != 0)
          static_cast<std::map<std::string, Granted>*>(user)->insert_or_assign(
              s->id, Granted{s->name, s->host_config});
      },
      &granted);
  std::erase_if(bindings_, [&](const auto& b) {
    const auto it = granted.find(b.first);
    return it == granted.end() || it->second.config != b.second->config;
  });
  for (const auto& [id, service] : granted) {
    if (bindings_.contains(id)) continue;
    auto binding = std::make_unique<Binding>();
    binding->hosting = this;
    binding->loop = &loop_;
    binding->alive = alive_;
    binding->id = id;
    binding->name = service.name;
    binding->config = service.config;
    if (auto target = parse_host_config(service.config); target) {
      binding->target = std::move(*target);
      sally_bind_options options = SALLY_BIND_OPTIONS_INIT;
      options.on_request = &Hosting::on_request;
      options.on_stream = &Hosting::on_stream;
      options.user = binding.get();
      if (sally_bind(ctx_, id.c_str(), &options, &binding->listener) != SALLY_OK) {
        log::error("agent.cannot_host", {{"service", binding->name}, {"why", sally_last_error()}});
        continue;  // the next list of services tries again
      }
      log::info("agent.hosting",
                {{"service", binding->name}, {"target", binding->target.address.str()}});
    } else {
      binding->why = target.error().context();
      log::error("agent.cannot_host", {{"service", binding->name}, {"why", binding->why}});
    }
    bindings_.emplace(id, std::move(binding));
  }
}

// On the SDK's thread.
void Hosting::on_request(void* user, sally_request* request) {
  const auto* binding = static_cast<const Binding*>(user);
  Hosting* hosting = binding->hosting;
  if (!binding->loop->post([hosting, alive = binding->alive, id = binding->id, request] {
        if (*alive) {
          hosting->connect(id, request);
        } else {
          sally_request_refuse(request, SALLY_E_REFUSED, "the agent is stopping");
        }
      })) {
    sally_request_refuse(request, SALLY_E_BUSY, "the agent is overloaded");
  }
}

void Hosting::connect(const std::string& service, sally_request* request) {
  const auto it = bindings_.find(service);
  if (it == bindings_.end())
    return sally_request_refuse(request, SALLY_E_REFUSED, "not hosted any more");
  const HostTarget& target = it->second->target;
  const std::string caller = sally_request_peer(request)->id;
  const std::uint64_t key = next_++;
  connecting_.emplace(
      key, loop::connect_tcp(
               loop_, target.address.host, target.address.port, target.connect_ms,
               [this, key, request, caller, name = it->second->name,
                at = target.address.str()](Result<loop::Fd> fd) {
                 if (fd) {
                   ++counts_.callers;
                   log::info("agent.caller", {{"service", name}, {"device", caller}});
                   sally_request_accept(request, new loop::Fd(std::move(*fd)));
                 } else {
                   ++counts_.target_failed;
                   log::warn("agent.target_failed",
                             {{"service", name}, {"target", at}, {"why", fd.error().text()}});
                   sally_request_refuse(request, SALLY_E_REFUSED,
                                        ("target " + fd.error().context()).c_str());
                 }
                 loop_.defer([this, key, alive = alive_] {
                   if (*alive) connecting_.erase(key);
                 });
               }));
}

// On the SDK's thread.
void Hosting::on_stream(void*, sally_stream* stream, void* token) {
  const std::unique_ptr<loop::Fd> fd(static_cast<loop::Fd*>(token));
  if (stream == nullptr) return;
  if (fd == nullptr) return sally_stream_reset(stream);
  (void)sally_stream_attach(stream, fd->release(), nullptr, nullptr);
}

Hosting::Counts Hosting::counts() const {
  Counts out = counts_;
  out.services = bindings_.size();
  for (const auto& [id, binding] : bindings_)
    if (binding->listener != nullptr && sally_listener_status(binding->listener) == SALLY_OK)
      ++out.bound;
  return out;
}

void Hosting::probe(std::function<void(std::vector<Status>)> done) {
  struct Round {
    std::vector<Status> all;
    std::vector<std::unique_ptr<loop::Connecting>> tries;
    std::size_t left = 1;
    std::function<void(std::vector<Status>)> done;
  };
  auto round = std::make_shared<Round>();
  round->done = std::move(done);
  const auto one_less = [this, round] {
    if (--round->left != 0) return;
    loop_.defer([round] {
      round->tries.clear();
      round->done(std::move(round->all));
    });
  };
  round->all.reserve(bindings_.size());
  for (const auto& [id, binding] : bindings_) {
    Status status{.service = binding->name,
                  .target = binding->target.address.str(),
                  .bound = false,
                  .target_ok = false,
                  .why = binding->why};
    if (binding->listener != nullptr) {
      status.bound = sally_listener_status(binding->listener) == SALLY_OK;
      if (!status.bound) status.why = sally_last_error();
    }
    const std::size_t at = round->all.size();
    round->all.push_back(std::move(status));
    if (binding->listener == nullptr) continue;
    ++round->left;
    round->tries.push_back(loop::connect_tcp(loop_, binding->target.address.host,
                                             binding->target.address.port, kProbeMs,
                                             [round, at, one_less](Result<loop::Fd> fd) {
                                               round->all[at].target_ok = fd.has_value();
                                               if (!fd && round->all[at].why.empty())
                                                 round->all[at].why = fd.error().context();
                                               one_less();
                                             }));
  }
  one_less();
}

}  // namespace sally::agent
