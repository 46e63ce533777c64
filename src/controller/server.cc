// SPDX-License-Identifier: Apache-2.0
#include "controller/server.h"

#include "base/log.h"

namespace sally::controller {
namespace {

constexpr std::size_t kMaxJobs = 512;
constexpr char kAlpnHttp[] = "http/1.1";

}  // namespace

Server::Server(loop::Loop& loop, const Clock& clock, Random& random, ServerOptions options)
    : loop_(loop), clock_(clock), random_(random), options_(std::move(options)) {}

Server::~Server() {
  *alive_ = false;
  plain_.reset();
  acceptor_.reset();
  http_.reset();
  pool_.reset();
}

Result<std::unique_ptr<Server>> Server::create(loop::Loop& loop, const Clock& clock, Random& random,
                                               ServerOptions options) {
  std::unique_ptr<Server> s(new Server(loop, clock, random, std::move(options)));
  TRY(s->start());
  return s;
}

Result<std::shared_ptr<const tls::Context>> Server::make_context() const {
  const auto rest = network_->rest();
  tls::ContextOptions o;
  o.side = tls::Side::kServer;
  o.chain = {rest->leaf, rest->issuing};
  o.key = rest->key;
  o.anchors = {network_->authority().root()};
  o.issuing = {network_->authority().devices(), network_->authority().infrastructure()};
  o.network = network_->id();
  o.alpn = {std::string(lane::kAlpnControl), kAlpnHttp};
  o.alpn_optional = true;
  o.peer_certificate = tls::PeerCertificate::kOptional;
  o.strict = {.alpn = std::string(lane::kAlpnControl), .roles = {tls::Role::kRouter}};
  o.admit = [this](const tls::PeerIdentity& peer) { return network_->admit(peer); };
  o.allow_p256 = true;
  o.clock = &clock_;
  return tls::Context::create(std::move(o));
}

Status Server::start() {
  pool_ = std::make_unique<http::WorkerPool>(options_.threads, kMaxJobs);
  TRY_ASSIGN(network_, Network::open(options_.dir, loop_, *pool_, clock_, random_, options_.life_s,
                                     options_.grace_s, options_.session_life_s));
  http_ = std::make_unique<http::Server>(
      loop_, http::ServerOptions{.name = "controller", .workers = options_.threads},
      [this](http::Request&& r) { return handle(std::move(r)); });
  network_->set_metrics([this] { return metrics_from_pool(); });
  TRY_ASSIGN(auto context, make_context());
  TRY_ASSIGN(acceptor_, tls::Acceptor::create(loop_,
                                              {.host = options_.host,
                                               .port = options_.port,
                                               .context = context,
                                               .limits = {},
                                               .name = "controller",
                                               .on_bad_certificate =
                                                   [this](const auto& from, const Error& why) {
                                                     network_->on_bad_certificate(from, why);
                                                   }},
                                              [this](std::unique_ptr<tls::Stream> stream) {
                                                accept(std::move(stream));
                                              }));
  if (options_.metrics) {
    TRY_ASSIGN(plain_, http::serve_metrics(loop_, *options_.metrics,
                                           [this](std::move_only_function<void(std::string)> done) {
                                             collect_metrics(std::move(done));
                                           }));
  }
  network_->start([this] {
    auto fresh = make_context();
    if (!fresh)
      return log::error("controller.certificate_unusable", {{"why", fresh.error().text()}});
    acceptor_->set_context(*fresh);
  });
  log::info("controller.ready", {{"network", network_->id().str()},
                                 {"url", network_->url()},
                                 {"address", acceptor_->address().str()},
                                 {"version", network_->version()}});
  return {};
}

void Server::accept(std::unique_ptr<tls::Stream> stream) {
  if (stream->session().alpn() == lane::kAlpnControl) return network_->take(std::move(stream));
  http_->adopt(std::move(stream));
}

http::Response Server::handle(http::Request&& request) const {
  api::Request r;
  r.method = request.method;
  r.path = request.path;
  r.query = request.query;
  r.headers = request.headers.list();
  r.body = std::move(request.body);
  r.remote = request.source.ip_text();
  r.source = request.source.source_key();
  // The one place where a proven peer becomes a caller.
  if (request.peer)
    r.caller =
        api::Caller{request.peer->network().str(), static_cast<crypto::Role>(request.peer->role()),
                    request.peer->id(), request.peer->serial()};
  api::Response answer = network_->api().handle(r);
  http::Response out;
  out.status = answer.status;
  for (auto& [name, value] : answer.headers) out.headers.add(std::move(name), std::move(value));
  out.body = std::move(answer.body);
  return out;
}

}  // namespace sally::controller
