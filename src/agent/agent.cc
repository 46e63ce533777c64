// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/errors.h"
#include "base/clock.h"
#include "base/log.h"

namespace sally::agent {
namespace {

namespace json = boost::json;

std::string error_json(const Error& e) {
  return json::serialize(json::object{{"error", {{"code", e.code()}, {"message", e.context()}}}});
}

std::string member(const json::object& o, const char* name) {
  const auto* v = o.if_contains(name);
  return v != nullptr && v->is_string() ? std::string(v->get_string()) : std::string();
}

json::object forward_json(const Forwards::Entry& f) {
  return {{"service", f.service},
          {"listen", f.listen.str()},
          {"connections", f.connections},
          {"failures", f.failures},
          {"last_error", f.last_error}};
}

}  // namespace

Agent::Agent(loop::Loop& loop, std::string dir, int flags)
    : loop_(loop), dir_(std::move(dir)), flags_(flags) {}

Agent::~Agent() {
  *alive_ = false;
  plain_.reset();
  control_.reset();
  hosting_.reset();
  // Ends the SDK's thread: no callback comes after it. Forwards wait for that, their dials call
  // back.
  if (ctx_ != nullptr) sally_close(ctx_);
  forwards_.reset();
}

Status Agent::start() {
  const std::string lock = dir_ + "/agent.lock";
  lock_ = loop::Fd(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_.valid())
    return fail(
        Errc::kState,
        lock + ": " + std::strerror(errno) + ". Is " + dir_ + " the folder that `sally join` made?",
        Source::kConfig);
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(Errc::kRunning, "another agent serves " + dir_, Source::kConfig);

  const std::string identity = dir_ + "/identity.json";
  sally_options options = SALLY_OPTIONS_INIT;
  options.identity_path = identity.c_str();
  options.on_event = &Agent::on_event;
  options.user = this;
  options.flags = flags_;
  // Events may come before hosting_ is there: on_event asks, and sync() below catches up.
  if (sally_open(&options, &ctx_) != SALLY_OK)
    return fail(Errc::kSdk, sally_last_error(), Source::kConfig);
  sally_status status{};
  status.size = sizeof status;
  if (sally_get_status(ctx_, &status) == SALLY_OK) log::set_origin("agent", status.network);
  hosting_ = std::make_unique<Hosting>(loop_, ctx_);
  forwards_ = std::make_unique<Forwards>(loop_, ctx_, dir_ + "/forwards.json");
  TRY(forwards_->load());
  TRY_ASSIGN(control_,
             ControlSocket::open(loop_, dir_ + "/agent.sock",
                                 [this](const std::string& request, ControlSocket::Reply reply) {
                                   handle(request, std::move(reply));
                                 }));
  loop_.defer([this, alive = alive_] {
    if (*alive) hosting_->sync();
  });
  return {};
}

// On the SDK's thread.
void Agent::on_event(void* user, sally_event event, const char* text) {
  auto* self = static_cast<Agent*>(user);
  if (event == SALLY_EVENT_DENIED) log::error("agent.denied", {{"why", text}});
  if (event != SALLY_EVENT_SERVICES) return;
  (void)self->loop_.post([self, alive = self->alive_] {
    if (*alive && self->hosting_ != nullptr) self->hosting_->sync();
  });
}

void Agent::handle(const std::string& request, ControlSocket::Reply reply) {
  boost::system::error_code ec;
  const auto parsed = json::parse(request, ec);
  const auto* o = ec ? nullptr : parsed.if_object();
  const auto refuse = [&](Errc code, std::string why) {
    reply(error_json(Error(code, std::move(why))));
  };
  if (o == nullptr) return refuse(Errc::kRequest, "not a JSON object");
  const std::string what = member(*o, "request");
  if (what == "status") return reply_status(std::move(reply));
  if (what == "stop") {
    reply(json::serialize(json::object{{"ok", true}}));
    if (on_stop) on_stop();
    return;
  }
  if (what == "forward") {
    const std::string service = member(*o, "service");
    const auto listen = parse_host_port(member(*o, "listen"));
    if (service.empty() || !listen)
      return refuse(Errc::kRequest, "forward needs service and listen (HOST:PORT)");
    if (const Status may = may_dial(service); !may) return reply(error_json(may.error()));
    const auto added = forwards_->add(service, *listen);
    if (!added) return reply(error_json(added.error()));
    return reply(json::serialize(forward_json(*added)));
  }
  if (what == "unforward") {
    const auto listen = parse_host_port(member(*o, "listen"));
    if (const Status s = forwards_->remove(member(*o, "service"), listen); !s)
      return reply(error_json(s.error()));
    return reply(json::serialize(json::object{{"ok", true}}));
  }
  refuse(Errc::kRequest, "unknown request \"" + what + "\"");
}

// Off line nobody knows: the forward is made, and each connection finds out.
Status Agent::may_dial(const std::string& service) const {
  sally_status status{};
  status.size = sizeof status;
  if (sally_get_status(ctx_, &status) != SALLY_OK) return {};
  if (status.refused != 0)
    return fail(Errc::kRefused,
                "the network refuses this device: removed, suspended, or enrolled again elsewhere");
  if (status.online == 0) return {};
  struct Search {
    std::string_view name;
    bool found = false;
  } search{.name = service};
  (void)sally_services(
      ctx_,
      [](void* user, const sally_service* s) {
        auto* wanted = static_cast<Search*>(user);
        if (s->dial != 0 && (wanted->name == s->name || wanted->name == s->id))
          wanted->found = true;
      },
      &search);
  if (search.found) return {};
  return fail(Errc::kNoService, "no service \"" + service + "\" for this device");
}

void Agent::reply_status(ControlSocket::Reply reply) {
  sally_status status{};
  status.size = sizeof status;
  if (sally_get_status(ctx_, &status) != SALLY_OK)
    return reply(error_json(Error(Errc::kSdk, sally_last_error())));
  json::array services;
  (void)sally_services(
      ctx_,
      [](void* user, const sally_service* s) {
        static_cast<json::array*>(user)->push_back(json::object{
            {"id", s->id}, {"name", s->name}, {"dial", s->dial != 0}, {"bind", s->bind != 0}});
      },
      &services);
  json::array forwards;
  for (const auto& f : forwards_->list()) forwards.push_back(forward_json(f));
  hosting_->probe([status, services = std::move(services), forwards = std::move(forwards),
                   reply = std::move(reply)](std::vector<Hosting::Status> hosted) {
    json::array hosts;
    for (const auto& h : hosted)
      hosts.push_back(json::object{{"service", h.service},
                                   {"target", h.target},
                                   {"bound", h.bound},
                                   {"target_ok", h.target_ok},
                                   {"why", h.why}});
    reply(json::serialize(
        json::object{{"network", status.network},
                     {"id", status.id},
                     {"name", status.name},
                     {"online", status.online != 0},
                     {"refused", status.refused != 0},
                     {"router", status.router},
                     {"round_trip_us", status.round_trip_us},
                     {"since", format_time(status.since_ms)},
                     {"certificate_expires", format_time(status.leaf_not_after * 1000)},
                     {"streams", status.streams},
                     {"last_error", status.last_error},
                     {"services", services},
                     {"hosts", hosts},
                     {"forwards", forwards}}));
  });
}

}  // namespace sally::agent
